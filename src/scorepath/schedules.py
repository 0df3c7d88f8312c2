"""Learning-rate schedules: progress through the env-step budget, in [0, 1] -> factor on the learning rate."""


def constant(progress: float) -> float:
    """1."""
    return 1.0


def linear(progress: float, final: float = 0.0) -> float:
    """From 1 to `final` in a straight line."""
    return 1.0 + progress * (final - 1.0)
