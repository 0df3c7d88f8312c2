"""A real TensorBoard by scripts/dashboard.py, asked over HTTP for what its tabs would show of a sweep."""

import io
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
from helpers import PATIENCE, SCRIPTS, environment, sweep
from PIL import Image

from scorepath.dashboards.tabs import METRICS

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

MEANS = {"mean hidden_sizes-8", "mean hidden_sizes-8-8"}
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the loopback needs no proxy


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A sweep of two settings on two seeds, one of which has a histogram and a GIF."""
    folder = tmp_path_factory.mktemp("dashboard")
    small = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=200")
    settings = ("policy.torso.hidden_sizes=[8],[8,8]", "gamma=0.9", "callbacks=histograms")
    outcome = sweep(folder, *small, *settings, "seed=0,1")
    assert outcome.code == 0, outcome.err
    return outcome.directory


@pytest.fixture(scope="module")
def ask(runs):
    """Path and query -> answer; the command chooses the port and prints it."""
    log = runs.parents[2] / "tensorboard.txt"
    command = [sys.executable, str(SCRIPTS / "dashboard.py"), str(runs)]
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    deadline = time.monotonic() + PATIENCE

    def get(path: str, body: dict | None = None, **query: str) -> bytes:
        query_text = f"?{urllib.parse.urlencode(query)}" if query else ""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(f"{address}data/{path}{query_text}", data, headers)
        with OPENER.open(request, timeout=PATIENCE) as answer:
            return answer.read()

    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        address = found.group()
        # it answers before it has read the runs
        while len(json.loads(get("plugin/images/tags"))) < 4 or len(json.loads(get("plugin/scalars/tags"))) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield get
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=PATIENCE) == 0, log.read_text()


def names(runs) -> set[str]:
    """Of the runs, as TensorBoard has them."""
    return {path.name for path in runs.iterdir() if (path / ".hydra").is_dir()}


def test_curves(ask, runs):
    tags = json.loads(ask("plugin/scalars/tags"))
    assert names(runs) == {f"hidden_sizes-{sizes}_seed-{seed}" for sizes in ("8", "8-8") for seed in (0, 1)}
    assert set(tags) == names(runs) | MEANS
    for run in names(runs):
        of_run = tags[run]
        assert set(of_run) >= {
            *("rollout/episode_return_mean", "rollout/episode_length_mean", "train/surrogate_loss", "train/entropy"),
            *(
                "train/grad_norm",
                "train/learning_rate",
                "eval/return_mean",
                "eval/return_low",
                "eval/return_high",
                "time/env_steps_per_second",
            ),
        }
        curve = json.loads(ask("plugin/scalars/scalars", run=run, tag="eval/return_mean"))
        summary = json.loads((runs / run / "summary.json").read_text())
        assert [step for _, step, _ in curve][-1] == summary["env_steps"]


def test_config_as_text(ask, runs):
    tags = json.loads(ask("plugin/text/tags"))
    assert set(tags) == names(runs)
    for run in tags:
        assert {name.removesuffix("/text_summary") for name in tags[run]} >= {"config", "command", "gradient_bias"}
        (text,) = json.loads(ask("plugin/text/text", run=run, tag="command/text_summary"))
        assert "python scripts/train.py " in text["text"]
        assert "sweep=" not in text["text"]
        (text,) = json.loads(ask("plugin/text/text", run=run, tag="gradient_bias/text_summary"))
        assert "whitened" in text["text"]
        (text,) = json.loads(ask("plugin/text/text", run=run, tag="config/text_summary"))
        assert "CartPole-v1" in text["text"]
        assert "gamma: 0.9" in text["text"]


def test_moving_picture(ask, runs):
    tags = json.loads(ask("plugin/images/tags"))
    for run in names(runs):
        assert set(tags[run]) == {"video/episode"}
        (entry,) = json.loads(ask("plugin/images/images", run=run, tag="video/episode", sample="0"))
        summary = json.loads((runs / run / "summary.json").read_text())
        assert entry["step"] == summary["env_steps"]
        content = ask("plugin/images/individualImage", **dict(urllib.parse.parse_qsl(entry["query"])))
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "GIF"
            assert picture.n_frames > 1
            assert min(picture.size) > 100


def test_one_row_of_hparams_for_each_run(ask, runs):
    experiment = json.loads(ask("plugin/hparams/experiment", {"hparamsLimit": 100, "includeMetrics": True}))
    infos = {info["name"]: info for info in experiment["hparamInfos"]}
    hparams = set(infos)
    assert list(infos)[:2] == ["policy.torso.hidden_sizes", "seed"]  # what differs comes first: it shows five
    assert infos["policy.torso.hidden_sizes"]["displayName"] == "hidden_sizes"
    assert infos["seed"]["type"] == "DATA_TYPE_FLOAT64"
    columns = {"env", "dist", "estimator", "baseline", "policy", "optimizer", "lr_schedule", "seed", "gamma"}
    assert hparams >= columns | {"max_env_steps", "eval.every_env_steps"}
    assert not any(name.startswith("callbacks") for name in hparams)
    shown = {info["name"]["tag"]: info["displayName"] for info in experiment["metricInfos"]}
    assert shown == METRICS
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"hparam": name} for name in sorted(hparams)],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = json.loads(ask("plugin/hparams/session_groups", request))
    assert groups["totalSize"] == 4
    assert {group["name"] for group in groups["sessionGroups"]} == names(runs)
    rows = [group["hparams"] for group in groups["sessionGroups"]]
    assert sorted((row["policy.torso.hidden_sizes"], row["seed"]) for row in rows) == [
        *(("[8, 8]", 0.0), ("[8, 8]", 1.0), ("[8]", 0.0), ("[8]", 1.0)),
    ]
    for row in rows:
        assert row["gamma"] == pytest.approx(0.9)
        assert (row["env"], row["dist"], row["optimizer"]) == ("cartpole", "bernoulli", "adam")
    finals = {value["name"]["tag"]: value["value"] for value in groups["sessionGroups"][0]["metricValues"]}
    assert set(finals) == set(METRICS) - {"final/solved_at_env_steps"}


def test_means_over_seeds_have_bands(ask, runs):
    tags = json.loads(ask("plugin/scalars/tags"))
    for mean in MEANS:
        members = [run for run in names(runs) if run.startswith(f"{mean.removeprefix('mean ')}_")]
        curves = [points(ask, run, "eval/return_mean") for run in members]
        band = {name: points(ask, mean, f"eval/return_{name}") for name in ("low", "mean", "high")}
        start, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
        steps = [step for step, _ in band["mean"]]
        assert (steps[0], steps[-1]) == (start, end)
        for step, value in band["mean"]:
            values = [np.interp(step, *zip(*curve, strict=True)) for curve in curves]
            assert value == pytest.approx(np.mean(values), rel=1e-5)
            half = 12.706 * np.std(values, ddof=1) / 2**0.5
            assert dict(band["high"])[step] - value == pytest.approx(half, rel=1e-4, abs=1e-3)
            assert value - dict(band["low"])[step] == pytest.approx(half, rel=1e-4, abs=1e-3)
        assert "rollout/episode_return_mean" in tags[mean]
    # and in the sweep's own folder, for any TensorBoard
    assert {path.name for path in (runs / "tensorboard").iterdir()} == MEANS


def points(ask, run: str, tag: str) -> list[tuple[int, float]]:
    curve = json.loads(ask("plugin/scalars/scalars", run=run, tag=tag))
    return [(step, value) for _, step, value in curve]


def test_layout_of_the_custom_scalars(ask):
    layout = json.loads(ask("plugin/custom_scalars/layout"))
    charts = {category["title"]: category["chart"] for category in layout["category"]}
    assert list(charts) == ["return", "learning", "gradient", "speed"]
    assert [len(of_it) for of_it in charts.values()] == [2, 4, 3, 1]  # once, though each run has one
    (band,) = [series for chart in charts["return"] if "margin" in chart for series in chart["margin"]["series"]]
    assert band == {"value": "eval/return_mean", "lower": "eval/return_low", "upper": "eval/return_high"}


def test_histograms(ask, runs):
    tags = json.loads(ask("plugin/histograms/tags"))
    assert set(tags) == names(runs)
    for run in names(runs):
        layers = {f"gradient/torso.layers.{0}.{kind}" for kind in ("weight", "bias")}
        wanted = {"probs", "advantages", "gradient/head.logits.weight", *layers}
        assert set(tags[run]) >= {f"histograms/{name}" for name in wanted}
