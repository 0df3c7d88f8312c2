"""What a search has found: the table of its trials, the best setting to be used again, and what was spent."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from scorepath.config import leaves
from scorepath.errors import ScorepathError
from scorepath.intervals import mean_ci95
from scorepath.run.changes import of_the_run
from scorepath.run.files import write_text
from scorepath.search.runs import Runs
from scorepath.search.space import shown, text_of
from scorepath.search.study import Study, error_of, values_of
from scorepath.sweeps.loader import without_hydra
from scorepath.sweeps.names import quoted, shortest_endings
from scorepath.sweeps.state import read_summary
from scorepath.sweeps.table import format_table

_SHOWN = 10  # trials of the table
_WORDS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}
_ABSENT = object()
_NO_OPTIONS_OF_A_RUN = ("hydra", "experiment", "hparams_search", "debug")


def table_of(study: Study) -> str:
    """The best trials."""
    order = sorted(study.trials(), key=lambda trial: _rank(study, trial))[:_SHOWN]
    keys = [dimension.key for dimension in study.space]
    short = shortest_endings(keys)
    rows = [
        (
            str(trial.number),
            _WORDS.get(trial.state, "running"),
            str(len(values_of(trial))),
            "-" if trial.value is None else f"{trial.value:.4g}",
            *(shown(trial.params[key]) if key in trial.params else "" for key in keys),
        )
        for trial in order
    ]
    return format_table(("trial", "state", "seeds", "mean", *(short[key] for key in keys)), rows)


def _rank(study: Study, trial: FrozenTrial) -> tuple[int, float]:
    order = (TrialState.COMPLETE, TrialState.PRUNED)
    worth = 0.0 if trial.value is None else -study.sign * trial.value
    return (order.index(trial.state) if trial.state in order else len(order)), worth


def compared(rows: Mapping[str, Mapping[int, float]]) -> str:
    """Mean values over seeds with their 95 % t intervals, and those of the difference of the first two on equal seeds.

    Args:
        rows: setting -> seed -> value.
    """
    names = list(rows)
    if len(names) == 2:
        one, other = rows.values()
        rows = {**rows, "difference": {seed: one[seed] - other[seed] for seed in one if seed in other}}
    return format_table(
        ("setting", "mean", "95 % interval", "seeds"),
        [(name, *_interval(list(values.values())), str(len(values))) for name, values in rows.items()],
    )


def _interval(values: Sequence[float]) -> tuple[str, str]:
    import torch  # noqa: PLC0415 (seconds to import; whoever has values has it already)

    if not values:
        return "-", "-"
    mean, interval = mean_ci95(torch.tensor(values, dtype=torch.float64))
    return f"{mean:.4g}", "-" if interval is None else f"{interval[0]:.4g} .. {interval[1]:.4g}"


def spent(study: Study, seeds: int) -> str:
    """What all runs of a study have taken, in a few lines."""
    trials = study.trials()
    states = Counter(trial.state for trial in trials)
    runs = sum(len(values_of(trial)) for trial in trials)
    summaries = [read_summary(file.parent) for file in study.folder.glob("*/seed-*/summary.json")]
    steps, seconds = (sum(summary.get(key) or 0 for summary in summaries) for key in ("env_steps", "train_seconds"))
    failed = f", {states[TrialState.FAIL]} failed" if states[TrialState.FAIL] else ""
    return (
        f"{len(trials)} trials, {states[TrialState.PRUNED]} given up early{failed}: {runs} runs of "
        f"{len(trials) * seeds}. With the report's, {len(summaries)} runs of {steps:,} env steps and {seconds:,.0f} s."
    )


def importances(study: Study) -> str:
    """The share of each key in what makes settings good, the most important first."""
    try:
        shares = study.importances()
    except ScorepathError as error:
        return f"too few trials to say ({error})"
    return ", ".join(f"{key} {share:.0%}" for key, share in shares.items())


def failures(study: Study) -> str | None:
    """The first cause for which trials have failed."""
    failed = [trial for trial in study.trials() if trial.state == TrialState.FAIL]
    return f"trial {failed[0].number}: {error_of(failed[0])}" if failed else None


def settings_of(runs: Runs, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a run differs from what train.py does by itself, but for its seed.

    Returns:
        (options of groups, values of dotted keys).
    """
    wanted = runs.compose(overrides)
    chosen = _choices(wanted)
    options: dict[str, Any] = {}
    while True:
        config = runs.compose([f"{group}={text_of(option)}" for group, option in options.items()], alone=True)
        # an option may bring others with it, which are then to be named too
        differing = {group: option for group, option in chosen.items() if _choices(config).get(group) != option}
        if differing.keys() <= options.keys():
            break
        options |= differing
    here, there = (of_the_run(_plain(own)) for own in (wanted, config))
    values = {key: value for key, value in here.items() if key != "seed" and there.get(key, _ABSENT) != value}
    return options, values


def command_of(runs: Runs, overrides: Sequence[str]) -> str:
    """The command that trains with these settings."""
    options, values = settings_of(runs, overrides)
    there = leaves(
        _plain(runs.compose([f"{group}={text_of(option)}" for group, option in options.items()], alone=True))
    )
    words = [f"{group}={text_of(option)}" for group, option in options.items()]
    words += [f"{'' if key in there else '+'}{key}={_quoted(value)}" for key, value in values.items()]
    return shlex.join(["python", "scripts/train.py", *words])


def write_experiment(file: Path, runs: Runs, overrides: Sequence[str], comment: str) -> None:
    """Writes these settings as an option of the group `experiment`."""
    options, values = settings_of(runs, overrides)
    content: dict[str, Any] = {"defaults": [{f"override /{group}": option} for group, option in options.items()]}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    if not options:
        del content["defaults"]
    file.parent.mkdir(exist_ok=True)
    write_text(
        file, f"# @package _global_\n# {comment}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"
    )


def _choices(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config.hydra.runtime.choices)
    return {group: option for group, option in plain.items() if "/" not in group and group not in _NO_OPTIONS_OF_A_RUN}


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(without_hydra(config), resolve=False)
    return plain


def _quoted(value: Any) -> str:
    """A value as it stands in an override."""
    return quoted(value) if isinstance(value, str) else text_of(value)
