"""What follows an update, in this order: an evaluation, a checkpoint, the end of training."""

import logging
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch

from scorepath.callbacks import NEVER, EvaluateEvery
from scorepath.module import PolicyGradient
from scorepath.ranks import gather, world_size
from scorepath.run.checkpoints import Checkpoints
from scorepath.run.signals import SAVE, Signals, requeue

log = logging.getLogger("scorepath")


class Schedule(pl.Callback):
    """Evaluates, saves and stops, in this order, each where it is due.

    An evaluation is due by `EvaluateEvery`, and once more after the last update of a run that ends by itself: at the
    env-step budget, at the threshold that counts as solved, or by another callback's `should_stop`. A checkpoint is due
    after each evaluation. A signal ends a run after the update in progress and the evaluation that is due after that,
    for an evaluation that was skipped might have been the one that solves; without one, it is saved before it ends.

    SIGUSR1 has a checkpoint saved after the update in progress. Where SLURM sends it before it takes the machine away
    (`--signal=SIGUSR1@90`), the job is put back in its queue, and the run stops; with resume=auto and a hydra.run.dir
    of its own it continues when SLURM starts it again.

    To be the last callback: a checkpoint then holds what the others have made of the evaluation before it.

    Args:
        max_env_steps: the budget; the update that crosses it is the last.
        threshold: mean evaluation return that solves the environment, or None.
        stop_when_solved: stop there; else only note when it was reached first.
        signals: heard while it trains.
        callbacks: the others, among them those that say when to evaluate, and where to save.
    """

    def __init__(
        self,
        max_env_steps: int,
        threshold: float | None,
        stop_when_solved: bool,
        signals: Signals,
        callbacks: Iterable[pl.Callback],
    ) -> None:
        callbacks = list(callbacks)
        self.max_env_steps = max_env_steps
        self.threshold = threshold
        self.stop_when_solved = stop_when_solved
        self.solved_at_env_steps: int | None = None
        self._signals = signals
        self._evaluations = [callback for callback in callbacks if isinstance(callback, EvaluateEvery)]
        self._checkpoints = [callback for callback in callbacks if isinstance(callback, Checkpoints)]
        self._before = 0  # env steps, before the update

    @property
    def solved(self) -> bool:
        """Whether the run has ended, or ends, by what it has solved."""
        return self.stop_when_solved and self.solved_at_env_steps is not None

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        self._signals.install()  # Lightning has put its own in our place by now; it puts ours back when training ends

    def on_train_batch_start(self, trainer: pl.Trainer, module: PolicyGradient, batch: Any, batch_idx: int) -> None:
        self._before = module.env_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = any(every.is_due(self._before, module.env_steps) for every in self._evaluations)
        # Lightning counts validation intervals in batches, and an update has no fixed number of env steps
        trainer.val_check_batch = 1 if due else NEVER
        trainer.should_stop = trainer.should_stop or module.env_steps >= self.max_env_steps
        evaluates = due or trainer.should_stop  # Lightning does before it stops; `on_validation_end` does the rest
        stops, saves = self._heard(module)
        if saves or (stops and not evaluates):
            self._save(trainer, module)
        if saves:
            self._signals.save = False
            log.info("Saved at %s env steps.", f"{module.env_steps:,}")
            if trainer.is_global_zero and requeue():
                self._signals.received = SAVE
            stops, _ = self._heard(module)
        if stops and not evaluates:
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step  # `should_stop` would have it evaluated

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        mean = float(trainer.callback_metrics["eval/return_mean"])
        if self.solved_at_env_steps is None and self.threshold is not None and mean >= self.threshold:
            self.solved_at_env_steps = module.env_steps
        self._save(trainer, module, mean)
        stops, _ = self._heard(module)
        trainer.should_stop = trainer.should_stop or self.solved or stops

    def on_train_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if any(checkpoints.saved_at != module.update_index for checkpoints in self._checkpoints):
            self._save(trainer, module)  # of a run that somebody else has ended

    def state_dict(self) -> dict[str, Any]:
        return {"solved_at_env_steps": self.solved_at_env_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        solved = state_dict["solved_at_env_steps"]
        if solved is not None and not isinstance(solved, int):
            raise ValueError(f"solved_at_env_steps={solved!r:.40} is no number of steps")
        self.solved_at_env_steps = solved

    @property
    def state_key(self) -> str:
        return "Stopping"  # under which checkpoints have always had it

    def _save(self, trainer: pl.Trainer, module: PolicyGradient, mean: float | None = None) -> None:
        for checkpoints in self._checkpoints:
            checkpoints.save(trainer, module, mean)

    def _heard(self, module: PolicyGradient) -> tuple[bool, bool]:
        """Whether to stop and to save: processes that learn together do it after the same update, whichever of them
        the signal has reached, for they wait for each other in each.
        """
        heard = [self._signals.received or 0, int(self._signals.save)]
        if world_size() > 1:
            heard = gather(torch.tensor([heard], device=module.device)).amax(dim=0).tolist()
            self._signals.received = heard[0] or self._signals.received
        return bool(heard[0]), bool(heard[1])
