"""A search for hyperparameters: trials over seeds until there are enough, then what they have found on fresh seeds."""

import json
import logging
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scorepath.errors import ConfigError, InterruptedRunError, InUseError, ScorepathError
from scorepath.jobs.train import check_objective, train
from scorepath.run.changes import OF_THE_COMMAND, of_the_run
from scorepath.run.console import outlive_consoles
from scorepath.run.lock import describe_process
from scorepath.run.printing import escape
from scorepath.sweeps.loader import without_hydra
from scorepath.sweeps.names import key_of
from scorepath.sweeps.state import FAILED, FINISHED, RUNNING, read_summary, state_of
from scorepath.sweeps.stopping import follow

if TYPE_CHECKING:  # they need Optuna
    from optuna.trial import FrozenTrial

    from scorepath.search.runs import Runs
    from scorepath.search.study import Study

log = logging.getLogger("scorepath")

# Keys of search.yaml that train.yaml does not have
OWN = ("search", "trials", "seeds", "final_seeds", "prune", "direction", "workers")
_LARGER_IS_BETTER = ("eval_return_mean", "env_steps_per_second")
_BLOCK = 10_000  # seeds of a search: the first half is for trials, the second for the report
_STARTER = "SCOREPATH_SEARCH_STARTER"  # variable of a worker that a search has started: the process of that search
_POLL = 1.0  # seconds between two looks at what others do

# (folder of a run, its overrides) -> (value of the objective, or why there is none)
Measure = Callable[[Path, Sequence[str]], tuple[float | None, str | None]]


def search(cfg: DictConfig) -> None:
    """Searches, reports, and writes the best setting as an experiment.

    Raises:
        ConfigError: for what was refused before anything began.
        ScorepathError: if a signal ended it, or no trial has a value.
    """
    outlive_consoles()
    try:
        import optuna  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError('search.py needs Optuna: pip install "scorepath[search]".') from error
    from scorepath.search.runs import Runs  # noqa: PLC0415

    if not re.fullmatch(r"\w[\w.+-]*", cfg.search):
        raise ConfigError(f"search={cfg.search} names a folder: give letters, digits and . _ + - alone.")
    check_objective(cfg.objective)
    command = HydraConfig.get()
    # as they were written: the values of environment variables must not be in the folders of runs
    given: Any = OmegaConf.to_container(command.overrides.task, resolve=False)
    overrides = [text for text in given if key_of(text) not in (*OWN, *OF_THE_COMMAND, "seed")]
    runs = Runs(GlobalHydra.instance().config_loader(), overrides, list(command.overrides.hydra), train)
    if (starter := os.environ.pop(_STARTER, None)) is not None:
        follow(starter)
    study = _open(cfg, runs)
    try:
        with _workers(cfg, study.folder):
            _try_all(cfg, study, _measure_by(runs, cfg.objective))
            _report(cfg, study, runs)
    except InterruptedRunError as error:
        stopped = ScorepathError(
            f"{str(error).partition(':')[0]}: stopped after the update in progress. The same command with "
            f"search={cfg.search} continues the search."
        )
        stopped.exit_code = error.exit_code
        raise stopped from error


def _open(cfg: DictConfig, runs: "Runs") -> "Study":
    """The study, once all that can be refused has not been."""
    from scorepath.search.space import corners, default_setting, overrides_of, parse_space  # noqa: PLC0415

    command = HydraConfig.get()
    sweeper: Any = OmegaConf.to_container(OmegaConf.create(command.sweeper))
    content = sweeper.get("space")
    chosen = command.runtime.choices.get("hparams_search")
    try:
        if content is None:
            raise ConfigError("there is no space to search: choose hparams_search=cartpole, or write one.")
        space = parse_space(content)
        last = f"seed={_BLOCK * (cfg.seed + 1) - 1}"
        runs.check([last])
        for setting in corners(space):
            runs.check([*overrides_of(setting), last])
    except ConfigError as error:
        raise ConfigError(f"hparams_search={chosen}: {error}") from error
    config = runs.compose([])
    plain: Any = OmegaConf.to_container(without_hydra(config), resolve=False)
    values = {key.key: config.hydra.runtime.choices.get(key.key, OmegaConf.select(config, key.key)) for key in space}
    default = default_setting(
        space, {key: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for key, v in values.items()}
    )
    maximize = (cfg.direction or ("maximize" if cfg.objective in _LARGER_IS_BETTER else "minimize")) == "maximize"
    what = {"space": content, "seed": cfg.seed, "seeds": cfg.seeds, "prune": cfg.prune, "maximize": maximize}
    what["config"] = of_the_run(plain)
    from scorepath.search.study import Study  # noqa: PLC0415 (takes torch)

    folder = Path("outputs", "searches", cfg.search)
    return Study(folder, space, default, cfg.seed, maximize, json.loads(json.dumps(what, default=str)))


def _measure_by(runs: "Runs", objective: str) -> Measure:
    def measure(folder: Path, overrides: Sequence[str]) -> tuple[float | None, str | None]:
        error = None if state_of(folder) == FINISHED else runs.run(folder, overrides)
        value = read_summary(folder).get(objective)
        if error is None and (not isinstance(value, int | float) or not math.isfinite(value)):
            error = f"its {objective} is {value}, and no number that counts"
        return (None, error) if error is not None else (float(value), None)  # type: ignore[arg-type]

    return measure


