"""How far a sweep has come, read from the folders of its jobs while they are written to. Nothing is written here."""

import math
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from scorepath.run.reading import MAX_METRICS_BYTES, MAX_YAML_BYTES, open_regular, read_bytes
from scorepath.sweeps.names import name_settings
from scorepath.sweeps.records import job_folders, read_row, recorded_overrides
from scorepath.sweeps.state import FAILED, FINISHED, RUNNING, STOPPED, WAITING, state_of

STATES = (FINISHED, RUNNING, FAILED, STOPPED, WAITING)
_CONFIG = Path(".hydra", "config.yaml")  # written when a job has its parts, and is about to train
_BUDGET = re.compile(rb"^max_env_steps: (\d{1,15})$", re.MULTILINE)  # YAML's reader takes a hundred times as long
_TAIL = 1 << 16  # bytes at the end of a metrics.csv, some hundred rows


class Progress(NamedTuple):
    """How far a job has come; None for what its files do not say."""

    env_steps: int | None
    max_env_steps: int | None
    seconds: float | None  # since it began to train, or was continued
    seconds_left: float | None  # of training, at most: it may be solved before

    @property
    def share(self) -> float | None:
        """Of its env steps, from 0 to 1."""
        if self.env_steps is None or not self.max_env_steps:
            return None
        return min(self.env_steps / self.max_env_steps, 1.0)


class Standing(NamedTuple):
    """Where one job stands."""

    job: str  # name of its folder
    folder: Path
    state: str
    setting: str  # what it is but for its seed
    summary: Mapping[str, Any] = MappingProxyType({})  # of one that has ended
    progress: Progress | None = None  # of a running one
    seconds: float | None = None  # that a finished one took


class SweepProgress:
    """Looks at a sweep, as often as one likes.

    Args:
        directory: of the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # what does not change
        self._overrides: dict[str, list[str]] = {}
        self._finished: dict[str, Standing] = {}

    def look(self) -> list[Standing]:
        """Where each job stands now, by name."""
        folders = job_folders(self.directory)
        for folder in folders:
            if folder.name not in self._overrides and (overrides := recorded_overrides(folder)) is not None:
                self._overrides[folder.name] = overrides
        settings = name_settings(self._overrides.get(folder.name, []) for folder in folders)
        standings = [self._finished.get(folder.name) or self._standing(folder) for folder in folders]
        return [one._replace(setting=setting) for one, setting in zip(standings, settings, strict=True)]

    def _standing(self, folder: Path) -> Standing:
        state = state_of(folder)
        standing = Standing(folder.name, folder, state, setting="")
        if state == RUNNING:
            return standing._replace(progress=read_progress(folder))
        if state not in (FINISHED, FAILED):
            return standing
        row = read_row(folder)
        standing = standing._replace(summary=row)
        if state == FINISHED:
            standing = standing._replace(seconds=_seconds_taken(folder, row))
            self._finished[folder.name] = standing
        return standing


def read_progress(folder: Path) -> Progress:
    """How far a running job has come, by the last rows of its metrics.csv and its config."""
    steps, rate = _last_metrics(folder / "metrics.csv")
    budget, began = _budget(folder / _CONFIG)
    seconds = None if began is None else max(time.time() - began, 0.0)
    left = None
    if steps is not None and budget is not None and seconds:
        # all that it does counts, its evaluations too; but steps before it was continued took none of these seconds
        rates = [steps / seconds, *([rate] if rate else [])]
        left = max(budget - steps, 0) / min(rates) if min(rates) > 0 else None
    return Progress(steps, budget, seconds, left)


def seconds_left(standings: Sequence[Standing]) -> float | None:
    """Of a whole sweep: what is left of all its jobs, by the mean of those that ended, shared by the running ones.

    None while no process is at work on it, or nothing is known of how long a job takes.
    """
    running = [standing.progress for standing in standings if standing.progress is not None]
    taken = [standing.seconds for standing in standings if standing.seconds is not None]
    if not taken:
        taken = [one.seconds + one.seconds_left for one in running if one.seconds and one.seconds_left is not None]
    if not running or not taken:
        return None
    mean = statistics.fmean(taken)
    left = [max(mean - (one.seconds or 0.0), 0.0) if one.seconds_left is None else one.seconds_left for one in running]
    ahead = sum(standing.state in (STOPPED, WAITING) for standing in standings)
    return max((sum(left) + mean * ahead) / len(running), *left)


class Best(NamedTuple):
    """A setting, or a job, with the highest mean return."""

    name: str
    mean: float
    seeds: int


def best_setting(standings: Sequence[Standing]) -> Best | None:
    """The one whose mean over its finished seeds is highest; None if no job has a return."""
    returns = defaultdict(list)
    for standing in _with_return(standings):
        returns[standing.setting].append(standing.summary["eval_return_mean"])
    means = [Best(name, statistics.fmean(values), len(values)) for name, values in returns.items()]
    return max(means, key=lambda best: best.mean, default=None)


def best_job(standings: Sequence[Standing]) -> Best | None:
    """The finished job of the highest return; None if no job has one."""
    jobs = [Best(standing.job, standing.summary["eval_return_mean"], 1) for standing in _with_return(standings)]
    return max(jobs, key=lambda best: best.mean, default=None)


def _with_return(standings: Sequence[Standing]) -> list[Standing]:
    return [
        standing
        for standing in standings
        if standing.state == FINISHED and standing.summary.get("eval_return_mean") is not None
    ]


def _seconds_taken(folder: Path, summary: dict[str, Any]) -> float | None:
    """From a job's beginning, or continuation, to its summary, evaluation and all; of a copied folder the training."""
    training: float | None = summary.get("train_seconds")
    try:
        whole = (folder / "summary.json").stat().st_mtime - (folder / _CONFIG).stat().st_mtime
    except OSError:
        return training
    return max(whole, training or 0.0)


def _budget(config: Path) -> tuple[int | None, float | None]:
    """`max_env_steps` of a saved config, which has it on a line of its own, and when it was saved."""
    try:
        match = _BUDGET.search(read_bytes(config, MAX_YAML_BYTES))
        return (int(match[1]) if match else None), config.stat().st_mtime
    except OSError:
        return None, None


def _last_metrics(file: Path) -> tuple[int | None, float | None]:
    """Env steps of the last row, and the median of env steps a second in the last rows, while rows are written."""
    try:
        with open_regular(file, MAX_METRICS_BYTES) as opened:
            header = opened.readline(_TAIL).decode().rstrip("\r\n").split(",")
            opened.seek(max(opened.tell(), opened.seek(0, 2) - _TAIL))
            lines = opened.read(_TAIL).decode(errors="replace").split("\n")[:-1]  # less the half of one
        rows = [dict(zip(header, cells, strict=True)) for line in lines if len(cells := line.split(",")) == len(header)]
        rates = [float(text) for row in rows if (text := row.get("time/env_steps_per_second"))]
        rates = [rate for rate in rates if math.isfinite(rate)]
        steps = int(float(rows[-1]["env_steps"])) if rows else 0
    except (OSError, ValueError, KeyError, OverflowError):  # none yet, or somebody else's
        return None, None
    return steps, statistics.median(rates) if rates else None
