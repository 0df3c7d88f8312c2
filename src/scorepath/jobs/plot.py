"""Learning curves over seeds, and the table of their results."""

import logging
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from scorepath.errors import ConfigError
from scorepath.intervals import mean_ci95
from scorepath.run.csv_logger import read_metrics
from scorepath.run.files import replacing
from scorepath.run.printing import escape
from scorepath.run.reading import check_links
from scorepath.sweeps.curves import Curve, group_by_seed, interpolate, is_finished, overlap, read_curve
from scorepath.sweeps.table import format_table

log = logging.getLogger("scorepath")
_WIDTH = 70  # letters of a line of the legend


def plot(cfg: DictConfig) -> None:
    """Groups the runs of a folder by all but their seed, prints a table and draws mean and 95 % t interval.

    Runs that are still training, or ended early, are in it too: their status in the table, their curves as thin lines.

    Raises:
        ConfigError: if there are no runs, no metrics, or no matplotlib, or `file` cannot be written.
    """
    folder = Path(cfg.runs)
    check_links(folder, "curves.png")
    groups = group_by_seed(folder)
    if not groups:
        raise ConfigError(f"runs={folder} holds no run: choose a run's folder, or one above it.")
    print(format_table(_HEADER, [result_row(name, runs) for name, runs in sorted(groups.items())]))
    try:
        import matplotlib as mpl  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise ConfigError('Figures need matplotlib: pip install -e ".[plots]".') from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, runs in sorted(groups.items()):
        curves = [(run, curve) for run in runs if (curve := read_curve(folder / run["job"], cfg.metric))[0].size]
        finished = [curve for run, curve in curves if is_finished(run)]
        draw_group(axes, name, finished, [curve for run, curve in curves if not is_finished(run)])
    if not axes.lines:
        raise ConfigError(_no_curve(cfg.metric, folder, [run for runs in groups.values() for run in runs]))
    if cfg.threshold is not None:
        axes.axhline(cfg.threshold, color="0.5", linestyle="--", linewidth=1)
    axes.set(xlabel="env steps", ylabel=cfg.metric, title=(cfg.title or "").replace("$", r"\$"))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    file = Path(cfg.file or folder / "curves.png")
    try:
        write_figure(figure, file)
    except (OSError, ValueError) as error:  # the latter for an ending that names no kind of picture
        if cfg.file is not None:
            raise ConfigError(f"file={file} cannot be written ({error}): choose NAME.png in a folder.") from error
        reason = getattr(error, "strerror", None) or error
        sentence = f"scorepath: the figure could not be saved as {file} ({reason}): choose another with file=NAME.png."
        print(escape(sentence), file=sys.stderr)
    else:
        log.info("%s", file)
    finally:
        plt.close(figure)


def write_figure(figure: Any, file: Path) -> None:
    """Writes a figure in the kind that the file's ending names."""
    with replacing(file) as opened:
        figure.savefig(opened, format=file.suffix[1:] or "png", dpi=130)


def draw_group(axes: Any, name: str, finished: list[Curve], unfinished: list[Curve]) -> None:
    """Mean and interval of the finished runs, or of all if none is; each unfinished one as a thin line."""
    curves = finished or unfinished
    if not curves:
        return
    count = f"n = {len(curves)}" if finished else f"n = {len(curves)}, not finished"
    if finished and unfinished:
        count += f", {len(unfinished)} not finished"
    label = textwrap.fill(f"{name} ({count})".lstrip("_"), _WIDTH)  # a legend leaves out what begins so
    thin = unfinished if finished or len(curves) > 1 else []
    if overlap(curves) is not None:
        grid, mean, half = interpolate(curves)
        (line,) = axes.plot(grid, mean, label=label, marker="o" if grid[0] == grid[-1] else "")
        if half is not None:
            axes.fill_between(grid, mean - half, mean + half, alpha=0.2, color=line.get_color())
    else:  # no step is covered by all
        (line,) = axes.plot([], [], label=label)
        thin = [*finished, *unfinished]
    for steps, values in thin:
        axes.plot(steps, values, color=line.get_color(), linewidth=0.6, marker="." if len(steps) == 1 else "")


def _no_curve(metric: str, folder: Path, runs: list[dict[str, Any]]) -> str:
    """Why there is nothing to draw, and what could be."""
    rows = [row for run in runs for row in read_metrics(folder / run["job"] / "metrics.csv")]
    names = sorted({name for row in rows for name, value in row.items() if value} - {"env_steps"})
    if not names:
        return f"no run below {folder} has a row in its metrics.csv: wait for one, or train with logger=default or csv."
    return f"metric={metric} is in no metrics.csv of {folder}: choose one of {', '.join(names)}."


_HEADER = (
    *("runs", "seeds", "return", "95 % over seeds", "worst seed", "solved", "solved at (median)", "train s"),
    "status",
)


def result_row(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """One line of the table: the mean over seeds of each finished run's final evaluation, and its t interval."""
    import torch  # noqa: PLC0415

    done = [run for run in runs if is_finished(run)]
    returns = torch.tensor([run["eval_return_mean"] for run in done], dtype=torch.float64)
    mean, interval = mean_ci95(returns)
    solved = [steps for run in done if (steps := run.get("solved_at_env_steps")) is not None]
    states = Counter(run["status"] for run in runs)
    return (
        name,
        str(len(done)) if len(done) == len(runs) else f"{len(done)} of {len(runs)}",
        f"{mean:.2f}" if done else "-",
        "-" if interval is None else f"{interval[0]:.2f} .. {interval[1]:.2f}",
        f"{float(returns.min()):.2f}" if done else "-",
        f"{len(solved)} of {len(done)}",
        f"{np.median(solved):,.0f}" if solved else "-",
        f"{np.median([run.get('train_seconds') or 0.0 for run in done]):.1f}" if done else "-",
        ", ".join(f"{number} {status}" for status, number in sorted(states.items())),
    )
