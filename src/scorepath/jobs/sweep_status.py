"""How a sweep stands, once or until it ends. Imports no torch, and writes nothing."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scorepath.config import nearest
from scorepath.errors import ConfigError, ScorepathError
from scorepath.jobs.commands import Parser, positive, run_command
from scorepath.sweeps.progress import Standing, SweepProgress
from scorepath.sweeps.records import job_folders
from scorepath.sweeps.state import FAILED, FINISHED
from scorepath.sweeps.table import format_counts, format_progress

SWEEPS = Path("outputs", "sweeps")
_ENDED = (FINISHED, FAILED)
_DONE, _SOME_FAILED = 0, ScorepathError.exit_code


def main(arguments: Sequence[str]) -> int:
    """Prints how a sweep stands.

    Args:
        arguments: of the command line.

    Returns:
        The exit code: 1 if a job has failed; 2 for a mistake; 130 after Ctrl-C.
    """
    return run_command(_main, arguments)


def _main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="sweep.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("sweep", metavar="NAME", help="a sweep in outputs/sweeps, or the path of a sweep's folder")
    parser.add_argument("--watch", action="store_true", help="show it until all jobs have finished or failed")
    parser.add_argument("--every", type=positive, default=2.0, metavar="SECONDS", help="between two looks (2)")
    parser.add_argument("--lines", type=positive, default=10, metavar="N", help="at most, of each kind of jobs (10)")
    parser.epilog = "The exit code is 1 if a job has failed, else 0."
    chosen = parser.parse_args(arguments)
    directory = find_sweep(chosen.sweep)
    sweep, most = SweepProgress(directory), int(chosen.lines)
    standings = _watch(sweep, chosen.every, most) if chosen.watch else sweep.look()
    print(format_progress(directory, standings, most))
    sys.stdout.flush()
    return _SOME_FAILED if any(one.state == FAILED for one in standings) else _DONE


def find_sweep(name: str) -> Path:
    """The folder of a sweep.

    Args:
        name: of a sweep in outputs/sweeps, or a path.

    Raises:
        ConfigError: with the nearest name, if there is no such sweep.
    """
    for folder in (SWEEPS / name, Path(name)):
        if job_folders(folder):
            return folder
    known = sorted(path.name for path in SWEEPS.iterdir() if job_folders(path)) if SWEEPS.is_dir() else []
    near = nearest(name, known)
    remedy = f"did you mean {near}?" if near else f"there are {', '.join(known[:10]) or 'none yet'}."
    raise ConfigError(f"{name} is neither a sweep in {SWEEPS} nor the folder of one: {remedy}")


def _watch(sweep: SweepProgress, seconds: float, most: int) -> list[Standing]:
    """Shows a sweep until nothing is left of it: drawn again on a terminal, elsewhere a line for each change."""
    drawn, last = 0, ""
    while True:
        standings = sweep.look()
        over = all(one.state in _ENDED for one in standings)
        if sys.stdout.isatty():
            size = shutil.get_terminal_size()
            text = "" if over else format_progress(sweep.directory, standings, most)
            lines = [line[: size.columns - 1] for line in text.splitlines()][: size.lines - 1]
            up = f"\x1b[{drawn}A" if drawn else ""
            print(f"{up}\x1b[J" + "".join(f"{line}\n" for line in lines), end="")
            drawn = len(lines)
        elif not over and (line := format_counts(standings)).partition(";")[0] != last.partition(";")[0]:
            print(f"{time.strftime('%H:%M:%S')} {line}")
            last = line
        sys.stdout.flush()
        if over:
            return standings
        time.sleep(seconds)
