"""Bias labels of baselines and normalisation scopes: true or not, by enumeration of every batch of a small problem.

Each expectation is a sum over all outcomes of a batch, through the real `surrogate_loss` in float64; nothing is random.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import partial

import cases
import making
import pytest
import torch
from gymnasium import spaces
from making import flat_gradient

from scorepath.baselines import GAE, BatchMean, Constant, LeaveOneOut, NoBaseline, OptimalConstant, TimeMean, Value
from scorepath.baselines.optimal_constant import score_products
from scorepath.distributions import Bernoulli
from scorepath.estimators import ScoreFunction
from scorepath.policy import MLP, Policy
from scorepath.types import Episodes
from scorepath.update import surrogate_loss

close = partial(making.close, tolerance=1e-12)
STATES = 4  # observed as one-hot; the last one is where episodes end


@dataclass(frozen=True)
class Path:
    """An episode, and how likely the environment is to allow it: the actions' own probabilities are the policy's."""

    reset: str  # the start and the noise that were drawn: what a greedy episode from the same reset shares
    chance: float
    states: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    truncated: bool = False


# Two starts; from the first, action 1 goes on with probability .7; lengths 1 and 2, which depend on the actions.
TREE = (
    Path("a, goes on", 0.28, (0,), (0,), (1.5,)),
    Path("a, goes on", 0.28, (0, 2), (1, 0), (-0.5, 2.0)),
    Path("a, goes on", 0.28, (0, 2), (1, 1), (-0.5, 7.0)),
    Path("a, stops", 0.12, (0,), (0,), (1.5,)),
    Path("a, stops", 0.12, (0,), (1,), (1.0,)),
    Path("b", 0.6, (1,), (1,), (-3.0,)),
    Path("b", 0.6, (1, 2), (0, 0), (4.0, 2.0)),
    Path("b", 0.6, (1, 2), (0, 1), (4.0, 7.0)),
)
CUT = tuple(replace(path, truncated=len(path.states) == 2) for path in TREE)  # the same with a time limit of 2
TWO_STEPS = tuple(
    Path("a", 1.0, (0, 2), (first, second), (3.0 * first, second - 2.0 * first * second))
    for first, second in itertools.product((0, 1), repeat=2)
)
BANDIT = (Path("a", 1.0, (0,), (0,), (1.0,)), Path("a", 1.0, (0,), (1,), (3.0,)))


def differs(one, other):
    return bool((one - other).abs().max() > 1e-3)


def coin():
    """A policy with other odds in every state."""
    policy = Policy(MLP(STATES, []), Bernoulli(spaces.Discrete(2), STATES)).double()
    with torch.no_grad():
        policy.head.logits.weight.copy_(torch.tensor([[0.4, -0.7, 0.9, 0.0]]))
        policy.head.logits.bias.fill_(-0.2)
    return policy


def bandit_policy(p=0.3):
    """π(1) = p."""
    policy = coin()
    with torch.no_grad():
        policy.head.logits.weight.zero_()
        policy.head.logits.bias.fill_(math.log(p / (1 - p)))
    return policy


def observations(states):
    return torch.eye(STATES, dtype=torch.float64)[torch.as_tensor(states, dtype=torch.long)]


def greedy_returns(problem, policy, gamma):
    """reset -> reward-to-go of the path that takes the deterministic actions."""
    greedy = policy.head.deterministic(policy(observations(range(STATES)))).tolist()
    paths = [path for path in problem if all(greedy[s] == a for s, a in zip(path.states, path.actions, strict=True))]
    return {path.reset: [sum(gamma**k * r for k, r in enumerate(path.rewards[t:])) for t in (0, 1)] for path in paths}


def batch_of(problem, paths, policy, gamma):
    time = max(len(path.states) for path in paths)

    def pad(rows, filler):
        return [[row[t] if t < len(row) else filler for row in rows] for t in range(time)]

    truncated = torch.tensor([path.truncated for path in paths])
    greedy = greedy_returns(problem, policy, gamma)
    return Episodes(
        observations=observations(pad([path.states for path in paths], STATES - 1)),
        actions=torch.tensor(pad([path.actions for path in paths], 0), dtype=torch.float64),
        rewards=torch.tensor(pad([path.rewards for path in paths], 0.0), dtype=torch.float64),
        valid=torch.tensor(pad([[True] * len(path.states) for path in paths], False)),
        terminated=~truncated,
        truncated=truncated,
        last_observations=observations([STATES - 1] * len(paths)),
        extras={"greedy_returns": torch.tensor([greedy[path.reset] for path in paths], dtype=torch.float64).T},
    )


def probability(policy, path):
    one = policy(observations(path.states)).probs
    actions = torch.tensor(path.actions, dtype=torch.float64)
    return path.chance * torch.where(actions == 1.0, one, 1.0 - one).prod()


def gradient(estimator, baseline, policy, episodes, gamma=1.0):
    """The estimate, which is minus the surrogate's gradient."""
    loss = surrogate_loss(estimator, baseline, policy, episodes, gamma).loss
    return -flat_gradient(loss, policy)


