"""Launchers whose workers, parents or everything are killed: Ray and submitit, on this machine."""

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from helpers import FAULTY, Outcome, finish, snapshot, start, succeed, sweep, with_mark
from processes import PATIENCE
from slurm import install
from test_killed_sweeps import finished, results

from scorepath.run.lock import holder
from scorepath.sweeps.state import FINISHED, state_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

RAY = ("hydra/launcher=ray", "hydra.launcher.cluster.num_cpus=2")
SUBMITIT = ("hydra/launcher=submitit_local",)
LAUNCHERS = pytest.mark.parametrize("launcher", [RAY, SUBMITIT], ids=["ray", "submitit"])
SMALL = ("episodes_per_update=4", "eval.episodes=3", "record_episode=false", "stop_when_solved=false", "logger=csv")
JOBS = ("dist=bernoulli,categorical", "seed=range(0,6)", "max_env_steps=3000", "eval.every_env_steps=300", *SMALL)
TINY = ("max_env_steps=600", "eval.every_env_steps=300", "seed=range(0,200)", *SMALL)
KILLS = int(os.environ.get("SCOREPATH_KILLS", "6"))  # of each launcher


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Outcome:
    """A sweep of twelve jobs, one after the other."""
    return succeed(sweep(tmp_path_factory.mktemp("undisturbed"), *JOBS))


def begin(folder: Path, launcher: tuple[str, ...], *jobs: str):
    pytest.importorskip("ray" if launcher == RAY else "submitit")
    # Ray's workers are as nice as the command is, or they starve beside other tests
    own = {"MARK": folder.name, "RAY_worker_niceness": "0"}
    return start("train", folder, "-m", "sweep=it", *launcher, *jobs, **own)


def directory_of(folder: Path) -> Path:
    return folder / "outputs" / "sweeps" / "it"


def until(happened, process) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def half_done(directory: Path) -> dict[Path, int]:
    """Jobs with a checkpoint that processes have in hand, and these."""
    folders = [file.parents[1] for file in directory.glob("*/checkpoints/last.ckpt")]
    held = {folder: holder(folder) for folder in folders if state_of(folder) != FINISHED}
    return {folder: process for folder, process in held.items() if process is not None}


