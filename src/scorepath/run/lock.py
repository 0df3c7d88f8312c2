"""Who may write into a run's folder: one process at a time, on any file system."""

import errno
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from scorepath.errors import ConfigError, InUseError
from scorepath.run.directory import clear_partial, unwritable
from scorepath.run.reading import open_regular

try:
    import fcntl
except ImportError:  # Windows, whose file systems all have locks
    fcntl = None  # type: ignore[assignment]

_WORDS, _LONGEST = 4, 1000  # of what a process is described by, and its letters
_PATIENCE = 0.5  # seconds, for those who only ask hold the lock for an instant
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # of network and user-space file systems


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other runs out of a folder, and clears away what a killed one had half written.

    The lock is the system's, and ends with the process that holds it, however that ends. Where a file system has none,
    it is a file with the name of the process, which counts as long as that process runs.

    Raises:
        InUseError: if another process holds it, or may hold it.
        ConfigError: if the folder cannot be written to.
    """
    try:
        release = _lock(directory / ".lock") if _has_locks(directory) else _mark(directory / ".lock.owner")
    except OSError as error:
        raise ConfigError(unwritable(directory, error)) from error
    try:
        try:
            clear_partial(directory)
        except OSError as error:
            raise ConfigError(unwritable(directory, error)) from error
        yield
    finally:
        release()


def is_locked(directory: Path) -> bool:
    """Whether a process holds the folder; asked without writing to it."""
    mark = _read(directory / ".lock.owner")
    if mark is not None and not is_gone(mark):
        return True
    try:
        with open_regular(directory / ".lock", _LONGEST) as file:
            if fcntl is None:
                return _is_held(directory / ".lock")
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it cannot be asked
        return False
    return False


def holder(directory: Path) -> int | None:
    """The process of this machine that holds the folder, by its number, if it is known."""
    if not is_locked(directory):
        return None
    words = (_read(directory / ".lock.owner") or _read(directory / ".lock") or "").split()
    return int(words[0]) if words and words[0].isdecimal() else None


def _is_held(file: Path) -> bool:
    """The same on Windows, whose locks cannot be shared."""
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _has_locks(directory: Path) -> bool:
    """Asks the file system, for filelock answers differently with each of its versions, and may break a held lock."""
    if fcntl is None:
        return True
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
    return True


def _lock(file: Path) -> Callable[[], None]:
    """Takes the system's lock of a file; returns what gives it back."""
    lock = FileLock(file, timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        owner = file.read_text(encoding="utf-8").strip() or "unknown"
        raise InUseError(
            f"{file.parent} is in use by another run (process {owner}): wait until it has ended, or choose another "
            "folder with hydra.run.dir."
        ) from error
    file.write_text(f"{os.getpid()}\n", encoding="utf-8")
    return lock.release


def _mark(file: Path) -> Callable[[], None]:
    """Makes the file that names the process in the folder; returns what removes it.

    One that a dead process has left is taken over, by the process that has made a second file next to it: so no two
    that find it can both take it, one from the other.
    """
    own = describe_process(os.getpid())
    gate = file.with_name(f"{file.name}.next")
    while not _make(file, own):
        if not _make(gate, own):
            raise InUseError(_in_use(gate))
        owner = _read(file)
        if owner is not None and is_gone(owner):
            gate.replace(file)
            break
        gate.unlink()
        if owner is not None:  # else it has been given back just now
            raise InUseError(_in_use(file))

    def release() -> None:
        with suppress(OSError):
            if _read(file) == own:  # and not removed by hand, and another's by now
                file.unlink()

    return release


def _make(file: Path, content: str) -> bool:
    """Makes a file, unless it is there."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(content)
    except FileExistsError:
        return False
    except OSError:  # a full disk: what is there by now would name nobody, and keep everybody out
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
    return True


def _read(file: Path) -> str | None:
    """What a mark says; nothing of what is none, or is longer than any."""
    try:
        if not file.is_file():
            return "" if os.path.lexists(file) else None
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(_LONGEST)
    except FileNotFoundError:
        return None


def _in_use(file: Path) -> str:
    words = (_read(file) or "").split()
    owner = f"process {words[0]} on {words[2]}" if len(words) == _WORDS else "an unknown process"
    return (
        f"{file.parent} is in use by another run ({owner}): wait until it has ended, or choose another folder with "
        f"hydra.run.dir, or remove {file} if you know that the run was killed, for this disk has no locks that end "
        "with their process."
    )


def describe_process(process: int) -> str:
    """A process: its number, when it began, and where that number is its own."""
    return " ".join((str(process), _began(process), *_place()))


def _place() -> tuple[str, str]:
    """The machine, and what on it gives numbers to processes: each container counts for itself."""
    machine = platform.node() or "-"
    try:
        return machine, os.readlink("/proc/self/ns/pid")
    except OSError:
        return machine, "-"


def _began(process: int) -> str:
    """When a process began, by the system's count, for its number is given to another later; `-` if that is unknown."""
    try:
        state, *counts = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "-"
    return "ended" if state == "Z" else counts[18]


def is_gone(owner: str) -> bool:
    """Whether a process of `describe_process` is known to have ended."""
    words = owner.split()
    if len(words) != _WORDS or tuple(words[2:]) != _place() or not words[0].isdecimal():
        return False
    process = int(words[0])
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        pass
    began = _began(process)
    return "-" not in (began, words[1]) and began != words[1]
