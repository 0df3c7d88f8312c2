"""A line in the log for each evaluation, so that a run can be followed without its progress bar."""

import logging
import time
from collections.abc import Iterable

import lightning.pytorch as pl
from tqdm import tqdm

from scorepath.callbacks import Progress
from scorepath.intervals import return_ci95
from scorepath.module import PolicyGradient
from scorepath.run.checkpoints import Checkpoints
from scorepath.run.printing import log_to_file

log = logging.getLogger("scorepath")


class EvaluationLog(pl.Callback):
    """Logs how a run stands after each evaluation, and tells the progress bar the best one.

    Args:
        max_env_steps: the budget.
        file_alone: into train.log alone, where many runs share a terminal.
        callbacks: the others, among them those that have kept the best evaluation, and that show it.
    """

    def __init__(self, max_env_steps: int, file_alone: bool, callbacks: Iterable[pl.Callback]) -> None:
        callbacks = list(callbacks)
        self.max_env_steps = max_env_steps
        self.file_alone = file_alone
        self._bars = [callback for callback in callbacks if isinstance(callback, Progress)]
        self._checkpoints = [callback for callback in callbacks if isinstance(callback, Checkpoints)]
        self._best: float | None = None
        self._began = 0, 0.0  # env steps and time at which this process began to train

    @property
    def best(self) -> float | None:
        """Mean return of the best evaluation so far, also of those before the run was resumed."""
        known = [best for best in (self._best, *(one.best for one in self._checkpoints)) if best is not None]
        return max(known, default=None)

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        self._began = module.env_steps, time.perf_counter()
        self._tell_bars()

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if not trainer.is_global_zero or module.evaluation is None:
            return
        mean, interval = return_ci95(module.evaluation, warn=False)  # that is told once, of the final one
        self._best = mean if self._best is None else max(mean, self._best)
        self._tell_bars()
        before, since = self._began
        rate = (module.env_steps - before) / (time.perf_counter() - since)  # with evaluations
        left = tqdm.format_interval(max(0, self.max_env_steps - module.env_steps) / rate) if rate else "?"
        line = (
            f"{module.env_steps:,} of {self.max_env_steps:,} env steps: return {mean:.2f}{format_interval(interval)}, "
            f"best {self.best:.2f}, {rate:,.0f} steps/s, {left} left"
        )
        if self.file_alone:
            log_to_file(line, logging.INFO)
        else:
            log.info("%s", line)

    def _tell_bars(self) -> None:
        for bar in self._bars:
            bar.best = self.best


def format_interval(interval: list[float] | None) -> str:
    """A 95 % interval in brackets, to stand behind its mean; nothing where there is none."""
    return f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
