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
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, Independent, TransformedDistribution, constraints
from torch.distributions import Normal as TorchNormal
from torch.distributions import Poisson as TorchPoisson
from torch.distributions.transforms import TanhTransform

from scorepath.distributions import (
    AbstractHead,
    Bernoulli,
    Categorical,
    Normal,
)
from scorepath.policy import Policy
from scorepath.verify.expectation import action_grid

ALPHA = 1e-6  # false-alarm rate of each statistical test here
BATCHES = [(), (3,), (2, 3)]
SAMPLES = 20_000

SCIPY = [case for case in cases.HEADS if case.log_prob is not None]
# one real number: what expectations can be integrated over
LINES = [case for case in cases.HEADS if case.space in ("box", "box_angle", "box_scalar")]
BOXES = [case for case in cases.HEADS if case.space.startswith("box") and case.space != "box_integer"]

every_head = pytest.mark.parametrize("case", cases.HEADS, ids=lambda case: case.name)
every_line = pytest.mark.parametrize("case", LINES, ids=lambda case: case.name)
every_box = pytest.mark.parametrize("case", BOXES, ids=lambda case: case.name)
every_batch = pytest.mark.parametrize("batch", BATCHES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def base(dist: Distribution) -> Distribution:
    return dist.base_dist if isinstance(dist, Independent) else dist


def z_limit(number: int = 1) -> float:
    """Beyond which the largest of `number` z-scores is with probability ALPHA, at most."""
    return float(scipy.stats.norm.isf(ALPHA / 2 / number))


def grid(head: AbstractHead, features: torch.Tensor, breaks=()):
    """Nodes (Q,) and probabilities (Q,) of a head's actions at features (F,), with the graph: exact expectations."""
    actions, probabilities = action_grid(Policy(nn.Identity(), head), features.unsqueeze(0), breaks)
    return actions.reshape(-1), probabilities.squeeze(1)


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
    elif isinstance(base(dist), TorchBinomial):
        values = [np.arange(1.0 + int(base(dist).total_count.max()))] * int(np.prod(shape))
    elif isinstance(base(dist), TorchPoisson):
        rate = float(base(dist).rate.max())
        values = [np.arange(rate + 12.0 * rate**0.5 + 30.0)] * int(np.prod(shape))  # all but 1e-12 of the mass
    else:
        return None
    return torch.tensor(list(itertools.product(*values))).reshape(-1, *shape)


@every_head
@torch.no_grad()
def test_samples_follow_log_prob(case):
    """Chi-square over all actions where they can be counted; else Kolmogorov-Smirnov, one entry at a time.

    Where entries depend on each other, each is tested given all others: its conditional cdf makes it uniform.
    """
    head = case.make().double()
    dist = head(torch.randn(3, dtype=torch.float64))
    samples = dist.sample((SAMPLES,))
    if case.option == "dirichlet":
        check_shares(base(dist).concentration, samples)
        return
    actions = support(dist, event(case))
    if actions is not None:
        check_counts(dist, samples, actions.to(samples.dtype))
        return
    for index in np.ndindex(event(case)):
        if isinstance(dist, Independent):
            check_entry(dist, samples, index)
        else:
            check_entry_given_others(dist, samples[:1000], index)


def check_shares(concentrations, samples):
    """Each share by itself is a Beta(α_i, Σ α - α_i); log_prob is compared with scipy's elsewhere."""
    total = float(concentrations.sum())
    for column, alpha in zip(samples.T.numpy(), concentrations.tolist(), strict=True):
        assert scipy.stats.kstest(column, scipy.stats.beta(alpha, total - alpha).cdf).pvalue > ALPHA
    torch.testing.assert_close(samples.sum(dim=-1), torch.ones(len(samples), dtype=samples.dtype))


def check_counts(dist, samples, actions):
    probabilities = dist.log_prob(actions).exp().numpy()
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    flat = actions.reshape(len(actions), -1).double().numpy()
    drawn, numbers = np.unique(samples.reshape(SAMPLES, -1).double().numpy(), axis=0, return_counts=True)
    found = dict(zip(map(tuple, drawn), numbers, strict=True))
    counts = np.array([found.get(tuple(action), 0) for action in flat])
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


def nodes_of_entry(dist, samples, index, number):
    """Where an entry may lie, (number,): around its samples, and within the bounds of its support."""
    drawn = samples[(slice(None), *index)]
    spread = drawn.max() - drawn.min()
    low, high = drawn.min() - spread, drawn.max() + spread
    bounds = dist.support
    while isinstance(bounds, constraints.independent):
        bounds = bounds.base_constraint
    if isinstance(bounds, constraints.interval):
        low, high = low.maximum(bounds.lower_bound[index]), high.minimum(bounds.upper_bound[index])
    return low + (high - low) * torch.linspace(0.0, 1.0, number, dtype=torch.float64)


def cumulative_of_entry(dist, samples, index, nodes):
    """Each sample's cdf of one entry given its others, at the nodes, (samples, nodes)."""
    lines = samples.unsqueeze(1).repeat(1, len(nodes), *[1] * len(dist.event_shape))
    lines[(slice(None), slice(None), *index)] = nodes
    log_density = dist.log_prob(lines)
    density = (log_density - log_density.amax(dim=1, keepdim=True)).exp()
    cumulative = torch.cumulative_trapezoid(density, nodes, dim=1)
    return torch.nn.functional.pad(cumulative / cumulative[:, -1:], (1, 0)).numpy()


def check_entry(dist, samples, index):
    """One entry's density along a line through a sample, normalised on a grid: its own, for entries are independent."""
    nodes = nodes_of_entry(dist, samples, index, 20_001)
    (cumulative,) = cumulative_of_entry(dist, samples[:1], index, nodes)
    drawn = samples[(slice(None), *index)].numpy()
    assert scipy.stats.kstest(drawn, lambda x: np.interp(x, nodes.numpy(), cumulative)).pvalue > ALPHA


def check_entry_given_others(dist, samples, index):
    nodes = nodes_of_entry(dist, samples, index, 501)
    rows = cumulative_of_entry(dist, samples, index, nodes)
    drawn = samples[(slice(None), *index)].numpy()
    uniform = [np.interp(x, nodes.numpy(), row) for x, row in zip(drawn, rows, strict=True)]
    assert scipy.stats.kstest(uniform, "uniform").pvalue > ALPHA


@every_line
@torch.no_grad()
def test_log_prob_integrates_to_1_in_one_dimension(case):
    """The normalising constant, which no test of samples can see."""
    head, features = case.make().double(), torch.randn(3, dtype=torch.float64)
    actions, probabilities = grid(head, features)
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-7)
    assert np.isfinite(actions.numpy()).all()


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


