"""Sweeps that are killed: the same command continues them, and nobody can see it in what they leave behind."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers import Outcome, finish, start, succeed, sweep, wait_for, with_mark, without_time
from processes import PATIENCE

from scorepath.run.csv_logger import read_metrics
from scorepath.sweeps.records import read_sweep
from scorepath.sweeps.state import FAILED, FINISHED, state_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

JOBS = ("dist=bernoulli,categorical", "seed=range(0,6)", "max_env_steps=6000", "stop_when_solved=false")
JOBS += ("episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=500", "record_episode=false", "logger=csv")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
KILLS = 20  # of each launcher


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Outcome:
    """A sweep of twelve jobs that ran in one go."""
    return succeed(sweep(tmp_path_factory.mktemp("undisturbed"), *JOBS))


def results(directory: Path) -> list[dict]:
    """The table without its seconds, with digests and all rows of metrics."""
    shown = ("job", "status", "eval_return_mean", "eval_return_ci95", "env_steps", "solved_at_env_steps")
    rows = [{key: row.get(key) for key in (*shown, "updates", "weights_sha256")} for row in read_sweep(directory)]
    return [{**row, "metrics": without_time(read_metrics(directory / row["job"] / "metrics.csv"))} for row in rows]


def finished(directory: Path) -> dict[str, int]:
    """The jobs with a result, and when it was written."""
    jobs = [folder for folder in directory.glob("*") if state_of(folder) == FINISHED]
    return {folder.name: (folder / "summary.json").stat().st_mtime_ns for folder in jobs}


def begin(folder: Path, *launcher: str):
    return start("train", folder, "-m", "sweep=it", *launcher, *JOBS, MARK=folder.name)


def kill(process, folder: Path, whom: str, moments: random.Random) -> None:
    """SIGKILL to the parent alone, to a process that has a job in hand, or to all."""
    directory = folder / "outputs" / "sweeps" / "it"
    if whom == "worker":
        held = [file for file in directory.glob("*/.lock") if state_of(file.parent) not in (FINISHED,)]
        numbers = [int(text) for file in held if (text := file.read_text().strip())]
        chosen = [moments.choice(numbers)] if numbers else []
    else:
        chosen = [process.pid] if whom == "parent" else with_mark(f"MARK={folder.name}")
    for number in set(chosen) & set(with_mark(f"MARK={folder.name}")):
        os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["basic", "joblib"])
def test_killed_at_any_moment(undisturbed, tmp_path, launcher):
    """The parent, a worker, or all; until it was often enough, each sweep until it is complete."""
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    moments, done, number = random.Random(len(launcher)), 0, 0
    while done < KILLS:
        folder = tmp_path / f"sweep-{number}"
        folder.mkdir()
        directory = folder / "outputs" / "sweeps" / "it"
        kept: dict[str, int] = {}
        while True:
            process = begin(folder, *launcher)
            deadline = time.monotonic() + moments.uniform(2.0, 9.0)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.05)
            if done < KILLS and process.poll() is None:
                kill(process, folder, moments.choice(("parent", "worker", "all")), moments)
                done += 1
            outcome = finish(process, directory)
            now = finished(directory)
            assert kept.items() <= now.items(), "a job that had finished was done again"
            kept = now
            if outcome.code != -signal.SIGKILL:
                break
        assert outcome.code == 0, outcome.err
        assert results(directory) == results(undisturbed.directory)
        number += 1


def test_two_commands_work_on_one_sweep(undisturbed, tmp_path):
    """Each takes jobs that nobody holds; one that is killed is replaced by the other."""
    directory = tmp_path / "outputs" / "sweeps" / "it"
    one, other = begin(tmp_path), begin(tmp_path)
    while len(finished(directory)) < 4:
        assert one.poll() is None
        time.sleep(0.05)
    one.kill()
    assert finish(one, directory).code == -signal.SIGKILL
    outcome = finish(other, directory)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert results(directory) == results(undisturbed.directory)
    for job in directory.glob("*/train.log"):
        assert job.read_text().count("completed after") == 1


def test_a_job_that_always_loses_its_process_is_given_up(tmp_path):
    """And takes no other with it, though joblib ends all of its workers when one is lost."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    killer = ("env=gym", "env.id=helpers:FaultyCartPole-v0", "dist=bernoulli", "seed=range(0,4)")
    killer += ("+env.kwargs.bad=die", "+env.kwargs.under=training_step,nobody", *JOBS[2:])
    process = start("train", tmp_path, "-m", "sweep=it", *JOBLIB, *killer)
    outcome = finish(process, tmp_path / "outputs" / "sweeps" / "it")
    assert outcome.code == 1
    states = {path.name: state_of(path) for path in outcome.directory.glob("*") if path.is_dir()}
    assert {name for name, state in states.items() if state == FINISHED} == {
        f"under-nobody_seed-{seed}" for seed in range(4)
    }
    assert "4 of 8 jobs did not finish" in outcome.err
    for seed in range(4):
        assert states[f"under-training_step_seed-{seed}"] == FAILED
        assert f"  under-training_step_seed-{seed}: its process was lost 3 times without a step forward" in outcome.err


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    """Their jobs save what they have, and the next command goes on from there."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    long = ("max_env_steps=1000000", "seed=0,1", *JOBS[3:])
    process = start("train", tmp_path, "-m", "sweep=it", *JOBLIB, *long, MARK=tmp_path.name)
    directory = tmp_path / "outputs" / "sweeps" / "it"
    for seed in (0, 1):
        wait_for(directory / f"seed-{seed}" / "checkpoints" / "last.ckpt", process)
    process.kill()
    finish(process, directory)  # whose output ends with the last process that could write to it
    assert {json.loads(path.read_text())["status"] for path in directory.glob("*/summary.json")} == {"interrupted"}
    deadline = time.monotonic() + PATIENCE
    while with_mark(f"MARK={tmp_path.name}"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_workers_end_with_a_command_that_is_killed_before_they_have_begun(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = begin(tmp_path, *JOBLIB)
    while len(with_mark(f"MARK={tmp_path.name}")) < 4:  # two workers, and what tracks joblib's resources
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    finish(process, tmp_path)


def test_a_signal_to_the_command_ends_the_workers_too(tmp_path):
    """Each saves what it has, and the sentence says what is left."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    long = ("max_env_steps=1000000", "seed=0,1", "stop_when_solved=false", *JOBS[4:])
    process = start("train", tmp_path, "-m", "sweep=it", *JOBLIB, *long, MARK=tmp_path.name)
    directory = tmp_path / "outputs" / "sweeps" / "it"
    for seed in (0, 1):
        wait_for(directory / f"seed-{seed}" / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    outcome = finish(process, directory)
    assert outcome.code == 143
    assert "Of 2 jobs these are left: seed-0; seed-1. The same command continues with them." in outcome.err
    assert "Traceback" not in outcome.err
    assert {json.loads(path.read_text())["status"] for path in directory.glob("*/summary.json")} == {"interrupted"}
    assert with_mark(f"MARK={tmp_path.name}") == []
