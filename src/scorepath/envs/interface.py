"""What the torch environments of Gymnasium's registry share: actions and options read as the originals read them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from torch import Tensor

from scorepath.envs.drawing import Painter
from scorepath.envs.dynamics.base import AbstractDynamics, as_weights

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"]}  # of the classes; an instance has its own


def make_dynamics(
    dynamics: str | Callable[..., AbstractDynamics], arguments: Mapping[str, Any] | None
) -> AbstractDynamics:
    """From a class, or from `module:Class`, as Gymnasium's registry writes it."""
    create: Any = load_env_creator(dynamics) if isinstance(dynamics, str) else dynamics
    return create(**(arguments or {}))


def metadata_of(dynamics: AbstractDynamics) -> dict[str, Any]:
    """What an environment of these dynamics can do."""
    return {**(METADATA if dynamics.drawn_as else {"render_modes": []}), "render_fps": dynamics.render_fps}


def make_painter(dynamics: AbstractDynamics, render_mode: str | None) -> Painter | None:
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


def read_actions(dynamics: AbstractDynamics, actions: Any, batch: tuple[int, ...], to: Mapping[str, Any]) -> Tensor:
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


def read_options(dynamics: AbstractDynamics, options: Mapping[str, Any] | None) -> dict[str, float]:
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
