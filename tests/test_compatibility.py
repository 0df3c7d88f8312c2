"""Combinations: every distribution in every action space, and every estimator with every baseline."""

import re
from types import MappingProxyType

import cases
import pytest

from scorepath.baselines import AbstractBaseline
from scorepath.compatibility import check_estimator, check_head, describe_space
from scorepath.distributions import Bernoulli, Normal
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR, Pendulum
from scorepath.errors import ConfigError
from scorepath.estimators import Pathwise, ScoreFunction
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout

SCRIPTED = "ScorepathTest/Scripted-v0"
DISTS = MappingProxyType({case.option: case.head for case in cases.HEADS})

DISCRETE = {"discrete", "discrete_1", "discrete_2", "discrete_2_start", "discrete_start"}
MULTI_DISCRETE = {"multi_discrete", "multi_discrete_uneven", "multi_discrete_start", "multi_discrete_2d"}
FLOAT_BOX = {name for name in cases.SPACES if name.startswith("box") and name != "box_integer"}
ACCEPTED = {
    "bernoulli": {"discrete_2", "discrete_2_start", "multi_binary", "multi_binary_2d"},
    "categorical": DISCRETE | MULTI_DISCRETE,
    "normal": FLOAT_BOX,
    "normal_rsample": FLOAT_BOX,
}


@pytest.mark.parametrize("option", ACCEPTED)
def test_accepts_by_hand(option):
    assert {name for name, space in cases.SPACES.items() if DISTS[option].accepts(space)} == ACCEPTED[option]


@pytest.mark.parametrize("space", cases.SPACES)
@pytest.mark.parametrize("option", DISTS)
def test_a_distribution_acts_in_a_space_or_is_refused_with_the_remedy(option, space):
    """Where accepted, whole episodes are played in an environment that insists on its space."""
    head, action_space = DISTS[option], cases.SPACES[space]
    env = GymnasiumEnvironment(SCRIPTED, 3, kwargs={"action_space": action_space})
    if head.accepts(action_space):
        check_head(option, head, env, DISTS)
        policy = Policy(MLP(3, [4]), head(action_space, 4))
        for deterministic in (False, True):
            episodes = rollout(env, policy, 0, deterministic=deterministic)
            assert episodes.actions.shape[2:] == action_space.shape
    else:
        with pytest.raises(ConfigError) as error:
            check_head(option, head, env, DISTS)
        message = str(error.value)
        assert message.startswith(f"dist={option} needs {head.needs}, but {env.name} has ")
        named = set(re.findall(r"dist=(\w+)", message.split(": ", 1)[1]))
        assert named == {other for other, other_head in DISTS.items() if other_head.accepts(action_space)}
        assert named or "no distribution here can act in it" in message
    env.close()


def test_the_message_of_a_wrong_distribution_in_full():
    env = GymnasiumEnvironment("CartPole-v1", 1)
    with pytest.raises(ConfigError) as error:
        check_head("normal", Normal, env, DISTS)
    assert str(error.value) == (
        "dist=normal needs a Box action space, but CartPole-v1 has Discrete(2): use dist=bernoulli or dist=categorical."
    )
    env.close()


def test_spaces_are_described_in_few_words():
    """On one line: they stand in a sentence."""
    words = {name: describe_space(space) for name, space in cases.SPACES.items()}
    assert words["discrete"] == "Discrete(6)"
    assert words["box_2d"] == "Box(2, 3) of float32"
    assert words["box_integer"] == "Box(2,) of int64"
    assert not {name: text for name, text in words.items() if "\n" in text}


# ------------------------------------------------------------------ estimators

NAMES = {"env": "cartpole", "dist": "bernoulli", "estimator": "pathwise", "baseline": "none"}
BASELINES = {option: (kind, make) for option, kind, make in cases.BASELINES}
GAIN_NOTHING = [option for option, (kind, _) in BASELINES.items() if not kind.predicts_values and option != "none"]


def baseline(option) -> AbstractBaseline:
    return BASELINES[option][1]((3,))


def refused(names, *arguments):
    """The message, whose every named option exists in conf."""
    with pytest.raises(ConfigError) as error:
        check_estimator(names, *arguments)
    message = str(error.value)
    assert message.startswith(f"estimator={names['estimator']} ")
    assert ": use " in message
    for group, option in re.findall(r"(env|dist|estimator|baseline)=(\w+)", message):
        assert (cases.CONF / group / f"{option}.yaml").is_file(), f"{group}={option}"
    return message


def test_pathwise_needs_a_distribution_with_rsample():
    env = TorchEnvironment(Pendulum(), 1)
    head = Bernoulli(cases.SPACES["discrete_2"], 3)
    message = refused(NAMES, env, head, Pathwise(), baseline("none"))
    assert "dist=bernoulli has none" in message
    assert message.endswith("use estimator=score_function.")
    check_estimator({**NAMES, "estimator": "score_function"}, env, head, ScoreFunction(), baseline("none"))


def test_pathwise_needs_a_differentiable_environment():
    env = GymnasiumEnvironment("Pendulum-v1", 1)
    names = {**NAMES, "env": "pendulum", "dist": "normal"}
    head = Normal(env.action_space, 3)
    message = refused(names, env, head, Pathwise(), baseline("value"))
    assert "env=pendulum (Pendulum-v1) gives no gradients" in message
    assert "use estimator=score_function, or" in message
    check_estimator(names, env, head, ScoreFunction(), baseline("value"))
    for dynamics in (Pendulum(), LQR()):  # the remedies
        check_estimator(names, TorchEnvironment(dynamics, 1), head, Pathwise(), baseline("value"))
    env.close()


@pytest.mark.parametrize("option", GAIN_NOTHING)
def test_pathwise_gains_nothing_from_a_baseline_that_has_no_value(option):
    """Its gradient is zero: only what stands for the time after a window changes a pathwise gradient."""
    env = TorchEnvironment(Pendulum(), 1)
    head = Normal(env.action_space, 3)
    names = {**NAMES, "env": "pendulum_torch", "dist": "normal_rsample", "baseline": option}
    message = refused(names, env, head, Pathwise(), baseline(option))
    assert f"baseline={option}" in message
    for remedy in ("baseline=value", "baseline=none"):
        assert remedy in message
        check_estimator({**names, "baseline": remedy[9:]}, env, head, Pathwise(), baseline(remedy[9:]))


@pytest.mark.parametrize("option", BASELINES)
@pytest.mark.parametrize("make", [lambda: GymnasiumEnvironment("CartPole-v1", 1), lambda: TorchEnvironment(LQR(), 1)])
def test_the_score_function_works_with_everything(make, option):
    env = make()
    head = next(head for head in DISTS.values() if head.accepts(env.action_space))(env.action_space, 3)
    check_estimator({**NAMES, "estimator": "score_function"}, env, head, ScoreFunction(), baseline(option))
    env.close()
