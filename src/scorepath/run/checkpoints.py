"""Checkpoints: best and last, written whole or not at all, loaded as plain data."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from scorepath.errors import ConfigError
from scorepath.module import CHECKPOINT_FORMAT, PolicyGradient


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, and renames: a reader never sees half a file.

    Lightning's own writer is atomic only where the system's temporary folder is on the target's file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


class Checkpoints(pl.Callback):
    """Saves `last.ckpt` after each evaluation and at the end of training, and `best.ckpt` at each new best mean.

    Args:
        directory: of the files.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.best: float | None = None
        self._saved_at = -1

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if trainer.sanity_checking or "eval/return_mean" not in trainer.callback_metrics:
            return
        mean = float(trainer.callback_metrics["eval/return_mean"])
        improved = self.best is None or mean > self.best
        if improved:
            self.best = mean
            trainer.save_checkpoint(self.directory / "best.ckpt")
        self._save_last(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if self._saved_at != module.update_index:
            self._save_last(trainer, module)

    def _save_last(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        for logger in trainer.loggers:
            logger.save()  # a killed run must find the metrics of all that its checkpoint holds
        trainer.save_checkpoint(self.directory / "last.ckpt")
        self._saved_at = module.update_index

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


def find_checkpoint(resume: str | None, run_directory: Path) -> Path | None:
    """The checkpoint that `resume` names.

    Args:
        resume: None; `auto`, the run directory's own last.ckpt if there is one; or the path of a checkpoint or of a
            run directory.

    Raises:
        ConfigError: if a path was given and nothing is there.
    """
    if resume is None:
        return None
    if resume == "auto":
        own = run_directory / "checkpoints" / "last.ckpt"
        return own if own.exists() else None
    path = Path(resume)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise ConfigError(f"resume={resume}: there is no checkpoint at {path}.")
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data: no code in it is run.

    Raises:
        ConfigError: if it cannot be read, or another program or a newer version wrote it.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        version = checkpoint["scorepath"]["format"]
    except Exception as error:  # torch raises half a dozen types for a damaged file
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(f"{path} cannot be read as a scorepath checkpoint ({reason}): choose another.") from error
    if version > CHECKPOINT_FORMAT:
        raise ConfigError(f"{path} has checkpoint format {version}, newer than this version's {CHECKPOINT_FORMAT}.")
    return checkpoint