def table(problem, policy, estimator, baseline, number, gamma=1.0):
    """Of every batch of `number` episodes, whatever their order, its probability, (M,), and its estimate, (M, P)."""
    odds = {path: probability(policy, path).item() for path in problem}
    weights, estimates = [], []
    for paths in itertools.combinations_with_replacement(problem, number):
        orders = math.factorial(number) // math.prod(math.factorial(paths.count(path)) for path in set(paths))
        weights.append(orders * math.prod(odds[path] for path in paths))
        estimates.append(gradient(estimator, baseline, policy, batch_of(problem, paths, policy, gamma), gamma))
    return torch.tensor(weights, dtype=torch.float64), torch.stack(estimates)


def expected(*arguments, **keywords):
    """E[estimate], (P,)."""
    weights, estimates = table(*arguments, **keywords)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-14)
    return weights @ estimates


def variance(*arguments, **keywords):
    """tr Cov(estimate)."""
    weights, estimates = table(*arguments, **keywords)
    return float(weights @ (estimates - weights @ estimates).square().sum(dim=1))


def gradient_of_expectation(problem, policy, value):
    """∇ E[value(path)]."""
    total = torch.stack([value(path) * probability(policy, path) for path in problem]).sum()
    return flat_gradient(total, policy)


def exact(problem, policy, gamma=1.0):
    return gradient_of_expectation(
        problem, policy, lambda path: sum(gamma**t * reward for t, reward in enumerate(path.rewards))
    )


def made(make, seed=0):
    """A baseline that has learned something."""
    torch.manual_seed(seed)
    baseline = make((STATES,)).double()
    episodes = batch_of(TREE, TREE, coin(), 1.0)
    baseline.fit(episodes, 3.0 + torch.randn_like(episodes.rewards), baseline.make_optimizer())
    return baseline


TO_GO, TOTAL = ScoreFunction("reward_to_go", "none"), ScoreFunction("total_return", "none")
DISCOUNTED = ScoreFunction("reward_to_go", "none", discount_steps=True)
cosine = torch.nn.functional.cosine_similarity

every_baseline = pytest.mark.parametrize(
    "make", [make for *_, make in cases.BASELINES], ids=[f"{c[0]}-{number}" for number, c in enumerate(cases.BASELINES)]
)


# ------------------------------------------------------------------ labels of baselines


@every_baseline
def test_the_label_of_a_baseline_is_true(make):
    """None, but for that V(o) follows truncations: exact to 1e-12 with any credit, discount, number and end of
    episodes. Else it is off somewhere.
    """
    policy, baseline = coin(), made(make)
    found = []
    for problem, estimator, number, gamma in (
        (TREE, TO_GO, 2, 1.0),
        (TREE, TO_GO, 3, 1.0),
        (TREE, TOTAL, 2, 0.9),
        (TREE, DISCOUNTED, 2, 0.9),
        (CUT, TO_GO, 2, 1.0),
        (BANDIT, TO_GO, 2, 1.0),
        (BANDIT, TOTAL, 4, 1.0),
    ):
        found.append(
            (expected(problem, policy, estimator, baseline, number, gamma=gamma), exact(problem, policy, gamma))
        )
    if not baseline.bias and not baseline.predicts_values:
        for estimate, truth in found:
            close(estimate, truth)
    else:
        assert any(differs(estimate, truth) for estimate, truth in found)


@every_baseline
def test_a_baseline_is_not_nothing(make):
    """The proof above proves something: the baselines move the gradient of single batches, unlike `none`."""
    policy, baseline = coin(), made(make)
    episodes = batch_of(TREE, TREE[1:6], policy, 1.0)
    moved = differs(gradient(TO_GO, baseline, policy, episodes), gradient(TO_GO, NoBaseline(), policy, episodes))
    assert moved == (not isinstance(baseline, NoBaseline))


