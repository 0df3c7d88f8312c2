"""TensorBoard's pages as a browser shows them: `pip install -e ".[browser]"`, and Chromium.

With SCREENSHOTS=FOLDER they are kept: docs/images comes from here.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PATIENCE, SCRIPTS, environment, succeed, sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
SETTINGS = ("optimizer.lr=0.01,0.03", "seed=range(0,3)", "episodes_per_update=8", "callbacks=gradient_diagnostics")
RUNS = {f"lr-{lr}_seed-{seed}" for lr in (0.01, 0.03) for seed in range(3)}
MEANS = {"mean lr-0.01", "mean lr-0.03"}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *QUIET])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of 2 settings x 3 seeds, which was stopped by its budget and resumed."""
    path = tmp_path_factory.mktemp("pages")
    small = (*SETTINGS, "eval.every_env_steps=1000", "stop_when_solved=false")
    succeed(sweep(path, *small, "max_env_steps=5000"))
    return succeed(sweep(path, *small, "max_env_steps=5000")).directory


@pytest.fixture
def served(request):
    """Folder of runs -> the address of its dashboard, as a user opens it."""
    started = []

    def serve(runs: Path) -> str:
        command = [sys.executable, str(SCRIPTS / "dashboard.py"), str(runs)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, **pipes, text=True, env=environment()))
        line = started[-1].stdout.readline()
        return re.search(r"http://127\.0\.0\.1:\d+/", line).group()

    yield serve
    for process in started:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


def opened(browser, address: str, tab: str, words: set[str]):
    """A page, once it shows these words."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{address}#{tab}")
    for word in sorted(words):
        page.get_by_text(word, exact=True).first.wait_for(timeout=1000 * PATIENCE)
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(3000)  # curves are drawn after their names
        page.screenshot(path=Path(folder, f"{tab}.png"))
    return page


def test_time_series(browser, served, folder):
    """Short names, and curves before pictures."""
    page = opened(browser, served(folder), "timeseries", RUNS | MEANS | {"eval"})
    groups = [text.split()[0] for text in page.locator("metrics-card-groups .group-toolbar").all_inner_texts()]
    assert groups[0].startswith("eval")
    assert not any(group.startswith("video") for group in groups[:-1])


def test_hparams(browser, served, folder):
    page = opened(browser, served(folder), "hparams", RUNS | {"lr", "seed", "dist", "env", "return"})
    assert page.get_by_text("0.010000", exact=True).count() == 3


def test_custom_scalars(browser, served, folder):
    charts = {"evaluation, with its 95 % interval", "entropy", "norm of the gradient", "signal-to-noise ratio"}
    page = opened(browser, served(folder), "custom_scalars", RUNS | MEANS | {"return", "learning", "gradient"} | charts)
    bands = page.locator("tf-custom-scalar-margin-chart-card path")
    bands.first.wait_for(state="attached", timeout=1000 * PATIENCE)
    drawn = [text for text in bands.evaluate_all("paths => paths.map(p => p.getAttribute('d'))") if text]
    assert len(drawn) >= len(RUNS)  # lines, and the areas around them


def test_the_first_curve_of_a_hundred_runs(browser, served, folder, tmp_path, capsys):
    """Prints how long it took; a figure for the notes, no threshold."""
    for number in range(100):
        run = sorted(RUNS)[number % len(RUNS)]
        shutil.copytree(folder / run, tmp_path / f"run-{number:03}", ignore=shutil.ignore_patterns("checkpoints"))
    address = served(tmp_path)
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    began = time.perf_counter()
    page.goto(f"{address}#timeseries")
    page.locator("line-chart canvas, line-chart svg path").first.wait_for(state="attached", timeout=1000 * PATIENCE)
    seconds = time.perf_counter() - began
    with capsys.disabled():
        print(f"\nfirst curve of 100 runs after {seconds:.1f} s")
