"""The loop of a sweep: launch what is free, wait for what others hold, until each job has finished or failed.

What is done is known by the folders alone. So the same command continues a sweep that was killed, at any moment, and
several commands share one.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scorepath.errors import ConfigError, ScorepathError, SweepInterruptedError
from scorepath.run.console import outlive_consoles
from scorepath.run.directory import unwritable
from scorepath.run.files import write_shared
from scorepath.run.lock import is_locked
from scorepath.run.printing import escape
from scorepath.run.reading import check_sweep_folder
from scorepath.sweeps.job import write_failure
from scorepath.sweeps.losses import Losses, stamp
from scorepath.sweeps.plan import Compose, Job, plan_sweep
from scorepath.sweeps.records import read_sweep, record_overrides
from scorepath.sweeps.state import FAILED, FINISHED, RUNNING, read_summary, state_of
from scorepath.sweeps.stopping import passing_on
from scorepath.sweeps.table import format_sweep

log = logging.getLogger("scorepath")

Launch = Callable[[Sequence[Job], int], Sequence[JobReturn]]
_POLL = 1.0  # seconds between two looks at jobs that others hold
_NAMED = 10  # jobs of a sentence that is still read


def run_sweep(
    config: DictConfig,
    parsed: list[Override],
    compose: Compose,
    launch: Launch,
    attempts: int,
    show: Callable[[Path], None],
) -> None:
    """Has all jobs of a sweep done; prints their table, and ends the process with 1 if one has failed.

    Args:
        config: of the sweep.
        parsed: overrides, with several values for those that are swept.
        compose: overrides of a job -> its config, as plain containers.
        launch: (jobs, number of the first) -> how each ended.
        attempts: how often a job may be lost with its process, without a step forward, before it counts as failed.
        show: shows the sweep of a folder elsewhere too, however it has ended.

    Raises:
        ConfigError: for a sweep that cannot be, before one of its jobs begins.
        ScorepathError: if a signal ended it, or no process can be started.
    """
    outlive_consoles()  # the launcher's processes may be others
    directory = Path(config.hydra.sweep.dir)
    jobs = plan_sweep(directory, parsed, compose)
    check_sweep_folder(directory, [job.name for job in jobs])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_shared(directory / "multirun.yaml", OmegaConf.to_yaml(config))
        for job in jobs:
            record_overrides(job.folder, job.overrides)
    except OSError as error:
        raise ConfigError(unwritable(directory, error)) from error
    work = _Work(jobs, launch, attempts, retry_failed=bool(config.get("retry_failed")))
    log.info("%d of %d jobs of %s are to be done.", len(work.left()), len(jobs), escape(str(directory)))
    try:
        with passing_on([job.folder for job in jobs]):
            work.do()
    except SweepInterruptedError as stopped:
        raise _interrupted(stopped, jobs) from stopped
    finally:
        print(format_sweep(read_sweep(directory)))
        show(directory)
    _report(work, retry_failed="retry_failed" in config)


class _Work:
    """What is left to do of some jobs."""

    def __init__(self, jobs: Sequence[Job], launch: Launch, attempts: int, retry_failed: bool) -> None:
        self.jobs = jobs
        self.causes: dict[str, str] = {}  # why a job was given up, where its summary does not say it
        self._launch, self._attempts = launch, attempts
        self._losses = Losses(attempts)
        # failures that are to be tried again, until they fail once more
        retried = [job for job in jobs if retry_failed and state_of(job.folder) == FAILED]
        self._before = {job.name: stamp(job.folder / "summary.json") for job in retried}
        self._waited = False
        self._idle = 0  # launches in a row that have begun nothing

    def left(self) -> list[Job]:
        """The jobs that have neither finished nor failed, or are to try again."""
        return [job for job in self.jobs if self._is_open(job)]

    def do(self) -> None:
        """Launches until nothing is left."""
        while left := self.left():
            free = [job for job in left if state_of(job.folder) != RUNNING]
            if free:
                # one that has been lost twice is launched alone: it must not take others with it
                safe = [job for job in free if not self._losses.is_last(job)]
                self._do(safe or free[:1])
            else:
                if not self._waited:
                    log.info("Another process is at work on %s: waiting for it.", escape(_names(left, ", ")))
                self._waited = True
                time.sleep(_POLL)

    def _is_open(self, job: Job) -> bool:
        if job.name in self.causes:
            return False
        state = state_of(job.folder)
        if state == FAILED:
            return self._before.get(job.name) == stamp(job.folder / "summary.json")
        return state != FINISHED

    def _do(self, jobs: Sequence[Job]) -> None:
        """One launch, and what is to be learnt from it."""
        begun = {job.name: _begun(job) for job in jobs}
        self._losses.begin(jobs)
        loss: Exception | None = None
        returns: Sequence[JobReturn] = ()
        try:
            returns = self._launch(jobs, self.jobs.index(jobs[0]))
        except (ScorepathError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:  # of the launcher itself, for jobs return theirs
            loss = error
            log.warning("A process of the launcher was lost (%s): %s", type(error).__name__, _first_line(error))
        for job, result in zip(jobs, returns, strict=False):
            if result.status == JobStatus.FAILED:
                self._give_up(job, str(result._return_value))  # noqa: SLF001 (the property raises it)
        left = [job for job in jobs if self._is_open(job) and state_of(job.folder) != RUNNING]
        self._idle = self._idle + 1 if left and all(begun[job.name] == _begun(job) for job in jobs) else 0
        if self._idle >= self._attempts:
            words = f": {_first_line(loss)}" if loss is not None else ", and does not say why."
            raise ScorepathError(f"The launcher begins no job{words}") from loss
        for job in left:
            # else it has not begun, or was another process's when it was looked at
            if begun[job.name] != _begun(job) and not self._losses.again(job):
                self._give_up(job, self._losses.cause())

    def _give_up(self, job: Job, cause: str) -> None:
        """Notes why, also in the job's folder, unless it has a summary already: of what it had come to."""
        self.causes[job.name] = cause
        if not (job.folder / "summary.json").exists() and not is_locked(job.folder):
            write_failure(job.folder, cause)


