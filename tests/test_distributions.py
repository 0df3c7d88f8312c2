"""Heads: every case of `cases.HEADS` against scipy, its own sampler, its action space and extreme features."""

import itertools

import cases
import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, Independent, TransformedDistribution
from torch.distributions import Normal as TorchNormal
from torch.distributions.transforms import TanhTransform

from scorepath.distributions import AbstractHead, Bernoulli, Categorical, Normal

ALPHA = 1e-6  # false-alarm rate of each statistical test here
BATCHES = [(), (3,), (2, 3)]
SAMPLES = 20_000

SCIPY = [case for case in cases.HEADS if case.log_prob is not None]
LINES = [case for case in cases.HEADS if case.space in ("box", "box_scalar")]  # one-dimensional and continuous

every_head = pytest.mark.parametrize("case", cases.HEADS, ids=lambda case: case.name)
every_batch = pytest.mark.parametrize("batch", BATCHES, ids=str)


def base(dist: Distribution) -> Distribution:
    return dist.base_dist if isinstance(dist, Independent) else dist


def event(case) -> tuple[int, ...]:
    return tuple(cases.SPACES[case.space].shape)


@every_head
@every_batch
def test_shapes(case, batch):
    """batch_shape is B, and log_prob and entropy are B; samples and deterministic actions are (*B, *A)."""
    head = case.make()
    dist = head(torch.randn(*batch, 3))
    sample = dist.sample()
    assert dist.batch_shape == batch
    assert sample.shape == (*batch, *event(case))
    assert dist.log_prob(sample).shape == batch
    assert head.entropy(dist).shape == batch
    assert head.deterministic(dist).shape == sample.shape
    assert head.to_env(sample).shape == sample.shape


