"""Baselines: what is subtracted from the returns to lower the variance of the gradient."""

from scorepath.baselines.base import AbstractBaseline, MakeOptimizer
from scorepath.baselines.means import BatchMean, NoBaseline, TimeMean
from scorepath.baselines.value import Value

__all__ = ["AbstractBaseline", "BatchMean", "MakeOptimizer", "NoBaseline", "TimeMean", "Value"]
