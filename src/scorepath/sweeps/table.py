"""The results of a sweep as a text table."""

from collections.abc import Sequence
from typing import Any

from scorepath.run.printing import escape

_HEADER = ("job", "status", "return", "95 % interval", "env steps", "solved at", "seconds")


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
