"""One-step environments whose reward jumps, where the pathwise derivative is blind (Suh et al. 2022, 2202.00817)."""

import math

import torch
from torch import Tensor

from scorepath.envs.dynamics.one_step import AbstractOneStep


class Heaviside(AbstractOneStep):
    """f(x) = 1 for x >= 0, else 0 (Suh et al. 2022, example 3.3). Its derivative is 0 but where it jumps."""

    name = "Heaviside"
    discontinuities = "the reward jumps at x = 0"
    breaks = (0.0,)

    def payoff(self, x: Tensor) -> Tensor:
        return (x >= 0.0).to(x) + 0.0 * x  # the second term carries the graph, whose derivative is 0


class BallWithWall(AbstractOneStep):
    """Throw a ball at angle x; it flies its full range if it clears the wall, and drops at the wall if not.

    f(x) = v² sin(2x) / g, or the wall's distance (Suh et al. 2022, section 3, the ball with a wall). Below angle 0 and
    above π/2 it does not fly.

    Args:
        offset: the angle at action 0, in rad.
        speed: v, m/s.
        distance, height: of the wall, m.
        gravity: g, m/s².

    Raises:
        ValueError: if no angle clears the wall.
    """

    discontinuities = "the reward jumps where the ball just clears the wall"

    def __init__(
        self,
        offset: float = 0.8,
        speed: float = 5.0,
        distance: float = 1.5,
        height: float = 0.75,
        gravity: float = 9.81,
        bound: float | None = None,
    ) -> None:
        super().__init__(offset, bound)
        self.name = "ball with wall"
        self.speed, self.distance, self.height, self.gravity = speed, distance, height, gravity
        # height at the wall d tan x - g d² (1 + tan² x) / 2v² = h, a quadratic in tan x
        drop = gravity * distance**2 / (2.0 * speed**2)
        discriminant = distance**2 - 4.0 * drop * (drop + height)
        if discriminant <= 0.0:
            raise ValueError(f"no throw of {speed:g} m/s clears a wall {height:g} m high, {distance:g} m away.")
        low, high = ((distance + sign * math.sqrt(discriminant)) / (2.0 * drop) for sign in (-1.0, 1.0))
        landing = 0.5 * math.asin(min(1.0, gravity * distance / speed**2))  # shorter throws end before the wall
        self.clears = (math.atan(low), math.atan(high))
        self.breaks = (0.0, landing, *self.clears, math.pi / 2 - landing, math.pi / 2)

    def payoff(self, x: Tensor) -> Tensor:
        angle = x.clamp(0.0, math.pi / 2)
        reach = self.speed**2 / self.gravity * (2.0 * angle).sin()
        low, high = self.clears
        cleared = (angle > low) & (angle < high)
        return torch.where(cleared, reach, reach.clamp(max=self.distance))
