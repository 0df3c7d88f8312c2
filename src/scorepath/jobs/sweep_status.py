"""How a sweep stands, once or until it ends. Imports no torch, and writes nothing."""

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from scorepath.config import nearest
from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.console import consoles
from scorepath.run.printing import escape
from scorepath.sweeps.progress import Standing, SweepProgress
from scorepath.sweeps.records import job_folders
from scorepath.sweeps.state import FAILED, FINISHED
from scorepath.sweeps.table import format_counts, format_progress

_SWEEPS = Path("outputs", "sweeps")
_ENDED = (FINISHED, FAILED)
_DONE, _SOME_FAILED, _INTERRUPTED, _NO_READER = 0, ScorepathError.exit_code, 130, 141  # the last two are the shell's


class _Parser(argparse.ArgumentParser):
    """Whose errors are sentences like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is.")


def main(arguments: Sequence[str]) -> int:
    """Prints how a sweep stands.

    Args:
        arguments: of the command line.

    Returns:
        The exit code: 1 if a job has failed; 2 for a mistake; 130 after Ctrl-C.
    """
    with consoles():
        try:
            return _main(arguments)
        except ScorepathError as error:
            print(f"scorepath: {escape(str(error))}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return _INTERRUPTED
        except BrokenPipeError:
            os._exit(_NO_READER)  # `| head` is no error
        except OSError as error:
            reason = f"{error.filename} cannot be read ({error.strerror}): choose a sweep that can."
            print(f"scorepath: {escape(reason)}", file=sys.stderr)
            return ConfigError.exit_code


def _main(arguments: Sequence[str]) -> int:
    parser = _Parser(prog="sweep.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("sweep", metavar="NAME", help="a sweep in outputs/sweeps, or the path of a sweep's folder")
    parser.add_argument("--watch", action="store_true", help="show it until all jobs have finished or failed")
    parser.add_argument("--every", type=_positive, default=2.0, metavar="SECONDS", help="between two looks (2)")
    parser.add_argument("--lines", type=_positive, default=10, metavar="N", help="at most, of each kind of jobs (10)")
    parser.epilog = "The exit code is 1 if a job has failed, else 0."
    chosen = parser.parse_args(arguments)
    directory = find_sweep(chosen.sweep)
    sweep, most = SweepProgress(directory), int(chosen.lines)
    standings = _watch(sweep, chosen.every, most) if chosen.watch else sweep.look()
    print(format_progress(directory, standings, most))
    sys.stdout.flush()
    return _SOME_FAILED if any(one.state == FAILED for one in standings) else _DONE


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < 1e9:
            return number
    raise argparse.ArgumentTypeError(f"{text} must be a positive number")


def find_sweep(name: str) -> Path:
    """The folder of a sweep.

    Args:
        name: of a sweep in outputs/sweeps, or a path.

    Raises:
        ConfigError: with the nearest name, if there is no such sweep.
    """
    for folder in (_SWEEPS / name, Path(name)):
        if job_folders(folder):
            return folder
    known = sorted(path.name for path in _SWEEPS.iterdir() if job_folders(path)) if _SWEEPS.is_dir() else []
    near = nearest(name, known)
    remedy = f"did you mean {near}?" if near else f"there are {', '.join(known[:10]) or 'none yet'}."
    raise ConfigError(f"{name} is neither a sweep in {_SWEEPS} nor the folder of one: {remedy}")


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
