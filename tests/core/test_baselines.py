"""Baselines: by hand, by loop, and what the interface promises for each case of `cases.BASELINES`."""

from dataclasses import replace

import cases
import lightning.pytorch as pl
import pytest
import torch
from gymnasium import spaces

from scorepath.baselines import (
    GAE,
    BatchMean,
    Constant,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    OptimalConstant,
    SelfCritical,
    TimeMean,
    Value,
)
from scorepath.baselines.optimal_constant import score_products
from scorepath.distributions import Bernoulli, Normal
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR, AbstractDynamics
from scorepath.estimators import Pathwise, ScoreFunction
from scorepath.module import AbstractObserver, PolicyGradient
from scorepath.policy import MLP, ObservationNormalizer, Policy
from scorepath.returns import explained_variance, reward_to_go
from scorepath.rollout import rollout, rollout_windows
from scorepath.types import Episodes
from scorepath.update import surrogate_loss

every_baseline = pytest.mark.parametrize(
    "make", [make for *_, make in cases.BASELINES], ids=[f"{c[0]}-{number}" for number, c in enumerate(cases.BASELINES)]
)

LENGTHS = [5, 2, 4]


def episodes(lengths=LENGTHS, terminated=(True, False, True), shape=(3,), dtype=torch.float32, junk=0.0):
    """Random observations; `junk` beyond each episode's end."""
    time, number = max(lengths), len(lengths)
    valid = torch.arange(time)[:, None] < torch.tensor(lengths)[None, :]
    terminated = torch.tensor(terminated)
    observations = torch.randn(time, number, *shape, dtype=dtype)
    observations[~valid] = junk
    return Episodes(
        observations=observations,
        actions=torch.zeros(time, number),
        rewards=torch.randn(time, number, dtype=dtype) * valid,
        valid=valid,
        terminated=terminated,
        truncated=~terminated,
        last_observations=torch.randn(number, *shape, dtype=dtype),
        extras={"greedy_returns": torch.randn(time + 1, number, dtype=dtype)},
    )


def acting(shape=(3,), dtype=torch.float32):
    """A policy for such episodes."""
    size = torch.Size(shape).numel()
    return Policy(MLP(size, []), Normal(spaces.Box(-1.0, 1.0, ()), size), len(shape)).to(dtype)


def of(baseline, batch, returns):
    """b (T, N), for baselines that do not ask the policy."""
    return baseline(batch, returns, acting())


def some_returns(batch):
    return torch.randn(batch.rewards.shape, dtype=batch.rewards.dtype) * batch.valid


@every_baseline
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)], ids=str)
def test_a_baseline_is_t_by_n_finite_and_leaves_its_inputs_alone(make, shape):
    batch = episodes(shape=shape)
    returns = some_returns(batch)
    before = returns.clone()
    baseline = make(shape)
    value = baseline(batch, returns, acting(shape))
    assert value.shape == returns.shape
    assert value.dtype == returns.dtype
    assert value.isfinite().all()
    assert torch.equal(returns, before)
    last_values = baseline.last_values(batch)
    assert (last_values is not None) == baseline.predicts_values
    assert last_values is None or last_values.shape == (3,)


@every_baseline
def test_parameters_have_an_optimizer_and_none_need_none(make):
    """Exactly the parameters that are to be learned are handed to it."""
    baseline = make((3,))
    optimizer = baseline.make_optimizer()
    handed = [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in handed} == {id(p) for p in baseline.parameters()}
    assert (optimizer is not None) == baseline.predicts_values


@every_baseline
def test_fit_gives_metrics_and_changes_no_prediction_made_before(make):
    batch = episodes()
    returns = some_returns(batch)
    baseline = make((3,))
    value = baseline(batch, returns, acting())
    before = value.clone()
    metrics = baseline.fit(batch, returns, baseline.make_optimizer())
    assert torch.equal(value, before)
    assert all(name.startswith("baseline/") and metric.shape == () for name, metric in metrics.items())
    assert not any(metric.requires_grad for metric in metrics.values())


def test_no_baseline_is_zero():
    batch = episodes()
    assert (of(NoBaseline(), batch, some_returns(batch)) == 0).all()


