"""SIGINT and SIGTERM end a run after the update in progress, with everything saved."""

import os
import signal
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from scorepath.module import PolicyGradient


class GracefulStop(pl.Callback):
    """On the first SIGINT or SIGTERM the run stops after its update; a second SIGINT leaves at once.

    Lightning's own handling exits 0 on SIGTERM and saves nothing, and ends a whole multirun on SIGINT.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        # Lightning has installed its own by now; put back in teardown
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module.interrupted = self.received is not None
        if module.interrupted:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if self.received is not None:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, module: PolicyGradient, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            os._exit(128 + number)
        self.received = number
