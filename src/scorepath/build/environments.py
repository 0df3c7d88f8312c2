"""Config -> environments: those that train, and those of problems."""

import contextlib
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from scorepath.envs import AbstractEnvironment
from scorepath.errors import ConfigError, ScorepathError
from scorepath.sources import Sources


def construct(node: Any, what: str, **arguments: Any) -> Any:
    """Instantiates a config node; what its constructor refuses reaches the user as one sentence.

    Raises:
        ConfigError: with the constructor's words and the group it belongs to.
    """
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ScorepathError):
            raise cause from None
        words = str(cause or error) or repr(cause)  # an AssertionError has none
        reason = " ".join(words.split("\nfull_key", 1)[0].split())
        raise ConfigError(f"{what} was refused: {reason}") from error


def make_environment(node: DictConfig, num_episodes: int, device: torch.device | str = "cpu") -> AbstractEnvironment:
    """The training environment of `conf/env`."""
    return construct(node, "env", num_episodes=num_episodes, device=device)


def problem_environments() -> dict[str, AbstractEnvironment]:
    """Every option of `problem`, ours and the user's, as an override, and its environment; without those that cannot be
    built.
    """
    sources, found = Sources.of_job(), {}
    for option in sources.options("problem"):
        with contextlib.suppress(Exception):
            override = f"problem={option}"
            found[override] = construct(sources.compose([override])["problem"], override).env(1)
    return found
