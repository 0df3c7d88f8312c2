"""Lightning callbacks: when to evaluate, progress, diagnostics of the gradient, and histograms."""

from scorepath.callbacks.evaluation import NEVER, EvaluateEvery
from scorepath.callbacks.foreign import check_callbacks, explain_refusal, log_on_env_steps
from scorepath.callbacks.gradient_diagnostics import GradientDiagnostics
from scorepath.callbacks.histograms import Histograms
from scorepath.callbacks.progress import Progress

__all__ = [
    "NEVER",
    "EvaluateEvery",
    "GradientDiagnostics",
    "Histograms",
    "Progress",
    "check_callbacks",
    "explain_refusal",
    "log_on_env_steps",
]
