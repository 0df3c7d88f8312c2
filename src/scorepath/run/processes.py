"""Processes that learn together end together, and an error names the one that was lost.

torchrun and srun watch over what they start; here it is done for those that Lightning starts, whose own watch kills all
without a word, also a first process that is just saving, and does not see that first one die.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch

from scorepath.errors import ScorepathError
from scorepath.run.printing import escape, log_to_file

_STARTER = "SCOREPATH_STARTER"  # variable of a process that Lightning has started: the pid of the one that started it
_LOOK = 0.5  # seconds between two looks
_SIGNALLED = 128  # exit codes from here on: a signal has reached all, which have agreed to end
_GRACE = 5.0  # seconds in which a process may notice by itself that it is alone, and end as after any error


class Companions:
    """Watches the other processes of a run while it is entered, until `part`.

    Where one of them is lost, the others learn of it when they exchange something next, with an error that `explain`
    puts into words. One that waits for it, as all do for each other when they start, does not: it is ended here.

    Args:
        directory: of the run, to be named in the error.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lost: str | None = None
        self._children: list[subprocess.Popen] = []
        self._launcher: Any = None
        self._starter = os.environ.pop(_STARTER, None)
        self._apart = threading.Event()
        self._one_looks = threading.Lock()

    def __enter__(self) -> "Companions":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.part()

    def part(self) -> None:
        """From here on each process is on its own."""
        self._apart.set()
        os.environ.pop(_STARTER, None)

    def launched_by(self, trainer: pl.Trainer) -> None:
        """Watches what this Trainer is about to start, too."""
        launcher: Any = trainer.strategy.launcher
        if hasattr(launcher, "procs") and not launcher.cluster_environment.creates_processes_externally:
            self._launcher = launcher
            os.environ[_STARTER] = str(os.getpid())

    def explain(self, error: Exception) -> Exception:
        """The same error, or one sentence if it is of a connection to a process that has ended."""
        if not isinstance(error, torch.distributed.DistError) and "by peer" not in str(error):  # closed, or reset
            return error
        until = time.monotonic() + _GRACE
        while not self._look() and self._watches() and time.monotonic() < until:
            time.sleep(_LOOK)  # its connection is closed before it is gone
        return ScorepathError(self._sentence())

    def _sentence(self) -> str:
        who = self.lost or "Another process of this run has ended, as it may say above"
        return f"{who}, and the others end with it: continue with hydra.run.dir={self.directory} resume=auto."

    def _watches(self) -> bool:
        return self._starter is not None or self._launcher is not None

    def _watch(self) -> None:
        while not self._look():
            if self._apart.wait(_LOOK):
                return
        if not self._apart.wait(_GRACE):
            self._end()

    def _look(self) -> bool:
        """Whether a process was lost."""
        with self._one_looks:
            if self._starter is not None and os.getppid() != int(self._starter):
                self.lost = f"Process 0 of this run (pid {self._starter}), which has started this one, has ended"
            # out of Lightning's own list, whose watch then has nobody to look after
            while started := getattr(self._launcher, "procs", None):
                self._children.append(started.pop(0))
            for rank, child in enumerate(self._children, 1):
                code = child.poll()
                if code and code < _SIGNALLED and self.lost is None:
                    how = (
                        f"was killed by {signal.Signals(-code).name}"
                        if code < 0
                        else f"has ended with exit code {code}"
                    )
                    self.lost = f"Process {rank} of this run (pid {child.pid}) {how}"
            return self.lost is not None

    def _end(self) -> NoReturn:
        sentence = self._sentence()
        log_to_file(f"failed: {sentence}")
        with contextlib.suppress(OSError):  # a terminal that is gone
            os.write(2, f"scorepath: {escape(sentence)}\n".encode())
        for child in self._children:
            child.kill()
        os._exit(ScorepathError.exit_code)
