"""Lightning callbacks: evaluation, stopping, progress."""

from scorepath.callbacks.evaluation import NEVER, EvaluateEvery, Stopping
from scorepath.callbacks.progress import Progress

__all__ = ["NEVER", "EvaluateEvery", "Progress", "Stopping"]
