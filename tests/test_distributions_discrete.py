"""Heads whose samples are weights over choices, or rows of a tree of spaces; and counts at the edges of their range."""

import itertools
import warnings

import cases
import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium import spaces
from helpers import train

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

ALPHA = 1e-6  # false-alarm rate of each statistical test here
SAMPLES = 20_000

every_head = pytest.mark.parametrize("case", cases.OTHER_HEADS, ids=lambda case: case.name)


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
    assert sample.dtype == torch.float32


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
    """log_prob at samples and at the deterministic action, entropy, and their gradients."""
    head = case.make().to(dtype)
    features = (torch.full((5, 3), size) * torch.tensor([1.0, -1.0, 0.5])).to(dtype).requires_grad_()
    dist = head(features)
    wanted = [features, *head.parameters()]
    for action in (dist.sample(), head.deterministic(dist).detach()):
        for output in (dist.log_prob(action), head.entropy(dist)):
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


# ------------------------------------------------------------------ weights over choices


@torch.no_grad()
def test_the_concrete_of_two_choices_is_the_binary_concrete():
    """Its first weight at half the temperature... is one number: compared by its distribution function.

    w = σ((l + L) / τ) for a logistic L, so that P(w ≤ x) = σ(τ logit(x) - l); for K = 2 logits (0, l) likewise.
    """
    logit, temperature = 0.7, 0.8
    coin = RelaxedBernoulli(spaces.Discrete(2), 1, temperature=temperature).double()
    choice = RelaxedCategorical(spaces.Discrete(2), 1, temperature=temperature).double()
    for head, bias in ((coin, [logit]), (choice, [0.0, logit])):
        head.logits.weight.zero_()
        head.logits.bias.copy_(torch.tensor(bias))
    nothing = torch.zeros(1, dtype=torch.float64)

    def cdf(x):
        return 1.0 / (1.0 + np.exp(logit - temperature * np.log(x / (1.0 - x))))

    first = coin(nothing).sample((SAMPLES,)).numpy()
    second = choice(nothing).sample((SAMPLES,))[:, 1].numpy()
    assert scipy.stats.kstest(first, cdf).pvalue > ALPHA
    assert scipy.stats.kstest(second, cdf).pvalue > ALPHA
    # densities: the derivative of that function, and that of the pair on the line w_0 + w_1 = 1
    x = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    density = (cdf(x.numpy() + 1e-6) - cdf(x.numpy() - 1e-6)) / 2e-6
    np.testing.assert_allclose(coin(nothing).log_prob(x).exp().numpy(), density, rtol=1e-6)
    np.testing.assert_allclose(choice(nothing).log_prob(torch.stack((1 - x, x), -1)).exp().numpy(), density, rtol=1e-6)


@torch.no_grad()
def test_the_largest_weight_is_a_draw_of_the_softmax():
    """Chi-square over 6 choices: the Gumbel-max trick, for the Concrete and for one-hot choices."""
    for kind in (RelaxedCategorical, OneHotStraightThrough):
        head = cases.HeadCase("", kind, "discrete").make()
        dist = head(torch.tensor([0.3, -1.0, 2.0]))
        counts = torch.bincount(dist.sample((SAMPLES,)).argmax(dim=-1), minlength=6).double().numpy()
        expected = dist.logits.softmax(-1).double().numpy()
        assert scipy.stats.chisquare(counts, SAMPLES * expected / expected.sum()).pvalue > ALPHA


def test_one_hot_rsample_has_the_gradient_of_the_probabilities():
    head = cases.HeadCase("", OneHotStraightThrough, "discrete").make()
    dist = head(torch.randn(3))
    weights = torch.arange(6.0)
    (through,) = torch.autograd.grad(dist.rsample() @ weights, head.logits.bias, retain_graph=True)
    (soft,) = torch.autograd.grad(dist.probs @ weights, head.logits.bias)
    torch.testing.assert_close(through, soft)
    assert OneHotStraightThrough.rsample_bias is not None


@pytest.mark.parametrize("kind", [RelaxedBernoulli, RelaxedCategorical])
@pytest.mark.parametrize("temperature", [0.0, -1.0, 101.0])
def test_temperature_out_of_range_is_refused(kind, temperature):
    with pytest.raises(ValueError, match="temperature"):
        kind(spaces.Discrete(2), 3, temperature=temperature)


def test_weights_reach_the_environment():
    """The payoff of a weighted mean of the choices."""
    env = TorchEnvironment(Choice(), 50)
    policy = Policy(MLP(1, []), RelaxedCategorical(env.action_space, 1))
    episodes = rollout(env, policy, 0)
    x = episodes.actions[0] @ env.dynamics.points.float()
    torch.testing.assert_close(episodes.rewards[0], -((x - 1.0) ** 2))


