"""Problems solved exactly: finite decision processes, one step on a line, the LQR, a graph of mixed nodes."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.distributions import Product
from scorepath.envs.dynamics import LQR, AbstractOneStep, Hybrid, Mixed, Tabular
from scorepath.errors import ScorepathError
from scorepath.policy import Policy
from scorepath.verify.expectation import action_grid
from scorepath.verify.problem import AbstractProblem, LastValue


class TabularProblem(AbstractProblem):
    """A finite decision process, by dynamic programming backwards in time.

    V_t(s) = Σ_a π(a|s) Σ_s' P(s'|s,a) [R(s,a,s') + γ V_{t+1}(s')], zero in terminal states.

    Args:
        dynamics: the tables.
    """

    def __init__(self, dynamics: Tabular) -> None:
        self.dynamics: Tabular = dynamics

    def objective(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        probabilities, living = self.action_probabilities(policy), ~self.dynamics.is_terminal
        values = torch.zeros_like(self.dynamics.start) if last_value is None else last_value(self._observations())
        for _ in range(self.dynamics.max_episode_steps):
            following = self.dynamics.R + gamma * (living * values)
            values = (probabilities * (self.dynamics.P * following).sum(-1)).sum(-1)
        return (self.dynamics.start * values).sum()

    def values(self, policy: Policy, gamma: float) -> Tensor:
        """V of the same process without a time limit, (S,): (I - γ P_π) V = r_π."""
        probabilities, living = self.action_probabilities(policy), ~self.dynamics.is_terminal
        rewards = (probabilities * (self.dynamics.P * self.dynamics.R).sum(-1)).sum(-1) * living
        moves = (probabilities.unsqueeze(-1) * self.dynamics.P).sum(1) * living * living.unsqueeze(1)
        return torch.linalg.solve(torch.eye(len(rewards), dtype=torch.float64) - gamma * moves, rewards)

    def action_probabilities(self, policy: Policy) -> Tensor:
        """π(a | s), (S, A)."""
        actions, probabilities = action_grid(policy, self._observations())
        chosen = policy.head.to_env(actions).long()  # (Q, S)
        table = torch.zeros(self.dynamics.P.shape[:2], dtype=torch.float64)
        return table.scatter_add(1, chosen.T, probabilities.T)

    def _observations(self) -> Tensor:
        return torch.eye(len(self.dynamics.start), dtype=torch.float64)


class OneStepProblem(AbstractProblem):
    """One decision and its payoff, J = E[f(a)], by enumeration or quadrature over the head's own distribution.

    Args:
        dynamics: of episodes of one step, whose reward follows from the action alone.
    """

    def __init__(self, dynamics: AbstractOneStep) -> None:
        self.dynamics: AbstractOneStep = dynamics

    def objective(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        space = self.dynamics.action_space
        edges = [*space.low, *space.high] if isinstance(space, gym.spaces.Box) else []  # where a head may clip
        breaks = [x - self.dynamics.offset for x in self.dynamics.breaks] + [float(x) for x in edges if np.isfinite(x)]
        actions, probabilities = action_grid(policy, self.env(1).reset(0), breaks)
        with torch.no_grad():  # the gradient is that of the density, at points that stay
            env = self.env(len(actions))
            env.reset(0)
            payoffs = env.step(policy.head.to_env(actions.squeeze(1))).rewards
        return (probabilities.squeeze(-1) * payoffs).sum()


class MixedProblem(AbstractProblem):
    """Two continuous decisions with a coin between them: quadrature for these, enumeration for that."""

    def __init__(self) -> None:
        self.dynamics: Mixed = Mixed()

    def objective(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        places = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        actions, probabilities = action_grid(policy, self.dynamics.observation(places))  # (Q, 3)
        with torch.no_grad():
            chosen = policy.head.to_env(actions)  # (Q, 3, 1)
            states = places.expand_as(chosen).reshape(-1, 1)
            rewards = self.dynamics.reward(states, chosen.reshape(-1, 1), states).reshape(probabilities.shape)
            odds = chosen[:, 0, 0].sigmoid()
        first, tails, heads = (probabilities * rewards).sum(dim=0).unbind()
        share = (probabilities[:, 0] * odds).sum()  # of heads
        return first + gamma * ((1.0 - share) * tails + share * heads)


class HybridProblem(AbstractProblem):
    """A discrete and a continuous node in one action: enumeration for the one, quadrature for the other."""

    def __init__(self) -> None:
        self.dynamics: Hybrid = Hybrid()

    def objective(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        assert isinstance(policy.head, Product)
        state = torch.zeros(1, 1, dtype=torch.float64)
        observation = self.dynamics.observation(state)
        leaves = [Policy(policy.torso, head) for head in policy.head.heads]  # type: ignore[arg-type]
        (sides, chances), (numbers, density) = (action_grid(leaf, observation) for leaf in leaves)
        with torch.no_grad():
            grid = torch.cartesian_prod(sides.reshape(-1).to(state), numbers.reshape(-1))  # (K Q, 2)
            rewards = self.dynamics.reward(state, policy.head.to_env(grid), state)
        return (torch.outer(chances.reshape(-1), density.reshape(-1)).reshape(-1) * rewards).sum()


class LQRProblem(AbstractProblem):
    """The linear-quadratic regulator, by the recursion of the state's second moment.

    For actions of mean W x + b and a covariance C that no state changes, whatever their distribution: with y = (x, 1),
    M = E[y yᵀ] and the gain [W, b], E[r] = -tr(Q M) - tr(R ([W, b] M [W, b]ᵀ + C)), and M' follows from y' linear in y.

    Args:
        dynamics: A, B, Q and R.
    """

    def __init__(self, dynamics: LQR) -> None:
        self.dynamics: LQR = dynamics

    def objective(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        if last_value is not None:
            raise ScorepathError("the LQR's exact cost has no room for a value network: use baseline=none.")
        lqr, states = self.dynamics, len(self.dynamics.A)
        gain, covariance = self._closed_loop(policy)
        one = torch.ones(1, 1, dtype=torch.float64)
        A, Q = torch.block_diag(lqr.A, one), torch.block_diag(lqr.Q, 0.0 * one)
        B = torch.cat((lqr.B, torch.zeros(1, lqr.B.shape[1], dtype=torch.float64)))
        closed = A + B @ gain
        moment = torch.block_diag(torch.eye(states, dtype=torch.float64) / 3.0, one)
        total, discount = torch.zeros((), dtype=torch.float64), 1.0
        for _ in range(lqr.max_episode_steps):
            actions = gain @ moment @ gain.T + covariance
            total = total - discount * ((Q * moment).sum() + (lqr.R * actions).sum())
            moment = closed @ moment @ closed.T + B @ covariance @ B.T
            discount *= gamma
        return total

    def _closed_loop(self, policy: Policy) -> tuple[Tensor, Tensor]:
        """[W, b] (A, 2 dim + 1) and C (A, A), read off the policy at the origin and the unit vectors.

        Raises:
            ScorepathError: if the mean is not linear in the state, or the covariance changes with it.
        """
        states = len(self.dynamics.A)
        points = torch.cat((torch.zeros(1, states), torch.eye(states), 2.0 * torch.eye(states) - 1.5)).double()
        dist = policy(points)
        mean = dist.mean  # (points, A)
        covariances = getattr(dist, "covariance_matrix", None)
        covariances = torch.diag_embed(dist.variance) if covariances is None else covariances
        origin = mean[0]
        gain = torch.cat(((mean[1 : 1 + states] - origin).T, origin.unsqueeze(1)), dim=1)
        predicted = points @ gain[:, :-1].T + origin
        if not torch.allclose(mean, predicted, atol=1e-9) or not torch.allclose(
            covariances[:1], covariances, atol=1e-9
        ):
            raise ScorepathError(
                "the LQR's exact cost needs a mean linear in the state and a constant covariance: use policy=linear "
                "and a head with state-independent std."
            )
        return gain, covariances[0]
