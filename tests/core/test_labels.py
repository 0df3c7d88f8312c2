"""Labels are complete and true: each is there when the expected gradient is off by what it names, and only then.

Expectations are sums over all outcomes of a batch in float64, as in `test_bias`; nothing is random. The whole product
of the score function's settings is gone through, for every baseline, with and without clipping.
"""

import itertools
import math
from types import SimpleNamespace

import cases
import pytest
import torch
from making import flat_gradient, make_policy
from test_bias import Path, batch_of, close, coin, exact, gradient_of_expectation, made, observations

from scorepath.baselines import BatchMean, NoBaseline, TimeMean
from scorepath.envs.dynamics import LQR, random_mdp
from scorepath.estimators import MeasureValued, Pathwise, ScoreFunction, gradient_bias
from scorepath.estimators.gradients import clip_gradients
from scorepath.update import surrogate_loss
from scorepath.verify import LQRProblem, TabularProblem, check, gradient_samples

# One or two steps, by the actions' choice; the second step is cut off by a time limit
PROBLEM = (
    Path("a", 1.0, (0,), (0,), (1.5,)),
    Path("a", 1.0, (0, 2), (1, 0), (-0.5, 2.0), truncated=True),
    Path("a", 1.0, (0, 2), (1, 1), (-0.5, 7.0), truncated=True),
)
ENV = SimpleNamespace(max_episode_steps=2, discontinuities=None)
CLIPPED = 0.5  # below the norm of some batches' gradients and above that of others
ENTROPY = 0.3
SCALINGS = {
    "reward_to_go": ("none", "batch", "episode", "running"),
    "total_return": ("none", "batch", "running"),
}
SETTINGS = [
    {"credit": credit, "normalize_returns": scaling, "discount_steps": steps, **entropy}
    for credit, scalings in SCALINGS.items()
    for scaling in scalings
    for steps in (False, True)
    for entropy in (
        {},
        {"entropy_coefficient": ENTROPY},
        {"entropy_coefficient": ENTROPY, "entropy_in_rewards": True},
    )
]


def estimates(problem, policy, estimator, baseline, number, gamma):
    """Of every batch, whatever the order of its paths, its probability and its estimate of +∇J."""
    odds = {path: _probability(policy, path) for path in problem}
    found = []
    for paths in itertools.combinations_with_replacement(problem, number):
        orders = math.factorial(number)
        for path in set(paths):
            orders //= math.factorial(paths.count(path))
        chance = orders * math.prod(odds[path] for path in paths)
        episodes = batch_of(problem, paths, policy, gamma)
        loss = surrogate_loss(estimator, baseline, policy, episodes, gamma).loss
        found.append((chance, -flat_gradient(loss, policy)))
    return found


def mean_of(found, max_grad_norm=None):
    """E of the estimates as training takes a step with them."""
    total = 0.0
    for chance, gradient in found:
        step = gradient.clone()
        clip_gradients([step], max_grad_norm)
        total = total + chance * step
    return total


def _probability(policy, path):
    one = policy(observations(path.states)).probs.detach()
    actions = torch.tensor(path.actions, dtype=torch.float64)
    return path.chance * float(torch.where(actions == 1.0, one, 1.0 - one).prod())


def expected(problem, policy, estimator, baseline, number, gamma, max_grad_norm=None):
    return mean_of(estimates(problem, policy, estimator, baseline, number, gamma), max_grad_norm)


def is_off(one, other):
    return bool((one - other).abs().max() > 1e-6)


def entropies(policy, path):
    """H(π(· | o_t)) along a path, with its graph."""
    return policy.head.entropy(policy(observations(path.states)))


def words_of(setting, baseline, gamma, clipped):
    """What the labels of a combination must speak of, by reading the settings."""
    to_go = setting["credit"] == "reward_to_go"
    scaling = setting["normalize_returns"]
    entropy = setting.get("entropy_coefficient", 0.0) != 0.0
    soft = setting.get("entropy_in_rewards", False)
    found = {
        "not weighed by gamma^t": gamma < 1.0 and to_go and not setting["discount_steps"],
        "weighed by gamma^t again": gamma < 1.0 and not to_go and setting["discount_steps"],
        "whitened by the mean": scaling == "batch",
        "whitened over the steps": scaling == "episode",
        "divided by a running": scaling == "running",
        "in the first update": scaling == "running",
        "grad H": entropy and not soft,
        "entropy of each step": entropy and soft,
        "clipped": clipped,
        "follows a truncation": baseline.predicts_values,
        "follows each step": getattr(baseline, "gae_lambda", 1.0) < 1.0,
        "contains the sample": isinstance(baseline, BatchMean),
    }
    return [words for words, holds in found.items() if holds]


