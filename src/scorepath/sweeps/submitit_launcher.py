"""Jobs in a few workers of submitit, on this machine or by SLURM. Each takes what is free, so that none is idle."""

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from hydra.core.utils import JobReturn, JobStatus
from submitit.helpers import DelayedSubmission

from scorepath.errors import ConfigError, ScorepathError, SweepInterruptedError
from scorepath.run.files import write_shared
from scorepath.sweeps.losses import Losses, stamp
from scorepath.sweeps.plan import Job
from scorepath.sweeps.state import FAILED, FINISHED, RUNNING, state_of
from scorepath.sweeps.worker import Worker, failure

log = logging.getLogger("scorepath")

_LOOK = 1.0  # seconds between two looks at the workers
_PATIENCE = 60.0  # seconds that jobs have to save and stop
_TIMEOUTS = 1000  # how often a worker may be put back in the queue; each of its runs saves


class Taker:
    """Runs those of some jobs that are free, until none is; the locks of the folders share them out.

    Args:
        worker: runs a job.
        jobs: in the order in which they are looked at.
        first: number of the first.
    """

    def __init__(self, worker: Worker, jobs: Sequence[Job], first: int) -> None:
        self._worker, self._jobs = worker, dict(enumerate(jobs, first))
        # failures that are to be tried again, until they fail once more
        self._before = {job.name: _summary(job) for job in jobs if state_of(job.folder) == FAILED}

    def __call__(self) -> dict[str, str]:
        """Returns the jobs that failed here, and why."""
        signal.signal(signal.SIGTERM, _leave)  # submitit would go on
        logging.getLogger("submitit").propagate = False  # or what it says stands in the log of the last job
        self._worker.enter()
        in_hand = _in_hand(submitit.JobEnvironment())
        in_hand.unlink(missing_ok=True)  # of its life before SLURM put it back in the queue
        failed, tried = {}, set()
        while free := [number for number, job in self._jobs.items() if number not in tried and self._is_free(job)]:
            for number in free:
                job = self._jobs[number]
                if not self._is_free(job):
                    continue  # by now
                tried.add(number)
                write_shared(in_hand, job.name)
                try:
                    done = self._worker.run(job, number)
                except SweepInterruptedError as stopped:
                    sys.exit(stopped.exit_code)
                in_hand.unlink()
                if done.status == JobStatus.FAILED:
                    failed[job.name] = str(done._return_value)  # noqa: SLF001 (the property raises it)
        return failed

    def checkpoint(self) -> DelayedSubmission:
        """What takes this worker's place when its machine is taken away: itself, for the folders are the state."""
        return DelayedSubmission(self)

    def left(self) -> dict[int, Job]:
        """The jobs without a result, by their number."""
        return {number: job for number, job in self._jobs.items() if self._is_open(job)}

    def without(self, jobs: Mapping[str, Any]) -> None:
        """Leaves out jobs that were given up."""
        self._jobs = {number: job for number, job in self._jobs.items() if job.name not in jobs}

    def _is_free(self, job: Job) -> bool:
        return self._is_open(job) and state_of(job.folder) != RUNNING

    def _is_open(self, job: Job) -> bool:
        state = state_of(job.folder)
        return state != FINISHED and (state != FAILED or self._before.get(job.name) == _summary(job))


