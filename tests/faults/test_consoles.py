"""A training goes on without anybody who reads its output, with real pipes and terminals; and after a hang-up."""

import os
import signal
import subprocess
import sys

import pytest
from helpers import HOLD, PATIENCE, SCRIPTS, Outcome, environment, finish, start, train, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]
OPTIONS = ("hydra.run.dir=run", "logger=csv", "record_episode=false", "eval.episodes=3", "max_env_steps=1500")
OPTIONS += ("episodes_per_update=4", "eval.every_env_steps=500", "stop_when_solved=false")
HELD = (*OPTIONS, "env=gym", f"env.id={HOLD}", "dist=bernoulli")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    outcome = train(tmp_path_factory.mktemp("undisturbed"), *OPTIONS[1:])
    assert outcome.code == 0, outcome.err
    return outcome


def shell(folder, redirection, *overrides):
    """train.py as a line of a shell; the exit code is its own, not that of a pipe's last part."""
    command = f"set -o pipefail; {sys.executable} {SCRIPTS}/train.py {' '.join((*overrides, *OPTIONS))} {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    return Outcome(done.returncode, done.stdout, done.stderr, folder / "run")


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", "<&- >&- 2>&-", "| head -1", "2>&1 | true", ">/dev/full", ">/dev/full 2>/dev/full"],
)
def test_nobody_reads(tmp_path, undisturbed, redirection):
    outcome = shell(tmp_path, redirection)
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    assert "Logging error" not in outcome.err
    assert outcome.summary["status"] == "completed"
    assert outcome.summary["weights_sha256"] == undisturbed.summary["weights_sha256"]
    said, usual = ((run.directory / "train.log").read_text().splitlines() for run in (outcome, undisturbed))
    assert len(said) == len(usual)
    assert any("completed after" in line for line in said)


def test_a_terminal_that_is_gone(tmp_path, undisturbed):
    """EIO, with a progress bar that was shown."""
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, str(SCRIPTS / "train.py"), *OPTIONS],
        cwd=tmp_path,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    wait_for(tmp_path / "run" / "train.log", process)
    os.close(master)
    assert process.wait(PATIENCE) == 0
    outcome = Outcome(0, "", "", tmp_path / "run")
    assert outcome.summary["weights_sha256"] == undisturbed.summary["weights_sha256"]
    assert "completed after" in (tmp_path / "run" / "train.log").read_text()


def test_the_exit_code_tells_where_nothing_else_can(tmp_path):
    outcome = shell(tmp_path, ">&- 2>&-", "env=acrobot", "dist=bernoulli")
    assert outcome.code == 2
    assert "use dist=categorical" in outcome.summary["error"]


def test_a_sweep_that_nobody_reads(tmp_path):
    outcome = shell(tmp_path, "| head -1", "-m", "sweep=it", "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert len(list(tmp_path.glob("outputs/sweeps/it/*/summary.json"))) == 2


def test_a_result_that_nobody_reads_ends_as_the_shell_has_it(tmp_path, undisturbed):
    """An evaluation is nothing but what it prints."""
    command = f"{sys.executable} {SCRIPTS}/eval.py run_dir={undisturbed.directory} episodes=2"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 128 + signal.SIGPIPE
    assert not done.stderr


def test_a_hang_up_saves_as_any_end_does(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the run inherits: the tests may run under nohup
    process = start("train", tmp_path, *HELD, HOLD="training_step:600")
    signal.signal(signal.SIGHUP, before)
    wait_for(tmp_path / "held", process)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 128 + signal.SIGHUP
    assert outcome.sentence.startswith("SIGHUP: stopped after the update in progress; continue with resume=")
    assert outcome.summary["status"] == "interrupted"
    again = finish(start("train", tmp_path, *HELD, "resume=auto"), tmp_path / "run")
    assert again.code == 0, again.err
    whole = train(tmp_path, *HELD[1:], directory="whole")
    assert again.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_nohup_is_obeyed(tmp_path):
    process = subprocess.Popen(
        ["nohup", sys.executable, str(SCRIPTS / "train.py"), *HELD],
        cwd=tmp_path,
        env=environment(HOLD="training_step:600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "held", process)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert outcome.summary["status"] == "completed"