def test_batch_mean_by_hand():
    """The mean over the valid steps of the batch, everywhere."""
    batch = episodes([2, 1], (True, True))
    value = of(BatchMean(), batch, torch.tensor([[1.0, 4.0], [7.0, 0.0]]))
    assert value.tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_a_constant_is_that_constant():
    batch = episodes()
    assert (of(Constant(-2.5), batch, some_returns(batch)) == -2.5).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_constant_is_finite(value):
    with pytest.raises(ValueError, match="must be a finite number"):
        Constant(value)


def test_the_correction_multiplies_the_advantages_by_n_over_n_minus_1():
    batch = episodes([2, 1], (True, True))
    returns = torch.tensor([[1.0, 4.0], [7.0, 0.0]])
    advantages = BatchMean(correction=True).advantages(batch, returns, 1.0, acting())
    assert advantages[batch.valid].tolist() == [2 * (1.0 - 4.0), 2 * (4.0 - 4.0), 2 * (7.0 - 4.0)]
    assert BatchMean(correction=True).min_episodes == 2
    assert BatchMean().min_episodes == 1


def test_time_mean_by_hand():
    """The mean at the same time of the others that still run, 0 if none does."""
    batch = episodes([3, 1, 2], (True, True, True))
    value = of(TimeMean(), batch, torch.tensor([[1.0, 4.0, 9.0], [7.0, 0.0, 2.0], [5.0, 0.0, 0.0]]))
    expected = torch.tensor([[6.5, 5.0, 2.5], [2.0, 4.5, 7.0], [0.0, 5.0, 5.0]])
    assert torch.equal(value[batch.valid], expected[batch.valid])


def test_leave_one_out_by_hand():
    """The mean of the others' first returns, at all times; an episode that was over before counts for nothing."""
    batch = episodes([3, 1, 0, 2], (True, True, True, True))
    returns = torch.tensor([[1.0, 4.0, 0.0, 9.0], [7.0, 0.0, 0.0, 2.0], [5.0, 0.0, 0.0, 0.0]])
    value = of(LeaveOneOut(), batch, returns)
    assert value[:, [0, 1, 3]].tolist() == [[6.5, 5.0, 2.5]] * 3


OTHERS = [LeaveOneOut, TimeMean, OptimalConstant]  # made of the other episodes
of_others = pytest.mark.parametrize("kind", OTHERS)


@pytest.mark.parametrize("kind", [LeaveOneOut, TimeMean])
@pytest.mark.parametrize("number", [2, 3, 16, 61])
def test_means_of_others_leave_exactly_nothing_of_equal_returns(kind, number):
    """In float32 too: whitening would blow rounding errors up to a full-sized signal."""
    batch = episodes([4] * number, (True,) * number)
    returns = (torch.randn(1 if kind is LeaveOneOut else 4, 1) * 100).expand(4, number)
    assert torch.equal(of(kind(), batch, returns), returns)


@of_others
def test_a_baseline_of_others_knows_nothing_of_an_episode(kind):
    """What makes it unbiased. Whole numbers, whose sums are exact."""
    batch, policy = episodes(), acting()
    returns = torch.randint(-50, 50, batch.rewards.shape).float() * batch.valid
    value = kind()(batch, returns, policy)
    for n in range(3):
        changed = returns.clone()
        changed[:, n] += 100.0
        other = kind()(batch, changed, policy)
        assert torch.equal(other[:, n], value[:, n])
        assert not torch.equal(other, value)


@of_others
def test_a_baseline_of_others_does_not_look_beyond_an_episode_s_end(kind):
    batch, policy = episodes(), acting()
    returns = some_returns(batch)
    assert torch.equal(kind()(batch, returns + 50.0 * ~batch.valid, policy), kind()(batch, returns, policy))


@pytest.mark.parametrize("make", [*OTHERS, lambda: BatchMean(correction=True)])
def test_a_baseline_of_others_needs_others(make):
    batch = episodes([3], (True,))
    assert make().min_episodes == 2
    with pytest.raises(ValueError, match=r"at least two episodes: raise episodes_per_update"):
        make().advantages(batch, some_returns(batch), 1.0, acting())


# ------------------------------------------------------------------ moving average


