"""Baselines: what is subtracted from the returns to lower the variance of the gradient."""

from scorepath.baselines.base import AbstractBaseline, MakeOptimizer
from scorepath.baselines.means import BatchMean, Constant, LeaveOneOut, MovingAverage, NoBaseline, TimeMean
from scorepath.baselines.optimal_constant import OptimalConstant
from scorepath.baselines.self_critical import SelfCritical
from scorepath.baselines.value import GAE, AbstractValueBaseline, Value

__all__ = [
    "GAE",
    "AbstractBaseline",
    "AbstractValueBaseline",
    "BatchMean",
    "Constant",
    "LeaveOneOut",
    "MakeOptimizer",
    "MovingAverage",
    "NoBaseline",
    "OptimalConstant",
    "SelfCritical",
    "TimeMean",
    "Value",
]
