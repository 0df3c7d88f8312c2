"""Returns and advantages against numbers worked out by hand, a naive recursion and numpy."""

from functools import partial

import making
import numpy as np
import pytest
import torch

from scorepath.returns import (
    RunningMoments,
    discounted_sum,
    explained_variance,
    generalized_advantage,
    reward_to_go,
    total_return,
    whiten,
)

pytestmark = pytest.mark.core

close = partial(making.close, tolerance=1e-12)


def mask(lengths, time):
    return torch.arange(time)[:, None] < torch.tensor(lengths)[None, :]


def last(lengths, time):
    return torch.arange(time)[:, None] == torch.tensor(lengths)[None, :] - 1


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


# Two episodes: rewards 1, 2, 4 and 8, then (length 2) 16, 32
REWARDS = tensor([[1, 16], [2, 32], [4, 0], [8, 0]])
LENGTHS = [4, 2]


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, [[1, 16], [2, 32], [4, 0], [8, 0]]),
        (0.5, [[1 + 1 + 1 + 1, 16 + 16], [2 + 2 + 2, 32], [4 + 4, 0], [8, 0]]),
        (1.0, [[15, 48], [14, 32], [12, 0], [8, 0]]),
    ],
)
def test_reward_to_go_by_hand(gamma, expected):
    close(reward_to_go(REWARDS, last(LENGTHS, 4), gamma), tensor(expected))


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, [[1, 16], [1, 16], [1, 0], [1, 0]]),
        (0.5, [[4, 32], [4, 32], [4, 0], [4, 0]]),
        (1.0, [[15, 48], [15, 48], [15, 0], [15, 0]]),
    ],
)
def test_total_return_by_hand(gamma, expected):
    close(total_return(REWARDS, mask(LENGTHS, 4), last(LENGTHS, 4), gamma), tensor(expected))


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, [[1, 16], [2, 32], [4, 0], [8, 0]]),
        # the first episode ended by termination: its value is 0; the second was truncated where V = 64
        (0.5, [[4, 32 + 64 / 4], [6, 32 + 64 / 2], [8, 0], [8, 0]]),
        (1.0, [[15, 48 + 64], [14, 32 + 64], [12, 0], [8, 0]]),
    ],
)
def test_last_values_count_after_the_last_valid_step(gamma, expected):
    values = tensor([0, 64])
    close(reward_to_go(REWARDS, last(LENGTHS, 4), gamma, values), tensor(expected))
    first = tensor(expected)[:1] * mask(LENGTHS, 4)
    close(total_return(REWARDS, mask(LENGTHS, 4), last(LENGTHS, 4), gamma, values), first)


def test_a_window_without_a_valid_step_stays_zero_whatever_its_last_value():
    """Column 1's episode ended in an earlier window: the value of its last observation means nothing."""
    lengths = [2, 0]
    rewards, values = tensor([[1, 0], [2, 0]]), tensor([10, 99])
    close(reward_to_go(rewards, last(lengths, 2), 0.5, values), tensor([[1 + 1 + 2.5, 0], [2 + 5, 0]]))
    close(
        total_return(rewards, mask(lengths, 2), last(lengths, 2), 0.5, values),
        tensor([[4.5, 0], [4.5, 0]]),
    )


@pytest.mark.parametrize("time", [1, 127, 128, 129, 256, 257, 700])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
def test_blocks_equal_the_naive_recursion(time, gamma):
    rewards = torch.randn(time, 3, dtype=torch.float64)
    expected, following = torch.zeros_like(rewards), torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(time)):
        following = rewards[t] + gamma * following
        expected[t] = following
    close(discounted_sum(rewards, gamma), expected)


def test_long_episodes_of_different_lengths_equal_the_naive_recursion():
    lengths, time, gamma = [300, 129, 128, 1, 0], 300, 0.97
    valid = mask(lengths, time)
    rewards = torch.randn(time, 5, dtype=torch.float64) * valid
    values = torch.randn(5, dtype=torch.float64)
    expected = torch.zeros_like(rewards)
    for n, length in enumerate(lengths):
        following = values[n]
        for t in reversed(range(length)):
            following = rewards[t, n] + gamma * following
            expected[t, n] = following
    close(reward_to_go(rewards, last(lengths, time), gamma, values), expected)


