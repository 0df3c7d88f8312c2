"""Heads whose samples are weights over choices, counts, shares, or rows of a tree of spaces.

Every statistical test has a fixed seed and a false-alarm rate of 1e-6.
"""

import itertools
import math

import cases
import gymnasium as gym
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from gymnasium import spaces
from tiers import slow
from torch import nn

from scorepath.distributions import (
    Binomial,
    Categorical,
    Dirichlet,
    Normal,
    OneHotStraightThrough,
    Poisson,
    Product,
    RelaxedBernoulli,
    RelaxedCategorical,
)
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.composite import leaves, nest, width
from scorepath.envs.dynamics import Choice
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout

ALPHA = 1e-6
SAMPLES = 20_000

every_head = pytest.mark.parametrize("case", cases.OTHER_HEADS, ids=lambda case: case.name)


def of_bias(kind, bias, space=None, **options):
    """A head in float64 whose outputs are these, whatever the features, (1,)."""
    head = kind(spaces.Discrete(len(bias)) if space is None else space, 1, **options).double()
    (layer,) = (layer for layer in head.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return head, layer.bias


def z_limit(number: int = 1, freedom: float = math.inf) -> float:
    """Beyond which the largest of `number` t-scores is with probability ALPHA, at most."""
    return float(scipy.stats.t.isf(ALPHA / 2 / number, freedom))


# ------------------------------------------------------------------ all of them


@every_head
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_shapes(case, batch):
    head = case.make()
    dist = head(torch.randn(*batch, 3))
    sample = dist.sample()
    assert dist.batch_shape == batch
    assert dist.log_prob(sample).shape == batch
    assert head.entropy(dist).shape == batch
    assert head.deterministic(dist).shape == sample.shape
    assert head.to_env(sample).shape == sample.shape
    assert sample.dtype == head.deterministic(dist).dtype == torch.float32
    assert head.to_env(sample).dtype == (torch.float64 if case.space == "tuple_beyond_float32" else torch.float32)


@every_head
def test_rows_of_a_batch_do_not_mix(case):
    head = case.make().double()
    features = torch.randn(4, 3, dtype=torch.float64)
    together = head(features)
    samples = together.sample()
    alone = torch.stack([head(row).log_prob(sample) for row, sample in zip(features, samples, strict=True)])
    torch.testing.assert_close(together.log_prob(samples), alone, rtol=1e-12, atol=1e-12)


@every_head
@pytest.mark.parametrize("size", [1e4, -1e4, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_features_give_finite_values_and_gradients(case, size, dtype):
    """log_prob at samples and at the deterministic action, entropy, what the environment gets, and their gradients."""
    head = case.make().to(dtype)
    features = (torch.full((5, 3), size) * torch.tensor([1.0, -1.0, 0.5])).to(dtype).requires_grad_()
    dist = head(features)
    wanted = [features, *head.parameters()]
    outputs = [head.to_env(dist.rsample())] if head.has_rsample else []
    for action in (dist.sample(), head.deterministic(dist).detach()):
        assert action.isfinite().all()
        outputs += [dist.log_prob(action), head.entropy(dist)]
    for output in outputs:
        assert output.isfinite().all()
        if output.requires_grad:
            for gradient in torch.autograd.grad(output.sum(), wanted, retain_graph=True, allow_unused=True):
                assert gradient is None or gradient.isfinite().all()


@every_head
def test_has_rsample_is_honest(case):
    head = case.make()
    dist = head(torch.randn(4, 3))
    assert head.has_rsample == dist.has_rsample
    assert not dist.sample().requires_grad
    if head.has_rsample:
        assert head.to_env(dist.rsample()).requires_grad
    else:
        with pytest.raises(NotImplementedError):
            dist.rsample()


@every_head
def test_log_prob_has_the_gradient_of_finite_differences(case):
    head = case.make().double()
    features = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    action = head(features).sample()
    assert torch.autograd.gradcheck(lambda inputs: head(inputs).log_prob(action), features)


# ------------------------------------------------------------------ weights over choices


@pytest.mark.parametrize("temperature", [0.1, 0.5, 3.0])
@torch.no_grad()
def test_the_binary_concrete_is_a_logistic_of_the_logit(temperature):
    """log_prob and entropy by scipy, the sampler by Kolmogorov-Smirnov."""
    dist = of_bias(RelaxedBernoulli, [0.7], spaces.Discrete(2), temperature=temperature)[0](torch.zeros(1).double())
    expected = scipy.stats.logistic(0.7 / temperature, 1.0 / temperature)
    logits = torch.linspace(-60.0, 60.0, 25, dtype=torch.float64)
    np.testing.assert_allclose(dist.log_prob(logits).numpy(), expected.logpdf(logits.numpy()), rtol=1e-10)
    assert float(dist.entropy()) == pytest.approx(expected.entropy())
    assert scipy.stats.kstest(dist.sample((SAMPLES,)).numpy(), expected.cdf).pvalue > ALPHA


def test_the_concrete_of_two_choices_is_the_binary_concrete():
    """In density, entropy, and the weights that the environment gets."""
    coin, _ = of_bias(RelaxedBernoulli, [0.7], spaces.Discrete(2), temperature=0.8)
    choice, _ = of_bias(RelaxedCategorical, [-0.3, 0.4], temperature=0.8)
    one, two = coin(torch.zeros(1).double()), choice(torch.zeros(1).double())
    logits = torch.linspace(-30.0, 30.0, 25, dtype=torch.float64)
    pairs = torch.stack((-logits, logits), dim=-1).mul(0.5).log_softmax(dim=-1)
    torch.testing.assert_close(one.log_prob(logits), two.log_prob(pairs))
    torch.testing.assert_close(one.entropy(), two.entropy())
    torch.testing.assert_close(coin.to_env(logits), choice.to_env(pairs)[:, 1])


def concrete_log_density(logits, temperature, weights):
    """Of weights (K,): equation 3 of Maddison et al. 2017, as it stands there."""
    number, alpha = len(logits), np.exp(logits)
    product = np.prod(alpha * weights ** (-temperature - 1) / np.sum(alpha * weights**-temperature))
    return math.log(math.factorial(number - 1) * temperature ** (number - 1) * product)


@torch.no_grad()
def test_log_prob_of_the_concrete_is_that_of_the_paper():
    """Less the Jacobian Π_k w_k, for the paper's density is of the weights and ours of their log ratios."""
    logits = [0.3, -1.0, 2.0, 0.1]
    head, _ = of_bias(RelaxedCategorical, logits, temperature=0.7)
    dist = head(torch.zeros(1).double())
    for action in dist.sample((20,)):
        weights = head.to_env(action).numpy()
        expected = concrete_log_density(np.array(logits), 0.7, weights) + np.log(weights).sum()
        assert float(dist.log_prob(action)) == pytest.approx(expected)


@torch.no_grad()
def test_samples_of_the_concrete_follow_log_prob():
    """Kolmogorov-Smirnov: each log ratio to the last weight, given the others, has a uniform conditional cdf."""
    head, _ = of_bias(RelaxedCategorical, [0.3, -1.0, 2.0], temperature=0.7)
    dist = head(torch.zeros(1).double())
    samples = dist.sample((1000,))
    ratios = samples[:, :2] - samples[:, 2:]
    nodes = torch.linspace(-60.0, 60.0, 4001, dtype=torch.float64)
    for entry in range(2):
        lines = ratios.unsqueeze(1).repeat(1, len(nodes), 1)
        lines[..., entry] = nodes
        density = dist.log_prob(nn.functional.pad(lines, (0, 1)).log_softmax(dim=-1)).exp()
        cumulative = torch.cumulative_trapezoid(density, nodes, dim=1)
        rows = nn.functional.pad(cumulative / cumulative[:, -1:], (1, 0)).numpy()
        pairs = zip(ratios[:, entry].tolist(), rows, strict=True)
        uniform = [np.interp(x, nodes.numpy(), row) for x, row in pairs]
        assert scipy.stats.kstest(uniform, "uniform").pvalue > ALPHA


@torch.no_grad()
def test_the_largest_weight_is_a_draw_of_the_softmax():
    """Chi-square over 6 choices: the Gumbel-max trick, for the Concrete and for one-hot choices."""
    for kind in (RelaxedCategorical, OneHotStraightThrough):
        head = cases.HeadCase("", kind, "discrete").make()
        dist = head(torch.tensor([0.3, -1.0, 2.0]))
        counts = torch.bincount(dist.sample((SAMPLES,)).argmax(dim=-1), minlength=6).double().numpy()
        expected = dist.logits.softmax(-1).double().numpy()
        assert scipy.stats.chisquare(counts, SAMPLES * expected / expected.sum()).pvalue > ALPHA


@pytest.mark.parametrize(
    ("temperature", "gap"), [(0.5, 2.0), (0.5, 10.0), (0.5, 30.0), (0.1, 0.0), (0.1, 4.0), (0.02, 1.0), (0.01, -8.0)]
)
@pytest.mark.parametrize("kind", [RelaxedBernoulli, RelaxedCategorical])
def test_the_score_of_weights_has_mean_zero_in_float32(kind, temperature, gap):
    """Without which every score function estimate is biased: z-test over 200,000 samples.

    Where samples were the weights themselves, rounded, the mean was up to 0.8, of a score that is never above 1.
    """
    head = kind(spaces.Discrete(2), 1, temperature=temperature)
    logits = torch.tensor([gap] if kind is RelaxedBernoulli else [0.0, gap]).expand(200_000, -1).clone()
    head.logits = nn.Identity()
    dist = head(logits.requires_grad_())
    (score,) = torch.autograd.grad(dist.log_prob(dist.sample()).sum(), logits)
    score = score[:, -1]
    assert float(score.std()) > 0.1
    assert abs(float(score.mean())) < z_limit() * float(score.std()) / len(score) ** 0.5


def log_ratio_grid(head, features):
    """Log weights (Q, K) on a grid over the K - 1 log ratios, and their probabilities (Q,) with the graph."""
    dist = head(features)
    number = 2 if isinstance(head, RelaxedBernoulli) else dist.logits.shape[-1]
    # the trapezoidal rule converges geometrically for an analytic density with exponential tails
    line = torch.linspace(-80.0, 80.0, 8001 if number == 2 else 641, dtype=torch.float64)
    ratios = torch.cartesian_prod(*[line] * (number - 1)).reshape(-1, number - 1)
    actions = ratios.squeeze(-1) if isinstance(head, RelaxedBernoulli) else nn.functional.pad(ratios, (0, 1))
    actions = actions if isinstance(head, RelaxedBernoulli) else actions.log_softmax(dim=-1)
    return actions, dist.log_prob(actions).exp() * float(line[1] - line[0]) ** (number - 1)


WEIGHTS = [
    of_bias(RelaxedBernoulli, [0.7], spaces.Discrete(2), temperature=0.5),
    of_bias(RelaxedCategorical, [0.3, -0.5, 0.9], temperature=0.8),
]
every_weight = pytest.mark.parametrize(("head", "logits"), WEIGHTS, ids=["binary", "three"])


@every_weight
def test_the_derivative_of_weights_is_that_of_their_expectation(head, logits):
    """∇E[f(w)], f = Σ_k c_k w_k² + w_1 w_K: by rsample, and by quadrature of f ∇p; z-tests over 200 batches."""
    features = torch.zeros(1, dtype=torch.float64)

    def value(action):
        weights = head.to_env(action)
        weights = weights.unsqueeze(-1) if isinstance(head, RelaxedBernoulli) else weights
        coefficients = torch.arange(1.0, 1.0 + weights.shape[-1], dtype=torch.float64)
        return weights.square() @ coefficients + weights[..., 0] * weights[..., -1]

    actions, probabilities = log_ratio_grid(head, features)
    assert float(probabilities.detach().sum()) == pytest.approx(1.0, abs=1e-9)
    (expected,) = torch.autograd.grad(probabilities @ value(actions), logits)
    dist = head(features)
    batches = [
        torch.autograd.grad(value(dist.rsample((500,))).mean(), logits, retain_graph=True)[0] for _ in range(200)
    ]
    estimates = torch.stack(batches)
    error = estimates.std(dim=0) / 200**0.5
    assert expected.abs().max() > 10 * error.max(), "nothing to see"
    assert float(((estimates.mean(dim=0) - expected) / error).abs().max()) < z_limit(len(expected), 199)


@every_weight
def test_entropy_is_that_of_the_weights(head, logits):
    """Value and gradient against quadrature of -p log p, p the density of weights; z-tests over 200 batches of 500.

    The log ratios' own entropy is the same for all logits: an entropy bonus of that would do nothing.
    """
    features = torch.zeros(1, dtype=torch.float64)
    actions, probabilities = log_ratio_grid(head, features)
    jacobian = torch.stack((actions.sigmoid(), (-actions).sigmoid()), -1).log() if actions.dim() == 1 else actions
    log_density = head(features).log_prob(actions) - jacobian.sum(dim=-1)
    exact = -(probabilities * log_density).sum()
    (gradient,) = torch.autograd.grad(exact, logits)
    rows, found = features.expand(500, 1), []
    for _ in range(200):
        entropy = head.entropy(head(rows)).mean()
        found.append(torch.cat((entropy.detach().view(1), torch.autograd.grad(entropy, logits)[0])))
    estimates = torch.stack(found)
    error = estimates.std(dim=0) / 200**0.5
    z = (estimates.mean(dim=0) - torch.cat((exact.detach().view(1), gradient))) / error
    assert gradient.abs().max() > 10 * error[1:].max(), "nothing to see"
    assert float(z.abs().max()) < z_limit(len(z), 199)
    of_ratios = -(probabilities * head(features).log_prob(actions)).sum()
    torch.testing.assert_close(head(features).entropy().squeeze(), of_ratios)


@pytest.mark.parametrize("kind", [RelaxedBernoulli, RelaxedCategorical, OneHotStraightThrough])
@torch.no_grad()
def test_the_deterministic_action_is_the_most_probable_choice_to_the_bit(kind):
    head = kind(spaces.Discrete(2), 3)
    dist = head(torch.randn(100, 3))
    sent = head.to_env(head.deterministic(dist))
    if kind is RelaxedBernoulli:
        assert torch.equal(sent, (dist.logits > 0.0).float())
    else:
        assert torch.equal(sent, nn.functional.one_hot(dist.logits.argmax(dim=-1), 2).float())


@pytest.mark.parametrize("scale", [1.0, 100.0])
@torch.no_grad()
def test_weights_lie_on_the_simplex(scale):
    features = scale * torch.randn(1000, 3)
    choice, coin = cases.OTHER_HEADS[2].make(), cases.OTHER_HEADS[0].make()
    assert [type(choice), type(coin)] == [RelaxedCategorical, RelaxedBernoulli]
    weights, weight = choice.to_env(choice(features).sample()), coin.to_env(coin(features).sample())
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1000))
    assert ((weights >= 0) & (weights <= 1)).all()
    assert ((weight >= 0) & (weight <= 1)).all()


def test_one_hot_choices_have_the_derivative_of_their_probabilities():
    """Exact where payoffs are linear in the weights, by enumeration; and not for a square, as its label says."""
    head, logits = of_bias(OneHotStraightThrough, [0.3, -0.5, 0.9])
    dist = head(torch.zeros(1).double())
    points = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    for payoff, is_exact in ((lambda w: w @ points, True), (lambda w: (w @ points - 1.0).square(), False)):
        (exact,) = torch.autograd.grad(dist.probs @ payoff(torch.eye(3).double()), logits, retain_graph=True)
        mean = torch.zeros(3, dtype=torch.float64)
        for choice in range(3):  # what rsample gives with probability probs[choice]
            weights = torch.eye(3).double()[choice] + dist.probs - dist.probs.detach()
            mean += dist.probs[choice].detach() * torch.autograd.grad(payoff(weights), logits, retain_graph=True)[0]
        assert torch.allclose(mean, exact) == is_exact
    drawn = dist.rsample()
    weights = torch.eye(3).double()[drawn.argmax()] + dist.probs - dist.probs.detach()
    assert torch.equal(drawn, weights)
    derivatives = [torch.autograd.grad(w @ points, logits, retain_graph=True)[0] for w in (drawn, weights)]
    torch.testing.assert_close(*derivatives)


@pytest.mark.parametrize("kind", [RelaxedBernoulli, RelaxedCategorical])
@pytest.mark.parametrize("temperature", [0.0, -1.0, 101.0, math.nan])
def test_temperature_out_of_range_is_refused(kind, temperature):
    with pytest.raises(ValueError, match="temperature"):
        kind(spaces.Discrete(2), 3, temperature=temperature)


def test_weights_reach_the_environment():
    """The payoff of a weighted mean of the choices."""
    env = TorchEnvironment(Choice(), 50)
    policy = Policy(MLP(1, []), RelaxedCategorical(env.action_space, 1))
    episodes = rollout(env, policy, 0)
    x = episodes.actions[0].exp() @ env.dynamics.points.float()
    torch.testing.assert_close(episodes.rewards[0], -((x - 1.0) ** 2))


# ------------------------------------------------------------------ counts


def test_counts_cover_the_range_and_no_more():
    box = spaces.Box(-2, 5, (2,), np.int64)
    for kind in (Binomial, Poisson):
        head = kind(box, 3)
        sent = head.to_env(head(100.0 * torch.randn(2000, 3)).sample())
        assert sent.min() == -2
        assert sent.max() == 5
        assert sent.dtype == torch.int64


@pytest.mark.parametrize("choices", [2, 11, 1001, 100_000])
def test_a_poisson_starts_at_half_the_range_and_moves_in_proportion(choices):
    """Where the network's output is 0; its derivative is the rate, so that any range is learned at one speed."""
    head, raw = of_bias(Poisson, [0.0], spaces.Discrete(choices))
    rate = head(torch.zeros(1).double()).mean
    assert float(rate.detach()) == pytest.approx((choices - 1) / 2)
    (derivative,) = torch.autograd.grad(rate, raw)
    assert float(derivative) == pytest.approx((choices - 1) / 2)


def test_the_score_of_a_poisson_is_exact_for_the_clipped_environment():
    """Σ_k f(min(k, n)) ∇p(k), which the score function estimates, is the derivative of the clipped expectation."""
    payoffs = np.array([1.0, -2.0, 0.5, 4.0])  # of 5, 6, 7, 8
    head, raw = of_bias(Poisson, [0.4], spaces.Discrete(4, start=5))
    counts = torch.arange(60.0, dtype=torch.float64)
    sent = head.to_env(counts)
    assert sent.tolist() == [5, 6, 7] + [8] * 57
    probabilities = head(torch.zeros(60, 1).double()).log_prob(counts).exp()
    (found,) = torch.autograd.grad(probabilities @ torch.tensor(payoffs)[sent - 5], raw)

    def clipped(output):
        dist = scipy.stats.poisson(1.5 * np.exp(output))
        return payoffs[:3] @ dist.pmf(np.arange(3)) + payoffs[3] * dist.sf(2)

    assert float(found) == pytest.approx((clipped(0.4 + 1e-5) - clipped(0.4 - 1e-5)) / 2e-5, rel=1e-8)


@torch.no_grad()
def test_entropy_of_a_wide_binomial_needs_no_sum_over_its_counts():
    """A batch of 3,000 would need gigabytes; estimates against the normal limit, z-test."""
    head, _ = of_bias(Binomial, [0.3], spaces.Discrete(100_000))
    entropy = head.entropy(head(torch.zeros(3000, 1).double()))
    variance = 99_999 * scipy.special.expit(0.3) * scipy.special.expit(-0.3)
    expected = 0.5 * math.log(2.0 * math.pi * math.e * variance)
    assert abs(float(entropy.mean()) - expected) < z_limit() * float(entropy.std()) / 3000**0.5 + 1e-5


@pytest.mark.parametrize("kind", [Binomial, Poisson])
def test_ranges_that_cannot_be_counted_through_are_refused(kind):
    """Also where int64 overflows."""
    least, largest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    for space in (
        spaces.Discrete(100_001),
        spaces.Discrete(1),
        spaces.Box(least, largest, (2,), np.int64),
        spaces.Box(0, largest, (2,), np.int64),
        spaces.Box(np.array([0, 3]), np.array([4, 3]), dtype=np.int64),
    ):
        assert not kind.accepts(space), space
    assert kind.accepts(spaces.Box(0, 255, (2, 2), np.uint8))


# ------------------------------------------------------------------ shares


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_shares_are_finite_at_the_corners(dtype, scale):
    """log_prob and its gradients at every corner and edge of the simplex, in either dtype."""
    head = Dirichlet(spaces.Box(0.0, 1.0, (3,), np.float32), 3).to(dtype)
    edges = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    action = edges.to(dtype).requires_grad_()
    log_prob = head(scale * torch.randn(5, 3, dtype=dtype)).log_prob(action)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert all(given.grad.isfinite().all() for given in (action, *head.parameters()))


@torch.no_grad()
def test_the_deterministic_shares_are_the_mean():
    """z-test over 20,000 samples; and they add up to 1."""
    head = cases.HeadCase("", Dirichlet, "shares").make().double()
    dist = head(torch.randn(3).double())
    shares, samples = head.deterministic(dist), dist.sample((SAMPLES,))
    assert float(shares.sum()) == pytest.approx(1.0)
    error = samples.std(dim=0) / SAMPLES**0.5
    assert float(((samples.mean(dim=0) - shares) / error).abs().max()) < z_limit(3)


@pytest.mark.parametrize("bias", [slow([0.0, 0.0]), [0.3, -2.0, 3.0], slow([40.0, 2.0, -5.0, 0.0])])
def test_the_derivative_of_shares_is_that_of_their_second_moments(bias):
    """∇E[x_i²] = ∇ α_i (α_i + 1) / (A (A + 1)), A = Σ α; z-tests over 200 batches of 1,000."""
    head, raw = of_bias(Dirichlet, bias, spaces.Box(0.0, 1.0, (len(bias),), np.float32))
    coefficients = torch.arange(1.0, 1.0 + len(bias), dtype=torch.float64)

    alpha = 1.0 + np.logaddexp(0.0, bias)
    dist = head(torch.zeros(1).double())
    np.testing.assert_allclose(dist.concentration.detach().numpy(), alpha)
    total = dist.concentration.sum()
    moments = dist.concentration * (dist.concentration + 1.0) / (total * (total + 1.0))
    (expected,) = torch.autograd.grad(moments @ coefficients, raw, retain_graph=True)
    found = []
    for _ in range(200):
        value = dist.rsample((1000,)).square().mean(dim=0) @ coefficients
        found.append(torch.autograd.grad(value, raw, retain_graph=True)[0])
    estimates = torch.stack(found)
    error = estimates.std(dim=0) / 200**0.5
    assert expected.abs().max() > 10 * error.max(), "nothing to see"
    z = (estimates.mean(dim=0) - expected) / error
    assert float(z.abs().max()) < z_limit(len(z), 199)


# ------------------------------------------------------------------ products

TREES = ["dict", "tuple", "tree", "tuple_of_boxes", "tuple_beyond_float32"]


def test_log_prob_and_entropy_of_a_product_are_the_sums_over_its_leaves():
    head = cases.HeadCase("", Product, "tree").make()
    features = torch.randn(5, 3)
    dist = head(features)
    rows = dist.sample()
    start, log_prob, entropy = 0, torch.zeros(5), torch.zeros(5)
    for leaf, part in zip(leaves(cases.SPACES["tree"]), head.heads, strict=True):
        own, end = part(features), start + width(leaf)
        log_prob = log_prob + own.log_prob(rows[:, start:end].reshape(5, *leaf.shape))
        entropy = entropy + part.entropy(own)
        start = end
    assert start == rows.shape[1]
    torch.testing.assert_close(dist.log_prob(rows), log_prob)
    torch.testing.assert_close(head.entropy(dist), entropy)


def test_log_prob_of_a_product_equals_scipy():
    """A coin and a number, each by its own reference."""
    head = cases.HeadCase("", Product, "tuple").make().double()
    features = torch.randn(3, dtype=torch.float64)
    action = head(features).sample()
    coin, number = head.heads
    expected = cases.bernoulli_log_prob(coin, features.numpy(), action[:1].numpy())
    expected += cases.references.normal(number, features.numpy(), action[1:].numpy())
    assert float(head(features).log_prob(action).detach()) == pytest.approx(expected)


@torch.no_grad()
def test_samples_of_a_product_are_independent_draws_of_its_leaves():
    """Chi-square over the 2 x 6 x 4 discrete outcomes of the tree, the continuous leaf summed out."""
    head = cases.HeadCase("", Product, "tree").make()
    dist = head(torch.randn(3))
    rows = dist.sample((SAMPLES,))
    bits, choices = rows[:, :2], rows[:, 2:4]
    coin, choice = dist.parts[0], dist.parts[1]
    observed, expected = [], []
    for outcome in itertools.product((0.0, 1.0), (0.0, 1.0), range(3), range(2)):
        wanted = torch.tensor(outcome)
        hit = (bits == wanted[:2]).all(-1) & (choices == wanted[2:]).all(-1)
        observed.append(int(hit.sum()))
        expected.append(float((coin.log_prob(wanted[:2]) + choice.log_prob(wanted[2:])).exp()))
    assert sum(expected) == pytest.approx(1.0, abs=1e-5)
    assert scipy.stats.chisquare(observed, SAMPLES * np.array(expected) / sum(expected)).pvalue > ALPHA


@pytest.mark.parametrize("name", TREES)
def test_rows_are_nested_as_gymnasium_batches_them(name):
    """Elements of the vector environment's own action space, in structure, shapes, order and dtypes."""
    space = cases.SPACES[name]
    head = cases.HeadCase("", Product, name).make()
    dist = head(30.0 * torch.randn(200, 3))
    vector = gym.vector.utils.batch_space(space, 200)
    for rows in (dist.sample(), head.deterministic(dist)):
        nested = nest(space, head.to_env(rows).detach().numpy())
        assert vector.contains(nested)
        if isinstance(space, spaces.Dict):
            assert list(nested) == list(space.spaces)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("name", TREES)
def test_trees_of_spaces_reach_gymnasium(name, vectorization):
    """An environment that insists on its action space, and answers with the numbers that arrived in its leaves."""
    space = cases.SPACES[name]
    env = GymnasiumEnvironment("ScorepathTest/Tree-v0", 2, vectorization, kwargs={"action_space": space})
    head = Product(space, 4)
    policy = Policy(MLP(env.observation_space.shape[0], [4]), head)
    for deterministic in (False, True):
        episodes = rollout(env, policy, 0, deterministic=deterministic)
        sent = head.to_env(episodes.actions)
        assert sent.shape == (5, 2, width(space))
        torch.testing.assert_close(episodes.observations[1:], sent[:-1].float())
        torch.testing.assert_close(episodes.last_observations, sent[-1].float())
    env.close()


def test_rows_of_another_width_are_refused():
    env = GymnasiumEnvironment("ScorepathTest/Tree-v0", 2, kwargs={"action_space": cases.SPACES["tuple"]})
    env.reset(0)
    with pytest.raises(Exception, match=r"takes actions of shape \(2, 2\), but got \(2, 3\)"):
        env.step(torch.zeros(2, 3))
    env.close()


def test_a_tree_without_leaves_or_with_strange_ones_is_refused():
    for space in (
        spaces.Dict({}),
        spaces.Tuple(()),
        spaces.Tuple((spaces.Discrete(2), spaces.Text(3))),
        spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))}),
        spaces.Discrete(2),
    ):
        assert not Product.accepts(space)


def test_a_leaf_may_have_another_head():
    space = cases.SPACES["tuple"]
    head = Product(space, 3, heads={"discrete": Categorical, "box": Normal})
    assert [type(part) for part in head.heads] == [Categorical, Normal]
    with pytest.raises(ValueError, match="none of its heads can act in Box"):
        Product(space, 3, heads={"discrete": Categorical})
    with pytest.raises(ValueError, match="RelaxedBernoulli acts by weights"):
        Product(space, 3, heads={"binary": RelaxedBernoulli, "box": Normal})


def test_validation_reaches_the_leaves():
    head = Product(cases.SPACES["tuple"], 3, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        head(torch.ones(3)).log_prob(torch.tensor([0.5, 0.0]))