@pytest.mark.parametrize("dist", ["relaxed_categorical", "one_hot_straight_through"])
@pytest.mark.parametrize("estimator", ["score_function", "pathwise"])
def test_weights_train_by_both_estimators(tmp_path, dist, estimator):
    game = ("env=pendulum_discrete_torch", f"dist={dist}", f"estimator={estimator}", "episodes_per_update=2")
    outcome = train(tmp_path, *game, "debug=one_update", "logger=none")
    assert outcome.code == 0, outcome.err
    labels = " ".join(outcome.summary["gradient_bias"])
    biased = dist == "one_hot_straight_through" and estimator == "pathwise"
    assert (OneHotStraightThrough.rsample_bias in labels) == biased


def test_weights_are_refused_where_the_environment_takes_choices(tmp_path):
    outcome = train(tmp_path, "env=cartpole", "dist=relaxed_bernoulli")
    assert outcome.code == 2
    assert "acts by weights" in outcome.sentence
    assert "use dist=bernoulli or dist=categorical" in outcome.sentence


# ------------------------------------------------------------------ counts and shares


def test_counts_cover_the_range_and_no_more():
    box = spaces.Box(-2, 5, (2,), np.int64)
    for kind in (Binomial, Poisson):
        head = kind(box, 3)
        sent = head.to_env(head(100.0 * torch.randn(2000, 3)).sample())
        assert sent.min() == -2
        assert sent.max() == 5
        assert sent.dtype == torch.int64


def test_a_poisson_starts_at_half_the_range():
    """Where the network's output is 0."""
    head = Poisson(spaces.Discrete(11), 1)
    with torch.no_grad():
        head.counts.weight.zero_()
        head.counts.bias.zero_()
    assert float(head(torch.zeros(1)).mean.detach()) == pytest.approx(5.0)
    assert Poisson(spaces.Discrete(1001), 1)(torch.zeros(1)).mean.isfinite()


def test_log_prob_of_a_poisson_is_that_of_the_unclipped_count():
    head = Poisson(spaces.Discrete(3), 1)
    dist = head(torch.zeros(1))
    assert dist.log_prob(torch.tensor(7.0)).isfinite()
    assert head.to_env(torch.tensor(7.0)) == 2


def test_shares_are_finite_at_the_corners():
    head = Dirichlet(spaces.Box(0.0, 1.0, (3,), np.float32), 3)
    dist = head(torch.randn(3))
    log_prob = dist.log_prob(torch.tensor([1.0, 0.0, 0.0]))
    assert log_prob.isfinite()
    log_prob.backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


# ------------------------------------------------------------------ products


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


def test_rows_are_nested_as_gymnasium_batches_them():
    """Equal to what the vector environment's own action space draws, in structure, shapes and dtypes."""
    space = cases.SPACES["tree"]
    vector = gym.vector.utils.batch_space(space, 3)
    nested = nest(space, np.zeros((3, width(space)), np.float32))
    assert vector.contains(nested)
    assert list(nested) == list(space.spaces)


def test_a_leaf_may_have_another_head():
    space = cases.SPACES["tuple"]
    head = Product(space, 3, heads=[Categorical, Normal])
    assert [type(part) for part in head.heads] == [Categorical, Normal]
    with pytest.raises(ValueError, match="none of heads acts in Box"):
        Product(space, 3, heads=[Categorical])


@pytest.mark.parametrize("name", ["dict", "tuple", "tree", "tuple_of_boxes"])
def test_trees_of_spaces_reach_gymnasium(name):
    """An environment that insists on its action space."""
    space = cases.SPACES[name]
    env = GymnasiumEnvironment("ScorepathTest/Tree-v0", 3, kwargs={"action_space": space})
    policy = Policy(MLP(3, [4]), Product(space, 4))
    for deterministic in (False, True):
        episodes = rollout(env, policy, 0, deterministic=deterministic)
        assert episodes.actions.shape[2:] == (width(space),)
    env.close()


def test_a_product_trains(tmp_path):
    outcome = train(tmp_path, "env=gym", "env.id=Tree-v0", "dist=product", "debug=one_update", "logger=none")
    assert outcome.code == 0, outcome.err


class Tree(gym.Env):
    """Five steps; reward 1 for an action of the space, which it insists on."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.standard_normal(3).astype(np.float32), {}

    def step(self, action):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Gymnasium, for a scalar that is no array
            assert self.action_space.contains(action), action
        self.steps += 1
        return self.np_random.standard_normal(3).astype(np.float32), 1.0, self.steps == 5, False, {}


gym.register("ScorepathTest/Tree-v0", Tree, max_episode_steps=50, disable_env_checker=True)
gym.register(
    "Tree-v0", Tree, max_episode_steps=50, kwargs={"action_space": cases.SPACES["tree"]}, disable_env_checker=True
)
