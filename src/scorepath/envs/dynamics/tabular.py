"""Finite Markov decision processes: small enough to be enumerated, so that every gradient in them is known exactly."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class Tabular(AbstractDynamics):
    """s' ~ P(s' | s, a), reward R(s, a, s'); a state is its index, an observation the state one-hot.

    Transitions draw from torch's global generator, which the caller seeds, as it does for actions. S states, A actions.

    Args:
        transitions: P, (S, A, S).
        rewards: R, (S, A, S), or (S, A) where the next state does not matter.
        start: probability of each start state, (S,).
        horizon: steps until the time limit.
        terminal: indices of the states that end an episode.
        name: what messages call it.

    Raises:
        ValueError: if the shapes disagree, probabilities do not sum to 1, or an episode could start at its end.
    """

    differentiable = False

    def __init__(
        self,
        transitions: Any,
        rewards: Any,
        start: Any,
        horizon: int,
        terminal: Sequence[int] = (),
        name: str = "tabular",
    ) -> None:
        self.name = name
        self.P = torch.as_tensor(transitions, dtype=torch.float64)
        self.R = torch.as_tensor(rewards, dtype=torch.float64)
        self.start = torch.as_tensor(start, dtype=torch.float64)
        shape = tuple(self.P.shape)
        if self.P.dim() != 3 or shape[2] != shape[0] or tuple(self.R.shape) not in (shape, shape[:2]):
            raise ValueError(
                f"transitions {shape} and rewards {tuple(self.R.shape)} must be (S, A, S); rewards may be (S, A)."
            )
        states, actions = shape[:2]
        if self.start.shape != (states,):
            raise ValueError(f"start {tuple(self.start.shape)} must be ({states},), one probability for each state.")
        if self.R.dim() == 2:
            self.R = self.R.unsqueeze(-1).expand(shape)
        sums = torch.cat((self.P.sum(-1).flatten(), self.start.sum().unsqueeze(0)))
        if (sums - 1.0).abs().max() > 1e-9 or self.P.min() < 0 or self.start.min() < 0:
            raise ValueError("transitions and start must be probabilities that sum to 1.")
        self.is_terminal = torch.zeros(states, dtype=torch.bool)
        self.is_terminal[list(terminal)] = True
        if (self.start * self.is_terminal).sum() > 0:
            raise ValueError(f"terminal={list(terminal)} holds a start state: an episode has at least one step.")
        if horizon < 1:
            raise ValueError(f"horizon={horizon} must be at least 1.")
        self.terminates = len(terminal) > 0
        self.max_episode_steps = horizon
        self.observation_space = gym.spaces.Box(0.0, 1.0, (states,), np.float32)
        self.action_space = gym.spaces.Discrete(actions)
        # thresholds for a uniform number; the last is beyond 1, or rounding could lead out of the table
        self._thresholds = self.P.cumsum(-1)
        self._thresholds[..., -1] = 2.0

    def initial(self, generator: np.random.Generator, number: int) -> np.ndarray:
        return generator.choice(len(self.start), size=(number, 1), p=self.start.numpy()).astype(np.float64)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        thresholds = self._thresholds.to(state.device)[state.long().squeeze(-1), action.long()]  # (N, S)
        uniform = torch.rand(len(state), 1, dtype=torch.float64, device=state.device)
        return (thresholds <= uniform).sum(-1, keepdim=True).to(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        table = self.R.to(state)
        return table[state.long().squeeze(-1), action.long(), next_state.long().squeeze(-1)]

    def terminal(self, state: Tensor) -> Tensor:
        return self.is_terminal.to(state.device)[state.long().squeeze(-1)]

    def observation(self, state: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(state.long().squeeze(-1), len(self.start)).to(state)


def bandit(rewards: Sequence[float] = (1.0, 3.0)) -> Tabular:
    """One decision between K arms that pay what they pay.

    Args:
        rewards: of each arm, (K,).
    """
    arms = len(rewards)
    transitions = torch.zeros(2, arms, 2, dtype=torch.float64)
    transitions[:, :, 1] = 1.0
    paid = torch.as_tensor(rewards, dtype=torch.float64).repeat(2, 1)
    return Tabular(transitions, paid, (1.0, 0.0), horizon=1, terminal=(1,), name=f"bandit ({arms} arms)")


def random_mdp(
    states: int = 4,
    actions: int = 3,
    horizon: int = 6,
    terminal_states: int = 1,
    zero_rewards: float = 0.3,
    seed: int = 0,
) -> Tabular:
    """Transitions from a flat Dirichlet distribution, rewards of both signs from N(0, 1), some of them zero.

    Args:
        states, actions: S and A; one of each at least is left beside the terminal states.
        horizon: steps until the time limit.
        terminal_states: how many of the states end an episode.
        zero_rewards: share of the state-action pairs that pay nothing, in [0, 1].
        seed: of the tables.

    Raises:
        ValueError: if there is nothing but terminal states, or a number is out of range.
    """
    if not 0 <= terminal_states < states or actions < 1 or not 0.0 <= zero_rewards <= 1.0:
        raise ValueError(
            f"states={states}, actions={actions}, terminal_states={terminal_states}, zero_rewards={zero_rewards}: "
            "there must be an action, a state that is not terminal, and a share from 0 to 1."
        )
    generator = np.random.default_rng(seed)
    transitions = generator.dirichlet(np.ones(states), size=(states, actions))
    rewards = generator.normal(size=(states, actions)) * (generator.uniform(size=(states, actions)) >= zero_rewards)
    living = states - terminal_states
    start = np.concatenate((np.full(living, 1.0 / living), np.zeros(terminal_states)))
    terminal = range(living, states)
    return Tabular(
        transitions, rewards, start, horizon, terminal, name=f"random MDP (S={states}, A={actions}, seed={seed})"
    )


def time_limit(horizon: int = 10, risk: float = 0.5) -> Tabular:
    """One state that pays 1 a step for ever, cut at a time limit: with risk=0, its value is 1 / (1 - γ) exactly.

    Args:
        horizon: steps until the time limit.
        risk: probability that action 1 ends the episode after its reward, so that there is something to learn: the
            value of a policy that takes it with probability p is 1 / (1 - γ (1 - p risk)).
    """
    transitions = [[[1.0, 0.0], [1.0 - risk, risk]], [[0.0, 1.0], [0.0, 1.0]]]
    rewards = [[1.0, 1.0], [0.0, 0.0]]
    return Tabular(transitions, rewards, (1.0, 0.0), horizon, terminal=(1,), name="time limit")
