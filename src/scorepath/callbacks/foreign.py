"""Callbacks of Lightning's and of users': what is refused before the first rollout, and the axis they log on."""

import traceback
from collections.abc import Mapping
from functools import wraps
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ProgressBar

from scorepath.errors import ConfigError, ScorepathError

_PREPARATION = {"setup", "on_fit_start", "on_train_start"}  # hooks before the first rollout


def check_callbacks(callbacks: Mapping[str, pl.Callback]) -> None:
    """Refuses callbacks that cannot work together, or with how runs are saved.

    Args:
        callbacks: key in `callbacks` -> callback.

    Raises:
        ConfigError: with the override that leaves one out.
    """
    for name, callback in callbacks.items():
        if isinstance(callback, Checkpoint):
            raise ConfigError(
                f"callbacks.{name}, a {type(callback).__name__}, counts and resumes by Lightning's steps, which are no "
                f"env steps: leave it out with ~callbacks.{name}; callbacks=default saves best.ckpt and last.ckpt "
                "after every evaluation (eval.every_env_steps)."
            )
    bars = [f"callbacks.{name}" for name, callback in callbacks.items() if isinstance(callback, ProgressBar)]
    if len(bars) > 1:
        raise ConfigError(f"{' and '.join(bars)} each draw a progress bar: leave one out with ~{bars[0]}.")


def explain_refusal(error: Exception, callbacks: Mapping[str, pl.Callback]) -> Exception:
    """A ConfigError where a callback has refused to begin, and else the same error."""
    if isinstance(error, ScorepathError | OSError):
        return error
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name, callback in callbacks.items():
            if frame.f_locals.get("self") is callback and frame.f_code.co_name in _PREPARATION:
                reason = " ".join(str(error).split()).rstrip(".")
                return ConfigError(f"callbacks.{name} was refused: {reason}; or leave it out with ~callbacks.{name}.")
    return error


def log_on_env_steps(trainer: pl.Trainer, module: Any) -> None:
    """Has every logger write what Lightning logs by its count of batches at the env steps of that moment.

    Ours come with env steps already, of which there are at least as many as batches: where both numbers are equal,
    they mean the same.
    """
    for logger in trainer.loggers:
        setattr(logger, "log_metrics", _on_env_steps(logger.log_metrics, trainer, module))  # noqa: B010 (mypy)


def _on_env_steps(log_metrics: Any, trainer: pl.Trainer, module: Any) -> Any:
    @wraps(log_metrics)
    def log(metrics: Mapping[str, Any], step: int | None = None) -> None:
        batches = trainer.fit_loop.epoch_loop._batches_that_stepped  # noqa: SLF001 (what Lightning's callbacks pass)
        log_metrics(metrics, step=module.env_steps if step is None or step == batches else step)

    return log
