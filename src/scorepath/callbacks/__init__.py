"""Lightning callbacks: when to evaluate, progress, and diagnostics of the gradient."""

from scorepath.callbacks.evaluation import NEVER, EvaluateEvery
from scorepath.callbacks.foreign import check_callbacks, explain_refusal, log_on_env_steps
from scorepath.callbacks.gradient_diagnostics import GradientDiagnostics
from scorepath.callbacks.progress import Progress

__all__ = [
    "NEVER",
    "EvaluateEvery",
    "GradientDiagnostics",
    "Progress",
    "check_callbacks",
    "explain_refusal",
    "log_on_env_steps",
]