def test_a_moving_average_is_the_weighed_mean_of_earlier_batches():
    """Means of valid steps 4, then 1, then 10, with decay 1/2: 4; (1 + 4/2) / 1.5; (10 + 1/2 + 4/4) / 1.75."""
    batch = episodes([2, 1], (True, True))
    baseline = MovingAverage(decay=0.5)
    found = []
    for rows in ([[1.0, 4.0], [7.0, 99.0]], [[1.0, 1.0], [1.0, 99.0]], [[10.0, 10.0], [10.0, 99.0]]):
        returns = torch.tensor(rows)
        found.append(float(of(baseline, batch, returns)[1, 0]))
        baseline.fit(batch, returns, None)
    found.append(float(of(baseline, batch, returns)[1, 0]))
    assert found == pytest.approx([0.0, 4.0, 2.0, 11.5 / 1.75], rel=1e-6)


def test_a_moving_average_travels_in_checkpoints():
    batch = episodes()
    one, other = MovingAverage(), MovingAverage()
    one.fit(batch, 5.0 + some_returns(batch), None)
    other.load_state_dict(one.state_dict())
    assert torch.equal(of(one, batch, batch.rewards), of(other, batch, batch.rewards))
    assert not one.make_optimizer()
    assert not list(one.parameters())


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=f"decay={decay} must be at least 0 and below 1"):
        MovingAverage(decay)


# ------------------------------------------------------------------ optimal constant


def test_the_optimal_constant_is_the_loop_over_the_other_episodes():
    """Σ_m X_m·S_m / Σ_m |S_m|² over m ≠ n, one autograd call a step."""
    batch, policy = episodes(dtype=torch.float64), acting(dtype=torch.float64)
    returns = some_returns(batch)
    parameters = list(policy.parameters())
    scores, weighed = torch.zeros(2, 3, sum(p.numel() for p in parameters), dtype=torch.float64)
    for n, length in enumerate(LENGTHS):
        for t in range(length):
            log_prob = policy(batch.observations[t, n]).log_prob(batch.actions[t, n])
            step = torch.cat([part.reshape(-1) for part in torch.autograd.grad(log_prob, parameters)])
            scores[n] += step
            weighed[n] += returns[t, n] * step
    value = OptimalConstant()(batch, returns, policy)
    for n in range(3):
        others = [m for m in range(3) if m != n]
        products = sum(weighed[m] @ scores[m] for m in others)
        expected = products / sum(scores[m] @ scores[m] for m in others)
        torch.testing.assert_close(value[:, n], expected.expand(5), rtol=1e-12, atol=1e-12)


def test_the_optimal_constant_leaves_no_gradient_behind_and_takes_parameters_that_are_not_reached():
    batch, policy = episodes(), acting()
    policy.unused = torch.nn.Parameter(torch.zeros(2))
    with torch.no_grad():
        value = OptimalConstant()(batch, some_returns(batch), policy)
    assert value.isfinite().all()
    assert not value.requires_grad
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_the_optimal_constant_of_others_without_a_gradient_is_zero():
    """Here: one that was over before."""
    batch, policy = episodes([2, 0], (True, True)), acting()
    value = OptimalConstant()(batch, some_returns(batch), policy)
    assert (value[:, 0] == 0).all()
    assert (value[:, 1] != 0).any()
    products, squares = score_products(batch, some_returns(batch), policy)
    assert products[1] == squares[1] == 0.0


# ------------------------------------------------------------------ self-critical


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_self_critical_plays_the_deterministic_policy_from_the_same_resets(gamma):
    env = GymnasiumEnvironment("CartPole-v1", 4, "sync")
    policy = Policy(MLP(4, []), Bernoulli(env.action_space, 4))
    greedy = SelfCritical().play(env, policy, 7, gamma)["greedy_returns"]
    for n, length in enumerate(rollout(env, policy, 7, deterministic=True).lengths.tolist()):
        expected = [sum(gamma**k for k in range(length - t)) for t in range(length)]
        assert greedy[:length, n].tolist() == pytest.approx(expected, rel=1e-5)
        assert (greedy[length:, n] == 0).all()
    env.close()


def test_self_critical_compares_the_same_times_or_whole_returns():
    """The greedy episodes last 6 steps, those of the batch 5; and the other way round."""
    batch = episodes()
    greedy = batch.extras["greedy_returns"]
    assert torch.equal(of(SelfCritical(), batch, batch.rewards), greedy[:5])
    whole = SelfCritical(per_step=False)
    assert torch.equal(of(whole, batch, batch.rewards), greedy[:1].expand(5, 3))
    short = replace(batch, extras={"greedy_returns": greedy[:2]})
    expected = torch.cat((greedy[:2], torch.zeros(3, 3)))
    assert torch.equal(of(SelfCritical(), short, batch.rewards), expected)


