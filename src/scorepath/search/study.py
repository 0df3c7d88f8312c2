"""A study of Optuna's on disk that any number of processes work on, and that none of them can lose.

The journal has one line for a new trial with all its values, written under the lock of the study's folder. Who works on
a trial holds the lock of the trial's folder, which ends with the process: a running trial that nobody holds is the next
one to be continued. A setting is a pure function of the search's seed, the trial's number and the trials before it, so
that no sampler has a state to be lost.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from scorepath.config import leaves
from scorepath.errors import ConfigError, InUseError, ScorepathError
from scorepath.run.changes import difference_of
from scorepath.run.directory import unwritable
from scorepath.run.lock import is_locked, locked
from scorepath.run.reading import check_links, check_run_folder
from scorepath.search.race import is_hopeless
from scorepath.search.space import Dimension, Params, suggest

log = logging.getLogger("scorepath")

JOURNAL = "journal.log"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_WHAT, _VALUES, _ERROR = "search", "values", "error"  # attributes of the study, and of a trial
_PATIENCE = 60.0  # seconds for a lock that is held for milliseconds
_SAMPLED, _DRAWN = 10, 100  # settings that the sampler, and then chance, may propose until one is new


class StudyLock(BaseJournalFileLock):
    """The lock of a study's folder, which one process may take again while it has it; half of a last line is cut off.

    Optuna's own locks are files that a killed process leaves behind, for half a minute.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = ExitStack()
        self._depth = 0

    def acquire(self) -> bool:
        until = time.monotonic() + _PATIENCE
        while not self._depth:
            try:
                self._held.enter_context(locked(self.folder))
                _cut(self.folder / JOURNAL)
                break
            except InUseError:
                if time.monotonic() > until:
                    raise
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._held.close()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def _cut(journal: Path) -> None:
    """Takes away a last line without an end: whoever wrote it was killed, for all write under the lock."""
    if not journal.exists() or not journal.stat().st_size:
        return
    with journal.open("r+b") as file:
        file.seek(-1, 2)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


