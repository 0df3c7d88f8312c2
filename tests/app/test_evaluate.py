"""Evaluation of saved runs: the JSON, its seeds, the original environment, the video, and what is refused."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from helpers import Outcome, evaluate, finish, imported_by, read_only, start, train
from PIL import Image, ImageSequence
from tiers import slow

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

KEYS = {
    *("run_dir", "checkpoint", "env", "episodes", "seed", "deterministic", "return_mean", "return_std", "return_ci95"),
    *("return_min", "return_max", "episode_length_mean", "env_steps_trained"),
}
SMALL = ("episodes_per_update=4", "eval.episodes=3", "logger=none", "record_episode=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs in folders named after their environment; that of CartPole has different best and last checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    steps = ("max_env_steps=2000", "eval.every_env_steps=400")
    for outcome in (
        train(folder, *SMALL, *steps, "optimizer.lr=0.03", "seed=1", directory="cartpole"),
        train(folder, *SMALL, "max_env_steps=1", "env=pendulum_torch", "optimizer.lr=0.1", directory="pendulum_torch"),
        train(folder, *SMALL, "max_env_steps=1", "env=lqr", directory="lqr"),
        train(folder, *SMALL, "max_env_steps=1", "callbacks=none", directory="without_checkpoint"),
        train(folder, *SMALL, "max_env_steps=1", "policy.normalize_observations=true", directory="normalized"),
    ):
        assert outcome.code == 0, outcome.err
    return folder


def report(outcome: Outcome) -> dict:
    assert outcome.code == 0, outcome.err
    assert not outcome.err
    return json.loads(outcome.out)


def test_report(folder):
    result = report(evaluate(folder, "run_dir=cartpole", "episodes=30"))
    assert set(result) == KEYS
    assert result["env"] == "CartPole-v1"
    assert result["episodes"] == 30
    assert result["checkpoint"] == "best"
    assert result["deterministic"] is False
    assert result["return_min"] <= result["return_mean"] <= result["return_max"]
    assert result["episode_length_mean"] == pytest.approx(result["return_mean"])  # CartPole pays 1 a step
    half = 2.045 * result["return_std"] / math.sqrt(30)  # t quantile of 29 degrees of freedom
    low, high = result["return_ci95"]
    assert 1 <= low < result["return_mean"] < high <= 500  # what CartPole can return
    assert high > result["return_mean"] + half  # room for longer episodes than were seen
    assert json.loads((folder / "cartpole" / "evaluation.json").read_text()) == result


@pytest.mark.parametrize("video", [slow("true"), "false"])
def test_a_run_that_may_only_be_read_is_evaluated_all_the_same(folder, tmp_path, video):
    run = shutil.copytree(folder / "cartpole", tmp_path / "run")
    (run / "evaluation.json").unlink(missing_ok=True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with read_only(run):
        outcome = evaluate(tmp_path, "run_dir=run", "episodes=5", f"video={video}")
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert outcome.code == 0, outcome.err
    assert "the evaluation could not be saved in run" in outcome.sentence
    assert "to a file of your own with > FILE, or evaluate a copy of the folder" in outcome.sentence
    assert json.loads(outcome.out) == report(evaluate(tmp_path, "run_dir=run", "episodes=5"))


def test_same_command_gives_the_same_report(folder):
    first = report(evaluate(folder, "run_dir=cartpole", "episodes=5"))
    again = report(evaluate(folder, "run_dir=cartpole", "episodes=5"))
    assert first == again
    other = report(evaluate(folder, "run_dir=cartpole", "episodes=5", "seed=1"))
    assert other["return_mean"] != first["return_mean"]


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_report(folder):
    process = start("eval", folder, "run_dir=cartpole", "episodes=20")
    assert report(finish(process, folder)) == report(evaluate(folder, "run_dir=cartpole", "episodes=20"))


def test_last_checkpoint(folder):
    best = report(evaluate(folder, "run_dir=cartpole", "episodes=20"))
    last = report(evaluate(folder, "run_dir=cartpole", "episodes=20", "checkpoint=last"))
    assert last["checkpoint"] == "last"
    for name, result in (("best", best), ("last", last)):
        checkpoint = torch.load(folder / "cartpole" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert result["env_steps_trained"] == checkpoint["scorepath"]["env_steps"]
    assert best["env_steps_trained"] < 2000 <= last["env_steps_trained"]
    assert best["return_mean"] != last["return_mean"]


def test_deterministic_actions(folder):
    sampled = report(evaluate(folder, "run_dir=cartpole", "episodes=5"))
    chosen = report(evaluate(folder, "run_dir=cartpole", "episodes=5", "deterministic=true"))
    assert chosen["deterministic"] is True
    assert chosen["return_mean"] != sampled["return_mean"]


def test_one_episode_has_no_interval(folder):
    result = report(evaluate(folder, "run_dir=cartpole", "episodes=1"))
    assert result["return_ci95"] is None
    assert result["return_std"] is None  # JSON has no NaN
    assert result["return_min"] == result["return_mean"] == result["return_max"]


def test_number_of_episodes_is_what_was_asked_for(folder):
    """Also where it is no multiple of the environments that play side by side."""
    assert report(evaluate(folder, "run_dir=cartpole", "episodes=101"))["episodes"] == 101


def test_twin_is_evaluated_on_the_original(folder):
    result = report(evaluate(folder, "run_dir=pendulum_torch", "episodes=3"))
    assert result["env"] == "Pendulum-v1"
    assert result["episode_length_mean"] == 200
    low, high = result["return_ci95"]
    assert -3254.8 < low < result["return_min"] < high <= 0  # by the range that the twin declares


def test_torch_environment_without_original_is_evaluated_on_itself(folder):
    assert report(evaluate(folder, "run_dir=lqr", "episodes=3"))["env"] == "lqr (dim=1)"


def test_normalizer_is_part_of_the_policy(folder):
    assert report(evaluate(folder, "run_dir=normalized", "episodes=3"))["episodes"] == 3


def test_run_directory_may_be_anywhere(folder, tmp_path):
    relative = report(evaluate(folder, "run_dir=cartpole", "episodes=3"))
    absolute = report(evaluate(tmp_path, f"run_dir={folder / 'cartpole'}", "episodes=3"))
    assert relative | {"run_dir": ""} == absolute | {"run_dir": ""}
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ video


# imageio-ffmpeg leaves the pipes of its reader to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed file <_io.Buffered:ResourceWarning")
@pytest.mark.parametrize("run", ["cartpole", slow("pendulum_torch")])
def test_video(folder, run):
    result = report(evaluate(folder, f"run_dir={run}", "episodes=2", "video=true"))
    assert set(result) == KEYS | {"video"}
    path = folder / result["video"]
    assert path.is_relative_to(folder / run)
    assert len(read_video(path)) > 1


def read_video(path: Path) -> list[np.ndarray]:
    """Frames that differ, (height, width, 3)."""
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    else:
        reader = imageio_ffmpeg.read_frames(path)
        width, height = next(reader)["size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return [frames[0], *(one for before, one in pairwise(frames) if (one != before).any())]


def test_environment_that_cannot_be_drawn_is_evaluated_all_the_same(folder):
    outcome = evaluate(folder, "run_dir=lqr", "episodes=2", "video=true")
    assert outcome.code == 0, outcome.err
    assert "cannot be drawn" in outcome.out
    assert "video" not in json.loads((folder / "lqr" / "evaluation.json").read_text())


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "run_dir"),
        (("run_dir=nowhere",), "does not hold a run"),
        slow(("run_dir=.",), "does not hold a run"),
        (("run_dir=without_checkpoint",), "before it saved one"),
        (("run_dir=cartpole", "checkpoint=lats"), "checkpoint=best or checkpoint=last"),
        (("run_dir=cartpole", "episodes=0"), "episodes=0"),
        slow(("run_dir=cartpole", "episodes=-5"), "episodes=-5"),
        (("run_dir=cartpole", "episodes=ten"), "episodes=ten"),
        slow(("run_dir=cartpole", "seed=-1"), "seed=-1"),
        (("run_dir=cartpole", "deterministic=perhaps"), "true or false"),
        slow(("run_dir=cartpole", "video=1"), "true or false"),
        (("run_dir=cartpole", "episode=10"), "did you mean episodes?"),
        slow(("run_dir=cartpole", "checkpoint=null"), "checkpoint"),
        slow(("run_dir=null",), "run_dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused_in_one_sentence(folder, arguments, words):
    outcome = evaluate(folder, *arguments)
    assert outcome.code == 2
    assert words in outcome.sentence


@pytest.mark.parametrize(
    "damage", [slow("empty"), "cut short", slow("not a checkpoint"), "of another network", "of another program"]
)
def test_damaged_checkpoint_is_refused(folder, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(folder / "cartpole", run)
    path = run / "checkpoints" / "best.ckpt"
    content = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "not a checkpoint":
        path.write_text("hello")
    elif damage == "of another network":
        shutil.copy(folder / "pendulum_torch" / "checkpoints" / "best.ckpt", path)
    else:
        torch.save({"state_dict": {}}, path)
    outcome = evaluate(tmp_path, "run_dir=run")
    assert outcome.code == 2
    assert "best.ckpt" in outcome.sentence


@pytest.mark.parametrize(
    "text",
    [slow(""), "a: 1\n", "a: [1\n", slow("env: null\n")],
    ids=["empty", "other", "no YAML", "no env"],
)
def test_damaged_config_is_refused(folder, tmp_path, text):
    run = tmp_path / "run"
    shutil.copytree(folder / "cartpole", run)
    (run / ".hydra" / "config.yaml").write_text(text)
    outcome = evaluate(tmp_path, "run_dir=run")
    assert outcome.code == 2
    assert "config.yaml" in outcome.sentence


def test_refusal_does_not_import_torch(folder):
    assert imported_by("eval", folder, "run_dir=nowhere") == set()
