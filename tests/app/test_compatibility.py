"""Combinations: every distribution in every action space, and every estimator with every baseline."""

import re
from types import MappingProxyType

import cases
import pytest
import torch

from scorepath.baselines import AbstractBaseline, NoBaseline
from scorepath.compatibility import check_batch, check_estimator, check_head, describe_space
from scorepath.distributions import Bernoulli, Categorical, Normal
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR, Pendulum
from scorepath.envs.dynamics.discontinuous import Heaviside
from scorepath.envs.dynamics.tabular import bandit
from scorepath.errors import ConfigError
from scorepath.estimators import (
    DDCG,
    AlphaOrder,
    GumbelSoftmax,
    MeasureValued,
    Pathwise,
    ScoreFunction,
    StraightThrough,
    gradient_bias,
)
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout
from scorepath.update import surrogate_loss

SCRIPTED = "ScorepathTest/Scripted-v0"
DISTS = MappingProxyType({case.option: case.head for case in [*cases.HEADS, *cases.OTHER_HEADS]})

DISCRETE = {"discrete", "discrete_1", "discrete_2", "discrete_2_start", "discrete_start"}
MULTI_DISCRETE = {"multi_discrete", "multi_discrete_uneven", "multi_discrete_start", "multi_discrete_2d"}
FLOAT_BOX = {name for name in cases.SPACES if name.startswith("box") and name != "box_integer"} | {"shares"}
BOUNDED_BOX = FLOAT_BOX - {"box_unbounded", "box_one_sided", "box_partly_bounded"}
ACCEPTED = {
    "bernoulli": {"discrete_2", "discrete_2_start", "multi_binary", "multi_binary_2d"},
    "categorical": DISCRETE | MULTI_DISCRETE,
    "normal": FLOAT_BOX,
    "normal_rsample": FLOAT_BOX,
    "laplace": FLOAT_BOX,
    "student_t": FLOAT_BOX,
    "multivariate_normal": FLOAT_BOX,
    "low_rank_normal": FLOAT_BOX,
    "mixture_normal": FLOAT_BOX,
    "tanh_normal": BOUNDED_BOX,
    "truncated_normal": BOUNDED_BOX,
    "beta": BOUNDED_BOX,
    "kumaraswamy": BOUNDED_BOX,
    "von_mises": BOUNDED_BOX | {"box_unbounded"},
    "binomial": DISCRETE - {"discrete_1"} | {"box_integer", "counts_uneven"},
    "poisson": DISCRETE - {"discrete_1"} | {"box_integer", "counts_uneven"},
    "dirichlet": {"shares"},
    "relaxed_bernoulli": {"discrete_2", "discrete_2_start"},
    "relaxed_categorical": DISCRETE - {"discrete_1"},
    "one_hot_straight_through": DISCRETE - {"discrete_1"},
    "product": {"dict", "tuple", "tree", "tuple_of_boxes", "tuple_beyond_float32"},
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
    if head.accepts(action_space) and not head.acts_in_weights:
        check_head(option, head, env, lambda: DISTS)
        if option == "product":
            return  # played in test_distributions_discrete: this environment adds up numbers
        policy = Policy(MLP(3, [4]), head(action_space, 4))
        for deterministic in (False, True):
            episodes = rollout(env, policy, 0, deterministic=deterministic)
            assert episodes.actions.shape[2:] == action_space.shape
    else:
        with pytest.raises(ConfigError) as error:
            check_head(option, head, env, lambda: DISTS)
        message = str(error.value)
        if head.accepts(action_space):
            assert message.startswith(f"dist={option} acts by weights over the choices of ")
        else:
            assert message.startswith(f"dist={option} needs {head.needs}, but {env.name} has ")
        named = set(re.findall(r"dist=(\w+)", message.split(": ", 1)[1]))
        working = {name: other for name, other in DISTS.items() if not other.acts_in_weights}
        accepting = {name for name, other in working.items() if other.accepts(action_space)}
        usual = accepting & {"bernoulli", "categorical", "normal", "normal_rsample"}
        assert named == usual or (not usual and named <= accepting and len(named) == min(4, len(accepting)))
        assert named or "no distribution here can act in it" in message
    env.close()


def test_the_message_of_a_wrong_distribution_in_full():
    env = GymnasiumEnvironment("CartPole-v1", 1)
    with pytest.raises(ConfigError) as error:
        check_head("normal", Normal, env, lambda: DISTS)
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
        check_estimator(names, *arguments, lambda: DISTS)
    message = str(error.value)
    assert message.startswith(f"estimator={names['estimator']} ")
    assert ": use " in message
    assert message.endswith(".")
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


@pytest.mark.parametrize("option", ["value", "gae"])
def test_whole_returns_are_not_what_a_value_network_is_fitted_to(option):
    env = TorchEnvironment(Pendulum(), 1)
    names = {**NAMES, "env": "pendulum_torch", "dist": "normal", "estimator": "score_function", "baseline": option}
    whole = ScoreFunction(credit="total_return")
    message = refused(names, env, Normal(env.action_space, 3), whole, baseline(option))
    assert f"baseline={option} is fitted to what follows a step" in message
    check_estimator(names, env, Normal(env.action_space, 3), ScoreFunction(), baseline(option))
    check_estimator(names, env, Normal(env.action_space, 3), whole, baseline("leave_one_out"))


@pytest.mark.parametrize("option", BASELINES)
@pytest.mark.parametrize("make", [lambda: GymnasiumEnvironment("CartPole-v1", 1), lambda: TorchEnvironment(LQR(), 1)])
def test_the_score_function_works_with_everything(make, option):
    env = make()
    head = next(head for head in DISTS.values() if head.accepts(env.action_space))(env.action_space, 3)
    check_estimator({**NAMES, "estimator": "score_function"}, env, head, ScoreFunction(), baseline(option))
    env.close()


# ------------------------------------------------------------------ the table of what is legal

ESTIMATORS = {option: (kind, kwargs) for option, kind, kwargs in reversed(cases.ESTIMATORS)}
MIXED = {"alpha_order", "ddcg", "ivw_h"}
PATHWISE = {"pathwise", "pathwise_episode"}
RELAXED = {"straight_through", "gumbel_softmax"}
EVERYWHERE, BY_BRANCHES = {"score_function", "score_function_unbiased"}, {"measure_valued"}
# environment, head, the estimators that may run
LEGAL = [
    (lambda: TorchEnvironment(LQR(horizon=4), 3), Normal, EVERYWHERE | BY_BRANCHES | PATHWISE | MIXED),
    (lambda: TorchEnvironment(Pendulum(4), 2), Categorical, EVERYWHERE | BY_BRANCHES | RELAXED),
    (lambda: TorchEnvironment(Pendulum(2), 2), Bernoulli, EVERYWHERE | BY_BRANCHES | RELAXED),
    (lambda: TorchEnvironment(bandit(), 3), Categorical, EVERYWHERE | BY_BRANCHES),
    (lambda: TorchEnvironment(bandit(), 3), Bernoulli, EVERYWHERE | BY_BRANCHES),
    (lambda: TorchEnvironment(Heaviside(), 3), Normal, EVERYWHERE | BY_BRANCHES | {"ddcg", "ivw_h"}),
    (lambda: GymnasiumEnvironment("CartPole-v1", 2), Bernoulli, EVERYWHERE),
    (lambda: GymnasiumEnvironment("Pendulum-v1", 2), Normal, EVERYWHERE),
]


@pytest.mark.parametrize("option", ESTIMATORS)
@pytest.mark.parametrize(
    ("make", "head", "legal"), LEGAL, ids=[f"{index}-{head.__name__}" for index, (_, head, _) in enumerate(LEGAL)]
)
def test_what_is_legal_runs_and_all_else_is_refused(make, head, legal, option):
    """By hand, for environments of every kind; what is allowed plays and learns from a first batch."""
    kind, kwargs = ESTIMATORS[option]
    estimator, env = kind(**kwargs), make()
    size = env.observation_space.shape[0]
    policy = Policy(MLP(size, []), head(env.action_space, size))
    names = {**NAMES, "estimator": option, "dist": head.__name__.lower()}
    if option in legal:
        check_estimator(names, env, policy.head, estimator, baseline("none"))
        episodes = next(estimator.collect(env, policy, 0))
        surrogate_loss(estimator, baseline("none"), policy, episodes, 0.9).loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in policy.parameters())
    else:
        refused(names, env, policy.head, estimator, baseline("none"))
    env.close()


