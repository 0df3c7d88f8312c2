"""SIGINT and SIGTERM end a run after the update in progress, with everything saved."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from scorepath.callbacks import NEVER
from scorepath.errors import InterruptedRunError
from scorepath.module import PolicyGradient


class GracefulStop(pl.Callback):
    """While it is entered, the first SIGINT or SIGTERM is noted; a second SIGINT leaves at once.

    Training stops after the update in progress and the evaluation that is due after it, for an evaluation that was
    skipped might have been the one that solves. To be the last callback, which hears what the others decided.
    Lightning's own handling exits 0 on SIGTERM and saves nothing, and ends a whole multirun on SIGINT.

    Args:
        directory: of the run, to be named in the error.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.received: int | None = None
        self.at_once = False  # raise in the handler: there is nothing to be saved
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "GracefulStop":
        self._previous = self._install()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises InterruptedRunError if a signal came."""
        if self.received is not None:
            raise InterruptedRunError(self.received, self.directory)

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        self._install()  # Lightning has put its own in our place by now; it puts ours back when training ends

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.received is not None:
            # Lightning evaluates whenever it is told to stop
            module.skip_evaluation = not trainer.should_stop and trainer.val_check_batch == NEVER
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if self.received is not None:
            trainer.should_stop = True

    def _install(self) -> dict[int, Any]:
        return {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            os._exit(128 + number)
        self.received = number
        if self.at_once:
            self.check()
