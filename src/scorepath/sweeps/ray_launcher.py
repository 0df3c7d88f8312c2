"""Jobs as tasks of Ray, on this machine or on a cluster. One that is lost with its worker goes on in another."""

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from hydra.core.utils import JobReturn
from ray.exceptions import RayError

from scorepath.errors import ScorepathError, SweepInterruptedError
from scorepath.run.signals import SAVE, SIGNALS
from scorepath.sweeps.losses import Losses
from scorepath.sweeps.plan import Job
from scorepath.sweeps.worker import Worker, failure

log = logging.getLogger("scorepath")

LOCAL = "local"  # Ray's word for a cluster of one's own
_LOOK = 1.0  # seconds between two looks at what has ended
_PATIENCE = 60.0  # seconds that jobs have to save and stop


def launch(
    worker: Worker,
    jobs: Sequence[Job],
    first: int,
    attempts: int,
    address: str,
    cluster: Mapping[str, Any],
    task: Mapping[str, Any],
) -> list[JobReturn]:
    """Has Ray run jobs, each as a task of its own. Which is lost is launched again at once, on any free worker.

    Ray itself is to retry nothing (`max_retries=0`), for it does not see whether a job went a step forward.

    Args:
        worker: runs a job.
        jobs: to be run.
        first: number of the first.
        attempts: how often a job may be lost without a step forward.
        address: of a cluster that runs; or `local`, for one that starts here and ends with the launch.
        cluster: options of `ray.init` for that one.
        task: options of each job's task, as `num_cpus`.

    Raises:
        ScorepathError: if there is no cluster.
        SweepInterruptedError: after a signal, with running jobs saved.
    """
    with _connected(address, cluster), _heard() as signals:
        losses = Losses(attempts)
        losses.begin(jobs)
        sent = ray.put(worker)
        run = ray.remote(_run).options(**task)
        results: dict[int, JobReturn] = {}
        pending = {run.remote(sent, job, first + index): index for index, job in enumerate(jobs)}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_LOOK)
            if signals:
                _stop(list(pending))
                raise SweepInterruptedError(f"{signals[0].name}: stopped", 128 + signals[0])
            for reference in done:
                index = pending.pop(reference)
                outcome = _outcome(reference)
                if isinstance(outcome, JobReturn):
                    results[index] = outcome
                elif losses.again(jobs[index]):
                    log.warning("%s was lost (%s) and is launched again.", jobs[index].name, outcome)
                    pending[run.remote(sent, jobs[index], first + index)] = index
                else:
                    results[index] = failure(losses.cause(outcome))
        return [results[index] for index in range(len(jobs))]


def _run(worker: Worker, job: Job, number: int) -> JobReturn | str:
    """How a job ended; or the signal by which its worker, and it alone, was told to stop."""
    try:
        return worker.run(job, number)
    except (SweepInterruptedError, KeyboardInterrupt) as stopped:
        return str(stopped) or "SIGINT"


def _outcome(reference: Any) -> JobReturn | str:
    """How a job ended, or what lost it, in words."""
    try:
        return ray.get(reference)
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        line = next((line for line in str(cause).splitlines() if line.strip()), "")
        return f"{type(cause).__name__}: {line}".rstrip(": ")


def _stop(pending: list[Any]) -> None:
    """Those that wait are taken back; in those that run, it arrives as a SIGINT, upon which they save and stop."""
    for reference in pending:
        ray.cancel(reference, recursive=False)
    ray.wait(pending, num_returns=len(pending), timeout=_PATIENCE)


@contextmanager
def _heard() -> Iterator[list[signal.Signals]]:
    """Notes the first signal that is to end the sweep: Ray swallows what a handler raises while it waits.

    A second one ends this process at once.
    """
    received: list[signal.Signals] = []

    def hear(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        for heard in previous:
            signal.signal(heard, signal.SIG_DFL)

    ends = [number for number in SIGNALS if number != SAVE and signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, hear) for number in ends}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _connected(address: str, cluster: Mapping[str, Any]) -> Iterator[None]:
    """A cluster to send tasks to; one that was started here ends here."""
    options = cluster if address == LOCAL else {}
    before = signal.getsignal(signal.SIGTERM)  # Ray puts its own in the place
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except ConnectionError as error:
        raise ScorepathError(
            f"hydra.launcher.address={address}: no Ray cluster answers there. Start one with 'ray start --head', or "
            f"leave it at {LOCAL}."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)
