"""What the command-line tests share: a command run in this process or in one of its own, and its outcome.

This module also registers environments, by `helpers:Id` also for processes that do not load conftest.py.
"""

import contextlib
import gc
import hashlib
import io
import json
import logging
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import lightning.pytorch as pl
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from hydra.core.global_hydra import GlobalHydra
from processes import PATIENCE, ROOT, environment

from scorepath.cli import main
from scorepath.envs.dynamics import Pendulum
from scorepath.module import AbstractObserver
from scorepath.run.csv_logger import read_metrics

CONF = ROOT / "conf"
SCRIPTS = ROOT / "scripts"
# the least that a run can do, whatever its environment
ONE_UPDATE = ("debug=one_update", "logger=none", "callbacks=none")
HOLD = "helpers:HoldCartPole-v0"
FAULTY = "helpers:FaultyCartPole-v0"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
    directory: Path

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.directory / "summary.json").read_text())

    @property
    def rows(self) -> list[dict[str, str]]:
        return read_metrics(self.directory / "metrics.csv")

    @property
    def sentence(self) -> str:
        """What it said of a mistake, which must be one line of stderr."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("scorepath: "), self.err
        return lines[0].removeprefix("scorepath: ")


def train(folder: Path, *overrides: str, directory: str | None = "run") -> Outcome:
    """scripts/train.py in this process, with `folder` as the working directory and `folder/directory` as the run's."""
    if directory is not None:
        overrides = (f"hydra.run.dir={directory}", *overrides)
    return _run_here("train", folder, directory or ".", *overrides)


def succeed(outcome: Outcome) -> Outcome:
    """The outcome of a command that must have ended well."""
    assert outcome.code == 0, outcome.err
    return outcome


def snapshot(directory: Path) -> dict[str, bytes]:
    """All files below a directory, by their paths."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def fork(folder: Path, *overrides: str, command: Callable[..., Outcome] = train) -> int:
    """A run, or another command, in a process of its own; exits with the command's code. Returns its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that are held elsewhere: ours hold nothing
        pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        outcome = command(folder, *overrides)
        (folder / "said").write_text(outcome.out + outcome.err)
        code = outcome.code
    except BaseException:
        (folder / "said").write_text(traceback.format_exc())
    finally:
        os._exit(code)
    return 0


def sweep(folder: Path, *overrides: str, name: str = "it") -> Outcome:
    """scripts/train.py --multirun in this process."""
    return _run_here("train", folder, f"outputs/sweeps/{name}", "-m", f"sweep={name}", *overrides)


def search(folder: Path, *overrides: str, name: str = "it") -> Outcome:
    """scripts/search.py in this process."""
    return _run_here("search", folder, f"outputs/searches/{name}", f"search={name}", *overrides)


def searched(directory: Path) -> list[tuple]:
    """The trials of a search's folder, as Optuna itself reads them: number, state, setting, value, values on seeds."""
    import optuna  # an extra

    backend = optuna.storages.journal.JournalFileBackend(str(directory / "journal.log"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return [
        (trial.number, trial.state.name, trial.params, trial.value, trial.user_attrs.get("values", []))
        for trial in study.get_trials()
    ]


def evaluate(folder: Path, *overrides: str) -> Outcome:
    """scripts/eval.py in this process."""
    return _run_here("eval", folder, ".", *overrides)


def plot(folder: Path, *overrides: str) -> Outcome:
    """scripts/plot.py in this process."""
    return _run_here("plot", folder, ".", *overrides)


def check_gradient(folder: Path, *overrides: str) -> Outcome:
    """scripts/check_gradient.py in this process."""
    return _run_here("check_gradient", folder, ".", *overrides)


def compare(folder: Path, *overrides: str) -> Outcome:
    """scripts/compare_estimators.py in this process."""
    return _run_here("compare_estimators", folder, ".", *overrides)


def benchmark(folder: Path, *overrides: str) -> Outcome:
    """scripts/benchmark.py in this process, which starts those that it measures."""
    return _run_here("benchmark", folder, ".", *overrides)


def _job(config: str) -> Callable[[Any], Any]:
    """What a script hands to `main`."""
    return runpy.run_path(str(SCRIPTS / f"{config}.py"))["evaluate" if config == "eval" else config]


def _run_here(config: str, folder: Path, directory: str, *overrides: str) -> Outcome:
    """A command as its script would run it, with all that it leaves in the process put back."""
    out, err = io.StringIO(), io.StringIO()
    environ, argv, cwd = dict(os.environ), sys.argv, Path.cwd()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in `environment`: networks this small gain nothing from a second
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    sys.argv = [str(SCRIPTS / f"{config}.py"), *overrides]
    os.chdir(folder)
    GlobalHydra.instance().clear()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(config, _job(config))
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except Exception:
        code = 1  # the interpreter's
        err.write(traceback.format_exc())
    finally:
        GlobalHydra.instance().clear()
        gc.unfreeze()  # a process of its own would end now, and need not search for garbage
        gc.enable()
        torch.set_num_threads(threads)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = argv
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    return Outcome(code, out.getvalue(), err.getvalue(), folder / directory)


# What the system answers: the machine's fault, in a process that knows nothing of it
MACHINE = """
import fcntl, os
def answer(number):
    def call(*args):
        raise OSError(number, os.strerror(number))
    return call
if "FLOCK" in os.environ:
    fcntl.flock = answer(int(os.environ["FLOCK"]))
if "FSYNC" in os.environ:
    os.fsync = answer(int(os.environ["FSYNC"]))
"""


def machine(folder: Path, **answers: int) -> dict[str, str]:
    """Environment of a process to which the system's calls `flock` and `fsync` answer with errors.

    Args:
        folder: for what the process loads at its start.
        answers: name of a call -> errno.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(MACHINE)
    variables = environment(**{name.upper(): str(number) for name, number in answers.items()})
    return {**variables, "PYTHONPATH": f"{folder}{os.pathsep}{variables['PYTHONPATH']}"}


def start(script: str, folder: Path, *overrides: str, **variables: str) -> subprocess.Popen:
    """A script in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / f"{script}.py"), *overrides],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, directory: Path) -> Outcome:
    """Waits for a process of `start`."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"did not end in {PATIENCE:g} s:\n{out}\n{err}") from None
    return Outcome(process.returncode, out, err, directory)


def with_mark(mark):
    """Processes that were started with this in their environment, or are forks of one that was."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _has_mark(folder, mark)]


