"""Gradient estimators: Episodes and advantages -> the surrogate loss, whose gradient is the estimate."""

from scorepath.estimators.base import AbstractEstimator, Surrogate, surrogate_loss
from scorepath.estimators.pathwise import Pathwise
from scorepath.estimators.score_function import ScoreFunction

__all__ = ["AbstractEstimator", "Pathwise", "ScoreFunction", "Surrogate", "surrogate_loss"]
