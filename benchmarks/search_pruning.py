r"""How often a search that gives settings up ends with the winner of one that does not, and with how many of its runs.

Real runs, made once by a sweep of 20 settings on 10 seeds (it continues if it is stopped):

    python scripts/train.py -m sweep=pruning env=cartpole optimizer.lr=0.001,0.003,0.01,0.03,0.1 \
        estimator.entropy_coefficient=0.0,0.01 episodes_per_update=4,16 'seed=range(0,10)' max_env_steps=8000 \
        eval.episodes=20 logger=none callbacks=none record_episode=false
    python benchmarks/search_pruning.py outputs/sweeps/pruning

Each search is the real one, its study, sampler and rule, with the sweep's figures as measurements: all 20 settings, in
the order in which Optuna asks for them, on 5 of the 10 seeds. Two searches share some of their seeds, so that they are
not independent. The regret is how much worse a search's setting is than the best one, by the mean over all 10 seeds.

`python benchmarks/search_pruning.py` alone draws the figures from three kinds of noise instead, for the rule itself in
random order, beside Optuna's WilcoxonPruner (with scipy). The rule was chosen on the draws of --seed 0.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml  # type: ignore[import-untyped]

from scorepath.search.race import is_hopeless
from scorepath.search.space import overrides_of, parse_space
from scorepath.search.study import Study
from scorepath.sweeps.names import key_of
from scorepath.sweeps.records import known_jobs
from scorepath.sweeps.state import read_summary

SEARCHES, SEEDS, SETTINGS = 10, 5, 30
Rule = Callable[[Sequence[float], Sequence[float], Sequence[Sequence[float]]], bool]


class Replayed(NamedTuple):
    """A search: whether it has full evaluation's winner, its share of the runs, and the regrets of both."""

    right: bool
    share: float
    regret: float
    full_regret: float


def replay(sweep: Path, seed: int, searches: int = SEARCHES) -> list[Replayed]:
    """Searches over a sweep's figures."""
    from scorepath.jobs.search import run_trial  # noqa: PLC0415 (takes Hydra)

    table, choices = read_table(sweep)
    every = sorted({seed for values in table.values() for seed in values})
    space = parse_space({key: {"type": "categorical", "choices": values} for key, values in choices.items()})
    overall = {setting: float(np.mean(list(values.values()))) for setting, values in table.items()}
    results = []
    for number in range(searches * seed, searches * (seed + 1)):
        seeds = [int(own) for own in np.random.default_rng(number).choice(every, SEEDS, replace=False)]

        def measure(_: Path, overrides: Sequence[str]) -> tuple[float | None, str | None]:
            *setting, seed = overrides
            return table[frozenset(setting)][int(seed.partition("=")[2])], None

        with tempfile.TemporaryDirectory() as folder:
            study = Study(Path(folder), space, None, number, True, {})
            while True:
                with study.claimed(len(table)) as trial:
                    if trial is None:
                        break
                    run_trial(study, trial, seeds, measure, prune=True)
            runs = sum(len(trial.user_attrs["values"]) for trial in study.trials())
            best = study.best()
        assert best is not None and best.value is not None
        full = {setting: sum(values[own] for own in seeds) / SEEDS for setting, values in table.items()}
        winner = max(full, key=lambda setting: full[setting])
        right = abs(best.value - full[winner]) < 1e-9
        regrets = (max(overall.values()) - overall[own] for own in (frozenset(overrides_of(best.params)), winner))
        results.append(Replayed(right, runs / (len(table) * SEEDS), *regrets))
    return results


