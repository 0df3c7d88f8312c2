"""The progress bar: env steps of the budget, steps per second, and the returns."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from scorepath.module import PolicyGradient


class Progress(ProgressBar):
    """A tqdm bar over env steps, shown on a terminal only.

    Args:
        max_env_steps: the full length of the bar.
        show: None shows it when stderr is a terminal.
    """

    def __init__(self, max_env_steps: int, show: bool | None = None) -> None:
        super().__init__()
        self.max_env_steps = max_env_steps
        self.show = show
        self._bar: tqdm | None = None
        self._evaluation = "-"

    def disable(self) -> None:
        self.show = False

    def enable(self) -> None:
        self.show = True

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        self._bar = tqdm(
            total=self.max_env_steps,
            initial=module.env_steps,
            disable=None if self.show is None else not self.show,
            unit=" steps",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(f"return {module.rollout_return:.4g}, eval {self._evaluation}", refresh=False)
            self._bar.update(module.env_steps - self._bar.n)

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if module.evaluation is not None:
            self._evaluation = f"{module.evaluation.returns.mean():.4g}"

    def teardown(self, trainer: pl.Trainer, module: PolicyGradient, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
