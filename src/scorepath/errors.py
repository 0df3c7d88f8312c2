"""The errors that a user can fix: each is one sentence that says what, why, and the remedy."""

import errno
import signal
from pathlib import Path


class ScorepathError(Exception):
    """Base class: the command line prints its message without a traceback and exits with `exit_code`."""

    exit_code = 1


class ConfigError(ScorepathError):
    """A value, combination or file was refused before any work was done."""

    exit_code = 2


class InUseError(ConfigError):
    """Another process is writing into the run's folder."""


class OutputError(ScorepathError):
    """A run's folder took no more files, though it had at the start."""

    def __init__(self, path: Path, error: OSError, needed: int | None = None) -> None:
        size = "" if needed is None else f", of {needed:,} bytes,"
        reason = "its folder is gone" if error.errno == errno.ENOENT else error.strerror or str(error)
        super().__init__(
            f"{path}{size} could not be written: {reason}. Free some room or fix the folder, and continue from the "
            "last checkpoint with resume=auto and the same hydra.run.dir."
        )


class InterruptedRunError(ScorepathError):
    """A signal ended the run; `exit_code` is the shell's for it."""

    def __init__(self, signal_number: int, directory: Path) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"{name}: stopped after the update in progress; continue with resume={directory}")
        self.exit_code = 128 + signal_number


class NonFiniteError(ScorepathError):
    """A NaN or an infinity appeared; the update it belongs to was not applied."""


class SweepInterruptedError(BaseException):
    """A signal ended a job of a sweep, and so the sweep; passes by whatever catches the errors of single jobs."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence, exit_code)  # both, for it may come from another process
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])
