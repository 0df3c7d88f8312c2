"""kill -9 at any moment: what a run that was killed and resumed leaves behind is what the uninterrupted one leaves.

Each run is a fork of this process, which has imported everything: a real process, and a hundred of them in minutes.
"""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import fork, without_time
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scorepath.run.checkpoints import load_checkpoint
from scorepath.run.csv_logger import read_metrics

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("eval.episodes=2", "record_episode=false", "resume=auto")
KINDS = {
    "bernoulli": ("episodes_per_update=4", "max_env_steps=2000", "eval.every_env_steps=100"),
    "categorical": ("dist=categorical", "episodes_per_update=4", "max_env_steps=2000", "eval.every_env_steps=100"),
    "normal with a value network": (
        *("env=pendulum", "baseline=value", "episodes_per_update=1"),
        *("max_env_steps=3000", "eval.every_env_steps=200"),
    ),
    "pathwise": ("env=pendulum_torch", "episodes_per_update=1", "max_env_steps=2000", "eval.every_env_steps=200"),
    "normalized observations": (
        *("policy.normalize_observations=true", "baseline=moving_average", "episodes_per_update=4"),
        *("max_env_steps=2000", "eval.every_env_steps=100"),
    ),
}
KILLS = 100  # of each kind


def curves(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of TensorBoard but times."""
    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("time/")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def results(directory: Path) -> tuple:
    summary = json.loads((directory / "summary.json").read_text())
    kept = ("weights_sha256", "env_steps", "updates", "episodes", "eval_return_mean", "status")
    rows = without_time(read_metrics(directory / "metrics.csv"))
    return {key: summary[key] for key in kept}, rows, curves(directory)


def killed_and_resumed(folder: Path, overrides: tuple[str, ...], kills: int, seconds: float, seed: int) -> int:
    """Kills a run at random moments and starts it again, until it ends by itself. Returns how often it was killed."""
    moments = random.Random(seed)
    done = 0
    while True:
        pid = fork(folder, *overrides)
        if done < kills:
            time.sleep(moments.uniform(0.0, seconds))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        for path in (folder / "run" / "checkpoints").glob("*.ckpt"):
            load_checkpoint(path)  # whole, whenever the process was killed
        if os.WIFSIGNALED(status):
            done += 1
            continue
        assert os.WEXITSTATUS(status) == 0, (folder / "said").read_text()
        return done


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment(tmp_path, kind):
    """A run is killed until it was killed often enough or has ended; then another begins."""
    torch.set_num_threads(1)
    overrides = (*SMALL, *KINDS[kind])
    whole = tmp_path / "whole"
    whole.mkdir()
    begin = time.monotonic()
    _, status = os.waitpid(fork(whole, *overrides), 0)
    seconds = time.monotonic() - begin
    assert status == 0, (whole / "said").read_text()
    expected = results(whole / "run")
    kills = number = 0
    while kills < KILLS:
        folder = tmp_path / f"killed_{number}"
        folder.mkdir()
        kills += killed_and_resumed(folder, overrides, min(5, KILLS - kills), seconds, number)
        found = results(folder / "run")
        for one, other in zip(found, expected, strict=True):
            assert one == other
        assert not list((folder / "run").rglob("*.partial"))
        number += 1


def test_killed_while_saving_to_another_file_system(tmp_path):
    """100 times, as fast as it can save: every checkpoint can be read, and nothing half-written stays."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == Path(os.environ.get("TMPDIR", "/tmp")).stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    folder = elsewhere / f"scorepath_{os.getpid()}"
    folder.mkdir()
    overrides = (*SMALL, "episodes_per_update=2", "max_env_steps=1000000", "eval.every_env_steps=1", "logger=none")
    overrides += ("policy.torso.hidden_sizes=[512,512]", "eval.episodes=1", "stop_when_solved=false")
    moments = random.Random(0)
    try:
        steps, saved = 0, 0
        for _ in range(100):
            pid = fork(folder, *overrides)
            checkpoints = folder / "run" / "checkpoints"
            deadline = time.monotonic() + 60
            before = newest(checkpoints)
            while newest(checkpoints) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 0.2))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            contents = [load_checkpoint(path) for path in checkpoints.glob("*.ckpt")]
            reached = max(content["scorepath"]["env_steps"] for content in contents)
            assert reached >= steps
            saved += reached > steps
            steps = reached
        assert saved > 50
        overrides = tuple(text for text in overrides if not text.startswith("max_env_steps"))
        _, status = os.waitpid(fork(folder, *overrides, f"max_env_steps={steps + 1}"), 0)
        assert status == 0, (folder / "said").read_text()
        assert not list(folder.rglob("*.partial"))
    finally:
        shutil.rmtree(folder)


def newest(checkpoints: Path) -> float:
    """When the last checkpoint was written, in ns since the epoch; 0 without one."""
    try:
        return (checkpoints / "last.ckpt").stat().st_mtime_ns
    except OSError:
        return 0


def test_resumed_after_every_update(tmp_path):
    """50 runs of one update each end where a run of 50 updates ends."""
    torch.set_num_threads(1)
    small = ("eval.episodes=2", "record_episode=false", "episodes_per_update=2", "logger=csv", "lr_schedule=constant")
    small += ("eval.every_env_steps=1000000", "stop_when_solved=false")
    whole = tmp_path / "whole"
    whole.mkdir()
    _, status = os.waitpid(fork(whole, *small, "max_env_steps=6000"), 0)
    assert status == 0, (whole / "said").read_text()
    ends = [int(row["env_steps"]) for row in read_metrics(whole / "run" / "metrics.csv") if row["train/grad_norm"]]
    assert len(ends) >= 50
    parts = tmp_path / "parts"
    parts.mkdir()
    for end in ends:
        _, status = os.waitpid(fork(parts, *small, f"max_env_steps={end}", "resume=auto"), 0)
        assert status == 0, (parts / "said").read_text()
    one, other = (json.loads((folder / "run" / "summary.json").read_text()) for folder in (whole, parts))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["updates"] == other["updates"] == len(ends)
