"""Lightning's Trainer around a run: which callbacks and loggers, and what is left to us."""

import contextlib
import logging
import secrets
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig

from scorepath.build import construct, make_evaluation_environment
from scorepath.callbacks import NEVER, Stopping, check_callbacks, log_on_env_steps
from scorepath.module import PolicyGradient
from scorepath.run.checkpoints import SealedCheckpointIO
from scorepath.run.signals import GracefulStop

_PATIENCE = 60.0  # seconds that a step may take before a run that is to stop is taken for hung


def kept_id(directory: Path) -> str:
    """What a logger elsewhere knows a run by: made once, and kept in its folder."""
    file = directory / ".id"
    with contextlib.suppress(FileExistsError), file.open("x", encoding="utf-8") as new:  # never through a link
        new.write(f"{secrets.token_hex(8)}\n")
    return file.read_text(encoding="utf-8").strip()


def make_trainer(
    cfg: DictConfig, directory: Path, module: PolicyGradient
) -> tuple[pl.Trainer, dict[str, pl.Callback], Stopping, GracefulStop]:
    """The Trainer, the callbacks chosen in the config, and the two callbacks that tell how the run ended."""
    judge = make_evaluation_environment(cfg.env, 1)
    stopping = Stopping(cfg.max_env_steps, judge.reward_threshold, cfg.stop_when_solved)
    judge.close()
    stop_signal = GracefulStop(directory, cfg.env.get("step_timeout") or _PATIENCE)
    chosen = {name: construct(node, f"callbacks.{name}") for name, node in (cfg.callbacks or {}).items() if node}
    check_callbacks(chosen)
    # Stopping comes first: a checkpoint saved in the same hook must hold its verdict
    callbacks = [stopping, *chosen.values(), stop_signal]
    # What an earlier part of the run wrote beyond its checkpoint is written again
    given = {} if cfg.resume is None else {"purge_step": module.env_steps + 1 if module.update_index else 0}
    loggers = []
    for name, node in (cfg.logger or {}).items():
        if not node:
            continue
        arguments: dict[str, Any] = {key: value for key, value in given.items() if key in node}
        if "id" in node and node.id is None:
            arguments["id"] = kept_id(directory)
        loggers.append(construct(node, f"logger.{name}", **arguments))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 against torch 2.13: its own matter, and nothing that a user could change
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)", category=FutureWarning)
    trainer: pl.Trainer = construct(
        cfg.trainer,
        "trainer",
        callbacks=callbacks,
        logger=loggers,
        plugins=[SealedCheckpointIO()],
        max_epochs=-1,
        check_val_every_n_epoch=None,
        val_check_interval=NEVER,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )
    log_on_env_steps(trainer, module)
    return trainer, chosen, stopping, stop_signal
