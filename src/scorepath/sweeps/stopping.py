"""What ends a sweep ends its jobs: signals are passed on to its workers, and no worker outlives its command."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from scorepath.errors import SweepInterruptedError
from scorepath.run.lock import describe_process, holder, is_gone
from scorepath.run.signals import SAVE, SIGNALS

_LOOK = 0.1  # seconds between two looks at jobs that are to stop
_FOLLOW = 1.0  # seconds between two looks whether a worker's command is alive
_following: set[int] = set()  # numbers of processes that look already


@contextlib.contextmanager
def passing_on(folders: Sequence[Path]) -> Iterator[None]:
    """While it is entered, signals reach the jobs in these folders that processes of ours hold.

    By one that ends, the jobs save what they have, and SweepInterruptedError is raised after the last. A second one
    ends this process at once. A job in this very process hears its signals itself.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may listen
        yield
        return
    previous: dict[int, Any] = {}

    def hear(number: int, frame: FrameType | None) -> None:
        held = _held_below(folders)
        for process in held:
            with contextlib.suppress(ProcessLookupError):
                # a terminal's SIGINT has reached them already, and a second one would not let them save
                os.kill(process, number if number == SAVE else signal.SIGTERM)
        if number == SAVE:
            return
        for heard in previous:
            signal.signal(heard, signal.SIG_DFL)
        while held & _held_below(folders):
            time.sleep(_LOOK)
        raise SweepInterruptedError(f"{signal.Signals(number).name}: stopped", 128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            previous[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def follow(command: str) -> None:
    """Has a launcher's worker end with its command, which may be killed: the job saves what it has.

    joblib's workers would wait for ever for one that is gone, with all that they have imported. On other machines than
    the command's nothing is known of it, and jobs run to their end.

    Args:
        command: the process of the command, by `describe_process`.
    """
    if command == describe_process(os.getpid()) or os.getpid() in _following:
        return
    _following.add(os.getpid())

    def look() -> None:
        while not is_gone(command):
            time.sleep(_FOLLOW)
        while True:  # the first one is heard by the job, if there is one, and the next after it by nobody
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_FOLLOW)

    threading.Thread(target=look, daemon=True).start()


def is_worker() -> bool:
    """Whether this is a process of a launcher's, which is not a job's to end: it may leave in the middle of one."""
    return os.getpid() in _following


def _held_below(folders: Sequence[Path]) -> set[int]:
    """The processes that hold one of the folders and were started by this one, or by one that was."""
    held = {process for folder in folders if (process := holder(folder)) is not None}
    return {process for process in held if _is_below(process)}


def _is_below(process: int) -> bool:
    own = os.getpid()
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has ended; or a system without this: then its jobs are ended with their process
            return False
        if process == own:
            return True
    return False