@pytest.mark.parametrize("gamma", [0.99, 1.0])
@pytest.mark.parametrize(
    "make", [make for *_, make in cases.BASELINES], ids=[f"{c[0]}-{number}" for number, c in enumerate(cases.BASELINES)]
)
def test_the_labels_of_every_combination_are_complete_and_true(make, gamma):
    """Estimator's settings x baseline x clipping, at the default gamma and without a discount: every cause is named,
    nothing else is, and what has no label is exact to 1e-12.
    """
    policy, baseline = coin(), made(make)
    truth = exact(PROBLEM, policy, gamma)
    for setting in SETTINGS:
        if setting["credit"] == "total_return" and baseline.predicts_values:
            continue  # refused
        estimator = ScoreFunction(**setting)
        learned = batch_of(PROBLEM, PROBLEM, policy, gamma)
        estimator.observe(learned, estimator.returns(learned, gamma, None))
        found = estimates(PROBLEM, policy, estimator, baseline, 2, gamma)
        for limit in (None, CLIPPED):
            labels = gradient_bias(ENV, estimator, baseline, gamma, max_grad_norm=limit)
            words = words_of(setting, baseline, gamma, limit is not None)
            assert len(labels) == len(words), (setting, labels)
            assert all(any(some in label for label in labels) for some in words), (setting, labels)
            estimate = mean_of(found, limit)
            if labels:
                assert is_off(estimate, truth), (setting, labels)
            else:
                close(estimate, truth)


def test_a_discount_is_nothing_to_an_episode_of_one_step():
    one_step = SimpleNamespace(max_episode_steps=1, discontinuities=None)
    bandit = (Path("a", 1.0, (0,), (0,), (1.0,)), Path("a", 1.0, (0,), (1,), (3.0,)))
    policy, estimator = coin(), ScoreFunction("reward_to_go", "none")
    assert gradient_bias(one_step, estimator, TimeMean(), 0.9) == []
    close(expected(bandit, policy, estimator, TimeMean(), 2, 0.9), exact(bandit, policy, 0.9))
    assert len(gradient_bias(ENV, estimator, TimeMean(), 0.9)) == 1


# ------------------------------------------------------------------ entropy


@pytest.mark.parametrize(
    ("credit", "discount_steps", "gamma"),
    [("reward_to_go", False, 1.0), ("reward_to_go", True, 0.9), ("total_return", False, 0.9)],
)
@pytest.mark.parametrize("baseline", [NoBaseline(), TimeMean()], ids=["none", "time_mean"])
def test_entropies_in_the_rewards_are_one_objective_with_them(credit, discount_steps, gamma, baseline):
    """∇E[Σ_t γ^t (r_t + c H(π(· | o_t)))] to 1e-12."""
    policy = coin()
    estimator = ScoreFunction(credit, "none", discount_steps, entropy_coefficient=ENTROPY, entropy_in_rewards=True)

    def soft(path):
        bonus = ENTROPY * entropies(policy, path)
        return sum(gamma**t * (reward + bonus[t]) for t, reward in enumerate(path.rewards))

    truth = gradient_of_expectation(PROBLEM, policy, soft)
    close(expected(PROBLEM, policy, estimator, baseline, 2, gamma), truth)
    (label,) = estimator.bias(gamma)
    assert label == "the objective has the entropy of each step in its reward"


def test_an_entropy_bonus_is_its_direct_term_alone():
    """∇J + c E[Σ_t ∇H(π(· | o_t))], which is not the gradient of E[Σ_t r_t + c H]."""
    policy = coin()
    estimator = ScoreFunction("reward_to_go", "none", entropy_coefficient=ENTROPY)
    direct = sum(_probability(policy, path) * entropies(policy, path).sum() for path in PROBLEM)
    direct = flat_gradient(direct, policy)
    estimate = expected(PROBLEM, policy, estimator, NoBaseline(), 2, 1.0)
    close(estimate, exact(PROBLEM, policy) + ENTROPY * direct)
    whole = gradient_of_expectation(
        PROBLEM, policy, lambda path: sum(path.rewards) + ENTROPY * entropies(policy, path).sum()
    )
    assert is_off(estimate, whole)


def test_entropies_in_the_rewards_reach_baseline_and_returns():
    """By hand: with c = 1 and even odds, log 2 for each step."""
    policy = coin()
    with torch.no_grad():
        policy.head.logits.weight.zero_()
        policy.head.logits.bias.zero_()
    estimator = ScoreFunction("reward_to_go", "none", entropy_coefficient=1.0, entropy_in_rewards=True)
    episodes = batch_of(PROBLEM, PROBLEM[:2], policy, 1.0)
    returns = surrogate_loss(estimator, NoBaseline(), policy, episodes, 0.5).returns
    log2 = torch.tensor(2.0, dtype=torch.float64).log()
    close(
        returns,
        torch.tensor([[1.5, -0.5 + 0.5 * 2.0], [0.0, 2.0]], dtype=torch.float64)
        + log2 * torch.tensor([[1.0, 1.5], [0.0, 1.0]], dtype=torch.float64),
    )
    close(episodes.rewards, batch_of(PROBLEM, PROBLEM[:2], policy, 1.0).rewards)  # what is logged stays