# ------------------------------------------------------------------ a bandit of known variance


@pytest.mark.parametrize(("number", "plain", "others"), [(4, 0.3024, 0.0630), (8, 0.1512, 0.0231)])
def test_the_variances_of_a_bernoulli_bandit(number, plain, others):
    """p = .3, rewards 1 and 3: the gradient with respect to the logit is 2 p (1 - p) = .42."""
    policy = bandit_policy()
    variances = {}
    for baseline in (NoBaseline(), LeaveOneOut(), TimeMean(), BatchMean(), BatchMean(correction=True)):
        weights, estimates = table(BANDIT, policy, TO_GO, baseline, number)
        estimates = estimates[:, -1]  # of the bias, which is the logit
        mean = float(weights @ estimates)
        key = type(baseline).__name__ + ("*" if getattr(baseline, "correction", False) else "")
        variances[key] = float(weights @ (estimates - mean).square())
        shrunk = 1.0 - 1.0 / number if key == "BatchMean" else 1.0
        assert mean == pytest.approx(0.42 * shrunk, abs=1e-12)
    assert round(variances["NoBaseline"], 4) == plain
    assert round(variances["LeaveOneOut"], 4) == others
    assert variances["TimeMean"] == pytest.approx(variances["LeaveOneOut"], rel=1e-12)
    assert variances["BatchMean*"] == pytest.approx(variances["LeaveOneOut"], rel=1e-12)
    assert variances["BatchMean"] == pytest.approx((1.0 - 1.0 / number) ** 2 * others, rel=1e-2)


# ------------------------------------------------------------------ batch_mean, with and without the correction


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("problem", [BANDIT, TWO_STEPS], ids=["bandit", "two_steps"])
def test_batch_mean_shrinks_equally_long_episodes_of_one_return_by_1_minus_1_over_n(problem, number):
    policy = coin()
    truth = exact(problem, policy)
    close(expected(problem, policy, TOTAL, BatchMean(), number), (1.0 - 1.0 / number) * truth)
    close(expected(problem, policy, TOTAL, BatchMean(correction=True), number), truth)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_corrected_batch_mean_is_leave_one_out_for_equally_long_episodes_of_one_return(number):
    """N/(N-1) (G_n - 1/N Σ_m G_m) = G_n - 1/(N-1) Σ_{m≠n} G_m, batch by batch."""
    policy = coin()
    episodes = batch_of(TWO_STEPS, [TWO_STEPS[n % 4] for n in range(number)], policy, 0.9)
    returns = TOTAL.returns(episodes, 0.9, None)
    corrected = BatchMean(correction=True).advantages(episodes, returns, 0.9, policy)
    close(corrected, LeaveOneOut().advantages(episodes, returns, 0.9, policy))


@pytest.mark.parametrize("number", [2, 3])
def test_batch_mean_under_reward_to_go_lacks_the_gradient_of_the_mean_of_an_episode_s_returns(number):
    """1/N of it, which is not 1/N of the gradient: the correction does not fix it."""
    policy = coin()
    truth = exact(TWO_STEPS, policy)
    lacks = gradient_of_expectation(TWO_STEPS, policy, lambda path: (sum(path.rewards) + path.rewards[1]) / 2)
    close(expected(TWO_STEPS, policy, TO_GO, BatchMean(), number), truth - lacks / number)
    assert differs(expected(TWO_STEPS, policy, TO_GO, BatchMean(correction=True), number), truth)


def test_batch_mean_of_episodes_of_different_lengths_changes_the_direction():
    policy = coin()
    truth = exact(TREE, policy)
    for correction in (False, True):
        estimate = expected(TREE, policy, TOTAL, BatchMean(correction), 2)
        assert float(cosine(estimate, truth, dim=0)) < 1.0 - 1e-3


# ------------------------------------------------------------------ the optimal constant


@pytest.mark.parametrize("estimator", [TO_GO, TOTAL], ids=["reward_to_go", "total_return"])
@pytest.mark.parametrize("problem", [TREE, BANDIT], ids=["tree", "bandit"])
def test_the_optimal_constant_is_the_constant_of_least_variance(problem, estimator):
    """The exact one, by `score_products` of every path: the variance is a parabola in b with its minimum there."""
    policy = coin()
    odds = torch.stack([probability(policy, path) for path in problem]).detach()
    episodes = batch_of(problem, problem, policy, 1.0)
    products, squares = score_products(episodes, estimator.returns(episodes, 1.0, None), policy)
    best = float(odds @ products / (odds @ squares))
    at_best = variance(problem, policy, estimator, Constant(best), 1)
    for step in (-0.5, 0.5):  # a parabola: Var(b) = Var(b*) + E|S|² (b - b*)²
        around = variance(problem, policy, estimator, Constant(best + step), 1)
        assert around == pytest.approx(at_best + step**2 * float(odds @ squares), rel=1e-10)


