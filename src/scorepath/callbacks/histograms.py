"""Histograms in TensorBoard: what the policy's distribution is told, what its actions were worth, and the gradient."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.distributions import Distribution

from scorepath.module import AbstractObserver, PolicyGradient
from scorepath.types import Episodes
from scorepath.update import Weighed


class Histograms(AbstractObserver):
    """Writes `histograms/*` of every K-th update to TensorBoard, without touching what is learned.

    - `histograms/NAME`: each parameter of the distributions that the episodes were played with (`probs`, `loc`, ...);
    - `histograms/advantages`: of all steps, as they weigh the update;
    - `histograms/gradient/LAYER`: the entries of each parameter's gradient, as the optimizer took it: after clipping,
      and of the last window where an update has several.

    The main process shows its own episodes. An update that is shown costs about as much again as its forward pass.

    Args:
        every_updates: K.

    Raises:
        ValueError: for a K below 1.
    """

    def __init__(self, every_updates: int = 25) -> None:
        if every_updates < 1:
            raise ValueError(f"{every_updates=}: at least 1.")
        self.every_updates = every_updates
        self._collected: dict[str, Tensor] = {}

    def is_due(self, update_index: int) -> bool:
        return update_index % self.every_updates == 0

    def observe(self, module: PolicyGradient, episodes: Episodes, weighed: Weighed, window: int) -> dict[str, Tensor]:
        with torch.no_grad(), torch.random.fork_rng():
            dist = module.policy(episodes.observations[episodes.valid])
        self._collected = parameters_of(dist) | {"advantages": weighed.advantages[episodes.valid]}
        return {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._collected:
            return
        gradients = {
            f"gradient/{name}": parameter.grad
            for name, parameter in module.policy.named_parameters()
            if parameter.grad is not None
        }
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                for name, values in (self._collected | gradients).items():
                    logger.experiment.add_histogram(f"histograms/{name}", values.detach(), module.env_steps)
        self._collected = {}


def parameters_of(dist: Distribution) -> dict[str, Tensor]:
    """The parameters of a distribution by their names in torch; of one made of others, theirs, numbered if in a row."""
    found = {}
    for name in dist.arg_constraints:
        if name == "logits" and "probs" in dist.arg_constraints:
            continue  # which say the same
        value = getattr(dist, name, None)
        if isinstance(value, Tensor):
            found[name] = value
    inner = (vars(dist).get(name) for name in ("base_dist", "_component_distribution", "_mixture_distribution"))
    for part in inner:
        if isinstance(part, Distribution):
            found = parameters_of(part) | found
    for number, part in enumerate(getattr(dist, "parts", ())):
        found |= {f"{number}/{name}": value for name, value in parameters_of(part).items()}
    return found