@pytest.mark.parametrize("option", ["pathwise", "alpha_order"])
def test_a_jump_is_accepted_or_bounded_by_an_option(option):
    env = TorchEnvironment(Heaviside(), 3)
    head = Normal(env.action_space, 1)
    names = {**NAMES, "estimator": option, "dist": "normal"}
    refusing, accepting, remedy = {
        "pathwise": (Pathwise(), Pathwise(accept_discontinuities=True), "estimator.accept_discontinuities=true"),
        "alpha_order": (AlphaOrder(), AlphaOrder(tolerance=1.0), "estimator.tolerance"),
    }[option]
    message = refused(names, env, head, refusing, baseline("none"))
    assert "the reward jumps at x = 0" in message
    assert remedy in message
    check_estimator(names, env, head, accepting, baseline("none"))


def test_relaxed_estimators_accept_jumps_by_the_same_option():
    for kind in (StraightThrough, GumbelSoftmax):
        assert not kind().accept_discontinuities
        assert kind(accept_discontinuities=True).accept_discontinuities


def test_a_distribution_without_known_derivatives_is_refused_with_those_that_have_them():
    """The remedy names what can act in the space."""
    env = TorchEnvironment(LQR(), 1)

    class Laplace(torch.nn.Module):
        has_rsample, in_features = True, 2

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, features):
            return torch.distributions.Laplace(features.mean(-1), self.scale)

    for option, estimator in (("ddcg", DDCG()), ("measure_valued", MeasureValued())):
        message = refused({**NAMES, "estimator": option, "dist": "normal"}, env, Laplace(), estimator, baseline("none"))
        assert message.endswith(": use estimator=score_function or dist=normal or dist=normal_rsample.")


