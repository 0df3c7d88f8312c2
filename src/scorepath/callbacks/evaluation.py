"""When to evaluate and when to stop, both counted in env steps."""

import sys
from typing import Any

import lightning.pytorch as pl

from scorepath.module import PolicyGradient

NEVER = sys.maxsize


class EvaluateEvery(pl.Callback):
    """Asks for Lightning's validation loop after the update that crosses a multiple of `env_steps`.

    Lightning counts validation intervals in batches, and an update has no fixed number of env steps. So the Trainer's
    interval is set from "never" to "after this batch" when an evaluation is due.
    """

    def __init__(self, env_steps: int) -> None:
        self.env_steps = env_steps
        self._before = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: PolicyGradient, batch: Any, batch_idx: int) -> None:
        self._before = module.env_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = module.env_steps // self.env_steps > self._before // self.env_steps
        trainer.val_check_batch = 1 if due else NEVER


class Stopping(pl.Callback):
    """Stops at the env-step budget, and at the threshold that counts as solved.

    Args:
        max_env_steps: the budget; the update that crosses it is the last.
        threshold: mean evaluation return that solves the environment, or None.
        stop_when_solved: stop there; else only note when it was reached first.
    """

    def __init__(self, max_env_steps: int, threshold: float | None, stop_when_solved: bool) -> None:
        self.max_env_steps = max_env_steps
        self.threshold = threshold
        self.stop_when_solved = stop_when_solved
        self.solved_at_env_steps: int | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if module.env_steps >= self.max_env_steps:
            trainer.should_stop = True  # Lightning evaluates once more before it stops

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        mean = float(trainer.callback_metrics.get("eval/return_mean", float("-inf")))
        if self.threshold is None or mean < self.threshold:
            return
        if self.solved_at_env_steps is None:
            self.solved_at_env_steps = module.env_steps
        trainer.should_stop = trainer.should_stop or self.stop_when_solved

    def state_dict(self) -> dict[str, Any]:
        return {"solved_at_env_steps": self.solved_at_env_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        solved = state_dict["solved_at_env_steps"]
        if solved is not None and not isinstance(solved, int):
            raise ValueError(f"solved_at_env_steps={solved!r:.40} is no number of steps")
        self.solved_at_env_steps = solved
