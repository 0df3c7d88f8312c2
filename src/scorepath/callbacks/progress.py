"""The progress bar: env steps of the budget, steps per second, time left, and the returns."""

import contextlib
import logging
import warnings
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import TqdmWarning

from scorepath.module import PolicyGradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # of a notebook without ipywidgets, which has the log's lines
    from tqdm.auto import tqdm

# tqdm's own cuts the returns off at 80 columns
_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{rate_noinv_fmt}, {remaining} left{postfix}]"


class Progress(ProgressBar):
    """A tqdm bar over env steps, shown on a terminal and in a notebook; log lines appear above it.

    Args:
        max_env_steps: the full length of the bar.
        show: None shows it when stderr is a terminal, or this is a notebook.
    """

    def __init__(self, max_env_steps: int, show: bool | None = None) -> None:
        super().__init__()
        self.max_env_steps = max_env_steps
        self.show = show
        self.best: float | None = None  # mean return of the best evaluation; `run.evaluation_log` says it
        self._bar: tqdm | None = None
        self._opened = contextlib.ExitStack()

    def disable(self) -> None:
        self.show = False

    def enable(self) -> None:
        self.show = True

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        self._bar = self._opened.enter_context(
            tqdm(
                total=self.max_env_steps,
                initial=module.env_steps,
                disable=None if self.show is None else not self.show,
                unit=" steps",
                unit_scale=True,
                dynamic_ncols=True,
                bar_format=_FORMAT,
            )
        )
        if not self._bar.disable:
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                    self._opened.callback(handler.setStream, handler.stream)
                    handler.setStream(_AboveBar(handler.stream))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None and not self._bar.disable:
            best = "" if self.best is None else f", best {self.best:.4g}"
            self._bar.set_postfix_str(f"return {module.rollout_return:.4g}{best}", refresh=False)
            # the last update goes beyond the budget, and tqdm has no bar for more than there is
            self._bar.total = max(self.max_env_steps, module.env_steps)
            self._bar.update(module.env_steps - self._bar.n)

    def on_exception(self, trainer: pl.Trainer, module: PolicyGradient, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: pl.Trainer, module: PolicyGradient, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        self._opened.close()
        self._bar = None


class _AboveBar:
    """A stream of a log, on which the bar makes room for each line.

    tqdm's own redirection puts a handler of its own in the place of ours, which may lack its level and filters.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        tqdm.write(text, file=self._stream, end="")

    def flush(self) -> None:
        self._stream.flush()
