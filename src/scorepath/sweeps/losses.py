"""Jobs that are lost with their process: how often, since they last went a step forward."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scorepath.sweeps.plan import Job


class Losses:
    """Counts how often jobs are lost with their process since they last went a step forward.

    Args:
        attempts: how often that may be.
    """

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._count: Counter[str] = Counter()
        self._saved: dict[str, int | None] = {}

    def begin(self, jobs: Sequence[Job]) -> None:
        """Notes how far jobs are that are about to be launched."""
        self._saved |= {job.name: _checkpoint(job) for job in jobs}

    def again(self, job: Job) -> bool:
        """Whether a job that was lost is to be launched again."""
        before, self._saved[job.name] = self._saved[job.name], _checkpoint(job)
        self._count[job.name] = 0 if self._saved[job.name] != before else self._count[job.name] + 1
        return self._count[job.name] < self._attempts

    def is_last(self, job: Job) -> bool:
        """Whether one more loss is one too many."""
        return self._count[job.name] >= self._attempts - 1

    def cause(self, words: str = "as when it is killed or memory runs out") -> str:
        """Why a job has ended that was lost too often.

        Args:
            words: of what lost it.
        """
        return f"its process was lost {self._attempts} times without a step forward ({words})"


def stamp(file: Path) -> int | None:
    """Changes with each time that a file is written."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def _checkpoint(job: Job) -> int | None:
    return stamp(job.folder / "checkpoints" / "last.ckpt")
