"""Learning curves of runs, grouped by all but their seed: what figures and dashboards draw."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from scorepath.intervals import t95
from scorepath.run.csv_logger import read_metrics
from scorepath.run.trust import read_overrides
from scorepath.sweeps.names import name_settings
from scorepath.sweeps.records import read_runs

log = logging.getLogger("scorepath")

GRID = 200  # points that the curves are interpolated on

Curve = tuple[np.ndarray, np.ndarray]  # env steps, values


def group_by_seed(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Runs below a folder, by the names of their settings: those of their folders without the seed."""
    if not folder.is_dir():
        return {}
    found = []
    for row in read_runs(folder):
        file = folder / row["job"] / ".hydra" / "overrides.yaml"
        try:
            overrides = read_overrides(file) if file.exists() else []
            read_metrics(folder / row["job"] / "metrics.csv")
        except Exception as error:
            log.warning("%s is left out: %s", row["job"], str(error).split("\n", 1)[0])
            continue
        found.append((row, overrides))
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, (row, _) in zip(name_settings(overrides for _, overrides in found), found, strict=True):
        groups[name].append(row)
    return groups


def is_finished(run: dict[str, Any]) -> bool:
    """Whether a run came to its final evaluation."""
    return run.get("eval_return_mean") is not None


def read_curve(run: Path, metric: str) -> Curve:
    """(env steps, values) of one metric of one run."""
    return curve_of(read_metrics(run / "metrics.csv"), metric)


def curve_of(rows: list[dict[str, str]], metric: str) -> Curve:
    """(env steps, values) of one metric in the rows of a metrics.csv."""
    rows = [row for row in rows if row.get(metric) and _is_number(row[metric])]
    steps = np.array([float(row["env_steps"]) for row in rows])
    return steps, np.array([float(row[metric]) for row in rows])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def overlap(curves: list[Curve]) -> tuple[float, float] | None:
    """First and last of the env steps that all curves cover; None if there are none."""
    start, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    return (start, end) if start <= end else None


def interpolate(curves: list[Curve], points: int = GRID) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Curves on a grid of whole steps that all of them cover: grid, mean, half width of the 95 % t interval."""
    start, end = overlap(curves) or (max(steps[0] for steps, _ in curves),) * 2
    grid = np.unique(np.linspace(start, end, points).round())  # steps are whole numbers
    values = np.stack([np.interp(grid, steps, value) for steps, value in curves])
    if len(curves) < 2:
        return grid, values.mean(axis=0), None
    half = t95(len(curves) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(curves))
    return grid, values.mean(axis=0), half