def _try_all(cfg: DictConfig, study: "Study", measure: Measure) -> None:
    """Trials until there are enough, and none is at work."""
    seeds = range(_BLOCK * cfg.seed, _BLOCK * cfg.seed + cfg.seeds)
    waited = False
    while True:
        with study.claimed(cfg.trials) as trial:
            if trial is not None:
                log.info("%s", run_trial(study, trial, seeds, measure, cfg.prune))
                continue
        if not study.at_work():
            return
        if not waited:
            log.info("Another process is at work on a trial: waiting for it.")
        waited = True
        time.sleep(_POLL)


def run_trial(study: "Study", trial: "FrozenTrial", seeds: Sequence[int], measure: Measure, prune: bool) -> str:
    """Runs a setting on seed after seed, until it is given up or has all. Returns what became of it, in a line."""
    from scorepath.search.space import overrides_of, shown  # noqa: PLC0415

    setting, values = overrides_of(trial.params), list[float]()
    name = f"trial {trial.number} ({', '.join(f'{key}={shown(value)}' for key, value in trial.params.items())})"
    for seed in seeds:
        value, error = measure(study.place(trial) / f"seed-{seed}", [*setting, f"seed={seed}"])
        if value is None:
            study.tell(trial, None, f"seed {seed}: {error}")
            return f"{name}: failed on seed {seed}: {error}"
        values.append(value)
        study.report(trial, values)
        if prune and study.is_hopeless(trial, values):
            break
    mean, given_up = sum(values) / len(values), len(values) < len(seeds)
    study.tell(trial, None if given_up else mean)
    return f"{name}: {mean:.6g} over {len(values)} seeds{', given up' if given_up else ''}"


def _report(cfg: DictConfig, study: "Study", runs: "Runs") -> None:
    """The best setting and the default on fresh seeds, and all that there is to say."""
    from scorepath.search import result  # noqa: PLC0415
    from scorepath.search.space import overrides_of  # noqa: PLC0415

    best = study.best()
    if best is None:
        raise ScorepathError(f"No trial of {study.folder} has a value. {result.failures(study) or ''}")
    setting = overrides_of(best.params)
    settings = {f"best-{best.number:04}": setting, "default": []}
    if best.number == 0 and study.default is not None:
        del settings["default"]  # it is the best
    first = _BLOCK * cfg.seed + _BLOCK // 2
    seeds = range(first, first + cfg.final_seeds)
    jobs = {
        study.folder / name / f"seed-{seed}": [*own, f"seed={seed}"] for name, own in settings.items() for seed in seeds
    }
    _finish(runs, jobs)
    rows = {}
    for name in settings:
        found = {seed: read_summary(study.folder / name / f"seed-{seed}") for seed in seeds}
        values = {
            seed: summary.get(cfg.objective) for seed, summary in found.items() if summary.get("status") != "failed"
        }
        rows[name.partition("-")[0]] = {seed: float(value) for seed, value in values.items() if value is not None}
    file = study.folder / "experiment" / "best.yaml"
    command = result.command_of(runs, setting)
    comment = f"Trial {best.number} of {study.folder}: {cfg.objective} {best.value:.6g} over {cfg.seeds} seeds."
    result.write_experiment(file, runs, setting, comment)
    tuned = f"{_BLOCK * cfg.seed} to {_BLOCK * cfg.seed + cfg.seeds - 1}"
    lines = [
        result.table_of(study),
        "",
        f"{cfg.objective} on seeds {seeds[0]} to {seeds[-1]}, which no trial has seen (those had {tuned}):",
        result.compared(rows),
        "" if len(rows) == 2 else "The default is the best setting.\n",
        f"What matters: {result.importances(study)}.",
        f"Spent: {result.spent(study, cfg.seeds)}",
        f"The best setting, trial {best.number}, with train.py, or as an experiment from {file}:",
        f"  {command}",
        f"  python scripts/train.py --config-dir {study.folder} experiment=best",
    ]
    failed = result.failures(study)
    print("\n".join([*lines, *([f"Failed: {escape(failed)}"] if failed else [])]))


def _finish(runs: "Runs", jobs: dict[Path, list[str]]) -> None:
    """Has runs done that any process may be at; one that has failed stays so."""
    while left := [folder for folder in jobs if state_of(folder) not in (FINISHED, FAILED)]:
        free = next((folder for folder in left if state_of(folder) != RUNNING), None)
        if free is None:
            time.sleep(_POLL)
            continue
        try:
            error = runs.run(free, jobs[free])
        except InUseError:
            continue  # another process was faster
        if error is not None:
            log.warning("%s failed: %s", free, error)


@contextmanager
def _workers(cfg: DictConfig, folder: Path) -> Iterator[None]:
    """The same command as often as asked, beside this process; ends with it."""
    arguments = [*sys.argv[1:], f"search={cfg.search}", "workers=1"]
    children = []
    for number in range(2, cfg.workers + 1):
        file = folder / f"worker-{number}.log"
        with file.open("ab") as output:
            environment = {**os.environ, _STARTER: describe_process(os.getpid())}
            command = [sys.executable, sys.argv[0], *arguments]
            children.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
            )
    try:
        yield
    except BaseException:
        for child in children:
            child.terminate()
        raise
    finally:
        for number, child in enumerate(children, 2):
            if child.wait() > 0 and sys.exc_info()[0] is None:
                log.warning("Worker %d ended with exit code %d: see %s.", number, child.returncode, folder)