@pytest.mark.parametrize(
    "case", [case for case in cases.HEADS if case.deterministic == "mode"], ids=lambda case: case.name
)
def test_the_deterministic_action_is_the_most_probable(case):
    head = case.make().double()
    dist = head(torch.randn(50, 3, dtype=torch.float64))
    best = dist.log_prob(head.deterministic(dist))
    for _ in range(50):
        assert (best >= dist.log_prob(dist.sample()) - 1e-9).all()


@pytest.mark.parametrize(
    "case", [case for case in LINES if case.deterministic in ("mean", "median")], ids=lambda case: case.name
)
@torch.no_grad()
def test_the_deterministic_action_is_the_mean_or_the_median(case):
    """By quadrature."""
    head, features = case.make().double(), torch.randn(3, dtype=torch.float64)
    action = head.deterministic(head(features)).reshape(())
    actions, probabilities = grid(head, features, breaks=[float(action)])
    if case.deterministic == "mean":
        assert float(probabilities @ actions) == pytest.approx(float(action), abs=1e-6)
    else:
        assert float(probabilities[actions < action].sum()) == pytest.approx(0.5, abs=1e-6)


@every_head
@torch.no_grad()
def test_entropy_is_minus_the_mean_log_prob(case):
    """z-test over 20,000 samples; where the entropy is an estimate, of the mean of as many."""
    head = case.make().double()
    features = torch.randn(3, dtype=torch.float64)
    dist = head(features)
    surprise = -dist.log_prob(dist.sample((SAMPLES,)))
    entropy = head.entropy(head(features.expand(SAMPLES, 3)))
    error = float(surprise.var() + entropy.var(correction=0)) ** 0.5 / SAMPLES**0.5
    difference = float(surprise.mean() - entropy.mean())
    assert abs(difference) <= z_limit() * error + 1e-12


