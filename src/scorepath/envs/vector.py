"""The torch environments for others: as Gymnasium environments, batched and single."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scorepath.envs.drawing import Painter
from scorepath.envs.dynamics.base import AbstractDynamics, as_weights

_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"]}  # of the classes; an instance has its own


def _make(dynamics: str | Callable[..., AbstractDynamics], arguments: Mapping[str, Any] | None) -> AbstractDynamics:
    """From a class, or from `module:Class`, as Gymnasium's registry writes it."""
    create: Any = load_env_creator(dynamics) if isinstance(dynamics, str) else dynamics
    return create(**(arguments or {}))


def _metadata(dynamics: AbstractDynamics) -> dict[str, Any]:
    """What an environment of these dynamics can do."""
    return {**(_METADATA if dynamics.drawn_as else {"render_modes": []}), "render_fps": dynamics.render_fps}


def _painter(dynamics: AbstractDynamics, render_mode: str | None) -> Painter | None:
    """Whoever draws, or None where nobody asked.

    Raises:
        ValueError: if the render mode is unknown, or nothing draws these states.
    """
    if render_mode is None:
        return None
    if render_mode != "rgb_array":
        raise ValueError(f"render_mode={render_mode!r} must be None or 'rgb_array'.")
    if dynamics.drawn_as is None:
        raise ValueError(f"{dynamics.name} has no renderer: leave out render_mode.")
    return Painter(dynamics)


def _actions(dynamics: AbstractDynamics, actions: Any, batch: tuple[int, ...], to: Mapping[str, Any]) -> Tensor:
    """Actions (*batch, *A) as a tensor on the device; Boxes are not looked into: the dynamics clip as originals do.

    Raises:
        AssertionError: if the shape, or a choice, is not of the action space; Gymnasium's environments raise the same.
    """
    space = dynamics.action_space
    shape = None if space.shape is None else (*batch, *space.shape)
    try:
        if not isinstance(actions, Tensor):
            array = np.array(actions)
            given = torch.as_tensor(array.astype(np.int64) if array.dtype.kind in "bu" else array)
        else:
            given = actions
        given = given.to(to["device"])
    except (TypeError, ValueError):  # ragged, or no numbers
        raise _invalid(dynamics, actions, shape) from None
    if isinstance(space, gym.spaces.Discrete):
        start, end = int(space.start), int(space.start) + int(space.n)
        if dynamics.accepts_weights and given.is_floating_point():
            valid = given.shape == (*batch, int(space.n))
        else:
            valid = given.shape == batch and not given.is_floating_point()
            if valid:
                least, most = given.aminmax()
                valid = bool((least >= start) & (most < end))
        if valid and dynamics.accepts_weights:
            given = as_weights(space, given, to["dtype"])
    else:
        valid = shape is None or given.shape == shape
    if not valid:
        raise _invalid(dynamics, actions, shape)
    return given


def _invalid(dynamics: AbstractDynamics, actions: Any, shape: tuple[int, ...] | None) -> AssertionError:
    of_shape = "" if shape is None else f" of shape {shape}"
    return AssertionError(
        f"{actions!r} ({type(actions)}) invalid: {dynamics.name} takes actions{of_shape} in {dynamics.action_space}."
    )


def _options(dynamics: AbstractDynamics, options: Mapping[str, Any] | None) -> dict[str, float]:
    """Those of a reset, for `dynamics.initial`.

    Raises:
        ValueError: if the dynamics do not know one, or it is no number.
    """
    known = [
        name
        for name, parameter in inspect.signature(dynamics.initial).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    given = {}
    for name, value in (options or {}).items():
        if name not in known:
            raise ValueError(f"{dynamics.name} has no reset option {name}; it has {', '.join(known) or 'none'}.")
        try:
            given[name] = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"The reset option {name}={value!r} of {dynamics.name} must be a number.") from None
    return given