class Study:
    """The trials of a search.

    Args:
        folder: of the study; made if it is not there.
        space: what a setting is made of.
        default: the setting of trial 0, if the space holds what the config has without a search.
        seed: of the sampler.
        maximize: whether larger is better.
        what: the search is, as plain containers; a study in the folder must have been begun with the same.

    Raises:
        ConfigError: for the folder of another search, with the difference, or one that cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        space: list[Dimension],
        default: Params | None,
        seed: int,
        maximize: bool,
        what: Mapping[str, Any],
    ) -> None:
        self.folder, self.space, self.default, self.seed = folder, space, default, seed
        self.sign = 1.0 if maximize else -1.0
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_links(folder, JOURNAL)
            self._lock = StudyLock(folder)
            with self._lock:
                storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock_obj=self._lock))
                if folder.name in optuna.get_all_study_names(storage):  # to create it once more would add a line
                    self._study = optuna.load_study(study_name=folder.name, storage=storage)
                else:
                    direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
                    self._study = optuna.create_study(study_name=folder.name, storage=storage, direction=direction)
                there = self._study.user_attrs.get(_WHAT)
                if there is None:
                    self._study.set_user_attr(_WHAT, dict(what))
        except OSError as error:
            raise ConfigError(unwritable(folder, error)) from error
        except (ValueError, KeyError, AssertionError) as error:  # of Optuna, for a line that it did not write
            raise ConfigError(
                f"{folder / JOURNAL} cannot be read as a journal of Optuna's ({type(error).__name__}: {error}): choose "
                "another search=NAME, or put a copy back."
            ) from error
        if there is not None and there != what:
            before, now = leaves(there), leaves(what)
            keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
            raise ConfigError(
                f"{folder} is another search: {difference_of(keys, before, now)}. Put that back, or choose another "
                "search=NAME."
            )
        own = {dimension.key: dimension.distribution for dimension in space}
        strangers = [trial.number for trial in self.trials() if not trial.distributions.items() <= own.items()]
        if strangers:  # the journal may be another's, and a setting is what will be run
            raise ConfigError(f"Trial {strangers[0]} of {folder} is not of this space: choose another search=NAME.")

    def trials(self) -> list[FrozenTrial]:
        """All of them, by their numbers."""
        return self._study.get_trials(deepcopy=False)

    def best(self) -> FrozenTrial | None:
        """The finished trial with the best mean over all seeds."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: self.sign * _value(trial), default=None)

    def place(self, trial: FrozenTrial) -> Path:
        """Its folder."""
        return self.folder / f"trial-{trial.number:04}"

    @contextmanager
    def claimed(self, number: int) -> Iterator[FrozenTrial | None]:
        """A trial that is this process's alone inside: one that has lost its process, or else a new one.

        Args:
            number: of trials that the search is to have.

        Yields:
            None if there is none: all are finished, or at work elsewhere, or the space holds no other setting.
        """
        with ExitStack() as held:
            with self._lock:
                trial = self._orphan() or self._new(number)
                if trial is not None:
                    check_run_folder(self.place(trial), of_sweep=True)
                    self.place(trial).mkdir(exist_ok=True)
                    held.enter_context(locked(self.place(trial)))
            yield trial

    def at_work(self) -> bool:
        """Whether another process is at a trial, or has left one."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials())

    def _orphan(self) -> FrozenTrial | None:
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        return next((trial for trial in running if not is_locked(self.place(trial))), None)

    def _new(self, number: int) -> FrozenTrial | None:
        """The next trial, written down at once with all that it is."""
        trials = self.trials()
        if len(trials) >= number:
            return None
        params = self.default if not trials and self.default is not None else self._sample(trials)
        if params is None:
            return None
        distributions = {own.key: own.distribution for own in self.space if own.key in params}
        self._study.add_trial(optuna.create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
        return self.trials()[len(trials)]

    def _sample(self, trials: list[FrozenTrial]) -> Params | None:
        """A setting that no trial has, from a copy of the study in memory; None if none is found."""
        seed = int(np.random.SeedSequence([self.seed, len(trials)]).generate_state(1)[0])
        copy = optuna.create_study(direction=self._study.direction, sampler=optuna.samplers.TPESampler(seed=seed))
        copy.add_trials(trials)
        known = [trial.params for trial in trials]
        for attempt in range(_DRAWN):
            if attempt == _SAMPLED:
                copy.sampler = optuna.samplers.RandomSampler(seed=seed)
            params = suggest(copy.ask(), self.space)
            if params not in known:
                return params
        return None

    def report(self, trial: FrozenTrial, values: list[float]) -> None:
        """Writes down a trial's values on its first seeds, and as an intermediate value their mean."""
        if len(values_of(self._now(trial))) >= len(values):
            return  # before its process was lost
        with self._lock:
            own = optuna.Trial(self._study, trial._trial_id)  # noqa: SLF001 (there is no other way to one)
            if len(values) not in self._now(trial).intermediate_values:
                own.report(sum(values) / len(values), len(values))
            own.set_user_attr(_VALUES, values)

    def is_hopeless(self, trial: FrozenTrial, values: list[float]) -> bool:
        """Whether a trial with these values on its first seeds will hardly be the best on all."""
        best = self.best()
        if best is None:
            return False
        others = [other for other in self.trials() if other.state in FINISHED and other.number != best.number]
        rows = [self._signed(values_of(other)) for other in others if values_of(other)]
        return is_hopeless(self._signed(values), self._signed(values_of(best)), rows)

    def tell(self, trial: FrozenTrial, value: float | None, error: str | None = None) -> FrozenTrial:
        """Ends a trial: with its value, without one as pruned, or with an error as failed."""
        with self._lock:
            if error is not None:
                self._study._storage.set_trial_user_attr(trial._trial_id, _ERROR, error)  # noqa: SLF001
            state = TrialState.FAIL if error else TrialState.PRUNED if value is None else TrialState.COMPLETE
            return self._study.tell(trial.number, value, state, skip_if_finished=True)

    def importances(self) -> dict[str, float]:
        """The share of each key in what makes settings good, the most important first; of given up ones by their means.

        Raises:
            ScorepathError: if too few trials have a value.
        """
        rated = [trial for trial in self.trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        copy = optuna.create_study(direction=self._study.direction)
        for trial in rated:
            copy.add_trial(
                optuna.create_trial(params=trial.params, distributions=trial.distributions, value=_value(trial))
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of keys that few trials have
                return optuna.importance.get_param_importances(copy)
        except (ValueError, RuntimeError) as error:
            raise ScorepathError(str(error)) from error

    def _now(self, trial: FrozenTrial) -> FrozenTrial:
        return self.trials()[trial.number]

    def _signed(self, values: list[float]) -> list[float]:
        return [self.sign * value for value in values]


def values_of(trial: FrozenTrial) -> list[float]:
    """A trial's values on its first seeds, as far as it was run."""
    values: list[float] = trial.user_attrs.get(_VALUES, [])
    return values


def error_of(trial: FrozenTrial) -> str | None:
    """Why a trial has failed."""
    return trial.user_attrs.get(_ERROR)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
