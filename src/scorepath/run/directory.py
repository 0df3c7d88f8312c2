"""The run directory: one run, one folder, never written over."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from scorepath.errors import ConfigError
from scorepath.run.files import partial_of, sync, write_text
from scorepath.run.reading import read_json

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_NEEDED_BYTES = 20_000_000
_LOG_BYTES = 200_000  # of the longest log, for a start
# What a run writes whole, from its folder on
RUN_FILES = (
    *("summary.json", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"),
    *(".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"),
)
_RANKS = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")  # as Lightning, torchrun and srun give them


def is_main_process() -> bool:
    """Whether this process writes the folder and speaks for all of a distributed run."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def forget_other_tasks() -> None:
    """For a run of one process: `srun` may have started several, and Lightning would take them for ranks of one run."""
    for name in ("SLURM_PROCID", "SLURM_NTASKS"):
        os.environ.pop(name, None)


def claim(base: str) -> str:
    """Makes and returns the folder `base`, or `base_2`, `base_3`, ... if others have it: mkdir is exclusive.

    Args:
        base: a path named after the second, outputs/DATE/TIME.

    Raises:
        ConfigError: if the parent cannot be made or written to.
    """
    path = Path(base)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
            try:
                candidate.mkdir()
                return str(candidate)
            except FileExistsError:
                continue
    except OSError as error:
        raise ConfigError(unwritable(path.parent, error)) from error
    raise ConfigError(f"No free folder name is left beside {path}.")


def holds_run(directory: Path) -> bool:
    """Whether the folder has a run's results in it; that a run was refused there is none."""
    if any((directory / "checkpoints").glob("*.ckpt")):
        return True
    try:
        return read_json(directory / "summary.json").get("updates") is not None
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True  # whatever it was


def check_writable(directory: Path) -> None:
    """Refuses a folder that cannot take a run's files, by writing to it, before anything is computed.

    Raises:
        ConfigError: if it cannot be written to, or the disk is nearly full.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            file.write(b"x" * 4096)
            file.flush()
            sync(file.fileno())
    except OSError as error:
        raise ConfigError(unwritable(directory, error)) from error
    check_room(directory, 0)


def check_room(directory: Path, file_bytes: int) -> None:
    """Refuses a folder that cannot take a run's checkpoints.

    Args:
        file_bytes: of one checkpoint, of which there are three, and a fourth while it is written.

    Raises:
        ConfigError: with the bytes that are needed.
    """
    needed = _NEEDED_BYTES + 4 * file_bytes
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ConfigError(
            f"The disk of {directory} has {free:,} bytes free and this run needs about {needed:,}: free some, or set "
            "hydra.run.dir to a folder on another disk."
        )
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY and limit < file_bytes + _LOG_BYTES:
            raise ConfigError(
                f"Files in {directory} may not be longer than {limit:,} bytes, and this run's will have about "
                f"{file_bytes + _LOG_BYTES:,}: raise the limit (ulimit -f)."
            )


def unwritable(directory: Path, error: OSError) -> str:
    """One sentence about a folder that cannot be written to."""
    return (
        f"The output folder {directory} cannot be written to ({error.strerror or error}): set hydra.run.dir (or "
        "hydra.sweep.dir) to a folder that can."
    )


def clear_partial(directory: Path) -> None:
    """Clears away what a killed process had half written of a run's own files; others' are not ours to judge.

    To be called with the folder locked: what another process is just saving looks the same.
    """
    for name in RUN_FILES:
        partial_of(directory / name).unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes strict JSON in one step: a reader never sees half of it."""
    write_text(path, strict_json(content) + "\n")


def strict_json(content: dict[str, Any]) -> str:
    """JSON in which NaN and infinities, which it does not have, are null."""
    return json.dumps(json.loads(json.dumps(content), parse_constant=lambda _: None), indent=2)
