"""Signals to one of several processes that learn together, with real processes; and who starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers import SCRIPTS, environment, finish, start, wait_for, with_mark

from scorepath.run.checkpoints import load_checkpoint

pytestmark = pytest.mark.faults
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "episodes_per_update=4", "eval.episodes=2")
TWO += ("record_episode=false", "logger=csv", "eval.every_env_steps=500")
ENDLESS = (*TWO, "max_env_steps=1000000000", "stop_when_solved=false")


@pytest.fixture
def pair(tmp_path):
    """A run of two processes that has saved a checkpoint: the process that was started, and the other's pid."""
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    process = start("train", tmp_path, *ENDLESS, "hydra.run.dir=run", MARK=mark)
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    (other,) = (pid for pid in with_mark(mark) if pid != process.pid)
    yield process, other
    process.kill()
    assert not with_mark(mark)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("first", [True, False])
def test_a_signal_to_one_process_stops_all_after_the_same_update(tmp_path, pair, name, first):
    process, other = pair
    os.kill(process.pid if first else other, signal.Signals[name])
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 128 + signal.Signals[name]
    assert outcome.summary["status"] == "interrupted"
    assert outcome.err.count(f"{name}: stopped after the update in progress") == 1  # and not from each
    assert "Traceback" not in outcome.err
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["scorepath"]["env_steps"] == outcome.summary["env_steps"]
    steps = outcome.summary["env_steps"] + 1000
    again = finish(
        start("train", tmp_path, *TWO, f"max_env_steps={steps}", "hydra.run.dir=run", "resume=auto"), tmp_path / "run"
    )
    assert again.code == 0, again.err
    assert again.summary["env_steps"] >= steps


def test_one_process_is_told_to_save_and_all_go_on(tmp_path, pair):
    process, other = pair
    os.kill(other, signal.SIGUSR1)
    log = tmp_path / "run" / "train.log"
    while "Saved at" not in log.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(other, signal.SIGTERM)
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 143
    assert log.read_text().count("Saved at") == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_process_that_is_killed_ends_the_others(tmp_path, pair, first):
    process, other = pair
    os.kill(process.pid if first else other, signal.SIGKILL)
    outcome = finish(process, tmp_path / "run")  # waits for the other too, which holds the same pipes
    assert outcome.code == (-signal.SIGKILL if first else 1)
    lost = "Process 0 of this run" if first else f"Process 1 of this run (pid {other}) was killed by SIGKILL"
    assert outcome.sentence.startswith(lost)
    assert outcome.sentence.endswith("continue with hydra.run.dir={} resume=auto.".format(tmp_path / "run"))
    if not first:
        assert outcome.summary["status"] == "failed"
    steps = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["scorepath"]["env_steps"] + 1000
    again = finish(
        start("train", tmp_path, *TWO, f"max_env_steps={steps}", "hydra.run.dir=run", "resume=auto"), tmp_path / "run"
    )
    assert again.code == 0, again.err


@pytest.mark.parametrize("first", [True, False])
def test_a_process_that_is_killed_while_they_start_ends_the_others(tmp_path, first):
    """Each waits for the other then, for half an hour, and hears of nothing."""
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    process = start("train", tmp_path, *ENDLESS, "hydra.run.dir=run", MARK=mark)
    while len(pids := with_mark(mark)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    (other,) = (pid for pid in pids if pid != process.pid)
    os.kill(process.pid if first else other, signal.SIGKILL)
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == (-signal.SIGKILL if first else 1)
    lost = "Process 0 of this run" if first else f"Process 1 of this run (pid {other}) was killed by SIGKILL"
    assert outcome.sentence.startswith(lost)
    assert "failed: Process 1" in (tmp_path / "run" / "train.log").read_text() or first
    assert not with_mark(mark)


def test_one_folder_whoever_starts_the_processes(tmp_path):
    """Lightning, torchrun and srun, the last one by the variables that it sets."""
    options = [*TWO, "max_env_steps=1000"]
    script = str(SCRIPTS / "train.py")
    slurm = dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"), "2")
    slurm |= {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1"}
    tasks = [{**slurm, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0"} for rank in "01"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    started = {
        "lightning": [([sys.executable, script], {})],
        "torchrun": [([*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", script], {})],
        "srun": [([sys.executable, script], variables) for variables in tasks],
    }
    digests = {}
    for name, commands in started.items():
        processes = [
            subprocess.Popen(
                [*command, *options, f"hydra.run.dir={name}"],
                cwd=tmp_path,
                env=environment(**variables),
                stderr=subprocess.PIPE,
                text=True,
            )
            for command, variables in commands
        ]
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
        digests[name] = json.loads((tmp_path / name / "summary.json").read_text())["weights_sha256"]
    assert len(set(digests.values())) == 1
    assert {path.name for path in tmp_path.iterdir()} == set(started)


def test_two_machines_that_know_of_each_other(tmp_path):
    """Which this one plays: a process each, told of the other by Lightning's variables."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    options = (*TWO, "max_env_steps=1000", "trainer.devices=1", "+trainer.num_nodes=2", "hydra.run.dir=run")
    machines = [start("train", tmp_path, *options, NODE_RANK=rank, **meeting) for rank in "01"]
    outcomes = [finish(machine, tmp_path / "run") for machine in machines]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].summary["status"] == "completed"
    assert "completed after" in outcomes[0].out
    assert "completed after" not in outcomes[1].out


def test_srun_may_start_runs_that_learn_alone(tmp_path):
    """Several tasks with a seed each: none of them is the other's rank."""
    slurm = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"}
    slurm |= {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0"}
    process = start("train", tmp_path, "max_env_steps=1000", "hydra.run.dir=run", "record_episode=false", **slurm)
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert outcome.summary["status"] == "completed"
    assert "completed after" in outcome.out
    assert list((tmp_path / "run" / "tensorboard").iterdir())