def _has_mark(folder, mark):
    try:
        return mark.encode() in (folder / "environ").read_bytes() and " Z " not in (folder / "stat").read_text()
    except OSError:  # another user's, or gone
        return False


_REPORT_IMPORTS = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *{"torch", "lightning", "matplotlib"} & set(sys.modules)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def imported_by(script: str, folder: Path, *overrides: str) -> set[str]:
    """Which of the heavy packages a command imports, in a process of its own."""
    command = [sys.executable, "-c", _REPORT_IMPORTS, str(SCRIPTS / f"{script}.py"), *overrides]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, f"ended with {process.returncode} before {path}: {process.communicate()}"
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be written: mounted so where the user may, who is not stopped by permissions."""
    if os.geteuid():
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    mount = ["mount", "--bind", str(folder), str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("neither permissions nor a mount can keep this user from writing")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of a metrics.csv without the columns that differ from run to run."""
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def _runs_under(function: str) -> bool:
    """Whether a function of that name is calling: an environment cannot see else what it is played for."""
    return any(frame.f_code.co_name == function for frame, _ in traceback.walk_stack(None))


class Digests(pl.Callback):
    """Every process writes the digest of what it has learned, statistics included, to compare them."""

    def on_train_end(self, trainer, module):
        content = b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())
        Path(f"rank_{trainer.global_rank}").write_text(hashlib.sha256(content).hexdigest())


class Returns(AbstractObserver):
    """Every process writes the returns of its own episodes."""

    def is_due(self, update_index):
        return True

    def observe(self, module, episodes, weighed, window):
        returns = " ".join(str(float(value)) for value in episodes.episode_returns)
        Path(f"returns_{os.environ.get('LOCAL_RANK', 0)}").write_text(returns)
        return {}


class FallingPendulum(Pendulum):
    """A pendulum whose episode ends when it hangs."""

    terminates = True

    def terminal(self, state):
        return state[:, 0].cos() < -0.99


class Hold(CartPoleEnv):
    """CartPole that stops in the middle of a step to let a test send its signal.

    HOLD=FUNCTION!OTHER:NUMBER makes it write the file `held` in the working directory at the NUMBERth step that is
    played for FUNCTION and not for OTHER, and wait there until the file `go` appears. It holds once.
    """

    steps = 0

    def step(self, action):
        if where := os.environ.get("HOLD"):
            self._hold(*where.split(":"))
        return super().step(action)

    @staticmethod
    def _hold(function: str, number: str) -> None:
        wanted, _, unwanted = function.partition("!")
        if not _runs_under(wanted) or _runs_under(unwanted):
            return
        Hold.steps += 1
        if Hold.steps == int(number):
            Path("held").touch()
            deadline = time.monotonic() + PATIENCE  # or a test that fails leaves it waiting for ever
            while not Path("go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)


class Faulty(CartPoleEnv):
    """CartPole that breaks at the seventh step of an episode, after a hundred steps under the function `under`.

    Args:
        bad: what is NaN: `reward` or `observation`; `raise` divides by zero, `exit` calls sys.exit, `die`
            kills the process.
        under: name of the function that must be calling.
    """

    def __init__(self, bad, under):
        super().__init__()
        self.bad, self.under = bad, under
        self.steps = self.total = 0

    def reset(self, **kwargs):
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        self.total += _runs_under(self.under)
        observation, reward, terminated, truncated, info = super().step(action)
        if self.total > 100 and self.steps == 7:
            if self.bad == "raise":
                reward = 1 // 0
            elif self.bad == "exit":
                sys.exit(3)
            elif self.bad == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.bad == "reward":
                reward = math.nan
            else:
                observation[:] = math.nan
        return observation, reward, terminated, truncated, info


gym.register("HoldCartPole-v0", Hold, max_episode_steps=60, disable_env_checker=True)
gym.register("FaultyCartPole-v0", Faulty, max_episode_steps=60, disable_env_checker=True)