def test_self_critical_says_what_it_misses():
    batch = replace(episodes(), extras={})
    with pytest.raises(ValueError, match=r"what its play\(\) adds"):
        of(SelfCritical(), batch, batch.rewards)


class NoisyBandit(AbstractDynamics):
    """One step, whose reward is drawn from torch's generator, whatever the action."""

    name = "NoisyBandit"
    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(2)
    max_episode_steps = 1
    terminates = False

    def initial(self, generator, number):
        return generator.uniform(size=(number, 1))

    def transition(self, state, action):
        return torch.bernoulli(torch.full_like(state, 0.5))

    def reward(self, state, action, next_state):
        return next_state[:, 0]

    def observation(self, state):
        return state


def noisy_module(number=10_000):
    def environment(device):
        return TorchEnvironment(NoisyBandit(), number, device)

    return PolicyGradient(
        make_env=environment,
        make_eval_env=environment,
        policy=Policy(MLP(1, []), Bernoulli(spaces.Discrete(2), 1)),
        estimator=ScoreFunction(normalize_returns="none"),
        baseline=SelfCritical(),
        make_optimizer=torch.optim.Adam,
        lr_schedule=lambda progress: 1.0,
        max_env_steps=number,
        gamma=1.0,
        chunk=None,
        max_grad_norm=None,
        log_every_n_updates=1,
        seed=0,
        eval_episodes=1,
        eval_deterministic=False,
        config={},
    )


class Seen(AbstractObserver):
    """Keeps what was learned from."""

    def __init__(self):
        self.batches = []

    def is_due(self, update_index):
        return True

    def observe(self, module, episodes, weighed, window):
        self.batches.append(episodes)
        return {}


def correlation(one, other):
    return float(torch.corrcoef(torch.stack((one, other)))[0, 1])


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
def test_the_greedy_episode_shares_no_noise_with_the_sampled_actions():
    """In training; where torch is seeded alike for both, the environment's noise is the actions': a hidden bias.

    Alpha 1e-6 for a correlation of 10,000 pairs.
    """
    module, seen = noisy_module(), Seen()
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=-1, max_steps=1, limit_val_batches=0, accelerator="cpu", callbacks=[seen], **silent)
    trainer.fit(module)
    (batch,) = seen.batches
    greedy = batch.extras["greedy_returns"]
    assert greedy.shape == (1, 10_000)
    assert abs(correlation(greedy[0], batch.actions[0])) < 4.9 / 10_000**0.5
    assert 0.4 < float(greedy.mean()) < 0.6

    env, policy = module.make_env("cpu"), module.policy
    torch.manual_seed(0)
    greedy = module.baseline.play(env, policy, 0, 1.0)["greedy_returns"]
    torch.manual_seed(0)
    assert abs(correlation(greedy[0], rollout(env, policy, 0).actions[0])) > 0.3


# ------------------------------------------------------------------ value network


def value_network(shape=(3,), optimizer=torch.optim.SGD, lr=0.01, **kwargs):
    kwargs = {"hidden_sizes": (8,), **kwargs}
    return Value(shape, lambda parameters: optimizer(parameters, lr=lr), **kwargs)


def test_value_predicts_by_its_network_without_a_graph():
    batch = episodes()
    value = value_network()
    batch.observations.requires_grad_()
    prediction = of(value, batch, some_returns(batch))
    assert not prediction.requires_grad
    assert torch.equal(prediction, value.network(batch.observations).squeeze(-1))


def test_last_values_are_zero_after_a_termination_alone():
    batch = episodes(terminated=(True, False, True))
    value = value_network()
    expected = value.network(batch.last_observations).squeeze(-1)
    assert (expected != 0).all()
    assert value.last_values(batch).tolist() == [0.0, expected[1].item(), 0.0]


def test_last_values_pass_the_gradient_on_to_the_observation():
    """What a pathwise window needs; none where the episode has ended."""
    batch = episodes(terminated=(True, False, True))
    batch.last_observations.requires_grad_()
    value_network().last_values(batch).sum().backward()
    gradient = batch.last_observations.grad
    assert (gradient[1] != 0).any()
    assert (gradient[[0, 2]] == 0).all()


