"""The pathwise derivative: of rewards through the environment, by autograd and by finite differences."""

import pytest
import torch
from making import close, flat_gradient, linear, surrogate

from scorepath.baselines import Value
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, Pendulum
from scorepath.estimators import Pathwise
from scorepath.rollout import rollout, rollout_windows
from scorepath.update import losses

pytestmark = pytest.mark.core


def test_a_window_has_a_step():
    with pytest.raises(ValueError, match="window=0 must be at least 1"):
        Pathwise(window=0)


def test_pathwise_differentiates_the_mean_of_the_first_returns():
    env = TorchEnvironment(LQR(horizon=6), 5, dtype=torch.float64)
    policy = linear(env)
    (episodes,) = rollout_windows(env, policy, 0, graph=True)
    discounts = 0.9 ** torch.arange(6, dtype=torch.float64)
    objective = (discounts @ episodes.rewards).mean()
    expected = flat_gradient(-objective, policy)
    loss, _ = surrogate(Pathwise(window=None), policy, episodes, gamma=0.9)
    close(loss.detach(), -objective.detach())
    close(flat_gradient(loss, policy), expected)


@pytest.mark.parametrize("dynamics", [LQR(dim=3, horizon=20), Pendulum()], ids=["lqr", "pendulum"])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_pathwise_has_the_gradient_of_finite_differences_at_fixed_noise(dynamics, bootstrap):
    """Of the first window's loss, with the value network at its end or without."""
    env = TorchEnvironment(dynamics, 4, dtype=torch.float64)
    policy = linear(env)
    size = env.observation_space.shape
    baseline = Value(size, lambda parameters: torch.optim.SGD(parameters, 0.1), (8,)).double() if bootstrap else None
    estimator = Pathwise(window=5)

    def loss():
        torch.manual_seed(0)
        window = next(rollout_windows(env, policy, 3, window=estimator.window, graph=True))
        return surrogate(estimator, policy, window, baseline, gamma=0.95)[0]

    for parameter in policy.parameters():
        (analytic,) = torch.autograd.grad(loss(), parameter)
        assert (analytic != 0).any()
        for index in range(parameter.numel()):
            values = []
            for step in (1e-5, -1e-5):
                parameter.data.view(-1)[index] += step
                values.append(loss().item())
                parameter.data.view(-1)[index] -= step
            assert float(analytic.view(-1)[index]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_pathwise_reaches_the_policy_through_the_bootstrap():
    """With rewards left out, what remains is the value of the window's last observation."""
    env = TorchEnvironment(LQR(horizon=20), 4, dtype=torch.float64)
    policy = linear(env)
    value = Value((2,), lambda parameters: torch.optim.SGD(parameters, 0.1), (8,)).double()
    estimator = Pathwise(window=3)
    window = next(rollout_windows(env, policy, 0, window=3, graph=True))
    last = value.last_values(window)
    returns = estimator.returns(window, 0.9, last)
    discounts = 0.9 ** torch.arange(3, dtype=torch.float64)
    close(returns[0], discounts @ window.rewards + 0.9**3 * last)
    (through,) = torch.autograd.grad(last.sum(), [policy.head.mean.weight])
    assert (through != 0).all()


@pytest.mark.parametrize("bootstrap", [False, True])
def test_pathwise_refuses_rewards_without_a_graph(bootstrap):
    """Also where a value network brings a graph of its own, which leads nowhere."""
    env = TorchEnvironment(LQR(horizon=3), 2, dtype=torch.float64)
    policy = linear(env)
    baseline = Value((2,), lambda parameters: torch.optim.SGD(parameters, 0.1), (4,)).double() if bootstrap else None
    episodes = rollout(env, policy, 0)
    with pytest.raises(ValueError, match=r"needs rewards with a graph.*rsample"):
        surrogate(Pathwise(), policy, episodes, baseline)


def test_a_loss_with_a_graph_through_the_rollout_is_one_part():
    env = TorchEnvironment(LQR(horizon=4), 6)
    policy = linear(env, dtype=torch.float32)
    (episodes,) = rollout_windows(env, policy, 0, graph=True)
    weights = Pathwise(None).returns(episodes, 0.9, None)
    assert len(list(losses(Pathwise(None), policy, episodes, weights, 0.9, 1))) == 1
