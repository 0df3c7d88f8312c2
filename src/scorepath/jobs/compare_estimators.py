"""Estimators side by side: the variance of their gradients, and what is learned with them."""

import csv
import logging
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from scorepath import garbage
from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.directory import check_writable
from scorepath.run.files import replacing
from scorepath.sources import CONF
from scorepath.sweeps.table import format_table

log = logging.getLogger("scorepath")


class Point(NamedTuple):
    """The variance of one combination at one value of the parameter."""

    variance: float  # trace of the covariance of one episode's gradient
    error: float  # its standard error


@dataclass(frozen=True)
class _Environment:
    """What `gradient_samples` needs of a problem, for an environment whose gradient is not known."""

    node: Any

    def env(self, num_episodes: int) -> Any:
        from scorepath.build import make_environment  # noqa: PLC0415

        return make_environment(self.node, num_episodes)

    @property
    def dynamics(self) -> Any:
        return self.env(1)  # for its max_episode_steps


class _Parts(NamedTuple):
    """A combination at one value of the parameter."""

    problem: Any
    policy: Any
    estimator: Any
    baseline: Any
    entries: slice  # of a flat gradient, whose variance is compared


def compare_estimators(cfg: DictConfig) -> None:
    """Draws the variance of estimators against a parameter, and learning curves; prints and writes the tables.

    Raises:
        ConfigError: for a combination that cannot work, or without matplotlib.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise ConfigError('Figures need matplotlib: pip install -e ".[plots]".') from error
    mpl.use("Agg")
    folder = Path(cfg.folder)
    check_writable(folder)
    unknown = sorted(set(cfg.parts) - {"variance", "learning"})
    if unknown:
        raise ConfigError(f"parts={unknown[0]} does not exist: choose of variance and learning.")
    if "variance" in cfg.parts:
        compare_variances(cfg, folder)
    if "learning" in cfg.parts and cfg.learning is not None:
        compare_learning(cfg, folder)


def compare_variances(cfg: DictConfig, folder: Path) -> None:
    """Writes variance.png and variance.csv."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    from scorepath.jobs.plot import write_figure  # noqa: PLC0415

    sweeps = list(cfg.sweeps.values())
    # all of them before the first is sampled, which takes long: what cannot work is refused at once
    made = [
        [
            {name: _make(cfg, sweep, float(value), options) for name, options in cfg.combinations.items()}
            for value in sweep["values"]
        ]
        for sweep in sweeps
    ]
    figure, panels = plt.subplots(1, len(sweeps), figsize=(4.2 * len(sweeps), 3.6), layout="constrained", squeeze=False)
    table: list[tuple[str, ...]] = []
    for axes, sweep, by_value in zip(panels[0], sweeps, made, strict=True):
        title = sweep.title
        values = [float(value) for value in sweep["values"]]
        curves = {name: [_variance(cfg, parts[name]) for parts in by_value] for name in cfg.combinations}
        for name, curve in curves.items():
            variances, errors = np.array(curve).T
            axes.errorbar(values, variances, yerr=1.96 * errors, label=name, marker="o", markersize=3, linewidth=1)
            table += [
                (title, name, f"{value:g}", f"{point.variance:.4g}", f"{1.96 * point.error:.2g}")
                for value, point in zip(values, curve, strict=True)
            ]
        for first, second, x, y in crossings(values, curves):
            axes.plot(x, y, marker="x", color="black", markersize=8)
            axes.annotate(f"{x:.2f}", (x, y), textcoords="offset points", xytext=(6, 6), fontsize="small")
            log.info("%s: %s and %s cross at %s = %.2f", title, first, second, sweep.parameter, x)
        axes.set(title=title, xlabel=str(sweep.parameter).rpartition(".")[2], yscale="log")
        if min(values) > 0 and max(values) / min(values) > 20:
            axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("variance of one episode's gradient")
    panels[0][0].legend(frameon=False, fontsize="small")
    header = ("task", "combination", "value", "variance", "95 % +-")
    print(format_table(header, table))
    with replacing(folder / "variance.csv", text=True) as file:
        csv.writer(file).writerows([header, *table])
    write_figure(figure, folder / "variance.png")
    log.info("%s", folder / "variance.png")


