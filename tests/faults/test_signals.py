"""Signals beyond those of tests/app/test_resume.py: saving on demand, SLURM, hung environments, sweeps."""

import json
import os
import signal

import pytest
from helpers import HOLD, finish, start, train, wait_for, without_time

from scorepath.run.checkpoints import load_checkpoint

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

HELD = (
    *("env=gym", f"env.id={HOLD}", "dist=bernoulli", "logger=csv", "record_episode=false", "episodes_per_update=4"),
    *("eval.episodes=3", "eval.every_env_steps=100000", "max_env_steps=1500"),
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    outcome = train(tmp_path_factory.mktemp("uninterrupted"), *HELD)
    assert outcome.code == 0, outcome.err
    return outcome


def held(folder, *overrides, at="training_step:600", **variables):
    process = start("train", folder, "hydra.run.dir=run", *HELD, *overrides, HOLD=at, **variables)
    wait_for(folder / "held", process)
    return process


def test_sigusr1_saves_and_goes_on(tmp_path, uninterrupted):
    process = held(tmp_path)
    assert not (tmp_path / "run" / "checkpoints").exists()
    process.send_signal(signal.SIGUSR1)
    (tmp_path / "go").touch()
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "Saved at" in outcome.out
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "previous.ckpt")["scorepath"]["env_steps"]
    # at the end of the update in progress
    ends = [int(row["env_steps"]) for row in uninterrupted.rows if row["rollout/episode_return_mean"]]
    assert saved == next(end for end in ends if end >= 600)
    assert outcome.summary["weights_sha256"] == uninterrupted.summary["weights_sha256"]
    assert without_time(outcome.rows) == without_time(uninterrupted.rows)


def test_slurm_takes_the_machine_away(tmp_path, uninterrupted):
    """With SLURM's variables, and a scontrol that writes down what it is told; then the job starts again."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scontrol = tools / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"}
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    process = held(tmp_path, "resume=auto", PATH=path, **slurm)
    process.send_signal(signal.SIGUSR1)
    (tmp_path / "go").touch()
    stopped = finish(process, tmp_path / "run")
    assert stopped.code == 128 + signal.SIGUSR1
    assert (tmp_path / "told").read_text() == "requeue 4711\n"
    assert stopped.summary["status"] == "interrupted"
    assert 600 <= stopped.summary["env_steps"] < 1500
    again = finish(
        start("train", tmp_path, "hydra.run.dir=run", *HELD, "resume=auto", PATH=path, **slurm), tmp_path / "run"
    )
    assert again.code == 0, again.err
    assert again.summary["weights_sha256"] == uninterrupted.summary["weights_sha256"]
    assert without_time(again.rows) == without_time(uninterrupted.rows)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_hung_environment_does_not_keep_the_process(tmp_path, name):
    """It holds for ever: after `step_timeout` without a step the run is ended with the signal's code."""
    process = held(tmp_path, "env.step_timeout=2")
    process.send_signal(signal.Signals[name])
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 128 + signal.Signals[name]
    assert "no env step in 2 s: the environment hangs" in outcome.err


def test_an_interrupted_sweep_says_which_jobs_are_left(tmp_path):
    overrides = ("-m", "sweep=it", "seed=0,1,2", *HELD)
    process = start("train", tmp_path, *overrides, HOLD="training_step:600")
    wait_for(tmp_path / "held", process)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    stopped = finish(process, tmp_path)
    assert stopped.code == 143
    assert "Of 3 jobs these are left: seed-0; seed-1; seed-2. The same command continues" in stopped.sentence
    rest = finish(start("train", tmp_path, *overrides), tmp_path)
    assert rest.code == 0, rest.err
    statuses = [json.loads(path.read_text())["status"] for path in tmp_path.glob("outputs/sweeps/it/*/summary.json")]
    assert statuses == ["completed"] * 3
