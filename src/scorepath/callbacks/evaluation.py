"""When to evaluate, counted in env steps."""

import sys

import lightning.pytorch as pl

NEVER = sys.maxsize


class EvaluateEvery(pl.Callback):
    """Has an evaluation follow the update that crosses a multiple of `env_steps`; `run.schedule.Schedule` asks."""

    def __init__(self, env_steps: int) -> None:
        self.env_steps = env_steps

    def is_due(self, before: int, now: int) -> bool:
        """Whether one is, after an update that began and ended at these env steps."""
        return now // self.env_steps > before // self.env_steps
