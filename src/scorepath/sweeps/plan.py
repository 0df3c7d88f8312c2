"""What a command's sweep consists of: its jobs, their folders, and whether these can be theirs. Nothing is lost yet."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from scorepath.errors import ConfigError
from scorepath.run.changes import OF_THE_COMMAND, config_sha256
from scorepath.sweeps.names import key_of, name_jobs
from scorepath.sweeps.records import known_jobs
from scorepath.sweeps.state import FINISHED, STOPPED, changed_since, state_of

Compose = Callable[[list[str]], dict[str, Any]]


class Job(NamedTuple):
    """One run of a sweep."""

    name: str  # of its folder
    overrides: list[str]
    folder: Path


def plan_sweep(directory: Path, parsed: list[Override], compose: Compose) -> list[Job]:
    """The jobs of a sweep in its order, each once.

    Args:
        directory: of the sweep.
        parsed: overrides, with several values for those that are swept.
        compose: overrides of a job -> its config, as plain containers, unresolved.

    Raises:
        ConfigError: for a job that cannot be one of a sweep, or whose folder holds another run.
        HydraException: for one that cannot be composed.
    """
    swept = {str(override.key_or_group) for override in parsed if override.is_sweep_override()}
    try:
        (given,) = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        ranges = [
            str(override.input_line)
            for override in parsed
            if override.is_sweep_override() and not override.is_discrete_sweep()
        ]
        raise ConfigError(
            f"{' '.join(ranges)} has no values to go through: give them (optimizer.lr=0.01,0.1)."
        ) from error
    sets = [[text for text in overrides if key_of(text) not in OF_THE_COMMAND] for overrides in given]
    names = name_jobs(sets, swept - set(OF_THE_COMMAND), _known(directory))
    jobs = {name: Job(name, own, directory / name) for name, own in zip(names, given, strict=True)}
    _check_kinds(list(jobs.values()), compose)
    return [_placed(job, compose) for job in jobs.values()]


def _known(directory: Path) -> dict[str, list[str]]:
    """The jobs that have folders, the shortest name of each last: those with a changed config stand beside it."""
    known = known_jobs(directory)
    return {
        name: [text for text in known[name] if key_of(text) not in OF_THE_COMMAND]
        for name in sorted(known, key=len, reverse=True)
    }


def _check_kinds(jobs: Sequence[Job], compose: Compose) -> None:
    """Composes one job of each set of keys: what Hydra refuses is refused before any begins."""
    seen = set()
    for job in jobs:
        # of a trainer and of groups the value matters too; a group's name has no dot
        kind = frozenset(
            text if "." not in key_of(text) or key_of(text).startswith("trainer.") else key_of(text)
            for text in job.overrides
            if key_of(text) != "seed"
        )
        if kind not in seen:
            seen.add(kind)
            check_one_process(compose(job.overrides))


def check_one_process(config: Mapping[str, Any]) -> None:
    """Refuses several processes of one run: they are started by its own command again, that of the whole sweep."""
    trainer = config.get("trainer") or {}
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if (devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1)) or nodes != 1:
        raise ConfigError(
            f"trainer.devices={devices} is a run of several processes, which cannot be a job of a sweep: sweep over "
            "trainer.devices=1 (a launcher runs several jobs at a time), or start each run by its own command, "
            "without -m."
        )


def _placed(job: Job, compose: Compose) -> Job:
    """The job, or beside its folder if that holds a run of another config and `on_change=rerun`.

    A folder is named after the overrides, and what they mean may have changed since: a file of conf, a default.

    Raises:
        ConfigError: with the differences, for `on_change=refuse`.
    """
    if state_of(job.folder) not in (FINISHED, STOPPED):
        return job
    config = compose(job.overrides)
    difference = changed_since(job.folder, config)
    if difference is None:
        return job
    name = f"{job.name}_{config_sha256(config)[:8]}"
    beside = Job(name, job.overrides, job.folder.with_name(name))
    if config.get("on_change") != "rerun" and not beside.folder.exists():
        raise ConfigError(
            f"{job.folder} holds a run of another config: {difference}. Put that back, or run what has changed beside "
            "it with on_change=rerun, or choose another sweep=NAME."
        )
    return beside
