"""Learning curves over seeds, and the table of their results."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from scorepath.errors import ConfigError
from scorepath.run.csv_logger import read_metrics
from scorepath.run.summary import mean_ci95, t95
from scorepath.run.sweep import format_table, read_runs
from scorepath.run.trust import check_links, read_overrides

log = logging.getLogger("scorepath")
_GRID = 200  # points that the curves are interpolated on


def plot(cfg: DictConfig) -> None:
    """Groups the runs of a folder by all but their seed, prints a table and draws mean and 95 % t interval.

    Raises:
        ConfigError: if there are no runs, or matplotlib is missing.
    """
    folder = Path(cfg.runs)
    check_links(folder, "curves.png")
    groups = group_by_seed(folder)
    if not groups:
        raise ConfigError(f"runs={folder} holds no finished run: choose a run's folder, or one above it.")
    print(format_table(_HEADER, [result_row(name, runs) for name, runs in sorted(groups.items())]))
    try:
        import matplotlib as mpl  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise ConfigError('Figures need matplotlib: pip install -e ".[plots]".') from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, runs in sorted(groups.items()):
        curves = [curve for run in runs if (curve := read_curve(folder / run["job"], cfg.metric))[0].size]
        if not curves:
            continue
        grid, mean, half = interpolate(curves)
        label = f"{name} (n = {len(curves)})".replace("$", r"\$")  # which begins a formula
        axes.plot(grid, mean, label=label)
        if half is not None:
            axes.fill_between(grid, mean - half, mean + half, alpha=0.2)
    if not axes.lines:
        columns = {
            name for runs in groups.values() for name in read_metrics(folder / runs[0]["job"] / "metrics.csv")[0]
        }
        names = ", ".join(sorted(columns - {"env_steps"}))
        raise ConfigError(f"metric={cfg.metric} is in no metrics.csv of {folder}: choose one of {names}.")
    if cfg.threshold is not None:
        axes.axhline(cfg.threshold, color="0.5", linestyle="--", linewidth=1)
    axes.set(xlabel="env steps", ylabel=cfg.metric, title=cfg.title or "")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    file = Path(cfg.file or folder / "curves.png")
    figure.savefig(file, dpi=130)
    plt.close(figure)
    log.info("%s", file)


def group_by_seed(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Finished runs below a folder, by those of their overrides that differ between runs, without the seed."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    if not folder.is_dir():
        return {}
    for row in read_runs(folder):
        if row.get("eval_return_mean") is None:
            continue
        file = folder / row["job"] / ".hydra" / "overrides.yaml"
        try:
            overrides = read_overrides(file) if file.exists() else []
            read_metrics(folder / row["job"] / "metrics.csv")
        except Exception as error:
            log.warning("%s is left out: %s", row["job"], str(error).split("\n", 1)[0])
            continue
        keep = [text for text in overrides if text.split("=")[0].lstrip("+") not in ("seed", "sweep", "resume")]
        groups[tuple(keep)].append(row)
    common = set.intersection(*map(set, groups)) if len(groups) > 1 else set()
    names = {keep: " ".join(text for text in keep if text not in common) or "defaults" for keep in groups}
    return {names[keep]: rows for keep, rows in groups.items()}


_HEADER = ("runs", "seeds", "return", "95 % over seeds", "worst seed", "solved", "solved at (median)", "train s")


def result_row(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """One line of the table: the mean over seeds of each run's final evaluation, and its t interval."""
    import torch  # noqa: PLC0415

    returns = torch.tensor([run["eval_return_mean"] for run in runs], dtype=torch.float64)
    mean, interval = mean_ci95(returns)
    solved = [steps for run in runs if (steps := run.get("solved_at_env_steps")) is not None]
    return (
        name,
        str(len(runs)),
        f"{mean:.2f}",
        "-" if interval is None else f"{interval[0]:.2f} .. {interval[1]:.2f}",
        f"{float(returns.min()):.2f}",
        f"{len(solved)} of {len(runs)}",
        f"{np.median(solved):,.0f}" if solved else "-",
        f"{np.median([run.get('train_seconds') or 0.0 for run in runs]):.1f}",
    )


def read_curve(run: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(env steps, values) of one metric of one run."""
    rows = [row for row in read_metrics(run / "metrics.csv") if row.get(metric)]
    rows = [row for row in rows if _is_number(row[metric])]
    steps = np.array([float(row["env_steps"]) for row in rows])
    return steps, np.array([float(row[metric]) for row in rows])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def interpolate(
    curves: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Curves on a common grid over the steps that all of them cover: grid, mean, half width of the 95 % interval."""
    start, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    grid = np.linspace(start, max(start, end), _GRID)
    values = np.stack([np.interp(grid, steps, value) for steps, value in curves])
    if len(curves) < 2:
        return grid, values.mean(axis=0), None
    half = t95(len(curves) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(curves))
    return grid, values.mean(axis=0), half
