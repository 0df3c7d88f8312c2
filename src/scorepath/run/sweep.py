"""The jobs of a sweep: how their folders are named, and their results, read from their summaries."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from scorepath.errors import ConfigError
from scorepath.run.files import write_text
from scorepath.run.printing import escape
from scorepath.run.reading import read_json
from scorepath.run.trust import read_overrides

_HEADER = ("job", "status", "return", "95 % interval", "env steps", "solved at", "seconds")
_FIGURES = ("seed", "env_steps", "updates", "episodes", "train_seconds", "eval_return_mean", "solved_at_env_steps")
_LONGEST = 120  # bytes of a name; file systems take 255, and a terminal's line has hardly more
_UNSAFE = re.compile(r"[^\w.+-]+")  # = and comma too: both would need quotes on a command line
_OVERRIDES = Path(".hydra", "overrides.yaml")


class Plan(NamedTuple):
    """How the jobs of a sweep are named; made once, where the sweep is started, and passed on to its jobs."""

    varying: list[str]  # keys and groups in which jobs differ
    names: dict[str, str]  # identity of a job's overrides -> the name of its folder
    jobs: list[str]  # the names in the order of the sweep


def key_of(override: str) -> str:
    """The key or group that an override is of."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def identity(overrides: Iterable[str]) -> str:
    """Equal for jobs of the same overrides in any order."""
    return hashlib.sha256("\n".join(sorted(overrides)).encode(errors="surrogatepass")).hexdigest()[:16]


def plan_sweep(
    directory: Path, jobs: Sequence[Sequence[str]], swept: Iterable[str], ignored: Sequence[str] = ()
) -> Plan:
    """Names the jobs of a sweep by the overrides in which they differ from each other and from those in its folder.

    A job is its overrides: one that has a folder already keeps it, whatever else is swept by now.

    Args:
        directory: of the sweep.
        jobs: the overrides of each.
        swept: keys that have several values, or may have.
        ignored: keys that do not make another job.
    """
    given = [[text for text in job if key_of(text) not in ignored] for job in jobs]
    known = {}
    for folder in job_folders(directory):
        overrides = _recorded(folder)
        if overrides is not None:
            known[folder.name] = [text for text in overrides if key_of(text) not in ignored]
    sets = [set(job) for job in (*given, *known.values())]
    common = set.intersection(*sets) if sets else set()
    varying = sorted({*swept, *(key_of(text) for job in sets for text in job - common)})
    names = {identity(job): name for name, job in known.items()}
    new = {identity(job): job_name(job, varying) for job in given if identity(job) not in names}
    taken = Counter([*known, *new.values()])
    names |= {key: name if taken[name] == 1 else f"{name}_{key[:8]}" for key, name in new.items()}
    return Plan(varying, names, [names[identity(job)] for job in given])


def job_name(overrides: Sequence[str], varying: Sequence[str]) -> str:
    """A folder's name: the overrides of the varying keys, or all if there are none; cut and hashed if too long."""
    parts = [text for text in sorted(overrides) if key_of(text) in varying] or sorted(overrides)
    return shorten([_UNSAFE.sub("-", part).strip("-") for part in parts], "_") or "defaults"


def shorten(parts: Sequence[str], separator: str) -> str:
    """The parts joined; if that is too long, the middles of the longest left out and a hash of all added."""
    whole = separator.join(parts)
    if len(whole.encode()) <= _LONGEST:
        return whole
    ending = f"{separator}{identity(parts)[:8]}"
    width = max(map(len, parts))
    while len((text := separator.join(_cut(part, width) for part in parts) + ending).encode()) > _LONGEST:
        if width == _NARROWEST:
            return text.encode()[: _LONGEST - len(ending)].decode(errors="ignore") + ending
        width -= 1
    return text


_NARROWEST = 8  # letters of a part that still say something


def _cut(part: str, width: int) -> str:
    head = (width - 3) // 2
    return part if len(part) <= width else f"{part[:head]}...{part[head + 3 - width :]}"


def record_overrides(folder: Path, overrides: Sequence[str]) -> None:
    """Writes what a job is into its folder when it begins, in the place of Hydra's own file."""
    file = folder / _OVERRIDES
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, yaml.safe_dump(list(overrides), allow_unicode=True))


def is_another_job(folder: Path, overrides: Sequence[str], ignored: Sequence[str]) -> bool:
    """Whether a folder belongs to a job of other overrides."""
    recorded = _recorded(folder)
    kept = [text for text in recorded or [] if key_of(text) not in ignored]
    return recorded is not None and identity(kept) != identity(overrides)


def _recorded(folder: Path) -> list[str] | None:
    try:
        return read_overrides(folder / _OVERRIDES)
    except ConfigError:
        return None


def job_folders(directory: Path) -> list[Path]:
    """The folders of a sweep's jobs; a launcher and others may have put some of their own beside them."""
    folders = sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    return [path for path in folders if (path / ".hydra").is_dir() or (path / "summary.json").exists()]


def read_sweep(directory: Path) -> list[dict[str, Any]]:
    """One row for each job of a sweep: its folder's name as `job`, and its summary."""
    return [{"job": folder.name, **_read_summary(folder / "summary.json")} for folder in job_folders(directory)]


def read_runs(directory: Path) -> list[dict[str, Any]]:
    """The same for each run in a folder at any depth, the folder itself included; `job` is its path from there.

    A run that is still training, or was killed, has metrics or overrides and no summary.
    """
    marks = ("summary.json", "metrics.csv", str(_OVERRIDES))
    found = sorted(path for path, _, _ in os.walk(directory) if any(Path(path, mark).is_file() for mark in marks))
    return [{"job": os.path.relpath(path, directory), **_read_summary(Path(path, "summary.json"))} for path in found]


def _read_summary(path: Path) -> dict[str, Any]:
    """A summary whose figures are figures, or what is the matter with it as its status."""
    try:
        summary = read_json(path)
    except FileNotFoundError:
        return {"status": "no summary"}
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


def format_sweep(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `read_sweep` as a text table."""
    return format_table(_HEADER, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    interval = row.get("eval_return_ci95")
    mean, solved = row.get("eval_return_mean"), row.get("solved_at_env_steps")
    return (
        row["job"],
        row["status"],
        "-" if mean is None else f"{mean:.2f}",
        "-" if not interval else f"{interval[0]:.2f} .. {interval[1]:.2f}",
        f"{row.get('env_steps') or 0:,}",
        "-" if solved is None else f"{solved:,}",
        f"{row.get('train_seconds') or 0.0:.1f}",
    )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns under a ruled header; what cells hold of files is escaped."""
    lines = [header, *([escape(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)
