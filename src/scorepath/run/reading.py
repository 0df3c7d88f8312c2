"""Files of a run that somebody else may have made: how they are read, and where nothing is written through."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import yaml  # type: ignore[import-untyped]

from scorepath.errors import ConfigError

# What a run writes in its folder; of the folders, all that is in them is its own
_FOLDERS = (".hydra", "checkpoints", "tensorboard", "wandb")
_FILES = ("*.log", "metrics.csv", "summary.json", ".lock*", ".id", ".*.partial")
MAX_YAML_BYTES = 1 << 18
_MAX_YAML_DEPTH = 50  # PyYAML takes time by its square
MAX_METRICS_BYTES = 1 << 33  # tens of millions of rows
_MAX_JSON_BYTES = 1 << 20
# libyaml's where PyYAML was built with it, which takes a twentieth of the time
SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def memory_bytes() -> int:
    """The machine's memory, where the system reports it: nothing longer can be held in it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows; a system that does not know the names
        return 1 << 40


def open_regular(path: Path, most_bytes: int) -> IO[bytes]:
    """Opens a file to be read, at once: a pipe would wait for a writer, and a device has no end.

    Args:
        path: of the file; through a link, to whatever it links.
        most_bytes: that the file may have.

    Raises:
        OSError: if it cannot be opened, is no regular file, or is longer; the message says it.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened, for of some devices that is enough
        raise OSError("it is no file but a folder, a pipe, a socket or a device")
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller's to close)
    length = os.fstat(file.fileno()).st_size
    if length > most_bytes:
        file.close()
        raise OSError(f"it has {length:,} bytes, and at most {most_bytes:,} are read")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """The whole of such a file. Raises OSError as `open_regular` does."""
    with open_regular(path, most_bytes) as file:
        return file.read(most_bytes)


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read, or is longer or deeper than any that a run writes.
    """
    try:
        return json.loads(read_bytes(path, _MAX_JSON_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_yaml(path: Path) -> Any:
    """A YAML file's dicts, lists and values; the interpolations in it stay as they are.

    Raises:
        ConfigError: if it cannot be read, or is longer or deeper than any that a run writes.
    """
    try:
        text = read_bytes(path, MAX_YAML_BYTES)
        _check_events(text, path)
        return yaml.load(text, Loader=SafeLoader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML ({reason}): choose another run.") from error


def _check_events(text: bytes, path: Path) -> None:
    """Refuses what makes a small text large or slow."""
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{path} has an alias (*{event.anchor}), which may grow without bounds: no run writes one."
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_YAML_DEPTH:
            raise ConfigError(f"{path} is nested deeper than {_MAX_YAML_DEPTH} levels: no run writes such a config.")


def check_links(folder: Path, *names: str) -> None:
    """Refuses a folder in which a file that is to be written is something else: a link would be written through.

    Args:
        folder: itself may be a link, for it is the user who names it.
        names: of the files that will be written.

    Raises:
        ConfigError: with its path.
    """
    for name in names:
        _check_place(folder / name, folders=False)


def check_run_folder(folder: Path, of_sweep: bool = False) -> None:
    """The same for all that a run writes in its folder.

    Args:
        folder: of the run.
        of_sweep: that it is a folder in a sweep's, which the user has not named.

    Raises:
        ConfigError: with the path of what is no file or folder of its own.
    """
    if of_sweep:
        _check_place(folder, folders=True)
    for entry in _entries(folder):
        if entry.name in _FOLDERS:
            if entry.name == "wandb":  # which links to its own newest run
                _check_place(Path(entry.path), folders=True)
            else:
                _check_tree(Path(entry.path))
        elif any(fnmatch(entry.name, pattern) for pattern in _FILES):
            _check_place(Path(entry.path), folders=False)


def check_sweep_folder(folder: Path, jobs: Iterable[str]) -> None:
    """The same for a sweep's folder and those of its jobs, before one of them begins.

    Args:
        folder: of the sweep.
        jobs: names of their folders.
    """
    check_links(folder, "multirun.yaml")
    _check_tree(folder / "tensorboard")
    for name in jobs:
        check_run_folder(folder / name, of_sweep=True)


def _check_tree(folder: Path) -> None:
    _check_place(folder, folders=True)
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _check_place(Path(path, name), folders=name in folders)


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}), to see that no links are in it.") from error


def _check_place(path: Path, folders: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise ConfigError(f"{path} is a link to {os.readlink(path)}, which would be written over: remove the link.")
    if not (stat.S_ISDIR(mode) if folders else stat.S_ISREG(mode)):
        wanted = "folder" if folders else "file"
        raise ConfigError(f"{path} is no {wanted}, and a run writes one there: remove it, or choose another folder.")
