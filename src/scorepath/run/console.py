"""Standard output and error, which a run outlives: train.log holds all that it has to say."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Console:
    """A stream whose reader may go away: a closed pipe, a terminal that is gone, a full disk.

    Args:
        stream: sys.stdout or sys.stderr; None where it was closed from the start.
    """

    outlived = False  # whether what is written is needed by nobody, so that the loss is no error

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 (as long as the process)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._leave(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._leave(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _leave(self, error: OSError) -> None:
        """Has what is written go nowhere, also what is still in buffers, for Python writes them when it ends."""
        if not Console.outlived:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def consoles() -> Iterator[None]:
    """Standard output and error as consoles, and none of their numbers free for another file to get."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    streams = sys.stdout, sys.stderr
    Console.outlived = False
    sys.stdout, sys.stderr = map(Console, streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def outlive_consoles() -> None:
    """From here on, nothing that is written to them is needed."""
    Console.outlived = True
