"""Two runs in one place, folders that are full, forbidden or gone, and memory that is too small."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import HOLD, SCRIPTS, environment, finish, machine, start, train, wait_for, without_time
from processes import PATIENCE

from scorepath.run.checkpoints import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

SMALL = ("episodes_per_update=4", "eval.episodes=2", "record_episode=false", "logger=csv")
HELD = ("env=gym", f"env.id={HOLD}", "dist=bernoulli", *SMALL, "max_env_steps=1500", "eval.every_env_steps=300")


@pytest.mark.faults
def test_a_second_run_told_the_same_folder_is_refused(tmp_path):
    """While the first one runs; the lock of one that was killed is taken over."""
    first = start("train", tmp_path, "hydra.run.dir=run", *HELD, HOLD="training_step:700")
    try:
        wait_for(tmp_path / "held", first)
        before = (tmp_path / "run" / "metrics.csv").read_bytes()
        for resume in ("resume=auto", "resume=null"):
            second = train(tmp_path, *SMALL, resume)
            assert second.code == 2
        second = train(tmp_path, *SMALL, "resume=auto")
        assert f"is in use by another run (process {first.pid})" in second.sentence
        assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
        assert not (tmp_path / "run" / "summary.json").exists()
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert train(tmp_path, *SMALL, "env=gym", f"env.id={HOLD}", "max_env_steps=1500", "resume=auto").code == 0


@pytest.mark.faults
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_second_run_is_refused_where_the_disk_has_no_locks(tmp_path, number):
    """Nor can it sync. A killed run can be resumed as usual, and ends as if it had not been killed."""
    variables = machine(tmp_path / "machine", flock=number, fsync=errno.EINVAL)
    whole = train(tmp_path, *HELD, directory="whole")
    first = start("train", tmp_path, "hydra.run.dir=run", *HELD, **variables, HOLD="training_step:700")
    try:
        wait_for(tmp_path / "held", first)
        before = (tmp_path / "run" / "metrics.csv").read_bytes()
        second = finish(start("train", tmp_path, "hydra.run.dir=run", *HELD, "resume=auto", **variables), tmp_path)
        assert second.code == 2
        assert f"is in use by another run (process {first.pid} on" in second.sentence
        assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert (tmp_path / "run" / ".lock.owner").exists()
    rest = finish(start("train", tmp_path, "hydra.run.dir=run", *HELD, "resume=auto", **variables), tmp_path / "run")
    assert rest.code == 0, rest.err
    assert rest.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert without_time(rest.rows) == without_time(whole.rows)
    assert not (tmp_path / "run" / ".lock.owner").exists()


@pytest.mark.faults
def test_two_runs_of_one_second_get_two_folders(tmp_path):
    options = ("debug=one_update", "logger=none")
    processes = [start("train", tmp_path, *options) for _ in range(3)]
    for process in processes:
        assert finish(process, tmp_path).code == 0
    assert len(list((tmp_path / "outputs").glob("*/*/summary.json"))) == 3


def limited(folder, limit, value, *overrides):
    """scripts/train.py under a limit of the system's."""

    def set_limit():
        resource.setrlimit(limit, (value, value))

    return subprocess.run(
        [sys.executable, str(SCRIPTS / "train.py"), "hydra.run.dir=run", *overrides],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE,
        preexec_fn=set_limit, check=False,
    )  # fmt: skip


def sentence(done: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.faults
def test_files_that_may_not_grow_long_enough_are_known_before_the_first_rollout(tmp_path):
    done = limited(tmp_path, resource.RLIMIT_FSIZE, 100_000, *SMALL)
    assert done.returncode == 2
    assert re.search(r"may not be longer than 100,000 bytes, and this run's will have about [\d,]+", sentence(done))


@pytest.mark.faults
def test_a_quota_that_ends_a_run_leaves_the_older_checkpoint(tmp_path):
    """metrics.csv grows beyond what a file may have."""
    options = (*SMALL, "env=lqr", "env.dynamics.horizon=2", "max_env_steps=1000000", "eval.every_env_steps=2000")
    options += ("lr_schedule=constant",)  # an update is 8 steps and a row
    done = limited(tmp_path, resource.RLIMIT_FSIZE, 450_000, *options)
    assert done.returncode == 1
    assert "could not be written: File too large" in sentence(done)
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    steps = content["scorepath"]["env_steps"]
    assert steps > 0
    rest = train(tmp_path, *options, f"max_env_steps={steps + 1}", "resume=auto")
    assert rest.code == 0, rest.err


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a file system")
def test_a_full_disk(tmp_path):
    """Known before the first rollout, or met in the middle: the older checkpoint still loads."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    try:
        options = (*SMALL, "policy.torso.hidden_sizes=[512,512]")
        small = train(disk, *options)
        assert small.code == 2
        assert re.search(r"bytes free and this run needs about [\d,]+", small.sentence)
        subprocess.run(["mount", "-o", "remount,size=80m", str(disk)], check=True)
        held = ("env=gym", f"env.id={HOLD}", "dist=bernoulli", *options, "eval.every_env_steps=300")
        process = start("train", disk, "hydra.run.dir=run", *held, "max_env_steps=100000", HOLD="training_step:900")
        wait_for(disk / "held", process)
        filler = disk / "filler"
        with filler.open("wb") as file:
            free = shutil.disk_usage(disk).free
            file.write(b"x" * (free - 100_000))
        (disk / "go").touch()
        outcome = finish(process, disk / "run")
        assert outcome.code == 1
        assert re.search(r"last.ckpt, of [\d,]+ bytes, could not be written: No space left", outcome.sentence)
        assert load_checkpoint(disk / "run" / "checkpoints" / "last.ckpt")["scorepath"]["env_steps"] > 0
        filler.unlink()
        rest = train(disk, *held, "max_env_steps=1200", "resume=auto")
        assert rest.code == 0, rest.err
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.faults
def test_a_folder_that_is_removed_while_running(tmp_path):
    process = start("train", tmp_path, "hydra.run.dir=run", *HELD, HOLD="training_step:500")
    wait_for(tmp_path / "held", process)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "go").touch()
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 1
    assert "could not be written: its folder is gone" in outcome.sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.faults
def test_too_little_memory(tmp_path):
    """Ends with a hint at what to lower, and can be resumed with that."""
    options = ("env=cartpole_torch", "episodes_per_update=20000", "estimator.log_probs=rollout", "logger=csv")
    options += ("eval.every_env_steps=1", "eval.episodes=2", "record_episode=false", "stop_when_solved=false")
    options += ("optimizer.lr=0.02", "max_env_steps=100000000")
    done = limited(tmp_path, resource.RLIMIT_AS, 5 * 2**30, *options)
    assert done.returncode == 1
    assert "There was not enough memory: lower chunk=None or choose estimator.log_probs=again" in sentence(done)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed" and "not enough memory" in summary["error"]
    steps = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["scorepath"]["env_steps"]
    rest = train(tmp_path, *options, "estimator.log_probs=again", f"max_env_steps={steps + 1}", "resume=auto")
    assert rest.code == 0, rest.err
    assert rest.summary["env_steps"] > steps