@pytest.mark.parametrize("time", [4, 140])
def test_returns_have_the_gradient_of_finite_differences(time):
    lengths = [time, time - 2]
    rewards = torch.randn(time, 2, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, dtype=torch.float64, requires_grad=True)
    rows = slice(0, time, max(1, time // 8))  # outputs in both blocks; all inputs

    def returns(rewards, values):
        return reward_to_go(rewards * mask(lengths, time), last(lengths, time), 0.9, values)[rows]

    assert torch.autograd.gradcheck(returns, (rewards, values))


def test_a_first_call_in_inference_mode_does_not_spoil_later_gradients():
    """The matrix of discounts is cached: an evaluation may be the first to ask for it."""
    gamma = 0.123456  # one that no other test uses
    with torch.inference_mode():
        discounted_sum(torch.ones(3, 1), gamma)
    rewards = torch.ones(3, 1, requires_grad=True)
    discounted_sum(rewards, gamma)[0].sum().backward()
    close(rewards.grad[:, 0], torch.tensor([1.0, gamma, gamma**2]), tolerance=1e-6)


@pytest.mark.parametrize("number", [2, 5, 16, 61])
def test_equal_episodes_have_equal_returns_to_the_bit(number):
    """In float32 too, where a matrix product may sum two columns in two orders."""
    returns = discounted_sum(torch.randn(300, 1).expand(300, number), 0.99)
    assert torch.equal(returns, returns[:, :1].expand_as(returns))


def test_float32_returns_stay_float32():
    assert reward_to_go(REWARDS.float(), last(LENGTHS, 4), 0.5).dtype == torch.float32


# ------------------------------------------------------------------ whiten


def test_whitened_entries_have_mean_0_and_std_1_over_valid_steps():
    valid = mask([50, 20, 3], 50)
    x = 7.0 + 3.0 * torch.randn(50, 3, dtype=torch.float64)
    entries = whiten(x, valid)[valid]
    close(entries.mean(), tensor(0.0))
    close(entries.std(correction=0), tensor(1.0))
    chosen = x[valid].numpy()
    close(entries, torch.from_numpy((chosen - chosen.mean()) / chosen.std()))


def test_whiten_by_hand():
    valid = mask([2, 1], 2)
    close(whiten(tensor([[1, 4], [1, 0]]), valid), tensor([[-(0.5**0.5), 2**0.5], [-(0.5**0.5), 0]]))


@pytest.mark.parametrize("junk", [1e30, float("nan"), float("inf")])
def test_whiten_is_zero_where_not_valid_whatever_lies_there(junk):
    """Rows beyond an episode's end hold anything (types.py): a value network may predict NaN from them."""
    valid = mask([3, 1], 3)
    x = tensor([[1, 2], [3, 0], [4, 0]])
    expected = whiten(x, valid)
    assert (expected[valid] != 0).all()
    assert (expected[~valid] == 0).all()
    close(whiten(torch.where(valid, x, junk), valid), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -200.7, 1e6 / 3])
def test_whitened_constants_are_zero(dtype, constant):
    assert (whiten(torch.full((97, 13), constant, dtype=dtype), mask([97] * 13, 97)) == 0).all()


def test_whitening_does_not_depend_on_the_unit_of_the_reward():
    valid = mask([20, 20], 20)
    x = torch.randn(20, 2, dtype=torch.float64)
    for scale in (1e-3, 1e3):
        close(whiten(scale * x, valid), whiten(x, valid), tolerance=1e-9)


# ------------------------------------------------------------------ explained variance


def test_explained_variance_by_hand():
    target = tensor([1, 2, 3, 6])  # mean 3, variance 14/4
    close(explained_variance(target, target), tensor(1.0))
    close(explained_variance(target + 5.0, target), tensor(1.0))  # blind to an offset
    close(explained_variance(torch.full_like(target, 3.0), target), tensor(0.0))
    close(explained_variance(torch.zeros_like(target), target), tensor(0.0))
    close(explained_variance(-target, target), tensor(1.0 - 4.0))
    close(explained_variance(tensor([1, 2, 3, 2]), target), tensor(1.0 - 3.0 / 3.5))  # residuals 0, 0, 0, 4


@pytest.mark.parametrize("constant", [0.0, 0.1, -200.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_explained_variance_of_a_constant_target_is_zero(constant, dtype):
    """Rounding leaves such a target a variance of about 1e-17, which is none."""
    target = torch.full((1000,), constant, dtype=dtype)
    assert explained_variance(torch.linspace(0, 1, 1000, dtype=dtype), target) == 0.0
    assert explained_variance(torch.zeros(1000, dtype=dtype), target) == 0.0


def test_explained_variance_equals_numpy():
    prediction, target = np.random.default_rng(0).normal(size=(2, 500))
    expected = 1.0 - np.var(target - prediction) / np.var(target)
    close(explained_variance(torch.from_numpy(prediction), torch.from_numpy(target)), tensor(expected))


# ------------------------------------------------------------------ whitening of each episode


def test_whitening_per_episode_has_mean_0_and_std_1_in_every_column():
    lengths = [50, 20, 3]
    x = 7.0 + 3.0 * torch.randn(50, 3, dtype=torch.float64)
    whitened = whiten(x, mask(lengths, 50), per_episode=True)
    for n, length in enumerate(lengths):
        chosen = x[:length, n].numpy()
        close(whitened[:length, n], torch.from_numpy((chosen - chosen.mean()) / chosen.std()))
        assert (whitened[length:, n] == 0).all()


def test_whitening_per_episode_by_hand():
    """The second episode has one step, the third none: nothing is left of them."""
    x = tensor([[1, 4, 9], [5, float("nan"), float("inf")]])
    close(whiten(x, mask([2, 1, 0], 2), per_episode=True), tensor([[-1, 0, 0], [1, 0, 0]]))


# ------------------------------------------------------------------ generalised advantages

# V = 10, 20, 40, 80 and 5, 6; nothing follows the first episode, 64 the second
VALUES = tensor([[10, 5], [20, 6], [40, 0], [80, 0]])
LAST_VALUES = tensor([0, 64])


@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [
        # δ = 1 + 10 - 10, 2 + 20 - 20, 4 + 40 - 40, 8 - 80; 16 + 3 - 5, 32 + 32 - 6
        (0.0, [[1, 14], [2, 58], [4, 0], [-72, 0]]),
        (0.5, [[1 + 2 / 4 + 4 / 16 - 72 / 64, 14 + 58 / 4], [2 + 4 / 4 - 72 / 16, 58], [4 - 72 / 4, 0], [-72, 0]]),
        # the returns by hand above, 4, 6, 8, 8 and 48, 64, less the values
        (1.0, [[4 - 10, 48 - 5], [6 - 20, 64 - 6], [8 - 40, 0], [8 - 80, 0]]),
    ],
)
@pytest.mark.parametrize("junk", [0.0, float("nan")])
def test_generalized_advantage_by_hand(gae_lambda, expected, junk):
    valid = mask(LENGTHS, 4)
    values = torch.where(valid, VALUES, junk)
    found = generalized_advantage(REWARDS, values, valid, last(LENGTHS, 4), 0.5, gae_lambda, LAST_VALUES)
    close(found, tensor(expected))


@pytest.mark.parametrize("last_values", [LAST_VALUES, tensor([0, 0]), None], ids=["bootstrap", "zeros", "none"])
@pytest.mark.parametrize("junk", [1e30, float("nan"), float("inf")])
def test_generalized_advantage_does_not_look_beyond_an_episode_s_end(junk, last_values):
    """Rows there hold anything: values in all of them, and whatever an environment paid after the end."""
    valid, is_last = mask(LENGTHS, 4), last(LENGTHS, 4)
    expected = generalized_advantage(REWARDS, VALUES, valid, is_last, 0.5, 0.5, last_values)
    rewards, values = (torch.where(valid, x, junk) for x in (REWARDS, VALUES))
    found = generalized_advantage(rewards, values, valid, is_last, 0.5, 0.5, last_values)
    assert (found[~valid] == 0).all()
    close(found, expected)
    if last_values is not LAST_VALUES:  # nothing follows the second episode: δ_1 = 32 - 6, δ_0 = 16 + 6 / 2 - 5
        close(found[:2, 1], tensor([14 + 26 / 4, 26]))


def test_generalized_advantage_of_lambda_1_is_the_return_less_the_value():
    lengths, gamma = [300, 129, 1], 0.97
    valid = mask(lengths, 300)
    rewards, values = torch.randn(2, 300, 3, dtype=torch.float64) * valid
    for last_values in (torch.randn(3, dtype=torch.float64), None):
        expected = reward_to_go(rewards, last(lengths, 300), gamma, last_values) - values
        close(generalized_advantage(rewards, values, valid, last(lengths, 300), gamma, 1.0, last_values), expected)


def test_generalized_advantage_has_the_gradient_of_finite_differences():
    lengths, time = [4, 2], 4
    inputs = [torch.randn(time, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    last_values = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def advantages(rewards, values, last_values):
        valid = mask(lengths, time)
        return generalized_advantage(rewards * valid, values, valid, last(lengths, time), 0.9, 0.8, last_values)

    assert torch.autograd.gradcheck(advantages, (*inputs, last_values))


# ------------------------------------------------------------------ running moments


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_running_moments_are_those_of_the_weighed_batches(decay):
    """As numpy's weighed average has them, every batch counting decay^(its age), however large."""
    batches = [torch.randn(size) * 3.0 + size for size in (5, 1, 30)]
    moments = RunningMoments(decay)
    assert moments.mean == moments.deviation == 0.0
    for number, batch in enumerate(batches, 1):
        moments.update(batch)
        seen = batches[:number]
        weights = np.concatenate([np.full(len(x), decay ** (number - 1 - j) / len(x)) for j, x in enumerate(seen)])
        values = torch.cat(seen).double().numpy()
        mean = np.average(values, weights=weights)
        assert float(moments.mean) == pytest.approx(mean, rel=1e-12)
        assert float(moments.deviation) == pytest.approx(np.average((values - mean) ** 2, weights=weights) ** 0.5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -200.7, 1e6 / 3])
def test_running_moments_of_a_constant_have_no_deviation(constant):
    """Not even that of rounding."""
    moments = RunningMoments(0.9)
    for size in (97, 13, 1):
        moments.update(torch.full((size,), constant))
        assert moments.deviation == 0.0


def test_running_moments_are_saved_and_carry_no_graph():
    moments, other = RunningMoments(0.9), RunningMoments(0.9)
    moments.update(torch.randn(5, requires_grad=True))
    assert not moments.mean.requires_grad
    assert list(moments.state_dict()) == ["sums"]
    other.load_state_dict(moments.state_dict())
    assert (other.mean, other.deviation) == (moments.mean, moments.deviation)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_running_moments_refuse_other_decays(decay):
    with pytest.raises(ValueError, match=f"decay={decay} must be at least 0 and below 1"):
        RunningMoments(decay)
