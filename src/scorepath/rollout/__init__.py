"""Environment x policy x seed -> Episodes."""

from scorepath.rollout.episodes import (
    ActingRule,
    act,
    act_by_rsample,
    check_finite,
    rollout,
    rollout_windows,
    windows_from,
)
from scorepath.rollout.evaluation import Evaluation, evaluate
from scorepath.rollout.lanes import Lanes

__all__ = [
    "ActingRule",
    "Evaluation",
    "Lanes",
    "act",
    "act_by_rsample",
    "check_finite",
    "evaluate",
    "rollout",
    "rollout_windows",
    "windows_from",
]