def launch(
    worker: Worker,
    jobs: Sequence[Job],
    first: int,
    attempts: int,
    cluster: str,
    workers: int,
    folder: str,
    executor: Mapping[str, Any],
) -> list[JobReturn]:
    """Has workers go through jobs until each has a result, is given up, or is in the hands of another command.

    Args:
        worker: runs a job.
        jobs: to be run.
        first: number of the first.
        attempts: how often a job may be lost without a step forward, and workers end without a job begun.
        cluster: local or slurm.
        workers: how many at a time.
        folder: of what submitit writes.
        executor: parameters of submitit's AutoExecutor.

    Raises:
        ConfigError: for parameters that submitit refuses.
        ScorepathError: if no worker begins a job.
        SweepInterruptedError: after a signal, with the workers ended.
    """
    submit = _executor(cluster, Path(folder), executor)
    taker, losses = Taker(worker, jobs, first), Losses(attempts)
    losses.begin(jobs)
    ends: dict[str, JobReturn] = {}  # of jobs without a result
    barren = 0  # workers in a row that have begun nothing
    crew = _send(submit, taker, min(workers, len(jobs)))
    try:
        while crew:
            time.sleep(_LOOK)
            ended = [member for member in crew if member.done()]
            crew = [member for member in crew if member not in ended]
            for member in ended:
                failed, lost = _report(member), _lost(member, jobs)
                barren = 0 if failed is not None or lost else barren + 1
                if barren >= attempts:
                    raise ScorepathError(
                        f"{barren} workers of submitit ended without a job begun: {_last_words(member)}"
                    )
                ends |= {name: failure(sentence) for name, sentence in (failed or {}).items()}
                for job in lost:
                    if losses.again(job):
                        log.warning("%s was lost with its worker and is launched again.", job.name)
                    else:
                        ends[job.name] = failure(losses.cause())
            if ended:
                taker.without(ends)
                left = taker.left().values()
                if not left:
                    break  # and those that still wait for a machine need none
                free = [job for job in left if state_of(job.folder) != RUNNING]
                crew += _send(submit, taker, min(len(ended), len(free)))
    finally:
        _stop(crew)
    return [ends.get(job.name, JobReturn()) for job in jobs]


def _executor(cluster: str, folder: Path, parameters: Mapping[str, Any]) -> submitit.AutoExecutor:
    own = folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}" / "%j"
    try:
        executor = submitit.AutoExecutor(own, cluster=cluster, **{f"{cluster}_max_num_timeout": _TIMEOUTS})
        executor.update_parameters(**parameters)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"hydra.launcher: submitit refuses cluster={cluster}: {' '.join(str(error).split())}"
        ) from error
    return executor


def _send(executor: submitit.AutoExecutor, taker: Taker, workers: int) -> list[submitit.Job]:
    with executor.batch():  # of SLURM, one array
        return [executor.submit(taker) for _ in range(workers)]


def _report(member: submitit.Job) -> dict[str, str] | None:
    """What a worker says of the jobs that failed, or None if it did not live to say it."""
    if not member.paths.result_pickle.exists():
        return None
    try:
        return member.result()
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        return None


def _lost(member: submitit.Job, jobs: Sequence[Job]) -> list[Job]:
    """The job that a worker had in hand when it ended, if it had one."""
    try:
        name = _in_hand(member).read_text()
    except FileNotFoundError:
        return []
    return [job for job in jobs if job.name == name and state_of(job.folder) != FINISHED]


def _in_hand(worker: submitit.Job | submitit.JobEnvironment) -> Path:
    """The file that names the job which a worker runs."""
    return worker.paths.folder / "in_hand"


def _last_words(member: submitit.Job) -> str:
    lines = [line for line in (member.stderr() or "").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no word'} ({member.paths.stderr})"


def _stop(crew: Sequence[submitit.Job]) -> None:
    """Has workers save and end, and takes back those that wait for a machine."""
    for member in crew:
        if isinstance(member, submitit.LocalJob):
            os.kill(int(member.job_id), signal.SIGTERM)  # `cancel` leaves its processes one second
        else:
            member.cancel(check=False)
    deadline = time.monotonic() + _PATIENCE
    while not all(member.done() for member in crew) and time.monotonic() < deadline:
        time.sleep(_LOOK / 10)


def _leave(number: int, frame: FrameType | None) -> None:
    """At once, as by SIGKILL, for the folders are the state; a job that is at work hears its signals itself.

    An error that is raised in the middle of an import may be lost there, and leave half a module to all later jobs.
    """
    os._exit(128 + number)


def _summary(job: Job) -> int | None:
    return stamp(job.folder / "summary.json")
