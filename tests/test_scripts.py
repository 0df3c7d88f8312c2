"""Sweeps, evaluations, plots and the dashboard, as their commands give them."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from helpers import Outcome, evaluate, plot, sweep, train
from PIL import Image

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Numpy.*:DeprecationWarning"),
]

SMALL = ("max_env_steps=1500", "eval.every_env_steps=500", "eval.episodes=4", "episodes_per_update=8")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Outcome:
    outcome = train(tmp_path_factory.mktemp("one"), *SMALL)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Outcome:
    outcome = sweep(
        tmp_path_factory.mktemp("grid"), "dist=bernoulli,categorical", "seed=0,1", "record_episode=false", *SMALL
    )
    assert outcome.code == 0, outcome.err
    return outcome


# ------------------------------------------------------------------ sweeps


def test_each_job_of_a_sweep_has_its_folder_and_a_line_of_the_table(grid):
    folders = sorted(path for path in grid.directory.iterdir() if path.is_dir())
    assert len(folders) == 4
    for folder in folders:
        assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
        assert len([line for line in grid.out.splitlines() if line.startswith(folder.name)]) == 1


def test_a_refused_job_does_not_stop_the_others(tmp_path):
    outcome = sweep(tmp_path, "dist=normal,bernoulli", "record_episode=false", *SMALL)
    assert outcome.code == 1
    by_status = {}
    for file in outcome.directory.glob("*/summary.json"):
        summary = json.loads(file.read_text())
        by_status[summary["status"]] = summary
    assert set(by_status) == {"failed", "completed"}
    assert "use dist=bernoulli" in by_status["failed"]["error"]
    assert "1 of 2 jobs did not finish" in outcome.err
    assert "failed" in outcome.out


def test_a_sweep_of_that_name_is_not_written_over(grid):
    before = {path: path.read_bytes() for path in grid.directory.glob("*/summary.json")}
    folder = grid.directory.parents[2]
    outcome = sweep(folder, "dist=bernoulli,categorical", "seed=0,1", "record_episode=false", *SMALL)
    assert "already holds a run" in outcome.err
    assert before == {path: path.read_bytes() for path in grid.directory.glob("*/summary.json")}


def test_plot_draws_a_sweep(grid, tmp_path):
    outcome = plot(tmp_path, f"runs={grid.directory}", f"file={tmp_path}/curves.png")
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size > (300, 200)
    lines = [line for line in outcome.out.splitlines() if line.startswith(("dist=bernoulli", "dist=categorical"))]
    assert len(lines) == 2


# ------------------------------------------------------------------ evaluation


def test_evaluation_is_the_same_twice(run):
    first, second = (evaluate(run.directory, f"run_dir={run.directory}", "episodes=6") for _ in range(2))
    assert first.code == 0, first.err
    assert json.loads(first.out) == json.loads(second.out)
    report = json.loads(first.out)
    assert report["episodes"] == 6
    assert report["env"] == "CartPole-v1"
    assert report["return_ci95"][0] <= report["return_mean"] <= report["return_ci95"][1]
    assert report["return_mean"] == pytest.approx(report["episode_length_mean"])  # CartPole pays 1 a step
    assert json.loads((run.directory / "evaluation.json").read_text()) == report


def test_deterministic_actions_and_other_seeds_give_other_episodes(run):
    options = ("deterministic=true", "seed=1", "checkpoint=last")
    returns = {json.loads(evaluate(run.directory, f"run_dir={run.directory}", o).out)["return_mean"] for o in options}
    assert len(returns) == 3


def test_video_has_frames(run):
    outcome = evaluate(run.directory, f"run_dir={run.directory}", "episodes=1", "video=true")
    assert outcome.code == 0, outcome.err
    assert Path(json.loads(outcome.out)["video"]).stat().st_size > 1000


def test_a_twin_is_judged_on_the_original(tmp_path):
    trained = train(tmp_path, "env=pendulum_torch", "episodes_per_update=2", "max_env_steps=1", "eval.episodes=2")
    assert trained.code == 0, trained.err
    outcome = evaluate(tmp_path, f"run_dir={trained.directory}", "episodes=2")
    assert json.loads(outcome.out)["env"] == "Pendulum-v1"


def test_bad_evaluations_are_refused(run, tmp_path):
    damaged = tmp_path / "damaged"
    (damaged / ".hydra").mkdir(parents=True)
    (damaged / "checkpoints").mkdir()
    (damaged / ".hydra" / "config.yaml").write_bytes((run.directory / ".hydra" / "config.yaml").read_bytes())
    (damaged / "checkpoints" / "best.ckpt").write_bytes(b"not a checkpoint")
    for overrides, remedy in {
        (): "give run_dir=",
        (f"run_dir={tmp_path}",): "does not hold a run",
        (f"run_dir={run.directory}", "checkpoint=first"): "use checkpoint=best or checkpoint=last",
        (f"run_dir={run.directory}", "episodes=0"): "episodes",
        (f"run_dir={damaged}",): "cannot be read",
    }.items():
        outcome = evaluate(tmp_path, *overrides)
        assert outcome.code == 2, overrides
        assert remedy in outcome.sentence


# ------------------------------------------------------------------ the dashboard


def test_tensorboard_serves_curves_config_hparams_and_a_moving_picture(run):
    """A real TensorBoard, asked over HTTP on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.directory), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/{path}", timeout=10) as answer:
            return answer.read()

    try:
        deadline = time.monotonic() + 90
        tags = {}
        while not tags and time.monotonic() < deadline:
            time.sleep(0.5)
            try:
                tags = json.loads(get("scalars/tags"))
            except OSError:
                assert server.poll() is None
        ((name, scalars),) = tags.items()
        assert {"rollout/episode_return_mean", "eval/return_mean", "train/surrogate_loss"} <= set(scalars)
        curve = json.loads(get(f"scalars/scalars?run={name}&tag=eval/return_mean"))
        assert curve[-1][1] == run.summary["env_steps"]
        assert list(json.loads(get("text/tags")).values()) == [["config/text_summary"]]
        (picture,) = json.loads(get(f"images/images?run={name}&tag=eval/episode&sample=0"))
        assert get(f"images/individualImage?{picture['query']}").startswith(b"GIF89a")
    finally:
        server.terminate()
        server.wait(timeout=30)