@every_head
def test_rows_of_a_batch_do_not_mix(case):
    """The distribution of each row is that of its features alone."""
    head = case.make().double()
    features = torch.randn(4, 3, dtype=torch.float64)
    together = head(features)
    samples = together.sample()
    alone = torch.stack([head(row).log_prob(sample) for row, sample in zip(features, samples, strict=True)])
    torch.testing.assert_close(together.log_prob(samples), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", SCIPY, ids=lambda case: case.name)
@every_batch
def test_log_prob_equals_scipy(case, batch):
    head = case.make().double()
    features = torch.randn(*batch, 3, dtype=torch.float64)
    dist = head(features)
    for _ in range(3):
        sample = dist.sample()
        rows = zip(features.reshape(-1, 3).numpy(), sample.reshape(-1, *event(case)).numpy(), strict=True)
        expected = torch.tensor([case.log_prob(head, *row) for row in rows], dtype=torch.float64)
        # bounds that are no float32 numbers may be rounded to such
        tolerance = 1e-6 if case.space == "box_float64" else 1e-10
        torch.testing.assert_close(dist.log_prob(sample).reshape(-1), expected, rtol=1e-10, atol=tolerance)


def support(dist: Distribution, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Every action of a discrete distribution, (K, *A); None if it is continuous."""
    if isinstance(base(dist), TorchBernoulli):
        values = [(0.0, 1.0)] * int(np.prod(shape))
    elif isinstance(base(dist), TorchCategorical):
        values = [range(base(dist).logits.shape[-1])] * int(np.prod(shape))
    else:
        return None
    return torch.tensor(list(itertools.product(*values))).reshape(-1, *shape)


@every_head
@torch.no_grad()
def test_samples_follow_log_prob(case):
    """Chi-square over all actions where they can be counted; else Kolmogorov-Smirnov, one entry at a time."""
    head = case.make().double()
    dist = head(torch.randn(3, dtype=torch.float64))
    samples = dist.sample((SAMPLES,))
    actions = support(dist, event(case))
    if actions is not None:
        check_counts(dist, samples, actions.to(samples.dtype))
        return
    for index in np.ndindex(event(case)):
        check_entry(dist, samples, index)


def check_counts(dist, samples, actions):
    probabilities = torch.stack([dist.log_prob(action).exp() for action in actions]).numpy()
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    flat = actions.reshape(len(actions), -1).double().numpy()
    drawn = samples.reshape(SAMPLES, -1).double().numpy()
    counts = np.array([(drawn == action).all(axis=1).sum() for action in flat])
    assert counts.sum() == SAMPLES, "a sample outside the support"
    rare = probabilities * SAMPLES < 5
    assert (counts[probabilities == 0] == 0).all()
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(probabilities[~rare], probabilities[rare].sum()) * SAMPLES
    kept = expected > 0
    if kept.sum() == 1:  # the only action
        assert observed[kept] == SAMPLES
        return
    assert scipy.stats.chisquare(observed[kept], expected[kept]).pvalue > ALPHA


def check_entry(dist, samples, index):
    """One entry's density along a line through a sample, normalised on a grid: its own, for entries are independent."""
    drawn = samples[(slice(None), *index)].numpy()
    spread = np.ptp(drawn)
    grid = np.linspace(drawn.min() - spread, drawn.max() + spread, 20_001)
    line = samples[0].expand(len(grid), *samples.shape[1:]).clone()
    line[(slice(None), *index)] = torch.from_numpy(grid)
    log_density = dist.log_prob(line).numpy()
    density = np.nan_to_num(np.exp(log_density - np.nanmax(log_density)))
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    cumulative /= cumulative[-1]
    assert scipy.stats.kstest(drawn, lambda x: np.interp(x, grid, cumulative)).pvalue > ALPHA


@pytest.mark.parametrize("case", LINES, ids=lambda case: case.name)
@torch.no_grad()
def test_log_prob_integrates_to_1_in_one_dimension(case):
    """The normalising constant, which no test of samples can see."""
    dist = case.make().double()(torch.randn(3, dtype=torch.float64))
    grid = torch.linspace(-60.0, 60.0, 200_001, dtype=torch.float64)
    density = dist.log_prob(grid.reshape(-1, *event(case))).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-9)


@every_head
@pytest.mark.parametrize("scale", [1.0, 30.0])
@torch.no_grad()
def test_samples_and_deterministic_actions_land_in_the_action_space(case, scale):
    """In the dtype that training uses, after the environment's own cast."""
    head = case.make()
    space = cases.SPACES[case.space]
    dist = head(scale * torch.randn(250, 3))
    batches = [dist.sample(), dist.sample(), head.deterministic(dist)]
    for action in torch.cat([head.to_env(batch) for batch in batches]).numpy().astype(space.dtype):
        assert space.contains(np.asarray(action)), f"{action} not in {space}"


@every_head
def test_the_deterministic_action_is_the_most_probable(case):
    head = case.make().double()
    dist = head(torch.randn(50, 3, dtype=torch.float64))
    best = dist.log_prob(head.deterministic(dist))
    for _ in range(50):
        assert (best >= dist.log_prob(dist.sample()) - 1e-9).all()


@every_head
@torch.no_grad()
def test_entropy_is_minus_the_mean_log_prob(case):
    """z-test over 20,000 samples."""
    head = case.make().double()
    dist = head(torch.randn(3, dtype=torch.float64))
    surprise = -dist.log_prob(dist.sample((SAMPLES,)))
    error = float(surprise.std()) / SAMPLES**0.5
    difference = float(surprise.mean() - head.entropy(dist))
    assert abs(difference) <= scipy.stats.norm.isf(ALPHA / 2) * error + 1e-12


@every_head
def test_has_rsample_is_honest(case):
    head = case.make()
    dist = head(torch.randn(4, 3))
    assert head.has_rsample == dist.has_rsample
    assert not dist.sample().requires_grad
    if head.has_rsample:
        action = head.to_env(dist.rsample())
        assert action.requires_grad
    else:
        with pytest.raises(NotImplementedError):
            dist.rsample()


@every_head
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_features_give_finite_values_and_gradients(case, size):
    """log_prob, entropy and their gradients for weights and features; the entropy also when weighed by 100."""
    head = case.make()
    features = torch.full((5, 3), size) * torch.tensor([1.0, -1.0, 0.5])
    features.requires_grad_()
    dist = head(features)
    sample = dist.sample()
    assert head.deterministic(dist).isfinite().all()
    log_prob, entropy = dist.log_prob(sample), head.entropy(dist)
    assert log_prob.isfinite().all()
    assert entropy.isfinite().all()
    wanted = [features, *head.parameters()]
    for output in (log_prob.sum(), entropy.mean(), 100.0 * entropy.sum()):
        for gradient in torch.autograd.grad(output, wanted, retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@every_head
def test_log_prob_has_the_gradient_of_finite_differences(case):
    head = case.make().double()
    features = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    action = head(features).sample()
    assert torch.autograd.gradcheck(lambda inputs: head(inputs).log_prob(action), features)


@every_head
def test_a_head_keeps_nothing_between_calls(case):
    """An action's log_prob is that of the features given, whatever was asked in between."""
    head = case.make()
    features = torch.randn(4, 3)
    dist = head(features)
    action = dist.sample()
    before = dist.log_prob(action)
    state = {name: value.clone() for name, value in head.state_dict().items()}
    head(torch.randn(7, 3)).sample()
    assert torch.equal(head(features).log_prob(action), before)
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


# ------------------------------------------------------------------ Normal


def test_initial_std_is_in_units_of_half_the_range():
    space = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    scale = base(Normal(space, 3, initial_std=0.5)(torch.randn(3))).scale
    torch.testing.assert_close(scale, torch.tensor([1.0, 2.5]))


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("initial_std", [1e-3, 0.6, 7.0, 20.0])
def test_the_std_starts_at_initial_std_and_can_be_learned(initial_std, std):
    head = Normal(cases.SPACES["box_unbounded"], 3, std=std, initial_std=initial_std).double()
    dist = head(torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(base(dist).scale, torch.full((2,), initial_std, dtype=torch.float64))
    dist.log_prob(torch.zeros(2, dtype=torch.float64)).backward()
    assert (head.log_std.grad != 0).all()


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
def test_only_a_state_dependent_std_follows_the_features(std):
    head = cases.HeadCase("normal", Normal, "box", {"std": std}).make()
    scale = base(head(torch.randn(2, 3))).scale
    assert (scale[0] == scale[1]).all() == (std == "state_independent")


def test_a_bounded_mean_stays_in_the_box():
    space = cases.SPACES["box_uneven"]
    mean = cases.HeadCase("normal", Normal, "box_uneven", {"mean": "bounded"}).make()(1e3 * torch.randn(100, 3)).mean
    assert all(space.contains(row) for row in mean.detach().numpy().clip(space.low, space.high))
    assert (mean >= torch.as_tensor(space.low) - 1e-5).all()
    assert (mean <= torch.as_tensor(space.high) + 1e-5).all()


def test_actions_are_clipped_for_the_environment_only():
    """log_prob is that of the unclipped sample, and the clip passes gradients inside the Box."""
    head = Normal(cases.SPACES["box"], 3)
    action = torch.tensor([[-5.0], [1.0], [5.0]], requires_grad=True)
    sent = head.to_env(action)
    assert sent.tolist() == [[-2.0], [1.0], [2.0]]
    sent.sum().backward()
    assert action.grad.tolist() == [[0.0], [1.0], [0.0]]


def test_a_box_as_wide_as_float32_gives_finite_actions():
    """Some environments write 'unbounded' as the largest float."""
    largest = np.finfo(np.float32).max
    dist = Normal(gym.spaces.Box(-largest, largest, (2,), np.float32), 3)(torch.ones(3))
    assert dist.mean.isfinite().all()
    assert base(dist).scale.isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"initial_std": 0.0}, {"initial_std": -1.0}, {"initial_std": 101.0}, {"std": "fixed"}, {"mean": "tanh"}]
)
def test_normal_refuses_other_options(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        Normal(cases.SPACES["box"], 3, **wrong)


# ------------------------------------------------------------------ Categorical and Bernoulli


def test_categorical_never_draws_a_missing_choice():
    head = Categorical(cases.SPACES["multi_discrete_uneven"], 3)
    samples = head(1e3 * torch.randn(2000, 3)).sample()
    assert (samples < torch.tensor([3, 5, 2])).all()
    assert samples.amax(dim=0).tolist() == [2, 4, 1]


def test_to_env_adds_the_start_of_the_space():
    actions = torch.tensor([0, 1, 3])
    assert Categorical(cases.SPACES["discrete_start"], 3).to_env(actions).tolist() == [-3, -2, 0]
    assert Bernoulli(cases.SPACES["discrete_2_start"], 3).to_env(torch.tensor([0.0, 1.0])).tolist() == [5, 6]
    pair = Categorical(cases.SPACES["multi_discrete_start"], 3).to_env(torch.tensor([[0, 0], [2, 1]]))
    assert pair.tolist() == [[5, -1], [7, 0]]


def test_deterministic_bernoulli_is_finite_at_a_tie():
    """Where torch's mode is NaN."""
    head = Bernoulli(cases.SPACES["discrete_2"], 3)
    nn.init.zeros_(head.logits.weight)
    nn.init.zeros_(head.logits.bias)
    assert head.deterministic(head(torch.ones(3))).item() in (0.0, 1.0)


def test_bernoulli_equals_a_categorical_of_two_logits():
    """p(1) = sigmoid(l) is softmax((0, l))."""
    coin, choice = Bernoulli(cases.SPACES["discrete_2"], 3), Categorical(cases.SPACES["discrete_2"], 3)
    with torch.no_grad():
        choice.logits.weight.copy_(torch.cat((torch.zeros(1, 3), coin.logits.weight)))
        choice.logits.bias.copy_(torch.cat((torch.zeros(1), coin.logits.bias)))
    features = torch.randn(20, 3)
    for action in (0, 1):
        one, other = coin(features).log_prob(torch.full((20,), float(action))), torch.full((20,), action)
        torch.testing.assert_close(one, choice(features).log_prob(other))


# ------------------------------------------------------------------ what a head gets from the interface


class Squashed(AbstractHead):
    """tanh of a Normal: torch knows no entropy of it."""

    needs = "a Box of (-1, 1)"
    has_rsample = True

    def __init__(self, action_space, in_features, validate_args=False):
        super().__init__(action_space, in_features, validate_args)
        self.log_std = nn.Parameter(torch.tensor([0.1], dtype=torch.float64))

    @classmethod
    def accepts(cls, action_space):
        return isinstance(action_space, gym.spaces.Box)

    def forward(self, features):
        normal = TorchNormal(torch.zeros_like(features), self.log_std.exp().expand_as(features))
        return Independent(TransformedDistribution(normal, TanhTransform()), 1)

    def to_env(self, action):
        return action

    def deterministic(self, dist):
        raise NotImplementedError


def squashed_entropy(log_std: float) -> float:
    """H = H(Normal) + E[log(1 - tanh²(u))], by quadrature."""
    std = np.exp(log_std)
    u = np.linspace(-12 * std, 12 * std, 400_001)
    volume = np.trapezoid(scipy.stats.norm.pdf(u, 0, std) * np.log1p(-(np.tanh(u) ** 2) + 1e-300), u)
    return float(scipy.stats.norm.entropy(0, std) + volume)


@pytest.fixture(scope="module")
def squashed():
    return Squashed(gym.spaces.Box(-1, 1, (1,)), 1), torch.zeros(SAMPLES, 1, dtype=torch.float64)


def test_the_monte_carlo_entropy_has_the_right_mean(squashed):
    """z-test over 20,000 samples against quadrature."""
    head, features = squashed
    estimates = head.entropy(head(features)).detach()
    assert estimates.shape == (SAMPLES,)
    z = (float(estimates.mean()) - squashed_entropy(0.1)) / (float(estimates.std()) / SAMPLES**0.5)
    assert abs(z) < scipy.stats.norm.isf(ALPHA / 2)


def test_the_monte_carlo_entropy_has_the_gradient_of_the_entropy(squashed):
    """Otherwise estimator.entropy_coefficient would do nothing for such a head: E[∇ log p] = 0 at a fixed sample.

    z-test over 100 batches of 200 samples against quadrature.
    """
    head, features = squashed
    gradients = []
    for rows in features.split(200):
        (gradient,) = torch.autograd.grad(head.entropy(head(rows)).mean(), head.log_std)
        gradients.append(float(gradient))
    expected = (squashed_entropy(0.1 + 1e-4) - squashed_entropy(0.1 - 1e-4)) / 2e-4
    z = (np.mean(gradients) - expected) / (np.std(gradients, ddof=1) / len(gradients) ** 0.5)
    assert abs(z) < scipy.stats.t.isf(ALPHA / 2, len(gradients) - 1)
