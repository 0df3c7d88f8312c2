"""Gymnasium's vector environments in tensors: the boundary for dtypes, devices, autoreset and faulty values."""

import contextlib
import difflib
import importlib.util
import inspect
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from torch import Tensor

from scorepath.envs.async_lanes import AsyncLanes
from scorepath.envs.base import AbstractEnvironment, Step
from scorepath.envs.composite import width
from scorepath.envs.envpool import EnvPoolLanes
from scorepath.envs.lanes import AbstractLanes, make_lanes
from scorepath.envs.player import short
from scorepath.errors import ConfigError, NonFiniteError, ScorepathError
from scorepath.seeding import split_seed

Vectorization = Literal["auto", "sync", "async", "vector_entry_point", "envpool"]
_EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "pygame": "classic-control", "ale_py": "atari"}


class GymnasiumEnvironment(AbstractEnvironment):
    """N copies of one Gymnasium environment.

    A rollout never looks past the end of an episode, so that what autoreset does there, in whatever mode, is masked.

    Args:
        id: Gymnasium id, `CartPole-v1` or `module:Id-v0`.
        num_episodes: N.
        vectorization: `auto` takes the environment's own vectorised implementation where it has one, else `sync`, one
            after the other; `async` runs each environment in a process of its own and pays only where a step takes over
            a millisecond; `envpool` takes EnvPool's implementation of the same id.
        workers: environments of `async` or `envpool`, at most N: each begins another of the N episodes as soon as its
            last one has ended; None is N.
        kwargs: passed to the environment's constructor.
        max_episode_steps: replaces the registered time limit; needed where there is none.
        reward_threshold: replaces the registered one.
        reward_range: least and most that one step can pay, where known; intervals of returns keep to it.
        step_timeout: seconds that a step may take under `async`, before its worker is taken for hung.
        restarts: times that workers of `async` which broke are restarted in one batch of episodes, to play them
            again from their seeds; 0 ends with an error.
        device: where observations and rewards go.

    Raises:
        ConfigError: an unknown id, a missing package, no time limit, a space that a network cannot read.
    """

    def __init__(
        self,
        id: str,  # Gymnasium's own word
        num_episodes: int,
        vectorization: Vectorization = "auto",
        workers: int | None = None,
        kwargs: dict[str, Any] | None = None,
        max_episode_steps: int | None = None,
        reward_threshold: float | None = None,
        reward_range: Sequence[float] | None = None,
        step_timeout: float = 60.0,
        restarts: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        number = min(workers or num_episodes, num_episodes)
        if workers is not None and vectorization not in ("async", "envpool"):
            raise ConfigError(
                f"env.workers={workers} has no meaning for env.vectorization={vectorization}, which leaves out ended "
                "episodes instead of beginning others: use env.workers=null."
            )
        if restarts and vectorization != "async":
            raise ConfigError(
                f"env.restarts={restarts} has no meaning for env.vectorization={vectorization}, where environments "
                "break in this process: use env.vectorization=async."
            )
        if vectorization == "envpool":
            limit_option = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
            pool = EnvPoolLanes(id, number, {**(kwargs or {}), **limit_option})
            self.name, self.max_episode_steps, threshold = id, pool.max_episode_steps, pool.reward_threshold
            self.lanes: AbstractLanes = pool
        else:
            spec = find_spec(id)
            limit = max_episode_steps or spec.max_episode_steps
            if limit is None:
                raise ConfigError(
                    f"env.id={id} has no time limit, so an episode may never end: set env.max_episode_steps=1000, say."
                )
            self.name, self.max_episode_steps, threshold = spec.id, limit, spec.reward_threshold
            if vectorization == "async":
                make = partial(gym.make, spec, max_episode_steps=limit, **(kwargs or {}))
                with _refusing(id, vectorization):
                    workers_lanes = AsyncLanes(spec.id, make, number, step_timeout, restarts)
                self.lanes, fps = workers_lanes, workers_lanes.render_fps
            else:
                vector = make_vector(id, spec, number, vectorization, limit, kwargs or {})
                self.lanes, fps = make_lanes(spec.id, vector), vector.metadata.get("render_fps")
            self.render_fps = float(fps or 30.0)
        self.reward_threshold = threshold if reward_threshold is None else reward_threshold
        if reward_range is not None:
            self.reward_range = (float(reward_range[0]), float(reward_range[1]))
        self.num_episodes, self.num_lanes = num_episodes, number
        self.irreproducible = self.lanes.irreproducible
        # not `number`: one environment may be built to learn what the run's many are like
        self.repeatable_starts = 0 if self.irreproducible else workers or math.inf
        self.can_narrow = self.lanes.can_narrow and number == num_episodes  # else lanes begin other episodes
        self._device = torch.device(device)
        self.observation_space, self.action_space = self.lanes.observation_space, self.lanes.action_space
        composite = isinstance(self.action_space, gym.spaces.Dict | gym.spaces.Tuple)
        self._action_dtype = None if composite else self.action_space.dtype
        self._action_shape = (width(self.action_space),) if composite else self.action_space.shape or ()
        self._seed = 0
        self.steps = 0
        # a whole-batch implementation draws all start states from one generator and takes one seed
        self.is_batch_implementation = self.lanes.one_seed

    @np.errstate(over="ignore")  # what float32 cannot hold is refused in words
    def reset(self, seed: int) -> Tensor:
        self._seed = seed
        self.steps = 0
        self._columns = np.arange(self.num_lanes)
        return self._to_tensor("an observation", self.lanes.reset(seed))

    @np.errstate(over="ignore")
    def step(self, actions: Tensor, playing: Tensor | None = None) -> Step:
        # Gymnasium's own dtypes: int64 for Discrete, float32 for most boxes
        numpy_actions = actions.detach().cpu().numpy()
        if self._action_dtype is not None:
            numpy_actions = numpy_actions.astype(self._action_dtype, copy=False)
        expected = (len(self._columns), *self._action_shape)
        if numpy_actions.shape != expected:
            # several environments broadcast a wrong shape without a word
            raise ScorepathError(f"{self.name} takes actions of shape {expected}, but got {numpy_actions.shape}.")
        looked_at = np.ones(len(self._columns), dtype=bool) if playing is None else playing.cpu().numpy()
        observations, rewards, terminated, truncated = self.lanes.step(numpy_actions, looked_at)
        self.steps += 1
        if self.steps == self.max_episode_steps and self.num_lanes == self.num_episodes:
            truncated = np.ones_like(truncated)  # not all implementations know the limit
        return Step(
            self._to_tensor("an observation", observations, looked_at, numpy_actions),
            self._to_tensor("a reward", rewards, looked_at, numpy_actions),
            torch.from_numpy(terminated.copy()).to(self._device),
            torch.from_numpy(truncated.copy()).to(self._device),
        )

    def keep(self, rows: Tensor) -> None:
        kept = rows.cpu().numpy()
        self.lanes.keep(kept)
        self._columns = self._columns[kept]

    def describe_episode(self, index: int) -> str:
        if self.is_batch_implementation or self.num_lanes < self.num_episodes:
            return f"episode {index} of the batch reset with seed {self._seed}"
        return f"the episode reset with seed {split_seed(self._seed, self.num_episodes)[index]}"

    def render(self) -> np.ndarray | None:
        return self.lanes.render()

    def close(self) -> None:
        self.lanes.close()

    def _to_tensor(
        self, what: str, array: np.ndarray, looked_at: np.ndarray | bool = True, actions: np.ndarray | None = None
    ) -> Tensor:
        # `astype` copies, for vector environments may write into one buffer again and again
        single = array.astype(np.float32)
        self._check(what, single, looked_at, actions)
        return torch.from_numpy(single).to(self._device)

    def _check(self, what: str, values: np.ndarray, looked_at: np.ndarray | bool, actions: np.ndarray | None) -> None:
        """Refuses NaN and infinity in what is looked at; the sum of squares is the cheapest test that misses none."""
        flat = values.reshape(-1)
        if math.isfinite(np.dot(flat, flat)):
            return
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1) & looked_at
        for lane in np.flatnonzero(bad)[:1]:
            action = "" if actions is None else f" after action {actions[lane].tolist()}"
            raise NonFiniteError(
                f"{self.name} gave {what} that is not finite ({values[lane]}) at step {self.steps}{action} of "
                f"{self.describe_episode(int(self._columns[lane]))}: nothing was learned from this update; correct the "
                "environment or leave the action's range smaller."
            )


