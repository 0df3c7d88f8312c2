"""Checkpoints: best, last and the one before, written whole or not at all, sealed, and loaded as plain data."""

import hashlib
import io
import logging
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from scorepath.errors import ConfigError, OutputError
from scorepath.module import CHECKPOINT_FORMAT, PolicyGradient
from scorepath.run.archive import check_archive, check_content, check_length
from scorepath.run.files import replacing
from scorepath.run.reading import memory_bytes, open_regular

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_SEAL = b"scorepath sha256 "  # before 64 hexadecimal digits at the end of the file, where torch.load does not look

log = logging.getLogger("scorepath")


class SealedCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, and renames: a reader never sees half a file, nor one that was damaged.

    What was last.ckpt is kept as previous.ckpt. Lightning's own writer is atomic only where the system's temporary
    folder is on the target's file system, and torch's format notices few of a disk's errors.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises OutputError if it cannot be written; the older ones are then as they were."""
        target = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        keep = target.with_name(PREVIOUS) if target.name == LAST else None
        try:
            target.parent.mkdir(exist_ok=True)
            with replacing(target, keep=keep) as file:
                file.write(data)
                file.write(seal(data))
        except OSError as error:
            raise OutputError(target, error, len(data)) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return load_checkpoint(Path(path))


def seal(data: bytes) -> bytes:
    """What follows the data in a checkpoint file."""
    return _SEAL + hashlib.sha256(data).hexdigest().encode()


class Checkpoints(pl.Callback):
    """Saves `last.ckpt`, and `best.ckpt` at each new best mean; `run.schedule.Schedule` says when.

    Args:
        directory: of the files.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.best: float | None = None
        self.saved_at: int | None = None  # update

    def save(self, trainer: pl.Trainer, module: PolicyGradient, mean: float | None = None) -> None:
        """Saves what a resumed run continues from; after an evaluation, by its mean return, also whether it is best."""
        if mean is not None and (self.best is None or mean > self.best):
            self.best = mean
            trainer.save_checkpoint(self.directory / BEST)
        for logger in trainer.loggers:
            logger.save()  # a killed run must find the metrics of all that its checkpoint holds
        trainer.save_checkpoint(self.directory / LAST)
        self.saved_at = module.update_index

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        if best is not None and not (isinstance(best, float) and math.isfinite(best)):
            raise ValueError(f"best={best!r:.40} is no mean return")
        self.best = best


def read_newest(resume: str | None, run_directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that `resume` names, and its content.

    Args:
        resume: None; `auto`, the run directory's own newest one that is sound, if there is one; or the path of a
            checkpoint or of a run directory.

    Raises:
        ConfigError: if a path was given and nothing is there, or all that is there is damaged.
    """
    if resume is None:
        return None
    if "://" in resume:
        raise ConfigError(
            f"resume={resume} is an address: download the checkpoint, check its digest, and give its path."
        )
    path = run_directory if resume == "auto" else Path(resume)
    if path.is_file():
        return path, load_checkpoint(path)
    candidates = [path / "checkpoints" / name for name in (LAST, PREVIOUS)]
    candidates = [candidate for candidate in candidates if candidate.is_file()]
    if not candidates and resume == "auto":
        return None
    if not candidates:
        where = path / "checkpoints" / LAST if path.is_dir() else path
        raise ConfigError(f"resume={resume}: there is no checkpoint at {where}.")
    damages = []
    for candidate in candidates:
        try:
            content = load_checkpoint(candidate)
        except ConfigError as error:
            damages.append(str(error))
            continue
        for damage in damages:
            log.warning("%s Going back to %s.", damage, candidate)
        return candidate, content
    raise ConfigError(
        f"{' '.join(damages)} No checkpoint of this run is sound: begin it again in another folder, without resume."
    )


def _read_sealed(path: Path) -> tuple[bytes, bytes]:
    """What is in a checkpoint file, and its seal.

    It is read into memory once, and once more as tensors. What is no archive of that length, for the most part a hole,
    is refused before it is read.
    """
    length = len(seal(b""))
    try:
        with open_regular(path, memory_bytes() // 2) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - length))
            end = file.read()
            if not end.startswith(_SEAL):
                raise ConfigError(
                    f"{path} is cut off, damaged or not a checkpoint of scorepath's: its seal is missing."
                )
            check_length(file, size - length)
            file.seek(0)
            return file.read(size - length), end
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}).") from error
    except MemoryError as error:
        raise ConfigError(f"{path} cannot be read: there is not enough memory for its {size:,} bytes.") from error
    except (ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged or no checkpoint: {error}.") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data: no code in it is run.

    Raises:
        ConfigError: if it is damaged or cannot be read, or another program or a newer version wrote it.
    """
    data, end = _read_sealed(path)
    if end != seal(data):
        raise ConfigError(f"{path} is damaged: it does not agree with its own checksum.")
    try:
        check_archive(data)
        checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        version = checkpoint["scorepath"]["format"]
        is_newer = version > CHECKPOINT_FORMAT
    except Exception as error:  # torch raises half a dozen types, and MemoryError
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(f"{path} cannot be read as a scorepath checkpoint ({reason}): choose another.") from error
    if is_newer:
        raise ConfigError(f"{path} has checkpoint format {version}, newer than this version's {CHECKPOINT_FORMAT}.")
    check_content(checkpoint, path)
    return checkpoint