def left_behind(folder: Path) -> list[int]:
    """Processes of a command that has ended; Ray's need a moment to see that."""
    deadline = time.monotonic() + PATIENCE
    while (processes := with_mark(f"MARK={folder.name}")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes


def beginnings(job: Path) -> int:
    return sum(line.endswith(f"] {job.name}") for line in (job / "train.log").read_text().splitlines())


@LAUNCHERS
def test_a_killed_worker(undisturbed, tmp_path, launcher):
    """Its job goes on from its checkpoint, and nothing else is touched."""
    process = begin(tmp_path, launcher, *JOBS)
    directory = directory_of(tmp_path)
    until(lambda: len(finished(directory)) >= 2 and half_done(directory), process)
    done = {name: snapshot(directory / name) for name in finished(directory)}
    job, victim = next(iter(half_done(directory).items()))
    os.kill(victim, signal.SIGKILL)
    outcome = finish(process, directory)
    assert outcome.code == 0, outcome.err
    assert results(directory) == results(undisturbed.directory)
    assert {name: snapshot(directory / name) for name in done} == done
    assert {path.parent.name: beginnings(path.parent) for path in directory.glob("*/summary.json")} == {
        row["job"]: 1 + (row["job"] == job.name) for row in results(directory)
    }
    assert f"{job.name} was lost" in outcome.out
    assert left_behind(tmp_path) == []


@LAUNCHERS
def test_killed_at_any_moment(undisturbed, tmp_path, launcher):
    """The parent or all, again and again, until the same command has it complete."""
    moments, directory = random.Random(len(launcher)), directory_of(tmp_path)
    kept: dict[str, int] = {}
    for _ in range(KILLS):
        process = begin(tmp_path, launcher, *JOBS)
        until(lambda: half_done(directory) or len(finished(directory)) == 12, process)
        time.sleep(moments.uniform(0.0, 3.0))
        for victim in [process.pid] if moments.random() < 0.5 else with_mark(f"MARK={tmp_path.name}"):
            os.kill(victim, signal.SIGKILL)
        finish(process, directory)
        now = finished(directory)
        assert kept.items() <= now.items(), "a job that had finished was done again"
        kept = now
    outcome = finish(begin(tmp_path, launcher, *JOBS), directory)
    assert outcome.code == 0, outcome.err
    assert kept.items() <= finished(directory).items()
    assert results(directory) == results(undisturbed.directory)
    assert left_behind(tmp_path) == []


def test_two_hundred_jobs_on_ray_with_a_killed_worker(tmp_path):
    process = begin(tmp_path, RAY, *TINY)
    directory = directory_of(tmp_path)
    until(lambda: len(finished(directory)) > 20 and half_done(directory), process)
    os.kill(next(iter(half_done(directory).values())), signal.SIGKILL)
    outcome = finish(process, directory)
    assert outcome.code == 0, outcome.err
    assert len(finished(directory)) == 200


@LAUNCHERS
def test_a_job_that_always_dies(tmp_path, launcher):
    """It is given up, and takes no other with it."""
    dying = ("env=gym", f"env.id={FAULTY}", "+env.kwargs.bad=die", "+env.kwargs.under=training_step,nobody")
    process = begin(tmp_path, launcher, *dying, "seed=range(0,3)", "max_env_steps=600", *SMALL)
    outcome = finish(process, directory_of(tmp_path))
    assert outcome.code == 1
    assert set(finished(outcome.directory)) == {f"under-nobody_seed-{seed}" for seed in range(3)}
    assert "3 of 6 jobs did not finish" in outcome.err
    assert "Traceback" not in outcome.err
    for seed in range(3):
        name = f"under-training_step_seed-{seed}"
        assert f"  {name}: its process was lost 3 times without a step forward" in outcome.err
        # a worker of submitit that lives does not hear that a job was given up, and may try it once more
        assert beginnings(outcome.directory / name) in ((3,) if launcher == RAY else (3, 4))


@LAUNCHERS
def test_a_signal_to_the_command_has_the_jobs_saved(tmp_path, launcher):
    long = ("max_env_steps=1000000", "eval.every_env_steps=500", "seed=range(0,4)", *SMALL)
    process = begin(tmp_path, launcher, *long)
    directory = directory_of(tmp_path)
    until(lambda: len(half_done(directory)) == 2, process)
    process.send_signal(signal.SIGTERM)
    outcome = finish(process, directory)
    assert outcome.code == 143
    assert "SIGTERM: stopped. Of 4 jobs these are left: seed-0; seed-1; seed-2; seed-3." in outcome.err
    assert "Traceback" not in outcome.err
    summaries = {path.parent.name: json.loads(path.read_text()) for path in directory.glob("*/summary.json")}
    assert {"seed-0", "seed-1"} <= summaries.keys()
    assert {summary["status"] for summary in summaries.values()} == {"interrupted"}
    assert left_behind(tmp_path) == []


def test_slurm_takes_a_machine_away(undisturbed, tmp_path):
    """It sends SIGUSR1 before that: the run saves, the worker is put back in the queue and goes on when it starts."""
    pytest.importorskip("submitit")
    slurm = install(tmp_path / "bin")
    command = ("-m", "sweep=it", "hydra/launcher=submitit_slurm", "hydra.launcher.workers=2", *JOBS)
    process = start("train", tmp_path, *command, MARK=tmp_path.name, **slurm)
    directory = directory_of(tmp_path)
    until(lambda: half_done(directory), process)
    job, worker = next(iter(half_done(directory).items()))
    os.kill(worker, signal.SIGUSR1)
    outcome = finish(process, directory)
    assert outcome.code == 0, outcome.err
    assert results(directory) == results(undisturbed.directory)
    (told,) = (tmp_path / "bin" / "told").read_text().splitlines()
    assert re.fullmatch(r"requeue \d+_[01]", told)
    (log,) = directory.glob(f".submitit/*/*/{told.split()[1]}_0_log.out")
    assert log.read_text().count("Starting with") == 2
    assert "Saved at" in (job / "train.log").read_text()
    assert beginnings(job) == 2
    assert left_behind(tmp_path) == []
