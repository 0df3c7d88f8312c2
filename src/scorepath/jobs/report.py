"""What a run says at its end: a table, or one line where it is one of many."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from scorepath.run.evaluation_log import format_interval
from scorepath.run.summary import Summary
from scorepath.sweeps.names import quoted

_BEST = Path("checkpoints", "best.ckpt")


def report_line(summary: Summary, directory: Path) -> str:
    """The run in one line."""
    return f"{_end(summary)}: {_result(summary)}. {_relative(directory)}"


def report_table(summary: Summary, directory: Path, best: float | None) -> Iterator[str]:
    """The lines of a table: the run, and what may be done with it next.

    Args:
        summary: of the run, which has ended.
        directory: of it.
        best: mean return of its best evaluation, if it had one.
    """
    folder = _relative(directory)
    solved, saved, shown = (
        summary.solved_at_env_steps,
        (directory / _BEST).is_file(),
        (directory / "tensorboard").is_dir(),
    )
    rows = {
        "status": [_end(summary)],
        "result": [_result(summary)],
        "best evaluation": [] if best is None else [f"{best:.2f}" + (f" ({_BEST})" if saved else "")],
        "solved at": [] if solved is None else [f"{solved:,} env steps"],
        "updates": [f"{summary.updates:,} of {summary.episodes:,} episodes in all"],
        "speed": [f"{summary.env_steps_per_second:,.0f} env steps/s"],
        "gradient bias": summary.gradient_bias or ["none"],
        "irreproducible": summary.irreproducible or [],
        "folder": [str(folder)],
        "evaluate": [shlex.join([*_script("eval"), f"run_dir={quoted(str(folder))}"])] if saved else [],
        "dashboard": [shlex.join([*_script("dashboard"), str(folder)])] if shown else [],
    }
    width = max(map(len, rows))
    for name, cells in rows.items():
        for number, cell in enumerate(cells):
            yield f"{name if number == 0 else '':{width}}  {cell}"


def _end(summary: Summary) -> str:
    return f"{summary.status} after {summary.env_steps:,} env steps in {summary.train_seconds:.2f} s"


def _result(summary: Summary) -> str:
    spread = format_interval(summary.eval_return_ci95)
    return f"mean return {summary.eval_return_mean:.2f}{spread} over {summary.eval_episodes} fresh episodes"


def _relative(directory: Path) -> Path:
    return directory.relative_to(Path.cwd()) if directory.is_relative_to(Path.cwd()) else directory


def _script(name: str) -> list[str]:
    """The command of a script that stands beside the one that was called."""
    return ["python", str(Path(sys.argv[0]).with_name(f"{name}.py"))]
