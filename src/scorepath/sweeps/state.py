"""Where each job of a sweep stands. Its folder alone says it, so any number of processes can ask."""

from pathlib import Path
from typing import Any

from scorepath.errors import ConfigError
from scorepath.run.changes import config_sha256, differences
from scorepath.run.directory import holds_run
from scorepath.run.lock import is_locked
from scorepath.run.reading import read_json, read_yaml

FINISHED, RUNNING, FAILED, STOPPED, WAITING = "finished", "running", "failed", "stopped", "waiting"
_DONE = ("solved", "completed")  # statuses of a run with a result, written last


def state_of(folder: Path) -> str:
    """One of finished, running (a process holds it), failed, stopped (it can continue) and waiting (not begun)."""
    status = read_summary(folder).get("status")
    if status in _DONE:
        return FINISHED
    if is_locked(folder):
        return RUNNING
    if status == "failed":
        return FAILED
    return STOPPED if status is not None or holds_run(folder) or (folder / "train.log").exists() else WAITING


def read_summary(folder: Path) -> dict[str, Any]:
    """What a run's summary holds; nothing of one that is not there or is damaged."""
    try:
        summary = read_json(folder / "summary.json")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def settled(folder: Path, retry_failed: bool) -> dict[str, Any] | None:
    """The summary of a job that is not to run: it has finished, or failed and is not to try again. Else None.

    To be called with the folder locked, for another process may be at the same job.
    """
    summary = read_summary(folder)
    over = summary.get("status") in (_DONE if retry_failed else (*_DONE, "failed"))
    return summary if over else None


def changed_since(folder: Path, config: dict[str, Any]) -> str | None:
    """How the config of a job differs from that with which its folder was begun, in words; None if it does not.

    Args:
        folder: of the job.
        config: composed, as plain containers, unresolved.
    """
    if read_summary(folder).get("config_sha256") == config_sha256(config):
        return None
    file = folder / ".hydra" / "config.yaml"
    if not file.exists():
        return None
    try:
        return differences(read_yaml(file), config) or None
    except ConfigError as error:
        return str(error)
