"""Lightning's Trainer around a run, its callbacks and its loggers."""

import contextlib
import logging
import secrets
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from scorepath.build import construct
from scorepath.callbacks import NEVER, check_callbacks, log_on_env_steps
from scorepath.module import PolicyGradient
from scorepath.run.checkpoints import SealedCheckpointIO


def kept_id(directory: Path) -> str:
    """What a logger elsewhere knows a run by: made once, and kept in its folder."""
    file = directory / ".id"
    with contextlib.suppress(FileExistsError), file.open("x", encoding="utf-8") as new:  # never through a link
        new.write(f"{secrets.token_hex(8)}\n")
    return file.read_text(encoding="utf-8").strip()


def make_callbacks(cfg: DictConfig) -> dict[str, pl.Callback]:
    """Those chosen in the config, by their keys.

    Raises:
        ConfigError: for some that cannot work together, or with how runs are saved.
    """
    chosen = {name: construct(node, f"callbacks.{name}") for name, node in (cfg.callbacks or {}).items() if node}
    check_callbacks(chosen)
    return chosen


def make_loggers(cfg: DictConfig, directory: Path, module: PolicyGradient) -> list[Logger]:
    """Those chosen in the config; what an earlier part of the run wrote beyond its checkpoint is written again."""
    given = {} if cfg.resume is None else {"purge_step": module.env_steps + 1 if module.update_index else 0}
    loggers = []
    for name, node in (cfg.logger or {}).items():
        if not node:
            continue
        arguments: dict[str, Any] = {key: value for key, value in given.items() if key in node}
        if "id" in node and node.id is None:
            arguments["id"] = kept_id(directory)
        loggers.append(construct(node, f"logger.{name}", **arguments))
    return loggers


def make_trainer(
    cfg: DictConfig, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger], module: PolicyGradient
) -> pl.Trainer:
    """The Trainer, with all that is left to us."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 against torch 2.13: its own matter, and nothing that a user could change
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)", category=FutureWarning)
    trainer: pl.Trainer = construct(
        cfg.trainer,
        "trainer",
        callbacks=list(callbacks),
        logger=list(loggers),
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
    return trainer