def test_the_optimal_constant_of_a_bandit_with_two_arms_leaves_no_variance():
    """E[s² G] / E[s²] = (.147 · 3 + .063 · 1) / .21 = 2.4, where both arms give the same gradient."""
    policy = bandit_policy()
    assert variance(BANDIT, policy, TO_GO, Constant(2.4), 1) == pytest.approx(0.0, abs=1e-15)
    episodes = batch_of(BANDIT, [BANDIT[1]] * 30 + [BANDIT[0]] * 70, policy, 1.0)
    baseline = OptimalConstant()(episodes, episodes.rewards, policy)
    assert baseline.shape == (1, 100)
    # without one of 30 ones, or of 70 zeros
    one = (29 * 0.49 * 3 + 70 * 0.09) / (29 * 0.49 + 70 * 0.09)
    zero = (30 * 0.49 * 3 + 69 * 0.09) / (30 * 0.49 + 69 * 0.09)
    close(baseline[0, [0, -1]], torch.tensor([one, zero], dtype=torch.float64))


# ------------------------------------------------------------------ value networks


def tabular(kind, values, **kwargs):
    """A value network that predicts `values` of the states."""
    baseline = kind((STATES,), lambda parameters: torch.optim.SGD(parameters, 0.1), hidden_sizes=(), **kwargs).double()
    with torch.no_grad():
        baseline.network[-1].weight.copy_(torch.tensor([values], dtype=torch.float64))
        baseline.network[-1].bias.zero_()
    return baseline


WRONG = [2.0, -1.0, 3.0, 5.0]


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_a_value_network_adds_the_gradient_of_what_it_predicts_after_a_truncation(gamma):
    """Exactly: what is expected is ∇E[Σ γ^t r_t + γ^L V(o_L)], with V as it is."""
    policy = coin()

    def bootstrapped(path):
        discounted = sum(gamma**t * reward for t, reward in enumerate(path.rewards))
        return discounted + path.truncated * gamma ** len(path.rewards) * WRONG[-1]

    estimate = expected(CUT, policy, DISCOUNTED, tabular(Value, WRONG), 2, gamma=gamma)
    close(estimate, gradient_of_expectation(CUT, policy, bootstrapped))
    assert differs(estimate, exact(CUT, policy, gamma))


def true_values(policy, gamma):
    """V(s) of TREE, by hand, for the state that ends it 0."""
    a, b, c = policy(observations([0, 1, 2])).probs.tolist()
    later = (1 - c) * 2.0 + c * 7.0
    first = (1 - a) * 1.5 + a * (0.7 * (-0.5 + gamma * later) + 0.3 * 1.0)
    return [first, b * -3.0 + (1 - b) * (4.0 + gamma * later), later, 0.0]


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("problem", [TREE, CUT], ids=["terminated", "truncated"])
def test_gae_is_unbiased_with_the_true_values_and_with_lambda_1(problem, gae_lambda):
    """And not otherwise: that is what its label says. (The episodes that CUT truncates are worth 0 from there on.)"""
    policy, gamma = coin(), 0.9
    truth = exact(problem, policy, gamma)
    values = true_values(policy, gamma)
    baseline = tabular(GAE, values, gae_lambda=gae_lambda)
    close(expected(problem, policy, DISCOUNTED, baseline, 2, gamma=gamma), truth)
    wrong = tabular(GAE, [*WRONG[:-1], 0.0], gae_lambda=gae_lambda)
    estimate = expected(problem, policy, DISCOUNTED, wrong, 2, gamma=gamma)
    if gae_lambda == 1.0:
        close(estimate, truth)
        assert wrong.bias == ()
    else:
        assert wrong.bias == ("a learned V(o) replaces what follows each step",)
        assert differs(estimate, truth)


# ------------------------------------------------------------------ labels of the score function


