"""What the folders of a sweep's jobs hold: the overrides that each job is, and its results."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from scorepath.errors import ConfigError
from scorepath.run.files import write_shared
from scorepath.run.reading import read_json
from scorepath.run.trust import read_overrides
from scorepath.sweeps.state import RUNNING, WAITING, state_of

_FIGURES = ("seed", "env_steps", "updates", "episodes", "train_seconds", "eval_return_mean", "solved_at_env_steps")
_OVERRIDES = Path(".hydra", "overrides.yaml")


def record_overrides(folder: Path, overrides: Sequence[str]) -> None:
    """Writes what a job is into its folder, in the place of Hydra's own file: so it is planned, and has a name."""
    if recorded_overrides(folder) is None:
        file = folder / _OVERRIDES
        file.parent.mkdir(parents=True, exist_ok=True)
        write_shared(file, yaml.safe_dump(list(overrides), allow_unicode=True))


def known_jobs(directory: Path) -> dict[str, list[str]]:
    """The jobs that have a folder in a sweep's, by its name: their overrides, where these can be read."""
    recorded = {folder.name: recorded_overrides(folder) for folder in job_folders(directory)}
    return {name: overrides for name, overrides in recorded.items() if overrides is not None}


def recorded_overrides(folder: Path) -> list[str] | None:
    """The overrides that a job is; None if they cannot be read."""
    try:
        return read_overrides(folder / _OVERRIDES)
    except ConfigError:
        return None


def job_folders(directory: Path) -> list[Path]:
    """The folders of a sweep's jobs; a launcher and others may have put some of their own beside them."""
    folders = sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    return [path for path in folders if (path / ".hydra").is_dir() or (path / "summary.json").exists()]


def read_sweep(directory: Path) -> list[dict[str, Any]]:
    """One row for each job of a sweep: its folder's name as `job`, and its summary; without one, where it stands."""
    return [{"job": folder.name, **read_row(folder)} for folder in job_folders(directory)]


def read_runs(directory: Path) -> list[dict[str, Any]]:
    """The same for each run in a folder at any depth, the folder itself included; `job` is its path from there.

    A run that is waiting, still training, or was killed has metrics or overrides and no summary.
    """
    marks = ("summary.json", "metrics.csv", str(_OVERRIDES))
    found = sorted(path for path, _, _ in os.walk(directory) if any(Path(path, mark).is_file() for mark in marks))
    return [{"job": os.path.relpath(path, directory), **read_row(Path(path))} for path in found]


def read_row(folder: Path) -> dict[str, Any]:
    """A run's summary, whose figures are figures; or where it stands, or what is the matter, as its status."""
    state = state_of(folder)
    if state in (RUNNING, WAITING):
        return {"status": state}  # a summary would be that of an earlier attempt
    try:
        summary = read_json(folder / "summary.json")
    except FileNotFoundError:
        return {"status": state}
    except ValueError:
        return {"status": "summary damaged"}
    if not isinstance(summary, dict) or not isinstance(summary.get("status"), str):
        return {"status": "summary damaged"}
    interval = summary.get("eval_return_ci95") or (0.0, 0.0)
    figures = [summary[key] for key in _FIGURES if summary.get(key) is not None]
    whole = isinstance(interval, list | tuple) and len(interval) == 2
    if not whole or not all(map(_is_figure, (*figures, *interval))):
        return {"status": "summary damaged"}
    return summary


def _is_figure(value: Any) -> bool:
    """Whether this is a number that fits into a column of numbers: JSON's may have any length."""
    return (isinstance(value, float) and math.isfinite(value)) or (isinstance(value, int) and abs(value) < 2**63)