@pytest.mark.parametrize("option", [option for option in BASELINES if option != "none"])
def test_branches_need_no_baseline(option):
    env = TorchEnvironment(LQR(), 1)
    names = {**NAMES, "env": "lqr", "dist": "normal", "estimator": "measure_valued", "baseline": option}
    message = refused(names, env, Normal(env.action_space, 2), MeasureValued(), baseline(option))
    assert message.endswith("use baseline=none.")


def test_variances_need_two_episodes():
    check_batch("alpha_order", AlphaOrder(), 2)
    check_batch("score_function", ScoreFunction(), 1)
    with pytest.raises(ConfigError, match=r"estimator=alpha_order takes .* use episodes_per_update=2 or more"):
        check_batch("alpha_order", AlphaOrder(), 1)


# ------------------------------------------------------------------ labels


def test_the_labels_of_all_slots_are_put_together():
    lqr, jump = TorchEnvironment(LQR(), 1), TorchEnvironment(Heaviside(), 1)
    plain = ScoreFunction(normalize_returns="none", discount_steps=True)
    biased, none = baseline("batch_mean"), baseline("none")
    assert gradient_bias(lqr, plain, none, 0.9) == []
    assert gradient_bias(jump, plain, none, 0.9) == []  # the score function sees jumps
    assert gradient_bias(lqr, plain, biased, 0.9) == list(biased.bias)
    assert gradient_bias(lqr, ScoreFunction(), biased, 1.0) == [*ScoreFunction().bias(1.0), *biased.bias]
    (clipped,) = gradient_bias(lqr, plain, none, 0.9, max_grad_norm=0.5)
    assert "clipped at a norm of 0.5" in clipped
    assert gradient_bias(lqr, Pathwise(window=None), none, 0.9) == []
    assert gradient_bias(jump, Pathwise(window=None), none, 0.9) == ["derivatives miss that the reward jumps at x = 0"]
    assert gradient_bias(jump, MeasureValued(), none, 0.9) == []
    assert len(gradient_bias(jump, DDCG(), biased, 0.9)) == 3


@pytest.mark.parametrize("reasons", [None, "it is off"])
def test_reasons_in_another_form_are_refused(reasons):
    """One text would be read letter by letter, and None is no list."""

    class Own(NoBaseline):
        bias = reasons

    with pytest.raises(ConfigError, match=r"Own.bias gives .* must be a tuple of reasons"):
        gradient_bias(TorchEnvironment(LQR(), 1), Pathwise(window=None), Own(), 0.9)


@pytest.mark.parametrize("option", ESTIMATORS)
def test_every_label_is_a_few_words(option):
    kind, kwargs = ESTIMATORS[option]
    labels = kind(**kwargs).bias(0.9)
    assert isinstance(labels, tuple)
    assert all(0 < len(label) < 120 and "\n" not in label for label in labels)
    assert labels or option in {"score_function_unbiased", "pathwise_episode", "measure_valued"}
