"""The folder that TensorBoard reads, of run folders made by hand; and what scripts/dashboard.py refuses."""

import signal
import socket
from pathlib import Path

import pytest
import yaml
from helpers import finish, start, succeed, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from scorepath.dashboards.tabs import experiment, hparams_of, keys_of
from scorepath.dashboards.view import View, show_means
from scorepath.jobs.dashboard import find_runs, main


def make_run(folder: Path, overrides: list[str], returns: list[float], config: dict | None = None) -> Path:
    """A run that has evaluated every 100 steps."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "tensorboard").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config or {"seed": 0, "optimizer": {"lr": 0.1}}))
    choices = {"env": "cartpole", "dist": "bernoulli"}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    (folder / "tensorboard" / f"events.out.tfevents.17{len(overrides)}.here.1.0").write_bytes(b"")
    write_curve(folder, returns)
    return folder


def write_curve(folder: Path, returns: list[float]) -> None:
    rows = [f"{100 * number},{value}" for number, value in enumerate(returns, 1)]
    (folder / "metrics.csv").write_text("\n".join(["env_steps,eval/return_mean", *rows]) + "\n")


def curve(folder: Path, tag: str = "eval/return_mean") -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def shown(view: Path) -> set[str]:
    return {path.name for path in view.iterdir()}


def test_runs_appear_and_means_grow_while_it_is_open(tmp_path):
    runs, folder = tmp_path / "runs", tmp_path / "view"
    first = make_run(runs / "seed-0", ["seed=0"], [1.0, 3.0])
    view = View(runs, folder)
    assert view.refresh() == 1
    assert shown(folder) == {"seed-0"}
    make_run(runs / "seed-1", ["seed=1"], [3.0, 5.0])
    assert view.refresh() == 2
    assert shown(folder) == {"seed-0", "seed-1", "mean"}
    assert curve(folder / "mean") == [(100, 2.0), (200, 4.0)]
    assert curve(folder / "mean", "eval/return_high")[0] == (100, pytest.approx(2.0 + 12.706, rel=1e-5))
    write_curve(first, [1.0, 3.0, 9.0])
    write_curve(runs / "seed-1", [3.0, 5.0, 7.0])
    assert view.refresh() == 2
    assert curve(folder / "mean") == [(100, 2.0), (200, 4.0), (300, 8.0)]  # none of them twice
    files = {path.name for path in (folder / "seed-0").iterdir()}
    assert view.refresh() == 2
    assert {path.name for path in (folder / "seed-0").iterdir()} == files


def test_nothing_is_written_into_the_runs(tmp_path):
    make_run(tmp_path / "runs" / "seed-0", ["seed=0"], [1.0])
    make_run(tmp_path / "runs" / "seed-1", ["seed=1"], [2.0])
    before = sorted((tmp_path / "runs").rglob("*"))
    View(tmp_path / "runs", tmp_path / "view").refresh()
    assert sorted((tmp_path / "runs").rglob("*")) == before


def test_runs_of_any_folders_are_called_by_what_they_differ_in(tmp_path):
    make_run(tmp_path / "runs" / "today" / "1", ["optimizer.lr=0.1", "seed=0"], [1.0])
    make_run(tmp_path / "runs" / "today" / "2", ["optimizer.lr=0.2", "seed=0"], [1.0])
    make_run(tmp_path / "runs" / "again", ["optimizer.lr=0.2", "seed=0"], [3.0])
    View(tmp_path / "runs", tmp_path / "view").refresh()
    assert shown(tmp_path / "view") == {"lr-0.1", "lr-0.2 today 2", "lr-0.2 again", "mean lr-0.2"}


def test_a_name_is_first_that_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "it" / "seed-0", ["seed=0"], [1.0])
    assert find_runs("it") == Path("it")
    make_run(tmp_path / "outputs" / "sweeps" / "it" / "seed-0", ["seed=0"], [1.0])
    assert find_runs("it") == Path("outputs/sweeps/it")
    assert find_runs(None) == Path("outputs")


def test_a_single_run_is_shown(tmp_path):
    make_run(tmp_path / "runs", ["seed=0"], [1.0])
    View(tmp_path / "runs", tmp_path / "view").refresh()
    assert shown(tmp_path / "view") == {"run"}


def test_a_run_that_has_not_begun_or_is_damaged_has_a_name_and_no_row(tmp_path):
    make_run(tmp_path / "runs" / "seed-0", ["seed=0"], [1.0])
    broken = make_run(tmp_path / "runs" / "seed-1", ["seed=1"], [1.0])
    (broken / ".hydra" / "config.yaml").write_text("[")
    View(tmp_path / "runs", tmp_path / "view").refresh()
    tags = {
        name: EventAccumulator(str(tmp_path / "view" / name)).Reload().PluginTagToContent(metadata.PLUGIN_NAME)
        for name in ("seed-0",)
    }
    assert metadata.SESSION_START_INFO_TAG in tags["seed-0"]
    assert [path.name for path in (tmp_path / "view" / "seed-1").iterdir()] == ["events.out.tfevents.171.here.1.0"]


def test_means_of_a_sweep_are_written_once(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"seed-{seed}", [f"seed={seed}"], [1.0, 2.0])
    show_means(tmp_path)
    (file,) = (tmp_path / "tensorboard" / "mean").iterdir()
    before = file.stat().st_mtime_ns, file.read_bytes()
    show_means(tmp_path)
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before


def test_columns_are_what_was_told_and_of_their_kinds():
    overrides = ["env=cartpole", "policy.torso={a:1}", "~x", "+y.z=true", "sweep=s", "callbacks=none", "lr=${oc.env:A}"]
    keys = keys_of(overrides)
    assert "sweep" not in keys
    assert "callbacks" not in keys
    config = {"seed": 3, "lr": "${oc.env:A}", "policy": {"torso": {"a": 1, "b": None, "c": [1, 2]}}, "y": {"z": True}}
    assert hparams_of({"seed": 10**400}, {}, ["seed"]) == {"seed": str(10**400)}
    row = hparams_of(config, {"env": "cartpole"}, keys)
    assert row == {
        **{"env": "cartpole", "seed": 3.0, "y.z": True, "lr": "${oc.env:A}"},  # never the variable's value
        **{"policy.torso.a": 1.0, "policy.torso.c": "[1, 2]"},
    }


def test_columns_of_mixed_kinds_can_be_written():
    """A key that is a number in one run and a text in another."""
    experiment([{"a": 1.0, "b": True}, {"a": "x"}, {}])


def test_nothing_is_left_of_one_that_is_ended(tmp_path):
    make_run(tmp_path / "runs" / "seed-0", ["seed=0"], [1.0])
    (tmp_path / "tmp").mkdir()
    process = start("dashboard", tmp_path, "runs", TMPDIR=str(tmp_path / "tmp"))
    assert "1 run of runs: http://127.0.0.1:" in process.stdout.readline()
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "tmp").iterdir() if path.is_dir()] == [
        "scorepath-dashboard"
    ]
    process.send_signal(signal.SIGTERM)
    assert finish(process, tmp_path).code == 143
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("scorepath")]


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
def test_a_picture_of_each_evaluation_is_drawn_if_it_is_asked_for(tmp_path):
    small = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=2", "eval.every_env_steps=200")
    drawn = succeed(train(tmp_path, *small, "record_episode=evaluations", directory="drawn"))
    plain = succeed(train(tmp_path, *small, "record_episode=false", directory="plain"))
    events = EventAccumulator(str(drawn.directory / "tensorboard"), size_guidance={"images": 0}).Reload()
    evaluated = [event.step for event in events.Scalars("eval/return_mean")]
    assert len(evaluated) > 2
    assert [event.step for event in events.Images("video/episode")] == evaluated
    assert drawn.summary["weights_sha256"] == plain.summary["weights_sha256"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "There are no runs in outputs"),
        (["nothing"], "nothing is neither a sweep in outputs/sweeps nor the folder of one"),
        (["runs", "--port", "70000"], "--port=70000 is no port"),
        (["runs", "--port", "x"], "--port"),
        (["runs", "--every", "0"], "0 must be a positive number"),
        (["runs", "--por", "1"], "--help lists what there is"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "seed-0", ["seed=0"], [1.0])
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(tmp_path):
    make_run(tmp_path / "runs" / "seed-0", ["seed=0"], [1.0])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = finish(start("dashboard", tmp_path, "runs", f"--port={port}"), tmp_path)
    assert outcome.code == 2
    assert f"port {port}, it was already in use: choose another --port" in outcome.sentence
