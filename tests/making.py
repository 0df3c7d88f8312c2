"""What the core's tests make and compare. It knows neither Hydra nor Lightning."""

import torch
from gymnasium import spaces

from scorepath.baselines import NoBaseline
from scorepath.distributions import Categorical, Normal
from scorepath.policy import MLP, Policy
from scorepath.update import surrogate_loss


def close(actual, expected, tolerance=1e-10):
    """Equal to a tolerance, relative or absolute, and of one shape and dtype."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def flat(tensors):
    """All entries in one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def linear(env, head=Normal, *, spread=None, dtype=torch.float64, **options):
    """A policy without hidden layers; with a spread, all of its parameters are drawn from N(0, spread²)."""
    size = env.observation_space.shape[0]
    policy = Policy(MLP(size, []), head(env.action_space, size, **options)).to(dtype)
    if spread is not None:
        scatter(policy, spread)
    return policy


@torch.no_grad()
def scatter(policy, spread, generator=None):
    """Draws all parameters from N(0, spread²)."""
    for parameter in policy.parameters():
        parameter.normal_(0.0, spread, generator=generator)


def make_policy(problem, head=None, seed=0, hidden=(), **options):
    """A random policy for a problem with an exact gradient; the usual head of its action space."""
    env = problem.env(1)
    if head is None:
        head = Categorical if isinstance(env.action_space, spaces.Discrete) else Normal
    torso = MLP(env.observation_space.shape[0], hidden)
    policy = Policy(torso, head(env.action_space, torso.out_features, **options)).double()
    scatter(policy, 0.4, torch.Generator().manual_seed(seed))
    return policy


def flat_gradient(loss, policy):
    """By the policy's parameters, in one vector; the graph stays."""
    return flat(torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True))


def surrogate(estimator, policy, episodes, baseline=None, gamma=1.0):
    """Loss and metrics, as an update has them."""
    return surrogate_loss(estimator, NoBaseline() if baseline is None else baseline, policy, episodes, gamma)[:2]


def gradient(estimator, policy, episodes, baseline=None, gamma=1.0):
    """Of the surrogate loss, in one vector."""
    loss, _ = surrogate(estimator, policy, episodes, baseline, gamma)
    return flat_gradient(loss, policy)


def exact_lqr(lqr, policy):
    """∇ of the expected cost, in one vector; u = W x + b + σ ε with b = 0."""
    gain = (-policy.head.mean.weight).detach().requires_grad_()
    log_std = policy.head.log_std.detach().clone().requires_grad_()
    by_gain, by_log_std = torch.autograd.grad(lqr.policy_cost(gain, log_std.exp()), (gain, log_std))
    by_name = {
        "head.mean.weight": -by_gain,
        "head.mean.bias": torch.zeros(len(log_std), dtype=torch.float64),  # start states are symmetric
        "head.log_std": by_log_std,
    }
    return flat([by_name[name] for name, _ in policy.named_parameters()])