def _begun(job: Job) -> tuple[int | None, ...]:
    """Changes whenever a process takes the job's folder."""
    return tuple(stamp(job.folder / name) for name in (".lock", ".lock.owner", "train.log"))


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _interrupted(stopped: SweepInterruptedError, jobs: Sequence[Job]) -> ScorepathError:
    left = [job for job in jobs if state_of(job.folder) != FINISHED]
    error = ScorepathError(
        f"{stopped}. Of {len(jobs)} jobs these are left: {_names(left, '; ')}. The same command continues with them."
    )
    error.exit_code = stopped.exit_code
    return error


def _names(jobs: Sequence[Job], separator: str) -> str:
    """The first of them by name, of the others how many."""
    names = [job.name for job in jobs[:_NAMED]]
    return separator.join([*names, *([f"{len(jobs) - _NAMED:,} more"] if len(jobs) > _NAMED else [])])


def _report(work: _Work, retry_failed: bool) -> None:
    """Which jobs have no result and why, and the exit code."""
    failed = [job for job in work.jobs if state_of(job.folder) != FINISHED]
    if not failed:
        return
    remedy = " The same command with retry_failed=true runs them again." if retry_failed else ""
    names = escape(_names(failed, ", "))
    lines = [f"scorepath: {len(failed)} of {len(work.jobs)} jobs did not finish: {names}.{remedy}"]
    for job in failed:
        cause = work.causes.get(job.name) or read_summary(job.folder).get("error") or "unknown"
        logs = [str(file) for file in sorted(job.folder.glob("*.log"))[:1]]
        lines.append(f"  {escape(job.name)}: {escape(str(cause))} ({escape(''.join(logs) or 'no log')})")
    print("\n".join(lines), file=sys.stderr)
    sys.exit(1)