class TorchVectorEnv(gym.vector.VectorEnv):
    """N environments of one dynamics, begun anew by any of Gymnasium's autoreset modes.

    Start states come from Gymnasium's generator, drawn as its own CartPole vector environment draws them. The state is
    a tensor; with `tensors=True` so are actions and all answers, and a reward can be differentiated with respect to the
    actions before it (where the dynamics are differentiable; `detach` cuts). A reset takes the options of the original
    (`low` and `high`, for example), which hold until the next one, and `reset_mask`, (N,) bool, of those to reset.

    Args:
        dynamics: what defines the environment, or `module:Class`.
        num_envs: N.
        max_episode_steps: truncates an episode; the dynamics' own limit if None.
        render_mode: None or "rgb_array".
        device: where the states live.
        dtype: of states and rewards, by torch's name for it. Observations are of the space's type.
        tensors: answer in tensors on `device`, instead of numpy's arrays.
        autoreset_mode: NEXT_STEP spends a step of reward 0 on it; SAME_STEP gives the last observation in
            `infos["final_obs"]`; DISABLED leaves it to `reset_mask`.
        arguments: of the dynamics.

    Raises:
        ValueError: if it cannot be drawn, or the autoreset mode is unknown.
    """

    metadata = _METADATA

    def __init__(
        self,
        dynamics: str | Callable[..., AbstractDynamics],
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        tensors: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics = _make(dynamics, arguments)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps or self.dynamics.max_episode_steps
        self.single_observation_space = self.dynamics.observation_space
        self.single_action_space = self.dynamics.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = render_mode
        self._painter = _painter(self.dynamics, render_mode)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**_metadata(self.dynamics), "autoreset_mode": self.autoreset_mode}
        self._tensors = tensors
        self._to: dict[str, Any] = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
        self._state: Tensor | None = None
        self._actions: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        options = dict(options or {})
        rows = self._rows(options.pop("reset_mask")) if "reset_mask" in options else None
        self._start_options = _options(self.dynamics, options)
        if rows is None:
            self._state = self._start(self.num_envs)
            self._steps = torch.zeros(self.num_envs, dtype=torch.int64, device=self._to["device"])
            self._ended = torch.zeros(self.num_envs, dtype=torch.bool, device=self._to["device"])
        else:
            self._state = self._restart(self._begun(), rows)
            self._ended = self._ended.index_fill(0, rows, False)
        return self._observations(self._state), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Plays a step, and begins the next episode of those that ended as the autoreset mode has it.

        Raises:
            AssertionError: if an action is not of the action space.
            ResetNeeded: before the first reset, and after an end where the autoreset mode is DISABLED.
        """
        state = self._begun()
        actions = _actions(self.dynamics, actions, (self.num_envs,), self._to)
        over = bool(self._ended.any())
        if over and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("An episode has ended: call reset with its reset_mask before the next step.")
        following = self.dynamics.transition(state, actions)
        rewards = self.dynamics.reward(state, actions, following)
        terminated = self.dynamics.terminal(following)
        self._steps += 1
        truncated = self._steps >= self.max_episode_steps
        if over:
            following = self._restart(following, self._ended.nonzero().squeeze(-1))
            rewards = rewards.masked_fill(self._ended, 0.0)
            terminated, truncated = terminated & ~self._ended, truncated & ~self._ended
        self._ended = terminated | truncated
        infos = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            rows = self._ended.nonzero().squeeze(-1)
            infos = self._final(self._observations(following), rows)
            following = self._restart(following, rows)
            self._ended = torch.zeros_like(self._ended)
        self._state, self._actions = following, actions
        observations = self._observations(following)
        return observations, self._give(rewards), self._give(terminated), self._give(truncated), infos

    def detach(self) -> None:
        """Cuts the gradient at the present states."""
        self._state = self._begun().detach()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture (height, width, 3) of each environment."""
        if self._painter is None:
            return None
        begun = (self._steps == 0).tolist()
        return tuple(
            self._painter.draw(state, None if begun[row] or self._actions is None else self._actions[row])
            for row, state in enumerate(self._begun())
        )

    def close_extras(self, **kwargs: Any) -> None:
        if self._painter is not None:
            self._painter.close()

    def _start(self, number: int) -> Tensor:
        return torch.as_tensor(self.dynamics.initial(self.np_random, number, **self._start_options)).to(**self._to)

    def _restart(self, states: Tensor, rows: Tensor) -> Tensor:
        """The states with these rows at a start."""
        self._steps[rows] = 0
        return states.index_put((rows,), self._start(len(rows)))

    def _rows(self, mask: Any) -> Tensor:
        """Of `reset_mask`."""
        mask = torch.as_tensor(mask, device=self._to["device"])
        if mask.dtype != torch.bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options['reset_mask'] must be ({self.num_envs},) bool, with one to reset at least.")
        return mask.nonzero().squeeze(-1)

    def _final(self, observations: Any, rows: Tensor) -> dict[str, Any]:
        """Infos with the last observations of episodes, as Gymnasium's vector environments write them."""
        final = np.full(self.num_envs, None, dtype=object)
        for row in rows.tolist():
            final[row] = observations[row]
        ended = self._ended.cpu().numpy()
        return {"final_obs": final, "_final_obs": ended, "final_info": {}, "_final_info": ended.copy()}

    def _observations(self, states: Tensor) -> Any:
        """A copy, for an observation may be the state itself."""
        return self._give(self.dynamics.observation(states).to(torch.float32, copy=True))

    def _give(self, tensor: Tensor) -> Any:
        return tensor if self._tensors else tensor.detach().cpu().numpy()

    def _begun(self) -> Tensor:
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset before step and render.")
        return self._state


