"""Going on from a checkpoint: which one, whether it is this run's, and whether anything is left to do."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from scorepath.config import leaves
from scorepath.errors import ConfigError

if TYPE_CHECKING:
    from scorepath.module import PolicyGradient

log = logging.getLogger("scorepath")
# keys of `env` that a resumed run may change: how it is stepped, not what it is
_STEPPING = {"env.vectorization", "env.workers", "env.step_timeout", "env.restarts", "env.reward_threshold"}
_STEPPING |= {"env.reward_range"}


def load_run(
    cfg: DictConfig, directory: Path, module: "PolicyGradient"
) -> tuple[Path, dict[str, Any]] | tuple[None, None]:
    """Finds and checks the checkpoint to resume from, and sets what is needed before `fit` loads it."""
    from scorepath.run.checkpoints import read_newest  # noqa: PLC0415

    found = read_newest(cfg.resume, directory)
    if found is None:
        if cfg.resume is not None:
            log.info("resume=%s: %s holds no checkpoint, so the run starts from the beginning.", cfg.resume, directory)
        return None, None
    path, checkpoint = found
    _check_same_run(module, checkpoint, path)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    return path, checkpoint


def _check_same_run(module: "PolicyGradient", checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses a checkpoint of other networks or another seed, before anything is touched."""
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    differing = sorted(name for name in {*own, *saved} if own.get(name) != saved.get(name))
    if differing:
        name = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ConfigError(
            f"{path} does not fit this config: {name} has shape {saved.get(name, 'none')} there and "
            f"{own.get(name, 'none')} here{more}; resume with the env, dist, policy and baseline it was trained with."
        )
    there, here = leaves(checkpoint["scorepath"]["config"]), leaves(module.config)
    changed = sorted(key for key in {*there, *here} - _STEPPING if there.get(key) != here.get(key))
    if changed:
        lines = ", ".join(
            f"{key} was {there.get(key, 'absent')} and is {here.get(key, 'absent')}" for key in changed[:3]
        )
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"{path} is of another run: {lines}{more}. Resume with the env, dist and policy it was trained with."
        )
    if checkpoint["scorepath"]["seed"] != module.seed:
        raise ConfigError(f"{path} was trained with seed={checkpoint['scorepath']['seed']}: resume with that seed.")


def is_finished(cfg: DictConfig, module: "PolicyGradient", stopping: Any) -> bool:
    """Whether a resumed run had reached its end, so that nothing is left to fit."""
    solved = cfg.stop_when_solved and stopping.solved_at_env_steps is not None
    return module.env_steps >= cfg.max_env_steps or solved
