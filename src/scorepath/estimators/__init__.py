"""Gradient estimators: Episodes and advantages -> the surrogate loss, whose gradient is the estimate."""

from scorepath.estimators.alpha_order import AlphaOrder
from scorepath.estimators.base import (
    AbstractEstimator,
    gradient_bias,
)
from scorepath.estimators.ddcg import DDCG
from scorepath.estimators.gradients import per_episode_gradients
from scorepath.estimators.ivw_h import IVWH
from scorepath.estimators.measure_valued import MeasureValued
from scorepath.estimators.pathwise import Pathwise
from scorepath.estimators.relaxed import GumbelSoftmax, StraightThrough
from scorepath.estimators.score_function import ScoreFunction

__all__ = [
    "DDCG",
    "IVWH",
    "AbstractEstimator",
    "AlphaOrder",
    "GumbelSoftmax",
    "MeasureValued",
    "Pathwise",
    "ScoreFunction",
    "StraightThrough",
    "gradient_bias",
    "per_episode_gradients",
]
