"""One folder for TensorBoard to read: runs by short names, columns of what they differ in, and means over seeds.

TensorBoard names a run by its folder, takes the columns of its HParams tab from one run, and draws no means. So it
reads a folder of links to the event files of the runs, with files of ours beside them.
"""

import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scorepath.dashboards.tabs import HParam, experiment, hparams_of, keys_of, layout, session
from scorepath.errors import ConfigError
from scorepath.run.csv_logger import read_metrics
from scorepath.run.files import write_bytes
from scorepath.run.reading import read_yaml
from scorepath.sweeps.curves import GRID, curve_of, group_by_seed, interpolate, overlap
from scorepath.sweeps.losses import stamp
from scorepath.sweeps.names import name_jobs
from scorepath.sweeps.records import job_folders, read_runs, recorded_overrides

log = logging.getLogger("scorepath")

_EVENTS = "events.out.tfevents."
_FIRST = f"{_EVENTS}0000000000.scorepath"  # read before those of a run: of what is there twice, the first counts
_CURVES = "tensorboard"  # the folder in a run's
_BAND = "eval/return_mean", "eval/return_low", "eval/return_high"


class View:
    """The folder that TensorBoard reads.

    Args:
        runs: a folder of runs, at any depth.
        folder: that is made, and filled.
    """

    def __init__(self, runs: Path, folder: Path) -> None:
        self._runs, self._folder = runs, folder
        self._shown: dict[str, str] = {}  # folder of a run -> its name here
        self._columns: list[str] = []
        self._rows: dict[str, dict[str, HParam]] = {}  # folder of a run -> what it has in the columns
        self._means = Means(folder)

    def refresh(self) -> int:
        """Adds what is new since the last time. Returns the number of runs."""
        found = {row["job"]: recorded_overrides(self._runs / row["job"]) or [] for row in read_runs(self._runs)}
        for job, name in _names(found, self._shown).items():
            self._shown[job] = name
            _link(self._runs / job / _CURVES, self._folder / name)
        columns = list(dict.fromkeys(key for overrides in found.values() for key in keys_of(overrides)))
        if columns != self._columns:
            self._columns, self._rows = columns, {}
        new = {job: row for job in found if job not in self._rows and (row := _row(self._runs / job, columns))}
        self._rows |= new
        if new:
            told = [(0, experiment(list(self._rows.values()))), (0, layout())]  # of which any run may be asked
            for job, row in new.items():
                file = self._folder / self._shown[job] / _FIRST
                write_events(file, [*told, (0, session(self._shown[job], row))], time.time())
        self._means.refresh(self._runs)
        return len(found)


class Means:
    """For each setting of several runs, a run of the means over its seeds, with their 95 % t intervals of the return.

    Args:
        folder: in which each has one of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, tuple[int, ...]] = {}  # name -> how many rows of each run are in it
        self._seen: dict[Path, int | None] = {}  # curves, as they were
        self._times = 0

    def refresh(self, runs: Path) -> None:
        """Writes those that have changed; TensorBoard forgets what it had of a run when its steps begin again."""
        files = {file: stamp(file) for file in runs.rglob("metrics.csv")}
        if files == self._seen:
            return
        self._seen = files
        self._times += 1
        for setting, members in group_by_seed(runs).items():
            tables = [read_metrics(runs / run["job"] / "metrics.csv") for run in members]
            tables = [rows for rows in tables if rows]
            size = tuple(map(len, tables))
            if len(tables) < 2 or self._written.get(setting) == size:
                continue
            self._written[setting] = size
            name = f"mean {setting}" if setting != "defaults" else "mean"
            file = self._folder / name / f"{_EVENTS}{self._times:010}.scorepath"
            for earlier in file.parent.glob(f"{_EVENTS}*") if self._times == 1 else ():
                if earlier != file:
                    earlier.unlink()
            made = max((runs / run["job"] / "metrics.csv").stat().st_mtime for run in members)
            write_events(file, _mean_events(tables), made)


def show_means(sweep: Path) -> None:
    """Writes the means of a sweep's settings into its own folder, for any TensorBoard, if its jobs write for one."""
    if not any((folder / _CURVES).is_dir() for folder in job_folders(sweep)):
        return
    try:
        Means(sweep / _CURVES).refresh(sweep)
    except OSError as error:
        log.warning("The means over seeds could not be written for TensorBoard: %s", error)


def _mean_events(tables: Sequence[list[dict[str, str]]]) -> list[tuple[int, Any]]:
    """Of each metric that all runs have, over the steps that all of them cover."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 (slow)

    by_step: dict[int, dict[str, float]] = {}
    names = [name for name in tables[0][0] if name != "env_steps"]
    for metric in names:
        curves = [curve_of(rows, metric) for rows in tables]
        if metric in _BAND[1:] or not all(len(steps) for steps, _ in curves) or overlap(curves) is None:
            continue
        points = min(GRID, max(len(steps) for steps, _ in curves))
        grid, mean, half = interpolate(curves, points)
        for index, step in enumerate(grid):
            values = by_step.setdefault(round(step), {})
            values[metric] = float(mean[index])
            if metric == _BAND[0] and half is not None:
                values |= {_BAND[1]: float(mean[index] - half[index]), _BAND[2]: float(mean[index] + half[index])}
    return [
        (step, Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]))
        for step, values in sorted(by_step.items())
    ]


def write_events(file: Path, summaries: Sequence[tuple[int, Any]], made: float) -> None:
    """An event file of these (step, summary), made at a time in seconds; left alone if it holds them already."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415 (slow)
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    writer = RecordWriter(content)
    writer.write(Event(wall_time=made, file_version="brain.Event:2").SerializeToString())
    # what an earlier file of the same run holds is forgotten
    writer.write(Event(wall_time=made, session_log=SessionLog(status=SessionLog.START)).SerializeToString())
    for step, summary in summaries:
        writer.write(Event(wall_time=made, step=step, summary=summary).SerializeToString())
    if not file.exists() or file.read_bytes() != content.getvalue():
        write_bytes(file, content.getvalue())


def _names(found: Mapping[str, Sequence[str]], shown: Mapping[str, str]) -> dict[str, str]:
    """A name for each folder of a run: its own in a sweep's, else by what the runs differ in."""
    jobs = list(found)
    if not any(os.sep in job for job in jobs):
        return {job: job.strip(".") or "run" for job in jobs}
    names = dict(zip(jobs, name_jobs(list(found.values()), ()), strict=True))
    taken = [*names.values()]
    return {
        job: shown.get(job) or (name if taken.count(name) == 1 else f"{name} {job.replace(os.sep, ' ')}")
        for job, name in names.items()
    }


def _link(source: Path, target: Path) -> None:
    """Links to the event files of a run that are not there yet."""
    target.mkdir(parents=True, exist_ok=True)
    for link in target.glob(f"{_EVENTS}*"):
        if not link.exists():
            link.unlink()  # a run renames its file where the clock was set back
    for file in source.glob(f"{_EVENTS}*") if source.is_dir() else ():
        link = target / file.name
        if not link.is_symlink():
            link.symlink_to(file.resolve())


def _row(run: Path, columns: Sequence[str]) -> dict[str, HParam]:
    """What a run has in the columns, by the config in its folder; empty while there is none."""
    try:
        config = read_yaml(run / ".hydra" / "config.yaml")
        command = read_yaml(run / ".hydra" / "hydra.yaml")
        return hparams_of(config, command["hydra"]["runtime"]["choices"], columns)
    except (ConfigError, LookupError, TypeError, AttributeError):
        return {}
