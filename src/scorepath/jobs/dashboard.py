"""TensorBoard over a sweep or a folder of runs: short names, columns of what varies, means over seeds."""

import contextlib
import io
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from scorepath.dashboards.view import View
from scorepath.errors import ConfigError
from scorepath.jobs.commands import Parser, positive, run_command
from scorepath.jobs.sweep_status import SWEEPS, find_sweep
from scorepath.sweeps.records import read_runs

_OUTPUTS = Path("outputs")
_HIGHEST = 65_535  # port


def main(arguments: Sequence[str]) -> int:
    """Serves TensorBoard until Ctrl-C.

    Args:
        arguments: of the command line.

    Returns:
        The exit code: 0 after Ctrl-C, 2 for a mistake.
    """
    return run_command(_main, arguments)


def _main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="dashboard.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "runs", metavar="NAME", nargs="?", help="a sweep in outputs/sweeps, or a folder of runs (default: outputs)"
    )
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    parser.add_argument("--every", type=positive, default=5.0, metavar="SECONDS", help="between two looks for more (5)")
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.port <= _HIGHEST:
        raise ConfigError(f"--port={chosen.port} is no port: choose one from 1 to {_HIGHEST}, or leave it out.")
    runs = find_runs(chosen.runs)
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no second one
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # or the folder of links would be left
    with tempfile.TemporaryDirectory(prefix="scorepath-dashboard-") as folder:
        view = View(runs, Path(folder))
        count = view.refresh()
        with contextlib.suppress(KeyboardInterrupt), serving(Path(folder), chosen.port, chosen.every) as address:
            print(f"{count} {'run' if count == 1 else 'runs'} of {runs}: {address} (Ctrl-C ends it)")
            sys.stdout.flush()
            while True:
                time.sleep(chosen.every)
                with contextlib.suppress(OSError):  # of a run that is just being removed, say: the next look sees it
                    view.refresh()
    return 0


def find_runs(name: str | None) -> Path:
    """The folder of the runs that are meant.

    Args:
        name: of a sweep in outputs/sweeps, or a path; None takes outputs.

    Raises:
        ConfigError: if there are none.
    """
    if name is None:
        if read_runs(_OUTPUTS):
            return _OUTPUTS
        raise ConfigError(f"There are no runs in {_OUTPUTS}: train one, or name the folder that they are in.")
    folder = Path(name)
    if not (SWEEPS / name).is_dir() and folder.is_dir() and read_runs(folder):
        return folder
    return find_sweep(name)


@contextlib.contextmanager
def serving(folder: Path, port: int, seconds: float) -> Iterator[str]:
    """TensorBoard over a folder, in a thread of this process. Yields its address.

    Args:
        folder: that it reads.
        port: on 127.0.0.1; 0 takes a free one.
        seconds: between two readings.

    Raises:
        ConfigError: if the port is taken.
    """
    from tensorboard import program  # noqa: PLC0415 (slow)

    board = program.TensorBoard()
    options = {"--logdir": folder, "--host": "127.0.0.1", "--port": port, "--reload_interval": max(1, round(seconds))}
    board.configure(argv=["tensorboard", *(f"{name}={value}" for name, value in options.items())])
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it says that reading fast is an experiment
            address = board.launch()
    except program.TensorBoardServerException as error:
        raise ConfigError(f"{' '.join(str(error).split())}: choose another --port, or leave it out.") from error
    yield address