@pytest.mark.parametrize("gamma", [0.8, 1.0])
@pytest.mark.parametrize("discount_steps", [False, True])
@pytest.mark.parametrize(
    ("credit", "normalize"),
    [
        *[("reward_to_go", normalize) for normalize in ("none", "episode", "batch", "running")],
        *[("total_return", normalize) for normalize in ("none", "batch", "running")],
    ],
)
def test_the_label_of_the_score_function_is_true(credit, normalize, discount_steps, gamma):
    policy = coin()
    estimator = ScoreFunction(credit, normalize, discount_steps)
    episodes = batch_of(TREE, TREE, policy, gamma)
    estimator.observe(episodes, estimator.returns(episodes, gamma, None))
    estimate, truth = expected(TREE, policy, estimator, LeaveOneOut(), 2, gamma=gamma), exact(TREE, policy, gamma)
    if not estimator.bias(gamma):
        close(estimate, truth)
    else:
        assert differs(estimate, truth)


@pytest.mark.parametrize("estimator", ["reward_to_go", "total_return"])
@pytest.mark.parametrize("number", [2, 3])
def test_running_normalisation_is_the_exact_gradient_divided_by_sigma(estimator, number):
    """σ of the batches before, by hand; the batch itself leaves no trace in it until it is observed."""
    policy, normalized = coin(), ScoreFunction(estimator, "running")
    earlier = []
    for paths in (TREE[1:4], TREE[4:7]):
        episodes = batch_of(TREE, paths, policy, 1.0)
        returns = normalized.returns(episodes, 1.0, None)
        normalized.observe(episodes, returns)
        earlier.append(returns[episodes.valid])
    (mean, square), weight = torch.zeros(2, dtype=torch.float64), 1.9
    for factor, batch in zip((0.9, 1.0), earlier, strict=True):
        mean, square = mean + factor / weight * batch.mean(), square + factor / weight * batch.square().mean()
    sigma = (square - mean**2).sqrt()
    close(expected(TREE, policy, normalized, TimeMean(), number) * sigma, exact(TREE, policy))


def test_whitening_an_episode_of_one_step_leaves_nothing():
    policy = coin()
    _, estimates = table(BANDIT, policy, ScoreFunction(normalize_returns="episode"), NoBaseline(), 3)
    assert (estimates == 0).all()


def test_whitening_over_an_episode_changes_the_direction_and_over_a_batch_ever_less():
    """The cosine to the exact gradient; over episodes it is the same for any number of them."""
    policy = coin()
    truth = exact(TREE, policy)

    def direction(normalize, number):
        estimator = ScoreFunction("reward_to_go", normalize)
        return float(cosine(expected(TREE, policy, estimator, NoBaseline(), number), truth, dim=0))

    episode = [direction("episode", number) for number in (1, 2, 3)]
    assert episode == pytest.approx([0.7003] * 3, abs=1e-4)
    batch = [direction("batch", number) for number in (1, 2, 3)]
    assert batch == pytest.approx([0.7003, 0.9730, 0.9970], abs=1e-4)


# ------------------------------------------------------------------ labels near the value at which they end


@pytest.mark.parametrize("gamma", [0.9, 0.99, 0.999])
def test_a_gamma_close_to_1_is_not_1(gamma):
    """The default, .99, is one: without gamma^t, what is missing of the gradient is in proportion to 1 - gamma."""
    policy, estimator = coin(), ScoreFunction("reward_to_go", "none")
    truth = exact(TREE, policy, gamma)
    missing = expected(TREE, policy, estimator, NoBaseline(), 1, gamma=gamma) - truth
    assert 0.1 < float(missing.abs().max()) / (1.0 - gamma) < 10.0
    assert estimator.bias(gamma)
    weighed = ScoreFunction("reward_to_go", "none", discount_steps=True)
    close(expected(TREE, policy, weighed, NoBaseline(), 1, gamma=gamma), truth)
    assert not weighed.bias(gamma)
    assert not estimator.bias(1.0)


@pytest.mark.parametrize("gae_lambda", [0.95, 0.99, 0.999])
def test_a_lambda_close_to_1_is_not_1(gae_lambda):
    """What wrong values add to the gradient is in proportion to 1 - lambda; nothing is truncated in TREE."""
    policy, gamma = coin(), 0.9
    wrong = tabular(GAE, [*WRONG[:-1], 0.0], gae_lambda=gae_lambda)
    added = expected(TREE, policy, DISCOUNTED, wrong, 1, gamma=gamma) - exact(TREE, policy, gamma)
    assert 0.1 < float(added.abs().max()) / (1.0 - gae_lambda) < 10.0
    assert wrong.bias == ("a learned V(o) replaces what follows each step",)