# ------------------------------------------------------------------ running normalisation


def test_running_normalisation_is_off_in_direction_in_the_first_update_and_in_length_later():
    policy, estimator = coin(), ScoreFunction("reward_to_go", "running")
    truth = exact(PROBLEM, policy)
    cosine = torch.nn.functional.cosine_similarity
    first = expected(PROBLEM, policy, estimator, NoBaseline(), 2, 1.0)
    assert float(cosine(first, truth, dim=0)) < 1.0 - 1e-4
    learned = batch_of(PROBLEM, PROBLEM, policy, 1.0)
    estimator.observe(learned, estimator.returns(learned, 1.0, None))
    later = expected(PROBLEM, policy, estimator, NoBaseline(), 2, 1.0)
    assert float(cosine(later, truth, dim=0)) == pytest.approx(1.0, abs=1e-14)
    assert is_off(later, truth)
    lengths, directions = (label for label in estimator.bias(1.0))
    assert lengths.endswith("which changes the length") and directions.startswith("in the first update")


# ------------------------------------------------------------------ clipping

# Action 1 pays 1; action 0 pays 300 once in 20 times: 15 on average
LOTTERY = (
    Path("wins", 0.05, (0,), (0,), (300.0,)),
    Path("wins", 0.05, (0,), (1,), (1.0,)),
    Path("loses", 0.95, (0,), (0,), (0.0,)),
    Path("loses", 0.95, (0,), (1,), (1.0,)),
)


def test_clipping_can_turn_the_expected_gradient_round():
    """Its label is all that says so: the rare batch that wins is worth no more than any other."""
    policy = coin()
    estimator = ScoreFunction("reward_to_go", "none", True)
    one_step = SimpleNamespace(max_episode_steps=1, discontinuities=None)
    truth = exact(LOTTERY, policy)
    plain = expected(LOTTERY, policy, estimator, NoBaseline(), 2, 1.0)
    close(plain, truth)
    clipped = expected(LOTTERY, policy, estimator, NoBaseline(), 2, 1.0, 0.05)
    assert float(clipped @ truth) < 0.0
    assert gradient_bias(one_step, estimator, NoBaseline(), 1.0) == []
    (label,) = gradient_bias(one_step, estimator, NoBaseline(), 1.0, max_grad_norm=0.05)
    assert label.startswith("gradients are clipped at a norm of 0.05")


def test_clipped_gradients_have_at_most_the_norm_and_the_direction():
    """(3, 4) and (12,): a norm of 13, to 6.5."""
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]
    assert float(clip_gradients(gradients, 6.5)) == 13.0
    close(torch.cat([part.flatten() for part in gradients]), torch.tensor([1.5, 2.0, 6.0]), tolerance=1e-6)
    assert float(clip_gradients(gradients, 100.0)) == pytest.approx(6.5, rel=1e-6)
    close(gradients[1], torch.tensor([[6.0]]), tolerance=1e-6)
    assert float(clip_gradients(gradients, None)) == pytest.approx(6.5, rel=1e-6)


MDP = TabularProblem(random_mdp(3, 2, 3, terminal_states=1, zero_rewards=0.2, seed=16))
REGULATOR = LQRProblem(LQR(dim=1, horizon=3, dt=0.5))


@pytest.mark.parametrize("limit", [None, 0.1])
@pytest.mark.parametrize(
    ("problem", "estimator"),
    [
        (MDP, ScoreFunction("reward_to_go", "none", discount_steps=True)),
        pytest.param(MDP, MeasureValued(), marks=pytest.mark.slow),
        pytest.param(REGULATOR, Pathwise(window=None), marks=pytest.mark.slow),
    ],
    ids=["score_function", "measure_valued", "pathwise_episode"],
)
def test_the_check_takes_the_gradient_that_is_clipped_in_training(problem, estimator, limit):
    """By T² at level 1e-7: clipped gradients are flagged, and are labelled."""
    settings = {"gamma": 0.9, "episodes": 16, "batches": 200, "alpha": 1e-7, "max_grad_norm": limit}
    report = check(problem, make_policy(problem), estimator, NoBaseline(), **settings)
    assert report.is_flagged == (limit is not None), report
    assert report.passed
    assert any("clipped at a norm of 0.1" in label for label in report.labels) == (limit is not None)


def test_each_window_of_an_update_is_clipped():
    problem = LQRProblem(LQR(dim=1, horizon=6, dt=0.3))
    settings = {"gamma": 0.9, "batches": 20, "episodes": 16, "max_grad_norm": 0.1}
    samples = gradient_samples(problem, make_policy(problem), Pathwise(window=2), NoBaseline(), **settings)
    assert 0.1 < float(samples.norm(dim=1).max()) <= 3 * 0.1 * (1 + 1e-9)
