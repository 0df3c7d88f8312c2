"""The append-here lists: one line for each option of `conf`, which every generic test then runs over.

`test_config.py` globs `conf` and fails, with the line to append, when an option has no case.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import references
import scipy.special
import scipy.stats
import torch
from gymnasium import spaces

from scorepath.baselines import (
    GAE,
    AbstractBaseline,
    BatchMean,
    Constant,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    OptimalConstant,
    SelfCritical,
    TimeMean,
    Value,
)
from scorepath.distributions import (
    AbstractHead,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Dirichlet,
    Kumaraswamy,
    Laplace,
    LowRankNormal,
    MixtureNormal,
    MultivariateNormal,
    Normal,
    OneHotStraightThrough,
    Poisson,
    Product,
    RelaxedBernoulli,
    RelaxedCategorical,
    StudentT,
    TanhNormal,
    TruncatedNormal,
    VonMises,
)
from scorepath.envs.dynamics import (
    LQR,
    AbstractDynamics,
    Acrobot,
    CartPole,
    CartPoleSwingUp,
    MountainCar,
    MountainCarContinuous,
    Pendulum,
)
from scorepath.estimators import (
    DDCG,
    IVWH,
    AbstractEstimator,
    AlphaOrder,
    GumbelSoftmax,
    MeasureValued,
    Pathwise,
    ScoreFunction,
    StraightThrough,
)

CONF = Path(__file__).resolve().parents[1] / "conf"

# Every kind of action space that Gymnasium has, accepted by some head or not.
SPACES: dict[str, Any] = {
    "discrete": spaces.Discrete(6),
    "discrete_1": spaces.Discrete(1),
    "discrete_2": spaces.Discrete(2),
    "discrete_2_start": spaces.Discrete(2, start=5),
    "discrete_start": spaces.Discrete(4, start=-3),
    "multi_discrete": spaces.MultiDiscrete([3, 3]),
    "multi_discrete_uneven": spaces.MultiDiscrete([3, 5, 2]),
    "multi_discrete_start": spaces.MultiDiscrete([3, 2], start=[5, -1]),
    "multi_discrete_2d": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multi_binary": spaces.MultiBinary(4),
    "multi_binary_2d": spaces.MultiBinary([2, 3]),
    "box": spaces.Box(-2.0, 2.0, (1,), np.float32),
    "box_scalar": spaces.Box(-1.0, 3.0, (), np.float32),
    "box_2d": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "box_uneven": spaces.Box(np.array([-1.0, 0.0, 5.0], np.float32), np.array([1.0, 10.0, 6.0], np.float32)),
    "box_angle": spaces.Box(-np.pi, np.pi, (1,), np.float32),
    "box_float64": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "box_unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "box_one_sided": spaces.Box(0.0, np.inf, (2,), np.float32),
    "box_partly_bounded": spaces.Box(np.array([-3.0, 0.0], np.float32), np.array([1.0, np.inf], np.float32)),
    "box_integer": spaces.Box(0, 9, (2,), np.int64),
    "counts_uneven": spaces.Box(np.array([-2, 0]), np.array([1, 9]), dtype=np.int32),
    "counts_unbounded": spaces.Box(-np.inf, np.inf, (2,), np.int64),
    "shares": spaces.Box(0.0, 1.0, (3,), np.float32),
    "dict": spaces.Dict({"a": spaces.Discrete(2)}),
    "tree": spaces.Dict(
        {
            "b": spaces.Tuple((spaces.MultiDiscrete([3, 2]), spaces.Box(-1.0, 1.0, (2, 2), np.float32))),
            "a": spaces.MultiBinary(2),
        }
    ),
    # float32 would round each of these out of its space
    "tuple_beyond_float32": spaces.Tuple(
        (
            spaces.Box(-0.1, 0.1, (2,), np.float64),
            spaces.Discrete(3, start=2**30 + 1),
            spaces.Box(2**40 + 1, 2**40 + 5, (1, 2), np.int64),
        )
    ),
    "tuple_of_counts_unbounded": spaces.Tuple((spaces.Discrete(2), spaces.Box(-np.inf, np.inf, (2,), np.int64))),
    "tuple_of_boxes": spaces.Tuple((spaces.Box(0.0, 4.0, (), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float32))),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1.0, 1.0, (1,), np.float32))),
}


@dataclass(frozen=True)
class HeadCase:
    """A head in one configuration, acting in one space.

    `log_prob` is a reference in scipy: (head, features (F,), action) -> the log density of one action; None where scipy
    has no such distribution. `deterministic` is what the head takes the deterministic action to be: "mode", "median",
    "mean" or, where it is none of them, "other".
    """

    option: str  # of conf/dist
    head: type[AbstractHead]
    space: str  # of SPACES
    kwargs: dict[str, Any] = field(default_factory=dict)
    log_prob: Callable[[Any, np.ndarray, np.ndarray], float] | None = None
    deterministic: str = "mode"

    @property
    def name(self) -> str:
        return "-".join([self.option, self.space, *(f"{key}={value}" for key, value in self.kwargs.items())])

    def make(self, in_features: int = 3) -> AbstractHead:
        """The head with random weights, also where a constructor starts from zeros."""
        head = self.head(SPACES[self.space], in_features, **self.kwargs)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.normal_(0.0, 0.4)
        return head


def bernoulli_log_prob(head: Bernoulli, features: np.ndarray, action: np.ndarray) -> float:
    probability = scipy.special.expit(references.linear(head.logits, features))
    return float(scipy.stats.bernoulli.logpmf(action.reshape(-1), probability).sum())


def categorical_log_prob(head: Categorical, features: np.ndarray, action: np.ndarray) -> float:
    choices = np.ravel(getattr(head.action_space, "nvec", getattr(head.action_space, "n", None)))
    logits = references.linear(head.logits, features).reshape(len(choices), -1)
    pairs = zip(action.reshape(-1), logits, choices, strict=True)
    probabilities = [scipy.special.softmax(row[:size])[int(choice)] for choice, row, size in pairs]
    return float(np.log(probabilities).sum())


VALIDATED = {"validate_args": True}
STATE_DEPENDENT = {"std": "state_dependent"}

HEADS: list[HeadCase] = [
    HeadCase("bernoulli", Bernoulli, "discrete_2", {}, bernoulli_log_prob),
    HeadCase("bernoulli", Bernoulli, "discrete_2_start", {}, bernoulli_log_prob),
    HeadCase("bernoulli", Bernoulli, "multi_binary", {}, bernoulli_log_prob),
    HeadCase("bernoulli", Bernoulli, "multi_binary_2d", {"validate_args": True}, bernoulli_log_prob),
    HeadCase("categorical", Categorical, "discrete", {}, categorical_log_prob),
    HeadCase("categorical", Categorical, "discrete_1", {}, categorical_log_prob),
    HeadCase("categorical", Categorical, "discrete_start", {"validate_args": True}, categorical_log_prob),
    HeadCase("categorical", Categorical, "multi_discrete", {}, categorical_log_prob),
    HeadCase("categorical", Categorical, "multi_discrete_uneven", {"validate_args": True}, categorical_log_prob),
    HeadCase("categorical", Categorical, "multi_discrete_start", {}, categorical_log_prob),
    HeadCase("categorical", Categorical, "multi_discrete_2d", {}, categorical_log_prob),
    HeadCase("normal", Normal, "box", {}, references.normal),
    HeadCase("normal", Normal, "box", {"mean": "unbounded"}, partial(references.normal, squash=False)),
    HeadCase("normal", Normal, "box_scalar", {"mean": "unbounded"}, partial(references.normal, squash=False)),
    HeadCase("normal", Normal, "box_2d", {"std": "state_dependent"}, references.normal),
    HeadCase("normal", Normal, "box_uneven", {"validate_args": True}, references.normal),
    HeadCase("normal", Normal, "box_float64", {"initial_std": 0.1}, references.normal),
    HeadCase("normal", Normal, "box_unbounded", {"std": "state_dependent"}, references.normal),
    HeadCase("normal", Normal, "box_one_sided", {"mean": "bounded"}, references.normal),
    HeadCase("normal", Normal, "box_partly_bounded", {"mean": "bounded"}, references.normal),
    HeadCase("normal_rsample", Normal, "box", {}, references.normal),
    HeadCase("laplace", Laplace, "box", {}, references.laplace),
    HeadCase("laplace", Laplace, "box_uneven", {"validate_args": True}, references.laplace),
    HeadCase("laplace", Laplace, "box_unbounded", {"std": "state_dependent"}, references.laplace),
    HeadCase("laplace", Laplace, "box_scalar", {"mean": "unbounded"}, partial(references.laplace, squash=False)),
    HeadCase("student_t", StudentT, "box", {}, references.student_t),
    HeadCase("student_t", StudentT, "box_2d", {"df": 2.5, "std": "state_dependent"}, references.student_t),
    HeadCase("student_t", StudentT, "box_partly_bounded", {"validate_args": True}, references.student_t),
    HeadCase(
        "student_t",
        StudentT,
        "box_scalar",
        {"df": 30.0, "mean": "unbounded"},
        partial(references.student_t, squash=False),
    ),
    HeadCase("multivariate_normal", MultivariateNormal, "box", {}, references.multivariate_normal),
    HeadCase("multivariate_normal", MultivariateNormal, "box_scalar", {}, references.multivariate_normal),
    HeadCase("multivariate_normal", MultivariateNormal, "box_partly_bounded", {}, references.multivariate_normal),
    HeadCase("multivariate_normal", MultivariateNormal, "box_2d", STATE_DEPENDENT, references.multivariate_normal),
    HeadCase("multivariate_normal", MultivariateNormal, "box_uneven", VALIDATED, references.multivariate_normal),
    HeadCase("low_rank_normal", LowRankNormal, "box", {}, references.low_rank_normal),
    HeadCase("low_rank_normal", LowRankNormal, "box_scalar", {"rank": 2}, references.low_rank_normal),
    HeadCase("low_rank_normal", LowRankNormal, "box_unbounded", {}, references.low_rank_normal),
    HeadCase("low_rank_normal", LowRankNormal, "box_2d", {"rank": 2, **STATE_DEPENDENT}, references.low_rank_normal),
    HeadCase("low_rank_normal", LowRankNormal, "box_uneven", VALIDATED, references.low_rank_normal),
    HeadCase("mixture_normal", MixtureNormal, "box", {}, references.mixture_normal, "other"),
    HeadCase("mixture_normal", MixtureNormal, "box_scalar", {"components": 2}, references.mixture_normal, "other"),
    HeadCase("mixture_normal", MixtureNormal, "box_2d", STATE_DEPENDENT, references.mixture_normal, "other"),
    HeadCase("mixture_normal", MixtureNormal, "box_uneven", VALIDATED, references.mixture_normal, "other"),
    HeadCase("mixture_normal", MixtureNormal, "box_one_sided", {"components": 1}, references.mixture_normal),
    HeadCase("tanh_normal", TanhNormal, "box", {}, references.tanh_normal, "median"),
    HeadCase("tanh_normal", TanhNormal, "box_scalar", STATE_DEPENDENT, references.tanh_normal, "median"),
    HeadCase("tanh_normal", TanhNormal, "box_uneven", VALIDATED, references.tanh_normal, "median"),
    HeadCase("tanh_normal", TanhNormal, "box_2d", {}, references.tanh_normal, "median"),
    HeadCase("tanh_normal", TanhNormal, "box_float64", {}, references.tanh_normal, "median"),
    HeadCase("truncated_normal", TruncatedNormal, "box", {}, references.truncated_normal),
    HeadCase("truncated_normal", TruncatedNormal, "box_scalar", STATE_DEPENDENT, references.truncated_normal),
    HeadCase("truncated_normal", TruncatedNormal, "box_uneven", VALIDATED, references.truncated_normal),
    HeadCase("truncated_normal", TruncatedNormal, "box_2d", {}, references.truncated_normal),
    HeadCase("truncated_normal", TruncatedNormal, "box_float64", {}, references.truncated_normal),
    HeadCase("beta", Beta, "box", {}, references.beta, "mean"),
    HeadCase("beta", Beta, "box_scalar", {}, references.beta, "mean"),
    HeadCase("beta", Beta, "box_uneven", VALIDATED, references.beta, "mean"),
    HeadCase("beta", Beta, "box_2d", {}, references.beta, "mean"),
    HeadCase("beta", Beta, "box_float64", {}, references.beta, "mean"),
    HeadCase("kumaraswamy", Kumaraswamy, "box", {}, references.kumaraswamy, "median"),
    HeadCase("kumaraswamy", Kumaraswamy, "box_scalar", {}, references.kumaraswamy, "median"),
    HeadCase("kumaraswamy", Kumaraswamy, "box_uneven", VALIDATED, references.kumaraswamy, "median"),
    HeadCase("kumaraswamy", Kumaraswamy, "box_2d", {}, references.kumaraswamy, "median"),
    HeadCase("kumaraswamy", Kumaraswamy, "box_float64", {}, references.kumaraswamy, "median"),
    HeadCase("von_mises", VonMises, "box_angle", {}, references.von_mises),
    HeadCase("von_mises", VonMises, "box", {"initial_concentration": 50.0}, references.von_mises),
    HeadCase("von_mises", VonMises, "box_scalar", {"concentration": "state_dependent"}, references.von_mises),
    HeadCase("von_mises", VonMises, "box_uneven", VALIDATED, references.von_mises),
    HeadCase("von_mises", VonMises, "box_2d", {}, references.von_mises),
    HeadCase("von_mises", VonMises, "box_float64", {}, references.von_mises),
    HeadCase("von_mises", VonMises, "box_unbounded", {}, references.von_mises),
    HeadCase("binomial", Binomial, "discrete", {}, references.binomial_log_prob),
    HeadCase("binomial", Binomial, "discrete_start", {"validate_args": True}, references.binomial_log_prob),
    HeadCase("binomial", Binomial, "box_integer", {}, references.binomial_log_prob),
    HeadCase("binomial", Binomial, "counts_uneven", {}, references.binomial_log_prob),
    HeadCase("poisson", Poisson, "discrete", {}, references.poisson_log_prob),
    HeadCase("poisson", Poisson, "discrete_start", {"validate_args": True}, references.poisson_log_prob),
    HeadCase("poisson", Poisson, "box_integer", {}, references.poisson_log_prob),
    HeadCase("poisson", Poisson, "counts_uneven", {"validate_args": True}, references.poisson_log_prob),
    HeadCase("dirichlet", Dirichlet, "shares", {}, references.dirichlet_log_prob, "mean"),
    HeadCase("dirichlet", Dirichlet, "shares", {"validate_args": True}, references.dirichlet_log_prob, "mean"),
]

# Heads whose samples are not shaped like their space: weights over choices, and rows of a tree of spaces.
OTHER_HEADS: list[HeadCase] = [
    HeadCase("relaxed_bernoulli", RelaxedBernoulli, "discrete_2"),
    HeadCase("relaxed_bernoulli", RelaxedBernoulli, "discrete_2_start", {"temperature": 2.0, "validate_args": True}),
    HeadCase("relaxed_categorical", RelaxedCategorical, "discrete"),
    HeadCase("relaxed_categorical", RelaxedCategorical, "discrete_2", {"temperature": 2.0, "validate_args": True}),
    HeadCase("one_hot_straight_through", OneHotStraightThrough, "discrete"),
    HeadCase("one_hot_straight_through", OneHotStraightThrough, "discrete_2", {"validate_args": True}),
    HeadCase("product", Product, "dict"),
    HeadCase("product", Product, "tuple", {"validate_args": True}),
    HeadCase("product", Product, "tree"),
    HeadCase("product", Product, "tuple_of_boxes"),
    HeadCase("product", Product, "tuple_beyond_float32"),
]


@dataclass(frozen=True)
class DynamicsCase:
    """A torch environment of conf/env."""

    option: str  # of conf/env
    dynamics: type[AbstractDynamics]
    kwargs: dict[str, Any] = field(default_factory=dict)


DYNAMICS: list[DynamicsCase] = [
    DynamicsCase("lqr", LQR, {"dim": 1}),
    DynamicsCase("lqr", LQR, {"dim": 3, "horizon": 20}),
    DynamicsCase("pendulum_torch", Pendulum),
    DynamicsCase("pendulum_discrete_torch", Pendulum, {"torques": 4}),
    DynamicsCase("cartpole_torch", CartPole),
    DynamicsCase("acrobot_torch", Acrobot),
    DynamicsCase("mountain_car_torch", MountainCar),
    DynamicsCase("mountain_car_continuous_torch", MountainCarContinuous),
    DynamicsCase("cartpole_swingup_torch", CartPoleSwingUp),
    DynamicsCase("double_integrator", LQR, {"dim": 1, "coupling": 0.0}),
]

# Torch dynamics and the Gymnasium environment that each equals step for step: one line for each `original`.
TWINS: list[tuple[type[AbstractDynamics], str]] = [
    (Pendulum, "Pendulum-v1"),
    (CartPole, "CartPole-v1"),
    (Acrobot, "Acrobot-v1"),
    (MountainCar, "MountainCar-v0"),
    (MountainCarContinuous, "MountainCarContinuous-v0"),
]

# Originals that keep their state in float32: a twin can equal them only to that.
ROUNDED_ORIGINALS = {"MountainCarContinuous-v0"}

# Random states of a twin reach as far as this to both sides; 3 where no line says otherwise.
TWIN_STATES: dict[str, np.ndarray] = {
    "CartPole-v1": np.array([2.6, 3.0, 0.25, 3.0]),
    "Pendulum-v1": np.array([7.0, 8.0]),
    "Acrobot-v1": np.array([np.pi, np.pi, 4 * np.pi, 9 * np.pi]),
    "MountainCar-v0": np.array([1.2, 0.07]),
    "MountainCarContinuous-v0": np.array([1.2, 0.07]),
}

# option of conf/estimator, class, options that every generic test tries
ESTIMATORS: list[tuple[str, type[AbstractEstimator], dict[str, Any]]] = [
    ("score_function", ScoreFunction, {}),
    ("score_function", ScoreFunction, {"normalize_returns": "none"}),
    ("score_function", ScoreFunction, {"credit": "total_return", "entropy_coefficient": 0.1}),
    ("score_function", ScoreFunction, {"discount_steps": True}),
    ("score_function", ScoreFunction, {"normalize_returns": "episode"}),
    ("score_function", ScoreFunction, {"normalize_returns": "running"}),
    ("score_function_unbiased", ScoreFunction, {"normalize_returns": "none", "discount_steps": True}),
    ("pathwise", Pathwise, {"window": 3}),
    ("pathwise_episode", Pathwise, {"window": None}),
    ("straight_through", StraightThrough, {"window": 3}),
    ("straight_through", StraightThrough, {"temperature": 0.7, "window": None}),
    ("gumbel_softmax", GumbelSoftmax, {"temperature": 0.7, "window": 3}),
    ("measure_valued", MeasureValued, {}),
    ("alpha_order", AlphaOrder, {}),
    ("alpha_order", AlphaOrder, {"tolerance": 1e6, "delta": 0.1}),
    ("ddcg", DDCG, {}),
    ("ivw_h", IVWH, {"window": 3}),
    ("ivw_h", IVWH, {"window": None}),
]


def _value(observation_shape: tuple[int, ...]) -> Value:
    return Value(observation_shape, lambda parameters: torch.optim.Adam(parameters, 0.003), hidden_sizes=(16,))


def _gae(observation_shape: tuple[int, ...]) -> GAE:
    return GAE(observation_shape, lambda parameters: torch.optim.Adam(parameters, 0.003), hidden_sizes=(16,))


# option of conf/baseline, class, observation shape -> an instance
BASELINES: list[tuple[str, type[AbstractBaseline], Callable[[tuple[int, ...]], AbstractBaseline]]] = [
    ("none", NoBaseline, lambda shape: NoBaseline()),
    ("constant", Constant, lambda shape: Constant(1.5)),
    ("batch_mean", BatchMean, lambda shape: BatchMean()),
    ("batch_mean", BatchMean, lambda shape: BatchMean(correction=True)),
    ("leave_one_out", LeaveOneOut, lambda shape: LeaveOneOut()),
    ("time_mean", TimeMean, lambda shape: TimeMean()),
    ("moving_average", MovingAverage, lambda shape: MovingAverage()),
    ("optimal_constant", OptimalConstant, lambda shape: OptimalConstant()),
    ("self_critical", SelfCritical, lambda shape: SelfCritical()),
    ("value", Value, _value),
    ("gae", GAE, _gae),
]