def make_vector(
    id: str,
    spec: gym.envs.registration.EnvSpec,
    number: int,
    vectorization: Vectorization,
    limit: int,
    kwargs: dict[str, Any],
) -> gym.vector.VectorEnv:
    """Gymnasium's vector environment.

    Raises:
        ConfigError: a missing package, arguments it does not take, another number of environments.
    """
    mode = None if vectorization == "auto" else vectorization
    with _refusing(id, vectorization):
        # The time limit goes in as a keyword: `make` and the vector entry points both read it there
        limit_option: dict[str, Any] = {"max_episode_steps": limit} if mode == "sync" or _takes_limit(spec) else {}
        vector = gym.make_vec(spec, number, mode, **limit_option, **kwargs)
    if vector.num_envs != number:
        vector.close()
        raise ConfigError(
            f"env.id={id} made {vector.num_envs} environments instead of {number}: leave num_envs out of its "
            "registered arguments."
        )
    return vector


def _takes_limit(spec: gym.envs.registration.EnvSpec) -> bool:
    """Whether the environment's own vectorised implementation, if there is one, reads a time limit."""
    entry = spec.vector_entry_point
    # Gymnasium hands a registered limit over, whatever the signature
    if entry is None or spec.max_episode_steps is not None:
        return True
    parameters = inspect.signature(load_env_creator(entry) if isinstance(entry, str) else entry).parameters
    return any(known.name == "max_episode_steps" or known.kind is known.VAR_KEYWORD for known in parameters.values())


