"""Exact gradients, and the statistics that compare estimators with them."""

from scorepath.verify.check import Report, check
from scorepath.verify.expectation import ActionGrid, action_grid
from scorepath.verify.problem import AbstractProblem
from scorepath.verify.problems import HybridProblem, LQRProblem, MixedProblem, OneStepProblem, TabularProblem
from scorepath.verify.samples import gradient_samples, warm_up
from scorepath.verify.statistics import Hotelling, batches_needed, cosine, detectable_bias, hotelling, power

__all__ = [
    "AbstractProblem",
    "ActionGrid",
    "Hotelling",
    "HybridProblem",
    "LQRProblem",
    "MixedProblem",
    "OneStepProblem",
    "Report",
    "TabularProblem",
    "action_grid",
    "batches_needed",
    "check",
    "cosine",
    "detectable_bias",
    "gradient_samples",
    "hotelling",
    "power",
    "warm_up",
]
