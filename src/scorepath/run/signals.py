"""SIGINT, SIGTERM and SIGHUP, by which a run is to stop, and SIGUSR1, by which it is to save: heard and kept."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from scorepath.errors import InterruptedRunError

log = logging.getLogger("scorepath")
SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none
_HANG_UP = getattr(signal, "SIGHUP", None)  # nor this
SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, _HANG_UP, SAVE) if number is not None)
_LOOK = 0.5  # seconds between two looks at a run that is to stop


class Signals:
    """While it is entered, the first SIGINT, SIGTERM or SIGHUP is noted; a second SIGINT leaves at once.

    SIGHUP comes when a terminal is closed; under `nohup` it is ignored, and a run continues. Lightning's own handling
    exits 0 on SIGTERM and saves nothing, and ends a whole multirun on SIGINT. SIGUSR1 is noted apart.

    Args:
        directory: of the run, to be named in the error.
        patience: seconds without progress after which a run that is to stop is taken for hung, and is ended.
        progress: a number, or several, that change while the run continues.
    """

    def __init__(self, directory: Path, patience: float, progress: Callable[[], Any]) -> None:
        self.directory = directory
        self.patience = patience
        self.received: int | None = None  # by which the run is to stop
        self.save = False  # whether it is to save
        self._progress = progress
        self._at_once = False
        self._left = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self._previous = self.install()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises InterruptedRunError if a signal came."""
        if self.received is not None:
            raise InterruptedRunError(self.received, self.directory)

    @contextlib.contextmanager
    def heard_at_once(self) -> Iterator[None]:
        """Signals raise InterruptedRunError, those that came before too: inside, there is nothing to be saved."""
        self.check()
        self._at_once = True
        yield
        self._at_once = False

    def install(self) -> dict[int, Any]:
        """Listens, also where another has taken the place of our handlers. Returns those of before."""
        ignored = _HANG_UP is not None and signal.getsignal(_HANG_UP) == signal.SIG_IGN
        heard = [number for number in SIGNALS if not (ignored and number == _HANG_UP)]
        return {number: signal.signal(number, self._handle) for number in heard}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == SAVE:
            self.save = True
            return
        if self.received is not None and number == signal.SIGINT:
            os._exit(128 + number)
        if self.received is None:
            threading.Thread(target=self._watch, args=(number,), daemon=True).start()
        self.received = number
        if self._at_once:
            self.check()

    def _watch(self, number: int) -> None:
        """Ends the process if the environment has hung: no update will be done then, and no handler be heard."""
        seen, since = None, time.monotonic()
        while time.monotonic() - since < self.patience:
            if self._left.wait(_LOOK):
                return
            progress = self._progress()
            if progress != seen:
                seen, since = progress, time.monotonic()
        sentence = f"scorepath: no env step in {self.patience:g} s: the environment hangs, the run is ended.\n"
        with contextlib.suppress(OSError):  # a terminal that is gone
            os.write(2, sentence.encode())
        os._exit(128 + number)


def requeue() -> bool:
    """Whether this is a job of SLURM's that is to start it again, as asked; an array's task has a name of its own."""
    if "SLURM_JOB_ID" not in os.environ:
        return False
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        log.warning("scontrol was not found, so that SLURM's job %s is not put back in the queue.", job)
        return False
    done = subprocess.run([scontrol, "requeue", job], check=False)
    if done.returncode:
        log.warning("scontrol requeue %s failed with %d: the run continues.", job, done.returncode)
    return done.returncode == 0
