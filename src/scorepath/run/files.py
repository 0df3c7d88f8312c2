"""Files are written beside their place and put there whole: no kill, crash or full disk costs what was there."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}  # of file systems, above all for folders


def partial_of(path: Path) -> Path:
    """Where a file is while it is written; what a killed process leaves there is written over by the next one."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def replacing(path: Path, *, text: bool = False, keep: Path | None = None) -> Iterator[IO[Any]]:
    """A file to write to, which takes the place of `path` once it is whole and on the disk.

    If it cannot be written, what was there stays, and nothing beside it. Links are replaced and never followed.

    Args:
        path: of the file, or none yet.
        text: in UTF-8, line ends as they are written; else bytes.
        keep: a name for what was there.

    Raises:
        OSError: if it cannot be written, or something else than a file has that name.
    """
    if path.exists() and not path.is_file():  # /dev/null can be replaced, with the rights for it
        raise FileExistsError(errno.EEXIST, "what has that name is no file", str(path))
    partial = partial_of(path)
    try:
        partial.unlink(missing_ok=True)
        with partial.open("x", encoding="utf-8", newline="") if text else partial.open("xb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        partial.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None  # the name that a user knows
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one step."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """The same of text, in UTF-8."""
    write_bytes(path, content.encode())


def write_shared(path: Path, content: str) -> None:
    """Writes text that several processes may write at once without a lock; the last one's stays, whole.

    It is not synced: this is for what can be written again.
    """
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        own.write_text(content, encoding="utf-8", newline="")
        own.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            own.unlink(missing_ok=True)
        raise


def sync(descriptor: int) -> None:
    """Has a file reach the disk, on file systems that report it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Has the names reach the disk with what they name."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