def _make(cfg: DictConfig, sweep: DictConfig, value: float, options: Mapping[str, Any]) -> _Parts:
    from scorepath.build import construct, make_slots  # noqa: PLC0415

    garbage.resume()
    on_problem = "problem" in sweep
    task = f"problem={sweep.problem}" if on_problem else f"env={sweep.env}"
    chosen = {key: cfg[key] for key in ("gamma", "episodes_per_update", "seed")}
    chosen |= {**sweep.get("options", {}), **options}
    chosen[sweep.parameter] = f"{value:g}"
    overrides = [task, *(f"{key}={'null' if option is None else option}" for key, option in chosen.items())]
    primary = "check_gradient" if on_problem else "train"
    try:
        composed = hydra.compose(primary, overrides, return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(f"{' '.join(str(error).split())} (in: {' '.join(overrides)}).") from error
    names = {key: str(option) for key, option in composed.hydra.runtime.choices.items()}
    problem: Any = construct(composed.problem, task) if on_problem else _Environment(composed.env)
    policy, estimator, baseline = make_slots(composed, problem.env(1), names)
    if on_problem:
        policy, estimator, baseline = policy.double(), estimator.double(), baseline.double()
    entries = slice(None) if cfg.gradient_of is None else _entries(policy, cfg.gradient_of)
    return _Parts(problem, policy, estimator, baseline, entries)


def _variance(cfg: DictConfig, parts: _Parts) -> Point:
    from scorepath.verify import gradient_samples  # noqa: PLC0415

    samples = gradient_samples(
        *parts[:4], gamma=cfg.gamma, batches=cfg.batches, episodes=cfg.episodes_per_update, seed=cfg.seed
    )[:, parts.entries]
    deviations = (samples - samples.mean(dim=0)).square().sum(dim=1) * cfg.episodes_per_update
    return Point(float(deviations.mean()), float(deviations.std()) / math.sqrt(len(deviations)))


def _entries(policy: Any, name: str) -> slice:
    """Where a parameter's entries lie in a flat gradient."""
    start, names = 0, []
    for own, parameter in policy.named_parameters():
        if not parameter.requires_grad:
            continue
        if own == name:
            return slice(start, start + parameter.numel())
        start += parameter.numel()
        names.append(own)
    raise ConfigError(f"gradient_of={name} is no parameter of the policy: use null, or one of {', '.join(names)}.")


def crossings(values: Sequence[float], curves: Mapping[str, Sequence[Point]]) -> list[tuple[str, str, float, float]]:
    """Where two curves cross, by straight lines between the logarithms of the variances.

    Returns:
        (one, other, value of the parameter, variance) of each crossing of each pair.
    """
    found = []
    names = list(curves)
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            one, other = ([point.variance for point in curves[name]] for name in (names[first], names[second]))
            if min(*one, *other) <= 0.0:
                continue
            gap = np.log(one) - np.log(other)
            for index in map(int, np.flatnonzero(gap[:-1] * gap[1:] < 0)):
                share = float(gap[index] / (gap[index] - gap[index + 1]))
                x = values[index] + share * (values[index + 1] - values[index])
                y = math.exp((1 - share) * math.log(one[index]) + share * math.log(one[index + 1]))
                found.append((names[first], names[second], x, y))
    return found


def compare_learning(cfg: DictConfig, folder: Path) -> None:
    """Trains over seeds, or continues a sweep that was stopped, and writes learning.png."""
    from scorepath.jobs.plot import plot  # noqa: PLC0415

    learning = cfg.learning
    command = [sys.executable, str(CONF.parent / "scripts" / "train.py"), "--multirun", *learning.overrides]
    command += [f"sweep={learning.sweep}"]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ScorepathError(f"the sweep of learning curves ended with exit code {code}: see its own message above.")
    plot(
        OmegaConf.create(
            {
                "runs": f"outputs/sweeps/{learning.sweep}",
                "metric": "eval/return_mean",
                "threshold": learning.threshold,
                "title": None,
                "file": str(folder / "learning.png"),
            }
        )
    )