@contextlib.contextmanager
def _refusing(id: str, vectorization: Vectorization) -> Iterator[None]:
    """What the making of an environment raises, as one sentence."""
    try:
        yield
    except ScorepathError:
        raise
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(missing_package(id, error)) from error
    except Exception as error:
        raise ConfigError(
            f"env.id={id} cannot be made with vectorization={vectorization}: {short(error)}. Check env.kwargs and "
            "env.vectorization; HYDRA_FULL_ERROR=1 shows the traceback."
        ) from error


def find_spec(id: str) -> gym.envs.registration.EnvSpec:
    """The registered spec of a Gymnasium id.

    Raises:
        ConfigError: for an unknown id, with the nearest one.
    """
    module, separator, name = id.rpartition(":")
    if separator and not (name and all(part.isidentifier() for part in module.split("."))):
        raise ConfigError(f"env.id={id} is no id: give Name-v0, or module:Name-v0 for one that a module registers.")
    try:
        if ":" in id:
            return gym.envs.registration._find_spec(id)  # noqa: SLF001 (gym.spec does not import the module part)
        return gym.spec(id)
    except (gym.error.Error, ModuleNotFoundError) as error:
        if id.startswith("ALE/"):
            if importlib.util.find_spec("ale_py"):
                raise ConfigError(f"env.id={id} is registered by a package: use env.id=ale_py:{id}.") from error
            raise ConfigError(missing_package(id, ModuleNotFoundError("ale_py"))) from error
        near = difflib.get_close_matches(id, gym.registry.keys(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "list them with gymnasium.pprint_registry()."
        if ":" not in id:
            hint = f"{hint[:-1]}, or name the package that registers it, env.id=package:{id}{hint[-1]}"
        raise ConfigError(f"env.id={id} is not a registered Gymnasium environment: {hint}") from error


def missing_package(id: str, error: Exception) -> str:
    """One sentence with the pip command of the extra that an environment lacks."""
    text = str(error).lower()
    extra = next((extra for module, extra in _EXTRAS.items() if module in text), None)
    command = f'pip install "gymnasium[{extra}]"' if extra else str(error)
    return f"env.id={id} needs a package that is not installed: {command}"
