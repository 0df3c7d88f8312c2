"""The results of a sweep, read from the summaries of its jobs."""

import json
from pathlib import Path
from typing import Any


def read_sweep(directory: Path) -> list[dict[str, Any]]:
    """One row for each job folder of a sweep, from its summary.json."""
    rows = []
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        file = folder / "summary.json"
        try:
            summary = json.loads(file.read_text())
        except (OSError, ValueError):
            summary = {"status": "no summary"}
        rows.append({"job": folder.name, **summary})
    return rows


def format_sweep(rows: list[dict[str, Any]]) -> str:
    """The rows as a text table."""
    header = ("job", "status", "return", "95 % interval", "env steps", "solved at", "seconds")
    table = [header]
    for row in rows:
        interval = row.get("eval_return_ci95")
        mean, solved = row.get("eval_return_mean"), row.get("solved_at_env_steps")
        table.append(
            (
                row["job"],
                row["status"],
                "-" if mean is None else f"{mean:.2f}",
                "-" if not interval else f"{interval[0]:.2f} .. {interval[1]:.2f}",
                f"{row.get('env_steps', 0):,}",
                "-" if solved is None else f"{solved:,}",
                f"{row.get('train_seconds', 0.0):.1f}",
            )
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
