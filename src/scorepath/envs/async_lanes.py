"""Environments in processes of their own as lanes, and what is done when one of the processes breaks."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, iterate

from scorepath.envs.composite import nest
from scorepath.envs.lanes import AbstractLanes
from scorepath.envs.reader import Answer, flatten_space
from scorepath.envs.workers import WorkerError, Workers
from scorepath.errors import ConfigError, ScorepathError
from scorepath.seeding import split_seed

log = logging.getLogger("scorepath")


class AsyncLanes(AbstractLanes):
    """Environments in processes of their own; those that are left out stand still.

    After an error the processes are gone, and the lanes refuse what follows.

    Args:
        name: of the environment, for messages.
        make: one of them.
        number: W.
        timeout: seconds that one answer may take.
        restarts: times that workers which broke are restarted in one batch of episodes. They play again what was
            played since the reset, from the same seeds by the same actions, so that nobody sees a difference.

    Raises:
        ConfigError: if they cannot be made, or differ in their spaces.
    """

    can_narrow = True
    _rows: list[int]  # the workers whose episodes are played

    def __init__(self, name: str, make: Callable[[], gym.Env], number: int, timeout: float, restarts: int = 0) -> None:
        self._name, self._number, self._restarts = name, number, restarts
        probe = make()
        spaces = probe.observation_space, probe.action_space
        self.render_fps = probe.metadata.get("render_fps")
        probe.close()
        self.observation_space, self.action_space = flatten_space(name, spaces[0]), spaces[1]
        self._composite = isinstance(self.action_space, gym.spaces.Dict | gym.spaces.Tuple)
        self._begin([])
        self._failed: str | None = None
        self._start = partial(Workers, make, self.observation_space, spaces, number, timeout)
        try:
            self._workers = self._start()
        except WorkerError as error:
            raise ConfigError(
                f"{name}: worker {error.index} {error.fault.words}, before its first reset: correct the environment's "
                "constructor, or try env.vectorization=sync."
            ) from error

    def reset(self, seed: int) -> np.ndarray:
        self._begin(split_seed(seed, self._number))
        self._ask(self._seeds)
        return self._workers.observations

    def step(self, actions: np.ndarray, playing: np.ndarray) -> Answer:
        self._steps += 1
        nested = nest(self.action_space, actions) if self._composite else actions
        each = iterate(batch_space(self.action_space, len(self._rows)), nested)
        rewards, terminated, truncated = zip(*self._ask([(action,) for action in each]), strict=True)
        observations = self._workers.observations
        if len(self._rows) < self._number:
            observations = observations[self._rows]
        return Answer(observations, np.array(rewards), np.array(terminated), np.array(truncated))

    def keep(self, rows: np.ndarray) -> None:
        self._rows = [self._rows[row] for row in rows]

    def close(self) -> None:
        self._workers.close()

    def _begin(self, seeds: list[int]) -> None:
        self._steps = self._restarted = 0
        self._seeds = seeds
        self._rows = list(range(self._number))
        self._played: list[tuple[list[int], list[Any], list[Any]]] = []  # rows, questions, answers since the reset
        self._seen: np.ndarray | None = None  # the observations after them

    def _ask(self, questions: list[Any]) -> list[Any]:
        if self._failed is not None:
            raise ScorepathError(f"{self._name} cannot continue, for its workers were ended: {self._failed}")
        try:
            answers = self._workers.ask(self._rows, questions)
        except WorkerError as error:
            answers = self._recover(error, questions)
        if self._restarts:
            self._played.append((self._rows, questions, answers))
            self._seen = self._workers.observations.copy()
        return answers

    def _recover(self, error: WorkerError, questions: list[Any]) -> list[Any]:
        """The answers of new workers, or a ScorepathError."""
        while True:
            when = f"in step {self._steps}" if self._steps else "in the reset"
            found = (
                f"{self._name}: worker {error.index} {error.fault.words}, {when} of the episode reset with seed "
                f"{self._seeds[error.index]}: all workers were ended"
            )
            if self._restarted == self._restarts:
                self._fail(f"{found}; {error.fault.remedy}.", error)
            self._restarted += 1
            log.warning("%s, and are restarted (%d of env.restarts=%d).", found, self._restarted, self._restarts)
            try:
                self._workers = self._start()
                for rows, asked, answers in self._played:
                    if self._workers.ask(rows, asked) != answers:
                        self._refuse_others(error)
                if self._seen is not None and not np.array_equal(self._seen, self._workers.observations, True):
                    self._refuse_others(error)
                return self._workers.ask(self._rows, questions)
            except WorkerError as another:
                error = another

    def _refuse_others(self, error: WorkerError) -> NoReturn:
        self._workers.close()
        self._fail(
            f"{self._name}: workers that were restarted, for one {error.fault.words}, gave other answers "
            "to the same seeds and actions, so that the episodes cannot be continued: have the environment "
            "take all that is random from the seed of its reset, or set env.restarts=0.",
            error,
        )

    def _fail(self, words: str, error: WorkerError) -> NoReturn:
        self._failed = words
        raise ScorepathError(words) from error