def test_fit_lowers_the_loss_and_raises_the_explained_variance():
    batch = episodes([40] * 10, (True,) * 10)
    returns = batch.observations.sum(dim=-1) + 2.0
    value = value_network(optimizer=torch.optim.Adam, lr=0.01, gradient_steps=50)
    optimizer = value.make_optimizer()
    losses, explained = [], []
    for _ in range(6):
        metrics = value.fit(batch, returns, optimizer)
        losses.append(float(metrics["baseline/loss"]))
        explained.append(float(metrics["baseline/explained_variance"]))
    assert losses[-1] < 0.2 * losses[0]
    assert explained[0] < 0.5
    assert explained[-1] > 0.9


def test_the_explained_variance_is_that_of_the_predictions_before_the_fit():
    """Over valid steps: the advantages were taken from these."""
    batch = episodes()
    returns = some_returns(batch)
    value = value_network()
    expected = explained_variance(of(value, batch, returns)[batch.valid], returns[batch.valid])
    metrics = value.fit(batch, returns, value.make_optimizer())
    assert float(metrics["baseline/explained_variance"]) == pytest.approx(float(expected), rel=1e-6)


def test_one_step_of_fit_is_gradient_descent_on_the_mean_square_over_valid_steps():
    batch = episodes(dtype=torch.float64)
    returns = some_returns(batch)
    value = value_network(gradient_steps=1, lr=0.1).double()
    before = [p.detach().clone() for p in value.parameters()]
    loss = torch.zeros((), dtype=torch.float64)
    for n, length in enumerate(LENGTHS):
        for t in range(length):
            loss = loss + (value.value(batch.observations[t, n]) - returns[t, n]).square() / sum(LENGTHS)
    gradients = torch.autograd.grad(loss, list(value.parameters()))
    metrics = value.fit(batch, returns, value.make_optimizer())
    for parameter, old, gradient in zip(value.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.1 * gradient, rtol=1e-12, atol=1e-12)
    assert float(metrics["baseline/loss"]) == pytest.approx(loss.item(), rel=1e-12)


def test_fit_drops_gradients_that_the_policy_s_loss_left_in_the_network():
    """A pathwise loss reaches the network through the bootstrap; the fit must not follow it."""
    batch = episodes()
    returns = some_returns(batch)
    fitted = []
    for stale in (False, True):
        torch.manual_seed(0)
        value = value_network()
        if stale:
            (1e3 * value.last_values(batch).sum()).backward()
        value.fit(batch, returns, value.make_optimizer())
        fitted.append([p.detach().clone() for p in value.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*fitted, strict=True))


def test_fit_leaves_the_graph_of_the_returns_alone():
    """Those of a pathwise window carry one, to the policy and through the environment."""
    batch, value = episodes(), value_network()
    returns = some_returns(batch).requires_grad_()
    value.fit(batch, returns, value.make_optimizer())
    assert returns.grad is None


def test_fit_does_not_see_what_lies_beyond_an_episode_s_end():
    fitted = []
    for junk in (0.0, float("nan")):
        torch.manual_seed(0)
        batch, value = episodes(junk=junk), value_network()
        metrics = value.fit(batch, some_returns(batch), value.make_optimizer())
        assert all(metric.isfinite() for metric in metrics.values())
        fitted.append([p.detach().clone() for p in value.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*fitted, strict=True))


def test_minibatches_are_as_large_as_asked():
    """A batch of one gives as many losses as there are steps: the metric is one step's error."""
    batch = episodes([50] * 4, (True,) * 4)
    returns = some_returns(batch)
    value = value_network(gradient_steps=1, minibatch_size=1, lr=0.0)
    errors = (of(value, batch, returns) - returns).square()[batch.valid]
    optimizer = value.make_optimizer()
    losses = {float(value.fit(batch, returns, optimizer)["baseline/loss"]) for _ in range(20)}
    assert len(losses) > 5
    assert all((errors - loss).abs().min() < 1e-5 for loss in losses)


def test_the_normaliser_is_shared_with_the_policy_which_owns_it():
    normalizer = ObservationNormalizer(3)
    normalizer.update(torch.randn(50, 3) * 5 + 3)
    policy = Policy(MLP(3, []), Normal(spaces.Box(-1.0, 1.0, (1,)), 3), 1, normalizer)
    value = value_network(normalizer=policy.normalizer)
    assert not any("count" in name for name in value.state_dict())
    assert any("count" in name for name in policy.state_dict())
    observations = torch.randn(7, 3)
    expected = value.network(normalizer(observations)).squeeze(-1)
    assert torch.equal(value.value(observations), expected)
    normalizer.update(torch.randn(50, 3) - 9.0)
    assert not torch.equal(value.value(observations), expected)


