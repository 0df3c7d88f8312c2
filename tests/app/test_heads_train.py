"""Heads whose samples are not shaped like their space, from the command line: trained, checked, refused."""

import cases
import gymnasium as gym
import pytest
from helpers import check_gradient, train
from tiers import slow

from scorepath.distributions import OneHotStraightThrough

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

for _space in ("box_integer", "counts_uneven", "discrete_start"):
    gym.register(
        f"Counts-{_space}-v0",
        gym.spec("ScorepathTest/Scripted-v0").entry_point,
        max_episode_steps=50,
        disable_env_checker=True,
        kwargs={"action_space": cases.SPACES[_space]},
    )
gym.register(
    "Shares-v0",
    gym.spec("ScorepathTest/Scripted-v0").entry_point,
    max_episode_steps=50,
    disable_env_checker=True,
    kwargs={"action_space": cases.SPACES["shares"]},
)
gym.register(
    "Tree-v0",
    gym.spec("ScorepathTest/Tree-v0").entry_point,
    max_episode_steps=50,
    kwargs={"action_space": cases.SPACES["tree"]},
    disable_env_checker=True,
)


@pytest.mark.parametrize(
    ("estimator", "dist"),
    [
        ("score_function", "relaxed_categorical"),
        slow("score_function", "one_hot_straight_through"),
        slow("pathwise", "relaxed_categorical"),
        ("pathwise", "one_hot_straight_through"),
    ],
)
def test_weights_train_by_both_estimators(tmp_path, dist, estimator):
    game = ("env=pendulum_discrete_torch", f"dist={dist}", f"estimator={estimator}", "episodes_per_update=2")
    value = "baseline=none" if estimator == "pathwise" else "baseline=time_mean"
    outcome = train(tmp_path, *game, value, "debug=one_update", "logger=none")
    assert outcome.code == 0, outcome.err
    labels = " ".join(outcome.summary["gradient_bias"])
    biased = dist == "one_hot_straight_through" and estimator == "pathwise"
    assert (OneHotStraightThrough.rsample_bias in labels) == biased


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["score_function_unbiased", "pathwise_episode"])
@pytest.mark.parametrize("dist", ["relaxed_bernoulli", "one_hot_straight_through"])
def test_both_estimators_against_the_exact_gradient(tmp_path, dist, estimator):
    """From the command line, at a low temperature: unbiased but for the straight-through one, whose bias is seen."""
    problem = ("problem=choice", "problem.dynamics.points=[-1.0,2.0]", "policy.output_scale=1.0", "baseline=none")
    options = ("dist.temperature=0.1",) if dist == "relaxed_bernoulli" else ()
    outcome = check_gradient(tmp_path, *problem, f"dist={dist}", *options, f"estimator={estimator}", "max_batches=400")
    assert outcome.code == 0, outcome.err
    if dist == "one_hot_straight_through" and estimator == "pathwise_episode":
        assert f"biased: {OneHotStraightThrough.rsample_bias}" in outcome.out
        assert "verdict    biased, as its label says" in outcome.out
    else:
        assert "no bias found" in outcome.out


def test_weights_are_refused_where_the_environment_takes_choices(tmp_path):
    outcome = train(tmp_path, "env=cartpole", "dist=relaxed_bernoulli")
    assert outcome.code == 2
    assert "acts by weights" in outcome.sentence
    assert "use dist=bernoulli or dist=categorical" in outcome.sentence


@pytest.mark.parametrize(
    ("space", "dist"),
    [
        slow("box_integer", "binomial"),
        slow("box_integer", "poisson"),
        ("counts_uneven", "binomial"),
        slow("counts_uneven", "poisson"),
        slow("discrete_start", "binomial"),
        ("discrete_start", "poisson"),
    ],
)
def test_counts_train(tmp_path, dist, space):
    game = ("env=gym", f"env.id=Counts-{space}-v0", f"dist={dist}")
    outcome = train(tmp_path, *game, "debug=one_update", "logger=none")
    assert outcome.code == 0, outcome.err


def test_shares_train(tmp_path):
    outcome = train(tmp_path, "env=gym", "env.id=Shares-v0", "dist=dirichlet", "debug=one_update", "logger=none")
    assert outcome.code == 0, outcome.err


GAME = ("env=gym", "env.id=Tree-v0", "dist=product", "debug=one_update", "logger=none")


def test_a_product_trains(tmp_path):
    outcome = train(tmp_path, *GAME)
    assert outcome.code == 0, outcome.err


def test_the_head_of_a_leaf_is_an_option(tmp_path):
    """Of the group dist, with its own keys."""
    outcome = train(tmp_path, *GAME, "dist@dist.heads.box=tanh_normal", "dist.heads.box.std=state_dependent")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("dist.heads.box.std=fixed", "dist=product was refused: std=fixed"),
        ("dist.heads.box.initial_std=wide", "dist.heads.box.initial_std=wide has the wrong type"),
        slow("dist.heads.box.initial_std=-1", "dist=product was refused: initial_std must be"),
        slow("dist@dist.heads.box=von_misses", "did you mean dist=von_mises"),
        ("dist@dist.heads.binary=beta", "none of its heads can act in MultiBinary"),
        slow("dist@dist.heads.discrete=relaxed_categorical", "none of its heads can act in MultiDiscrete"),
    ],
)
def test_a_wrong_head_of_a_leaf_is_refused(tmp_path, option, words):
    refused = train(tmp_path, *GAME, option)
    assert refused.code == 2
    assert words in refused.sentence
