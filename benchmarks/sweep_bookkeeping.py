"""What a sweep costs beside its training: the real loop, folders, locks and processes, with jobs that do nothing.

    python benchmarks/sweep_bookkeeping.py --jobs 1000 --workers 10 [--commands]

One command hands its jobs to processes, as a launcher does; or, with --commands, each process is a command of its own,
and all share the sweep's folder.
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from scorepath.errors import InUseError
from scorepath.run.directory import write_json
from scorepath.run.lock import locked
from scorepath.run.reading import check_run_folder
from scorepath.sources import CONF
from scorepath.sweeps import plan, sweeper
from scorepath.sweeps.loader import CachingLoader
from scorepath.sweeps.plan import Job
from scorepath.sweeps.state import settled

_RATES = 10  # learning rates of the sweep; the rest are seeds
_ROWS = 2000  # of the metrics.csv of a running job
_ROOT = Path(__file__).resolve().parents[1]
_fork = multiprocessing.get_context("fork")  # a start of its own would cost each process more than all of its jobs
_looks = _fork.Value("q", 0)


def main() -> None:
    """Prints what was measured; an error if a job was not done exactly once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--commands", action="store_true", help="each worker is a command of its own")
    parser.add_argument("--again", action="store_true", help="then the same command, which finds all done")
    parser.add_argument("--seconds", type=float, default=0.0, help="that a job takes")
    parser.add_argument("--folder", type=Path, default=None, help="on the file system to measure; a new one in it")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=chosen.folder))
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            measure(folder / "outputs" / "sweeps" / "it", chosen)
    finally:
        shutil.rmtree(folder)


def measure(directory: Path, chosen: argparse.Namespace) -> None:
    """The first command, all commands, the same command again, and a look while jobs are running."""
    sweep = Sweep(directory, chosen.jobs, chosen.seconds)
    sweeper.state_of = plan.state_of = _counted(sweeper.state_of)  # type: ignore[assignment]
    with _timed(f"{chosen.jobs:,} jobs by {chosen.workers} {'commands' if chosen.commands else 'workers'}") as used:
        if chosen.commands:
            processes = [_fork.Process(target=sweep.command) for _ in range(chosen.workers)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            if failed := sum(bool(process.exitcode) for process in processes):
                raise SystemExit(f"{failed} commands failed")
        else:
            sweep.command(chosen.workers)
    if not chosen.commands:
        print(f"  planned after {sweep.planned[0]:.2f} s, {sweep.planned[1]:.2f} CPU s")
    print(f"  {1000 * used() / chosen.jobs:.2f} CPU ms a job, {_looks.value / chosen.jobs:.1f} looks a job")
    done = [(job / "done").stat().st_size if (job / "done").exists() else 0 for job in sweep.folders()]
    if len(done) != chosen.jobs or set(done) != {1}:
        times = [done.count(number) for number in range(max(done) + 1)]
        raise SystemExit(f"{len(done)} folders; done 0, 1, 2, ... times: {times}")
    print("  each was done exactly once")
    if chosen.again:
        with _timed("the same command again"):
            sweep.command(chosen.workers)
    with sweep.running(chosen.workers), _timed(f"scripts/sweep.py, {chosen.workers} jobs running"):
        script = [sys.executable, str(_ROOT / "scripts" / "sweep.py"), str(directory), "--lines", "2"]
        shown = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    print(shown)


class Sweep:
    """A sweep whose jobs do nothing.

    Args:
        directory: of the sweep, which is not there yet.
        jobs: their number.
        seconds: that one takes.
    """

    def __init__(self, directory: Path, jobs: int, seconds: float) -> None:
        self.directory, self.seconds = directory, seconds
        rates = ",".join(f"{0.001 * (rate + 1):.3f}" for rate in range(_RATES))
        self.arguments = [f"optimizer.lr={rates}", f"seed=range(0,{jobs // _RATES})", "dist=bernoulli", "gamma=0.9"]
        loader = GlobalHydra.instance().config_loader()
        given = [f"hydra.sweep.dir={directory}", "sweep=it"]
        self.config = loader.load_configuration("train", given, RunMode.MULTIRUN)
        self.loader = CachingLoader(loader)
        self.planned = 0.0, 0.0  # seconds, and CPU seconds, until the first job could begin

    def compose(self, overrides: list[str]) -> dict[str, Any]:
        """As the sweeper does."""
        return self.loader.plain(self.config, overrides)

    def command(self, workers: int = 1) -> None:
        """One command, with processes for its jobs."""
        began, used = time.perf_counter(), time.process_time()

        def launch(jobs: Sequence[Job], first: int) -> list[JobReturn]:
            self.planned = time.perf_counter() - began, time.process_time() - used
            folders = [job.folder for job in jobs]
            if workers == 1:
                return [_done(self.seconds, folder) for folder in folders]
            with _fork.Pool(workers) as pool:
                return list(pool.imap(partial(_done, self.seconds), folders))

        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(self.arguments)
            sweeper.run_sweep(self.config, parsed, self.compose, launch, attempts=3, show=lambda _: None)

    def folders(self) -> list[Path]:
        """Of its jobs."""
        return sorted(path for path in self.directory.iterdir() if path.is_dir())

    @contextlib.contextmanager
    def running(self, number: int) -> Iterator[None]:
        """Has some jobs look as if they were running."""
        config = OmegaConf.to_yaml(self.compose(self.arguments[2:]))
        row = ",19.5,19.5,-0.0001,0.6931470036506653,1.1623526811599731,0.01,112.03386237770626,,,"
        names = "env_steps,a,b,c,d,e,f,time/env_steps_per_second,eval/return_mean,g,h"
        metrics = "\n".join([names, *(f"{78 * (update + 1)}{row}" for update in range(_ROWS)), "156"])
        with contextlib.ExitStack() as locks:
            for job in self.folders()[:number]:
                (job / "summary.json").unlink()
                (job / ".hydra" / "config.yaml").write_text(config, encoding="utf-8")
                (job / "metrics.csv").write_text(metrics, encoding="utf-8")
                locks.enter_context(locked(job))
            yield


def _done(seconds: float, folder: Path) -> JobReturn:
    """What a job's process does with its folder, without the training."""
    result = JobReturn(status=JobStatus.COMPLETED)
    check_run_folder(folder, of_sweep=True)
    with contextlib.suppress(InUseError), locked(folder):
        if settled(folder, retry_failed=False) is None:
            with (folder / "done").open("a", encoding="utf-8") as file:
                file.write("x")
            time.sleep(seconds)
            seed = int(folder.name.rpartition("-")[2])
            figures = {"seed": seed, "env_steps": 1, "train_seconds": 1.0, "eval_return_mean": 1.0 * seed}
            write_json(folder / "summary.json", {"status": "completed", **figures})
    with _looks.get_lock():
        _looks.value += 1
    return result


def _counted(function: Callable[[Path], str]) -> Callable[[Path], str]:
    """The same function, which counts its calls in all processes."""

    def call(folder: Path) -> str:
        with _looks.get_lock():
            _looks.value += 1
        return function(folder)

    return call


@contextlib.contextmanager
def _timed(what: str) -> Iterator[Callable[[], float]]:
    """Prints seconds, and CPU seconds of this process and of those that it has waited for; gives the latter."""

    def cpu() -> float:
        used: Any = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    wall, before = time.perf_counter(), cpu()
    used = 0.0
    try:
        yield lambda: used
    finally:
        used = cpu() - before
        print(f"{what}: {time.perf_counter() - wall:.2f} s, {used:.2f} CPU s", flush=True)


if __name__ == "__main__":
    main()
