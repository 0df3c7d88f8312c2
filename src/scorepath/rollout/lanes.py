"""The environments that are stepped side by side, and where what they answer belongs in a batch of episodes."""

from collections.abc import Callable

import torch
from torch import Tensor

from scorepath.envs.base import AbstractEnvironment

_NARROW = 0.9  # lanes of ended episodes are left out once fewer than this share still play: at most a tenth is wasted
_GLANCE = 32  # steps between two looks at who still plays, where looking makes the host wait for a device


class Lanes:
    """W environments, each playing one of N episodes at a time, and what has become of the episodes.

    Lengths cannot be foreseen. A lane whose episode has ended is stepped on, and what it answers is not looked at. Such
    lanes are left out as soon as they are a tenth, where the environment can do that. Where there are fewer lanes than
    episodes, each of them begins the next episode that nobody has begun; all N are played to their end, so that short
    ones do not count for more than their share.

    Args:
        env: after its reset.
        observation: (W, *O), what it shows.
        narrows: leave lanes out.
    """

    def __init__(self, env: AbstractEnvironment, observation: Tensor, narrows: bool) -> None:
        number, device = len(observation), observation.device
        self.env = env
        self.observation = observation  # (W, *O), the last one where an episode has ended
        self.columns = torch.arange(number, device=device)  # (W,), the episodes that are played
        self.starts = torch.zeros_like(self.columns)  # (W,), the step at which each of them began
        self.alive = torch.ones(number, dtype=torch.bool, device=device)  # (W,)
        self._whole = True  # no lane's episode has ended
        self._narrows = narrows
        self._begun = number  # episodes
        self._looks = device.type == "cpu" or env.num_lanes < env.num_episodes  # at every step
        self._resetting = torch.zeros_like(self.alive)  # (W,), lanes whose next step is the reset to a new episode
        self._next = self.columns  # (W,), the episode that begins then
        self._resets = False  # a lane is resetting
        self._last = observation.new_zeros(env.num_episodes, *observation.shape[1:])  # (N, *O)
        self.begin_window()

    def begin_window(self) -> None:
        """From now on, no episode has ended, and steps are counted again."""
        self._steps = 0
        self._ends = torch.zeros(2, self.env.num_episodes, dtype=torch.bool, device=self.alive.device)

    def any_plays(self) -> bool:
        """Whether an episode has not ended."""
        return self._resets or bool(self.alive.any())

    def step(self, given: Tensor) -> tuple[Tensor, bool]:
        """Steps all lanes.

        Args:
            given: actions (W, *A) of the action space.

        Returns:
            rewards (W,) and whether an episode still plays.
        """
        step = self.env.step(given, self._playing())
        self._steps += 1
        # An ended episode keeps its last observation: what an environment answers later may be anything
        self.observation = step.observations if self._whole else choose(self.alive, step.observations, self.observation)
        ended = step.terminated | step.truncated
        if not self._whole:
            ended = ended & self.alive
        if self._looks and not self._resets and not ended.any():
            return step.rewards, True
        self._ends[0, self.columns] |= ended & step.terminated
        self._ends[1, self.columns] |= ended & ~step.terminated
        self.alive = self.alive & ~ended
        self._whole = False
        if self._begun < self.env.num_episodes or self._resets:
            self._begin_episodes(step.observations, ended)
        if not self._looks and self._steps % _GLANCE:
            return step.rewards, True
        playing = int(self.alive.sum())
        if self._narrows and 0 < playing < _NARROW * len(self.alive):
            self._narrow()
        return step.rewards, self._resets or playing > 0

    def _playing(self) -> Tensor | None:
        """(W,) bool, the lanes whose answer is looked at; None for all."""
        if self._whole:
            return None
        return self.alive | self._resetting if self._resets else self.alive

    def _begin_episodes(self, observations: Tensor, ended: Tensor) -> None:
        """A lane whose episode has just ended spends a step on Gymnasium's autoreset, and then plays another one."""
        fresh = self._resetting
        self._last = self.last_observations()
        self.columns = torch.where(fresh, self._next, self.columns)
        self.starts = torch.where(fresh, self._steps, self.starts)
        self.observation = choose(fresh, observations, self.observation)
        self.alive = self.alive | fresh
        places = ended.cumsum(0)
        self._resetting = ended & (places <= self.env.num_episodes - self._begun)
        self._next = self._begun + places - 1
        number = int(self._resetting.sum())
        self._begun += number
        self._resets = number > 0
        self._whole = bool(self.alive.all())

    def _narrow(self) -> None:
        self._last = self.last_observations()
        rows = torch.nonzero(self.alive).squeeze(1)
        self.env.keep(rows)
        self.observation, self.columns, self.alive = self.observation[rows], self.columns[rows], self.alive[rows]
        self.starts = self.starts[rows]
        self._whole = True

    def branch(self, rows: Tensor) -> "Lanes":
        """Copies of these lanes (M,) int64, in any order and number, each of which plays on to its end; only where the
        environment can branch and there are as many lanes as episodes.
        """
        other = Lanes(self.env.branch(rows), self.observation[rows], narrows=False)
        other.alive, other._whole, other._ends = self.alive[rows], self._whole, self._ends[:, rows]
        return other

    def last_observations(self) -> Tensor:
        """(N, *O): of each episode the last one so far."""
        if len(self.columns) == self.env.num_episodes:
            return self.observation
        return self._last.index_copy(0, self.columns, self.observation)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Which episodes ended in a terminal state in this window, and which by a time limit, (N,) bool each."""
        terminated, truncated = self._ends
        return terminated, truncated


def choose(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Rows (N, *O) of `one` where mask (N,), else of `other`."""
    return torch.where(mask.view(-1, *[1] * (one.dim() - 1)), one, other)


def lay_out(
    alive: list[Tensor], columns: list[Tensor], starts: list[Tensor], number: int
) -> tuple[Tensor, Callable[[list[Tensor]], Tensor]]:
    """Where the answers of S steps, one row for each lane that was stepped then, belong in a batch of episodes.

    Args:
        alive: S tensors (W_s,) bool, whether a row counts.
        columns: S tensors (W_s,) int64, which episode it is of.
        starts: S tensors (W_s,) int64, the step at which that began.
        number: N.

    Returns:
        valid (T, N), and the function that lays out S tensors (W_s, ...) as (T, N, ...).
    """
    if len(columns[-1]) == number:  # none was left out, and none begun
        return torch.stack(alive), torch.stack
    steps = torch.arange(len(columns)).repeat_interleave(torch.tensor([len(row) for row in columns]))
    episodes = torch.cat(columns)
    counts = torch.nonzero(torch.cat(alive)).squeeze(1)
    times = (steps.to(episodes.device) - torch.cat(starts))[counts]
    rows = times * number + episodes[counts]
    longest = int(times.max()) + 1

    def place(values: list[Tensor]) -> Tensor:
        flat = torch.cat(values)[counts]
        table = flat.new_zeros(longest * number, *flat.shape[1:])
        return table.index_copy(0, rows, flat).unflatten(0, (longest, number))

    return place(alive), place