_SCALAR: dict[Any, Callable[[Any], Any]] = {
    torch.Tensor.sin: np.sin,
    torch.Tensor.cos: np.cos,
    torch.Tensor.square: lambda value: value**2,
}


class _AsNumpy(TorchFunctionMode):
    """Computes sines, cosines and squares by numpy's scalars, whose last bit differs from torch's once in a thousand.

    For rewards equal to the original's to the bit, as `gymnasium.utils.env_match` compares them; a step takes twice
    as long.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        scalar = _SCALAR.get(func)
        if scalar is None:
            return func(*args, **(kwargs or {}))
        array = args[0].numpy()
        return torch.from_numpy(np.array([scalar(value) for value in array.flat], array.dtype).reshape(array.shape))


class TorchEnv(gym.Env):
    """One environment of a dynamics; its time limit is Gymnasium's wrapper's.

    A reset takes the options of the original.

    Args:
        dynamics: what defines the environment, or `module:Class`.
        render_mode: None or "rgb_array".
        dtype: of the state, by torch's name for it; Gymnasium's environments compute in float64.
        arguments: of the dynamics.

    Raises:
        ValueError: if it cannot be drawn.
    """

    metadata = _METADATA

    def __init__(
        self,
        dynamics: str | Callable[..., AbstractDynamics],
        *,
        render_mode: str | None = None,
        dtype: str = "float64",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics = _make(dynamics, arguments)
        self.observation_space = self.dynamics.observation_space
        self.action_space = self.dynamics.action_space
        self.render_mode = render_mode
        self.metadata = _metadata(self.dynamics)
        self._painter = _painter(self.dynamics, render_mode)
        self._to: dict[str, Any] = {"device": torch.device("cpu"), "dtype": getattr(torch, dtype)}
        self._state: Tensor | None = None
        self._action: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        start = self.dynamics.initial(self.np_random, 1, **_options(self.dynamics, options))
        self._state, self._action = torch.as_tensor(start).to(**self._to), None
        return self._observation(self._state), {}

    @torch.no_grad()
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Plays a step.

        Raises:
            AssertionError: if the action is not of the action space.
            ResetNeeded: before the first reset.
        """
        state = self._begun()
        self._action = taken = _actions(self.dynamics, action, (), self._to)
        actions = taken.unsqueeze(0)
        with _AsNumpy() if self.dynamics.numpy_scalars else nullcontext():
            self._state = self.dynamics.transition(state, actions)
            reward = self.dynamics.reward(state, actions, self._state)
            terminated = self.dynamics.terminal(self._state)
            observation = self._observation(self._state)
        paid = np.float64(reward.item()) if self.dynamics.numpy_scalars else reward.item()
        return observation, paid, bool(terminated), False, {}

    def render(self) -> Any:
        """A picture (height, width, 3), or None without a render mode."""
        return None if self._painter is None else self._painter.draw(self._begun()[0], self._action)

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()

    def _observation(self, state: Tensor) -> np.ndarray:
        return self.dynamics.observation(state)[0].to(torch.float32, copy=True).numpy()

    def _begun(self) -> Tensor:
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset before step and render.")
        return self._state
