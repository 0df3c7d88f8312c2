"""Whether a policy acts, and a run can continue, from what a checkpoint holds: tried before anything is written."""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from scorepath.envs import AbstractEnvironment
from scorepath.errors import ConfigError, ScorepathError
from scorepath.module import PolicyGradient
from scorepath.policy import Policy

_VERSION = re.compile(r"[2-9]\.\d+(\.\d+)*((a|b|rc)\d+)?(\.(dev|post)\d+)?(\+[\w.]+)?")  # PEP 440


def check_policy(policy: Policy, env: AbstractEnvironment, path: Path) -> None:
    """Refuses a checkpoint whose policy gives no actions.

    Args:
        policy: with the weights of the checkpoint.
        env: that it acts in; it is reset.
        path: of the checkpoint, for messages.

    Raises:
        ConfigError: with what is the matter.
    """
    observations = env.reset(0)
    with _refusing("a policy that gives no actions", path), torch.no_grad(), torch.random.fork_rng(devices=[]):
        _check_finite(policy)
        for name, buffer in policy.named_buffers():
            if buffer.isnan().any():
                raise ValueError(f"{name} is not a number")
        action = policy.head.to_env(policy(observations).sample())
        if not torch.isfinite(action).all():
            raise ValueError("they are not finite")


def check_optimizers(module: PolicyGradient, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses states of optimizers that the next step would stumble over: takes one, without a gradient.

    Args:
        module: with the weights of the checkpoint, which it has again afterwards.
        checkpoint: its content.
        path: of it, for messages.

    Raises:
        ConfigError: with what is the matter.
    """
    with _refusing("states of optimizers that this run cannot continue with", path):
        states = checkpoint["optimizer_states"]
        for optimizer, state in zip(module.configure_optimizers(), states, strict=True):
            optimizer.load_state_dict(state)
            for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            optimizer.zero_grad()
        _check_finite(module)
    module.load_state_dict(checkpoint["state_dict"])


def check_progress(trainer: pl.Trainer, path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuses what Lightning and the callbacks could not continue with: loads it, as they will.

    Args:
        trainer: of the run, fresh.
        path: of the checkpoint, for messages.
        checkpoint: its content.

    Raises:
        ConfigError: with what is the matter.
    """
    with _refusing("counters of Lightning's that this run cannot continue with", path):
        if not _VERSION.fullmatch(checkpoint["pytorch-lightning_version"]):  # of older ones, it rewrites what it finds
            raise ValueError("they are of no version of Lightning's that runs are trained with")
        if checkpoint["lr_schedulers"] != []:
            raise ValueError("there is a schedule of learning rates")
        found = checkpoint["loops"]["fit_loop"]
        if not isinstance(found, dict):
            raise ValueError(f"they are {found!r:.40}")
        for name, fresh in trainer.fit_loop.state_dict().items():
            if name in found:  # or it is of another version, as Lightning has it
                _compare(found[name], fresh, name)
        trainer.fit_loop.load_state_dict(found)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = checkpoint["callbacks"].get(callback.state_key)
        if state:
            with _refusing(f"a state of {callback.state_key} that this run cannot continue with", path):
                callback.load_state_dict(copy.deepcopy(state))


def _compare(found: Any, fresh: Any, name: str) -> None:
    """Raises ValueError where counters differ from those of a fresh run in more than their numbers."""
    if isinstance(fresh, dict) and isinstance(found, dict):
        for key, value in found.items():
            _compare(value, fresh.get(key), f"{name}.{key}")
    elif type(found) is not type(fresh) or (isinstance(found, int) and not 0 <= found < 2**63):
        raise ValueError(f"{name} is {found!r:.40}")


def _check_finite(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{name} is not finite")


@contextlib.contextmanager
def _refusing(what: str, path: Path) -> Iterator[None]:
    """Whatever trying raises, as one sentence."""
    try:
        yield
    except ScorepathError:
        raise
    except Exception as error:  # made by anybody, so of any type
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConfigError(f"{path} has {what} ({type(error).__name__}: {reason:.200}): choose another.") from error
