"""The results of a sweep, read from the summaries of its jobs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HEADER = ("job", "status", "return", "95 % interval", "env steps", "solved at", "seconds")
_FIGURES = ("seed", "env_steps", "updates", "episodes", "train_seconds", "eval_return_mean", "solved_at_env_steps")


def read_sweep(directory: Path) -> list[dict[str, Any]]:
    """One row for each job folder of a sweep: its name as `job`, and its summary."""
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    return [{"job": folder.name, **_read_summary(folder / "summary.json")} for folder in folders]


def read_runs(directory: Path) -> list[dict[str, Any]]:
    """The same for each run in a folder at any depth, the folder itself included; `job` is its path from there."""
    files = sorted(directory.rglob("summary.json"))
    return [{"job": str(file.parent.relative_to(directory)), **_read_summary(file)} for file in files]


def _read_summary(path: Path) -> dict[str, Any]:
    """A summary whose figures are figures, or what is the matter with it as its status."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"status": "no summary"}
    except (OSError, ValueError):
        return {"status": "summary damaged"}
    if not isinstance(summary, dict) or not isinstance(summary.get("status"), str):
        return {"status": "summary damaged"}
    interval = summary.get("eval_return_ci95") or (0.0, 0.0)
    figures = [summary.get(key) for key in _FIGURES]
    whole = isinstance(interval, list | tuple) and len(interval) == 2
    if not whole or not all(isinstance(figure, int | float | None) for figure in (*figures, *interval)):
        return {"status": "summary damaged"}
    return summary


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
    """Left-aligned columns under a ruled header."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)