@every_line
@torch.no_grad()
def test_entropy_equals_quadrature(case):
    """z-test over 20,000 estimates where it is one; to 1e-6 where it is exact."""
    head, features = case.make().double(), torch.randn(3, dtype=torch.float64)
    actions, probabilities = grid(head, features)
    log_prob = head(features.unsqueeze(0)).log_prob(actions.reshape(-1, 1, *event(case))).squeeze(1)
    expected = -float(torch.where(probabilities > 0, probabilities * log_prob, 0.0).sum())
    entropy = head.entropy(head(features.expand(SAMPLES, 3)))
    error = float(entropy.std()) / SAMPLES**0.5
    assert float(entropy.mean()) == pytest.approx(expected, abs=z_limit() * error + 1e-6)


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


@pytest.mark.parametrize("case", [case for case in LINES if case.head.has_rsample], ids=lambda case: case.name)
def test_the_derivative_of_rsample_is_that_of_the_expectation(case):
    """∇E[f(a)] for f(a) = sin(a) + a² / 4, by rsample and by quadrature of f ∇p: both estimators have this mean.

    z-tests for all parameters over 100 batches of 400 samples; a mean of zero spread has to be exact.
    """
    head, features = case.make().double(), torch.randn(3, dtype=torch.float64)
    parameters = list(head.parameters())

    def value(action):
        return action.sin() + 0.25 * action.square()

    def gradient(scalar):
        found = torch.autograd.grad(scalar, parameters, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    actions, probabilities = grid(head, features)
    expected = gradient(probabilities @ value(actions))
    rows = features.expand(400, 3)
    batches = torch.stack([gradient(value(head(rows).rsample()).mean()) for _ in range(100)])
    error = batches.std(dim=0) / 100**0.5
    z = (batches.mean(dim=0) - expected).abs() / (error + 1e-12)
    assert expected.abs().max() > 10 * error.max(), "nothing to see"
    assert float(z.max()) < scipy.stats.t.isf(ALPHA / 2 / len(expected), 99)


@every_head
@every_dtype
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_features_give_finite_values_and_gradients(case, size, dtype):
    """log_prob, entropy and their gradients for weights and features; the entropy also when weighed by 100."""
    head = case.make().to(dtype)
    features = torch.full((5, 3), size, dtype=dtype) * torch.tensor([1.0, -1.0, 0.5], dtype=dtype)
    features.requires_grad_()
    dist = head(features)
    sample = dist.sample()
    assert sample.isfinite().all()
    assert head.deterministic(dist).isfinite().all()
    log_prob, entropy = dist.log_prob(sample), head.entropy(dist)
    assert log_prob.isfinite().all()
    assert entropy.isfinite().all()
    wanted = [features, *head.parameters()]
    outputs = [log_prob.sum(), entropy.mean(), 100.0 * entropy.sum()]
    if head.has_rsample:
        outputs.append(dist.rsample().sum())
    for output in outputs:
        check_finite_gradient(output, wanted)


def check_finite_gradient(output, wanted):
    for gradient in torch.autograd.grad(output, wanted, retain_graph=True, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@every_box
@every_dtype
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_log_prob_and_its_gradient_are_finite_at_the_bounds(case, dtype, scale):
    """Of actions that are the Box's bounds, and of what a saturated sampler may round to them."""
    head = case.make().to(dtype)
    space = cases.SPACES[case.space]
    features = (scale * torch.randn(20, 3, dtype=dtype)).requires_grad_()
    dist = head(features)
    for bound in (space.low, space.high):
        finite = torch.as_tensor(np.where(np.isfinite(bound), bound, 0.0), dtype=dtype)
        action = finite.expand(20, *event(case)).clone().requires_grad_()
        log_prob = dist.log_prob(action)
        assert log_prob.isfinite().all()
        check_finite_gradient(log_prob.sum(), [action, features, *head.parameters()])


@every_box
def test_float32_agrees_with_float64(case):
    """log_prob and its gradient for the features, at samples of float32."""
    head = case.make()
    features = torch.randn(200, 3)
    action = head(features).sample()
    found = []
    for dtype in (torch.float32, torch.float64):
        inputs = features.to(dtype).requires_grad_()
        log_prob = head.to(dtype)(inputs).log_prob(action.to(dtype))
        (gradient,) = torch.autograd.grad(log_prob.sum(), inputs)
        found.append((log_prob.detach().double(), gradient.double()))
    (log_prob, gradient), (expected, expected_gradient) = found
    torch.testing.assert_close(log_prob, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-2, atol=1e-3)


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