def read_table(sweep: Path) -> tuple[dict[frozenset[str], dict[int, float]], dict[str, list]]:
    """(overrides of a setting -> seed -> mean return, key -> its values) of a sweep's folder."""
    table: dict[frozenset[str], dict[int, float]] = {}
    jobs = known_jobs(sweep)
    common = frozenset.intersection(*(frozenset(overrides) for overrides in jobs.values()))
    choices: dict[str, list] = {}
    for name, overrides in jobs.items():
        own = [text for text in overrides if text not in common and key_of(text) != "seed"]
        summary = read_summary(sweep / name)
        table.setdefault(frozenset(own), {})[summary["seed"]] = summary["eval_return_mean"]
        for text in own:
            key, _, value = text.partition("=")
            values = choices.setdefault(key, [])
            if yaml.safe_load(value) not in values:
                values.append(yaml.safe_load(value))
    return table, choices


def drawn(kind: str, settings: int, seeds: int, random: np.random.Generator) -> np.ndarray:
    """Returns (settings, seeds) up to 500: normal noise, runs that fail or do not, noise by how good a setting is."""
    quality = random.beta(2.0, 2.0, (settings, 1))
    noise = random.standard_normal((settings, seeds))
    if kind == "normal":
        return 500 * quality + 60 * noise
    if kind == "failing":
        succeeds = random.random((settings, seeds)) < 0.3 + 0.65 * quality
        return np.where(succeeds, 500 * quality + 20 * noise, 30 + 10 * noise)
    return 500 * quality + (10 + 480 * quality * (1 - quality)) * noise


def simulate(rule: Rule, kind: str, seeds: int, searches: int, seed: int) -> tuple[float, float]:
    """Searches in random order. Returns (share of them that have the best setting, share of runs)."""
    random = np.random.default_rng(seed)
    right, runs = 0, 0
    for _ in range(searches):
        table = drawn(kind, SETTINGS, seeds, random)
        best = 0
        rows: list[list[float]] = []
        for k, row in enumerate(table):
            values: list[float] = []
            for value in row:
                values.append(float(value))
                if k and rule(values, list(table[best]), [own for number, own in enumerate(rows) if number != best]):
                    break
            runs += len(values)
            rows.append(values)
            if len(values) == seeds and row.mean() > table[best].mean():
                best = k
        right += best == table.mean(axis=1).argmax()
    return right / searches, runs / (searches * SETTINGS * seeds)


def wilcoxon(threshold: float) -> Rule:
    """As Optuna's WilcoxonPruner decides."""
    from scipy import stats  # noqa: PLC0415 (an extra)

    def rule(values: Sequence[float], best: Sequence[float], _: Sequence[Sequence[float]]) -> bool:
        if not 2 <= len(values) < len(best) or np.mean(values) >= np.mean(best):
            return False
        differences = np.subtract(values, best[: len(values)])
        return bool(stats.wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue < threshold)

    return rule


def main() -> None:
    """Prints one or the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, nargs="?", help="folder of real runs")
    parser.add_argument("--seed", type=int, default=1, help="of the draws of noise, or of seeds of the sweep")
    given = parser.parse_args()
    if given.sweep is not None:
        results = replay(given.sweep, given.seed)
        for number, one in enumerate(results):
            print(
                f"search {number}: {'the same winner' if one.right else 'another winner'}, {one.share:.0%} of the runs,"
                f" regret {one.regret:.1f} (full evaluation {one.full_regret:.1f})"
            )
        runs, regret, full = (np.mean([one[field] for one in results]) for field in (1, 2, 3))
        print(
            f"{sum(one.right for one in results)} of {len(results)}, {runs:.0%} of the runs, "
            f"regret {regret:.1f} (full evaluation {full:.1f})"
        )
        return
    for seeds in (3, 5, 10):
        for kind in ("normal", "failing", "uneven"):
            rules = {"ours": (is_hopeless, 200), "Wilcoxon .1": (wilcoxon(0.1), 40), "Wilcoxon .3": (wilcoxon(0.3), 40)}
            words = []
            for name, (rule, searches) in rules.items():
                right, share = simulate(rule, kind, seeds, searches, given.seed)
                words.append(f"{name} {right:.0%} at {share:.0%}")
            print(f"{seeds} seeds, {kind}: {'; '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
