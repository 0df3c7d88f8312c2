"""The contract between rollout and losses.

Shape legend, used in every docstring of the package:
    T  time steps of a batch (its longest episode)      O  observation dims of the space
    N  episodes of a batch                              A  event dims of an action
    B  any batch dims, flattened or not                 F  features, the width of the policy's torso
    K  number of discrete actions

Time convention: `rewards[t]` is paid for `actions[t]`, taken at `observations[t]`. An episode of length L fills the
first L rows of its column; `valid` marks them. Rows beyond hold zeros for rewards and anything elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

_WITHOUT_TIME = ("terminated", "truncated", "last_observations")  # the fields (N, ...)


@dataclass(frozen=True, slots=True)
class Episodes:
    """A batch of episodes, or of equally long windows of them.

    Raises:
        ValueError: if the shapes disagree.
    """

    observations: Tensor  # (T, N, *O)
    actions: Tensor  # (T, N, *A), as sampled by the policy, before `to_env`
    rewards: Tensor  # (T, N), zero where not valid; carries a graph after a pathwise rollout
    valid: Tensor  # (T, N) bool
    terminated: Tensor  # (N,) bool: a terminal state was reached, so nothing follows
    truncated: Tensor  # (N,) bool: cut short by a time limit, so the value of what follows is not zero
    last_observations: Tensor  # (N, *O): what was observed after the last valid step
    log_probs: Tensor | None = None  # (T, N), if the rollout recorded them
    # what the estimator or the baseline recorded as well, by names of its own, (any, N, ...) each
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        time, number = self.rewards.shape
        expected = {
            "observations": (self.observations.shape[:2], (time, number)),
            "actions": (self.actions.shape[:2], (time, number)),
            "valid": (self.valid.shape, (time, number)),
            "terminated": (self.terminated.shape, (number,)),
            "truncated": (self.truncated.shape, (number,)),
            "last_observations": (
                self.last_observations.shape,
                (number, *self.observations.shape[2:]),
            ),
        }
        if self.log_probs is not None:
            expected["log_probs"] = (self.log_probs.shape, (time, number))
        for name, values in self.extras.items():
            expected[f"extras[{name!r}]"] = (values.shape[1:2], (number,))
        for name, (shape, wanted) in expected.items():
            if tuple(shape) != tuple(wanted):
                raise ValueError(f"Episodes.{name} leads with {tuple(shape)}, but rewards (T, N) ask for {wanted}.")

    def select(self, columns: slice) -> "Episodes":
        """Some episodes of the batch, with T as it is and the graph kept."""
        return self.map(lambda values: values[:, columns], lambda values: values[columns])

    def detach(self) -> "Episodes":
        """The same numbers without the graph of the rollout."""
        return self.map(Tensor.detach, Tensor.detach)

    def map(self, by_time: Callable[[Tensor], Tensor], by_episode: Callable[[Tensor], Tensor]) -> "Episodes":
        """Episodes of which everything (T, N, ...) went through the first function, and (N, ...) through the second."""
        changed: dict[str, Any] = {"extras": {name: by_time(values) for name, values in self.extras.items()}}
        for name in (known.name for known in fields(self)):
            values = getattr(self, name)
            if isinstance(values, Tensor):
                changed[name] = by_episode(values) if name in _WITHOUT_TIME else by_time(values)
        return replace(self, **changed)

    def steps_of(self, values: Tensor) -> Tensor:
        """Of values (T, N, ...) those of the valid steps, (B, ...)."""
        # a flattened copy costs a fraction of what picking does, and most batches of a trained policy are full
        return values.flatten(0, 1) if self.valid.all() else values[self.valid]

    @property
    def lengths(self) -> Tensor:
        """Valid steps of each episode, (N,) int64."""
        return self.valid.sum(dim=0)

    @property
    def episode_returns(self) -> Tensor:
        """Undiscounted sum of rewards, (N,); for logging and evaluation."""
        return self.rewards.detach().sum(dim=0)

    @property
    def env_steps(self) -> int:
        """Valid steps of the whole batch."""
        return int(self.valid.sum())

    @property
    def is_last(self) -> Tensor:
        """Marks the last valid step of each column, (T, N) bool; an empty column has none."""
        next_valid = torch.zeros_like(self.valid)
        next_valid[:-1] = self.valid[1:]
        return self.valid & ~next_valid
