"""The results of a sweep, and how far it has come, as text tables."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scorepath.run.printing import escape
from scorepath.sweeps.progress import STATES, Standing, best_job, best_setting, seconds_left
from scorepath.sweeps.state import FAILED, RUNNING, STOPPED, WAITING

_LONGEST = 300  # letters of a cause
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


def format_progress(directory: Path, standings: Sequence[Standing], most: int) -> str:
    """How a sweep stands: its counts, its running and its failed jobs, and the best so far.

    Args:
        directory: of the sweep.
        standings: of its jobs.
        most: lines of each kind of jobs.
    """
    running = [one for one in standings if one.state == RUNNING]
    failed = [one for one in standings if one.state == FAILED]
    number = f"{len(standings):,} job{'s' if len(standings) > 1 else ''}"
    blocks = [f"{escape(str(directory))}: {number}: {format_counts(standings)}"]
    if running:
        header = ("running", "done", "env steps", "time left")
        blocks.append(format_table(header, [_running_cells(one) for one in running[:most]]) + _more(running, most))
    if failed:
        blocks.append("\n".join(["failed", *map(_failed_line, failed[:most])]) + _more(failed, most))
    best = [("setting", best_setting(standings)), ("job", best_job(standings))]
    rows = [(kind, one.name, f"{one.mean:.2f}", str(one.seeds)) for kind, one in best if one is not None]
    if rows:
        blocks.append(format_table(("best", "so far", "return", "seeds"), rows))
    return "\n\n".join(blocks)


def format_counts(standings: Sequence[Standing]) -> str:
    """How many jobs stand where, and the time that is left, in one line."""
    states = Counter(one.state for one in standings)
    counts = ", ".join(f"{states[state]:,} {state}" for state in STATES if states[state])
    if not states[RUNNING]:
        idle = states[STOPPED] or states[WAITING]
        return counts + ("; no process is at work on it: the command that began it continues it" if idle else "")
    left = seconds_left(standings)
    return f"{counts}; {'time left unknown' if left is None else f'about {format_seconds(left)} left'}"


def format_seconds(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next((place for place, (number, _) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number:,} {unit}" for number, unit in units[first : first + 2])


def _running_cells(standing: Standing) -> tuple[str, ...]:
    progress = standing.progress
    if progress is None or progress.env_steps is None:
        return standing.job, "-", "-", "-"
    budget = "?" if progress.max_env_steps is None else f"{progress.max_env_steps:,}"
    return (
        standing.job,
        "-" if progress.share is None else f"{progress.share:.0%}",
        f"{progress.env_steps:,} of {budget}",
        "-" if progress.seconds_left is None else format_seconds(progress.seconds_left),
    )


def _failed_line(standing: Standing) -> str:
    """The cause, and where to read on."""
    cause = textwrap.shorten(str(standing.summary.get("error") or "unknown"), _LONGEST, placeholder=" ...")
    logs = [str(file) for file in sorted(standing.folder.glob("*.log"))[:1]]
    return f"  {escape(standing.job)}: {escape(cause)} ({escape(''.join(logs) or 'no log')})"


def _more(jobs: Sequence[Standing], most: int) -> str:
    return f"\n  and {len(jobs) - most:,} more" if len(jobs) > most else ""
