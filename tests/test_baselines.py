"""Baselines: by hand, by loop, and what the interface promises for each case of `cases.BASELINES`."""

import cases
import pytest
import torch
from gymnasium import spaces

from scorepath.baselines import BatchMean, NoBaseline, TimeMean, Value
from scorepath.distributions import Normal
from scorepath.policy import MLP, ObservationNormalizer, Policy
from scorepath.returns import explained_variance
from scorepath.types import Episodes

every_baseline = pytest.mark.parametrize(
    "make", [make for *_, make in cases.BASELINES], ids=[c[0] for c in cases.BASELINES]
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
    )


def some_returns(batch):
    return torch.randn(batch.rewards.shape, dtype=batch.rewards.dtype) * batch.valid


@every_baseline
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)], ids=str)
def test_a_baseline_is_t_by_n_finite_and_leaves_its_inputs_alone(make, shape):
    batch = episodes(shape=shape)
    returns = some_returns(batch)
    before = returns.clone()
    baseline = make(shape)
    value = baseline(batch, returns)
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
    value = baseline(batch, returns)
    before = value.clone()
    metrics = baseline.fit(batch, returns, baseline.make_optimizer())
    assert torch.equal(value, before)
    assert all(name.startswith("baseline/") and metric.shape == () for name, metric in metrics.items())
    assert not any(metric.requires_grad for metric in metrics.values())


def test_no_baseline_is_zero():
    batch = episodes()
    assert (NoBaseline()(batch, some_returns(batch)) == 0).all()


def test_batch_mean_by_hand():
    """The mean over the valid steps of the batch, everywhere."""
    batch = episodes([2, 1], (True, True))
    value = BatchMean()(batch, torch.tensor([[1.0, 4.0], [7.0, 0.0]]))
    assert value.tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_time_mean_by_hand():
    """The mean at the same time of the others that still run, 0 if none does."""
    batch = episodes([3, 1, 2], (True, True, True))
    value = TimeMean()(batch, torch.tensor([[1.0, 4.0, 9.0], [7.0, 0.0, 2.0], [5.0, 0.0, 0.0]]))
    expected = torch.tensor([[6.5, 5.0, 2.5], [2.0, 4.5, 7.0], [0.0, 5.0, 5.0]])
    assert torch.equal(value[batch.valid], expected[batch.valid])


@pytest.mark.parametrize("number", [2, 3, 16, 61])
def test_time_mean_leaves_exactly_nothing_of_equal_returns(number):
    """In float32 too: whitening would blow rounding errors up to a full-sized signal."""
    batch = episodes([4] * number, (True,) * number)
    returns = (torch.randn(4, 1) * 100).expand(4, number)
    assert torch.equal(TimeMean()(batch, returns), returns)


def test_time_mean_of_an_episode_knows_nothing_of_it():
    """What makes it unbiased. Whole numbers, whose sums are exact."""
    batch = episodes()
    returns = torch.randint(-50, 50, batch.rewards.shape).float() * batch.valid
    value = TimeMean()(batch, returns)
    for n in range(3):
        changed = returns.clone()
        changed[:, n] += 100.0
        other = TimeMean()(batch, changed)
        assert torch.equal(other[:, n], value[:, n])
        assert not torch.equal(other, value)


def test_time_mean_does_not_look_beyond_an_episode_s_end():
    batch = episodes()
    returns = some_returns(batch)
    assert torch.equal(TimeMean()(batch, returns + 50.0 * ~batch.valid), TimeMean()(batch, returns))


def test_time_mean_of_one_episode_is_refused_with_the_remedy():
    batch = episodes([3], (True,))
    with pytest.raises(ValueError, match=r"at least two episodes: raise episodes_per_update"):
        TimeMean()(batch, some_returns(batch))


# ------------------------------------------------------------------ value network


def value_network(shape=(3,), optimizer=torch.optim.SGD, lr=0.01, **kwargs):
    kwargs = {"hidden_sizes": (8,), **kwargs}
    return Value(shape, lambda parameters: optimizer(parameters, lr=lr), **kwargs)


def test_value_predicts_by_its_network_without_a_graph():
    batch = episodes()
    value = value_network()
    batch.observations.requires_grad_()
    prediction = value(batch, some_returns(batch))
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
    expected = explained_variance(value(batch, returns)[batch.valid], returns[batch.valid])
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
    errors = (value(batch, returns) - returns).square()[batch.valid]
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


@pytest.mark.parametrize("wrong", [{"gradient_steps": 0}, {"minibatch_size": 0}])
def test_value_refuses_counts_below_1(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=0"):
        value_network(**wrong)