@pytest.mark.parametrize("make", [Value, GAE])
@pytest.mark.parametrize("wrong", [{"gradient_steps": 0}, {"minibatch_size": 0}])
def test_value_networks_refuse_counts_below_1(make, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=0"):
        make((3,), torch.optim.SGD, **wrong)


# ------------------------------------------------------------------ generalised advantages


def gae_and_value(gae_lambda, shape=(3,), dtype=torch.float64):
    """Two baselines of equal weights."""
    value = value_network(shape).to(dtype)
    gae = GAE(shape, lambda parameters: torch.optim.SGD(parameters, 0.1), gae_lambda, (8,)).to(dtype)
    gae.load_state_dict(value.state_dict())
    return gae, value


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("junk", [0.0, float("nan")])
def test_gae_is_the_sum_over_deltas_up_to_the_episode_s_end(gae_lambda, junk):
    """By loop: nothing follows a termination (columns 0 and 2), V(o_L) a truncation (column 1)."""
    batch = episodes(dtype=torch.float64, junk=junk)
    gae, value = gae_and_value(gae_lambda)
    advantages = gae.advantages(batch, some_returns(batch), 0.9, acting(dtype=torch.float64))
    assert not advantages.requires_grad
    with torch.no_grad():
        for n, length in enumerate(LENGTHS):
            values = value.value(batch.observations[:length, n]).tolist()
            values.append(0.0 if batch.terminated[n] else float(value.value(batch.last_observations[n])))
            deltas = [float(batch.rewards[t, n]) + 0.9 * values[t + 1] - values[t] for t in range(length)]
            for t in range(length):
                expected = sum((0.9 * gae_lambda) ** (k - t) * deltas[k] for k in range(t, length))
                assert float(advantages[t, n]) == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert (advantages[length:, n] == 0).all()


def test_gae_of_lambda_1_is_the_value_baseline():
    batch, policy = episodes(dtype=torch.float64), acting(dtype=torch.float64)
    gae, value = gae_and_value(1.0)
    returns = reward_to_go(batch.rewards, batch.is_last, 0.9, value.last_values(batch).detach())
    one, other = (baseline.advantages(batch, returns, 0.9, policy) for baseline in (gae, value))
    torch.testing.assert_close(one[batch.valid], other[batch.valid], rtol=1e-12, atol=1e-12)
    assert torch.equal(gae(batch, returns, policy), value(batch, returns, policy))


@pytest.mark.parametrize("gae_lambda", [-0.1, 1.1, float("nan")])
def test_gae_refuses_lambda_out_of_range(gae_lambda):
    with pytest.raises(ValueError, match=f"gae_lambda={gae_lambda} must be from 0 to 1"):
        GAE((3,), torch.optim.SGD, gae_lambda)


def lqr_window(policy):
    """The same noise at every call."""
    env = TorchEnvironment(LQR(), 4, dtype=torch.float64)
    torch.manual_seed(0)
    return next(rollout_windows(env, policy, 3, window=5, graph=True))


def test_pathwise_windows_have_the_gradient_of_finite_differences_of_the_lambda_weighted_sum():
    """Through rewards and predictions alike; for λ = 1 the sum telescopes to the value baseline's return."""
    policy = Policy(MLP(2, []), Normal(spaces.Box(-float("inf"), float("inf"), (1,)), 2)).double()

    def loss(baseline):
        return surrogate_loss(Pathwise(window=5), baseline, policy, lqr_window(policy), 0.95).loss

    def gradient(baseline):
        return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss(baseline), list(policy.parameters()))])

    gae, value = gae_and_value(1.0, (2,))
    torch.testing.assert_close(gradient(gae), gradient(value), rtol=1e-10, atol=1e-10)
    gae.gae_lambda = 0.7
    analytic = gradient(gae)
    assert not torch.allclose(analytic, gradient(value))
    numeric = []
    for parameter in policy.parameters():
        for index in range(parameter.numel()):
            values = []
            for step in (1e-5, -1e-5):
                parameter.data.view(-1)[index] += step
                values.append(loss(gae).item())
                parameter.data.view(-1)[index] -= step
            numeric.append((values[0] - values[1]) / 2e-5)
    assert analytic.tolist() == pytest.approx(numeric, rel=1e-5, abs=1e-7)
