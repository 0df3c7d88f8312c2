"""Expectations over a head's actions, exact: by enumeration where they are discrete, by quadrature on a line."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import gymnasium as gym
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Poisson, constraints

from scorepath.errors import ScorepathError
from scorepath.policy import Policy

_SAMPLES = 4096  # that show where the probability mass lies; they place nodes, and are used for nothing else
_TOLERANCE = 1e-7  # by which the probabilities of a grid may miss 1


class ActionGrid(NamedTuple):
    """Q actions for each of B observations, and how probable they are: E[f(a)] = Σ_q probabilities_q f(actions_q)."""

    actions: Tensor  # (Q, B, *A), as the policy samples them, before `to_env`
    probabilities: Tensor  # (Q, B), with the graph to the policy


def action_grid(policy: Policy, observations: Tensor, breaks: Sequence[float] = ()) -> ActionGrid:
    """All that the policy may do at some observations.

    Args:
        policy: its head's samples are discrete, or one real number.
        observations: (B, *O).
        breaks: actions where the function to be integrated jumps or bends.

    Raises:
        ScorepathError: for a head whose probabilities neither enumeration nor quadrature adds up to 1.
    """
    dist = policy(observations)
    discrete = _enumerate(dist)
    if discrete is not None:
        return ActionGrid(discrete, dist.log_prob(discrete).exp())
    for low, high in _domains(dist, policy):
        actions, weights = _quadrature(dist, low, high, breaks)
        try:
            density = dist.log_prob(actions.reshape((*weights.shape, *dist.event_shape))).exp()
        except ValueError:  # torch's validation: outside the support
            continue
        grid = ActionGrid(actions.reshape((*weights.shape, *dist.event_shape)), weights * density)
        mass = grid.probabilities.sum(dim=0)
        if bool(((mass - 1.0).abs() < _TOLERANCE).all()):
            return grid
    raise ScorepathError(
        f"no exact gradient for {type(policy.head).__name__} in {policy.head.action_space}: its samples can neither be "
        "enumerated nor integrated over one line; check it on a problem with another action space."
    )


def _enumerate(dist: Distribution) -> Tensor | None:
    """Every value of a discrete distribution, (Q, B, *A); None if there are too many or infinitely many."""
    base = dist.base_dist if isinstance(dist, Independent) else dist
    if isinstance(base, Poisson):
        most = float(base.rate.detach().max())
        counts = torch.arange(math.ceil(most + 12.0 * math.sqrt(most)) + 30)  # beyond, less than rounding
        values = counts.to(base.rate).reshape(-1, *[1] * base.rate.dim()).expand(-1, *base.rate.shape)
    elif base.has_enumerate_support:
        values = base.enumerate_support()  # (K, B, *entries)
    else:
        return None
    entries = math.prod(values.shape[1 + len(dist.batch_shape) :]) if isinstance(dist, Independent) else 1
    if entries == 1 or base.event_shape:
        return values
    choices = len(values)
    if choices**entries > 4096:
        return None
    flat = values.reshape(choices, -1)[:, 0]  # the same for every entry
    combined = torch.cartesian_prod(*[flat] * entries)  # (K^entries, entries)
    shape = (len(combined), *dist.batch_shape, *dist.event_shape)
    return combined.reshape(len(combined), *[1] * len(dist.batch_shape), *dist.event_shape).expand(shape)


def _domains(dist: Distribution, policy: Policy) -> list[tuple[float, float]]:
    """Intervals that may hold all of the mass, likeliest first. A support that torch declares may be too wide."""
    if math.prod(dist.event_shape) != 1:
        return []
    found = []
    support = dist.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None or high is not None:
        bounds = [
            torch.as_tensor(-math.inf if low is None else low),
            torch.as_tensor(math.inf if high is None else high),
        ]
        if all(bool((bound == bound.flatten()[0]).all()) for bound in bounds):
            found.append((float(bounds[0].flatten()[0]), float(bounds[1].flatten()[0])))
    found.append((-math.inf, math.inf))
    space = policy.head.action_space
    if isinstance(space, gym.spaces.Box):
        found.append((float(space.low.reshape(-1)[0]), float(space.high.reshape(-1)[0])))
    return [*found, (0.0, 1.0), (-1.0, 1.0), (-math.pi, math.pi)]


@torch.no_grad()
def _quadrature(dist: Distribution, low: float, high: float, breaks: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Nodes (Q, B) and weights (Q, B): panels between quantiles of the samples, and tails beyond them.

    Tanh-sinh quadrature on each panel, exp-sinh on infinite tails (Takahasi & Mori 1974): both converge exponentially,
    also where a density is infinite at the end of its support.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = dist.sample(torch.Size([_SAMPLES])).reshape(_SAMPLES, -1).double()  # (_SAMPLES, B)
    knots = torch.quantile(samples, torch.linspace(0.0, 1.0, 17, dtype=torch.float64), dim=0)
    scale = (knots[12] - knots[4]).clamp(min=1e-300)  # interquartile range
    steps = 2.0 ** torch.arange(6, dtype=torch.float64).unsqueeze(1)
    fixed = torch.as_tensor(list(breaks), dtype=torch.float64).unsqueeze(1).expand(len(breaks), samples.shape[1])
    try:
        middle = dist.mean.reshape(1, -1).double()  # a density may bend there, as Laplace's does
        middle = torch.where(middle.isfinite(), middle, knots[8:9])
    except NotImplementedError:
        middle = knots[8:9]
    everything = torch.cat((knots[:1] - scale * steps, knots, middle, fixed, knots[-1:] + scale * steps))
    knots = everything.clamp(low, high).sort(dim=0).values  # (M, B)
    if math.isfinite(low):
        knots = torch.cat((torch.full_like(knots[:1], low), knots))
    if math.isfinite(high):
        knots = torch.cat((knots, torch.full_like(knots[:1], high)))

    t = torch.linspace(-3.2, 3.2, 65, dtype=torch.float64)
    step = float(t[1] - t[0])
    inner = 0.5 * math.pi * t.sinh()
    # tanh(u) = 1 - 2 / (1 + exp(2u)): distances from the near end of the panel, exact where they are tiny
    near = (1.0 / (1.0 + (2.0 * inner.abs()).exp())).view(-1, 1, 1)  # share of the panel's width
    weight = (step * 0.25 * math.pi * t.cosh() / inner.cosh().square()).view(-1, 1, 1)
    left, right = knots[:-1], knots[1:]
    width = right - left
    nodes = torch.where((t < 0).view(-1, 1, 1), left + width * near, right - width * near)
    found = [(nodes.flatten(0, 1), (weight * width).flatten(0, 1))]
    tail = (0.5 * math.pi * t.sinh()).exp().unsqueeze(1)
    tail_weight = step * 0.5 * math.pi * t.cosh().unsqueeze(1) * tail
    if math.isinf(low):
        found.append((knots[:1] - scale * tail, scale * tail_weight))
    if math.isinf(high):
        found.append((knots[-1:] + scale * tail, scale * tail_weight))
    nodes, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
    inside = (nodes > low) & (nodes < high) & (weights > 0)  # a node that rounding puts on the edge has no weight left
    return torch.where(inside, nodes, samples[0]), torch.where(inside, weights, 0.0)
