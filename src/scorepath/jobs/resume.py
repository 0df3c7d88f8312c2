"""Going on from a checkpoint: which one, whether it is this run's, and whether anything is left to do."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from scorepath.build import make_environment
from scorepath.config import leaves
from scorepath.errors import ConfigError
from scorepath.module import PolicyGradient
from scorepath.run.changes import OF_THE_COMMAND, difference_of
from scorepath.run.checkpoints import read_newest
from scorepath.run.restore import check_optimizers, check_policy
from scorepath.run.schedule import Schedule

log = logging.getLogger("scorepath")

_WHOLE_CONFIG = 3  # format of checkpoints from which on they hold the whole config, and not three groups of it
# What a resumed run may change: a key, or all keys below one. Everything else that differs makes it another run.
_MAY_CHANGE = (
    *("max_env_steps", "stop_when_solved", "env.reward_threshold"),  # when it ends
    *("eval", "record_episode", "env.reward_range", "logger", "callbacks", "objective"),  # what is reported
    *(*OF_THE_COMMAND, "trainer.log_every_n_steps", "trainer.profiler", "trainer.detect_anomaly"),
    *("env.vectorization", "env.workers", "env.step_timeout", "env.restarts"),  # how environments are stepped
    *("chunk", "threads", "keep_memory", "compile", "estimator.log_probs", "trainer.accelerator"),  # and computed
)
_LEARNING = ("optimizer.lr", "lr_schedule", "baseline.make_optimizer.lr")  # and these, while it learns


def load_run(cfg: DictConfig, directory: Path, module: PolicyGradient) -> tuple[Path, dict[str, Any]] | None:
    """Finds and checks the checkpoint to resume from, and sets what is needed before `fit` loads it."""
    found = read_newest(cfg.resume, directory)
    if found is None:
        if cfg.resume is not None:
            log.info("resume=%s: %s holds no checkpoint, so the run starts from the beginning.", cfg.resume, directory)
        return None
    path, checkpoint = found
    _check_same_run(module, checkpoint, path)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    with closing(make_environment(cfg.env, 1)) as env:
        check_policy(module.policy, env, path)
    check_optimizers(module, checkpoint, path)
    return found


def _check_same_run(module: PolicyGradient, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses a checkpoint of another run, before anything is touched."""
    saved = checkpoint["scorepath"]
    there, here = leaves(saved["config"]), leaves(module.config)
    if saved["format"] < _WHOLE_CONFIG:
        here = {key: value for key, value in here.items() if key.partition(".")[0] in saved["config"]}
        here["seed"], there["seed"] = module.seed, saved["seed"]
    differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
    changed = [key for key in differing if not _is_below(key, (*_MAY_CHANGE, *_LEARNING))]
    if changed:
        raise ConfigError(
            f"{path} is of another run: {difference_of(changed, there, here)}. Resume with what it was trained with, "
            "or begin a run in another folder, without resume."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    saved_shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    misfits = sorted(name for name in {*shapes, *saved_shapes} if shapes.get(name) != saved_shapes.get(name))
    if misfits:
        name = misfits[0]
        more = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        raise ConfigError(
            f"{path} does not fit this config: {name} has shape {saved_shapes.get(name, 'none')} there and "
            f"{shapes.get(name, 'none')} here{more}; resume with what it was trained with."
        )


def _is_below(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def has_ended(
    cfg: DictConfig, module: PolicyGradient, schedule: Schedule, path: Path, checkpoint: Mapping[str, Any]
) -> bool:
    """Whether the run of a checkpoint, which `schedule` has loaded, had reached its end: nothing is left to learn.

    Raises:
        ConfigError: for a run that has, if how it learns was changed: its config would describe a
            training that never took place.
    """
    ended = module.env_steps >= cfg.max_env_steps or schedule.solved
    there, here = leaves(checkpoint["scorepath"]["config"]), leaves(module.config)
    changed = [key for key in there if _is_below(key, (*_LEARNING, "max_env_steps")) and there[key] != here.get(key)]
    if ended and changed:
        raise ConfigError(
            f"{path} is of a run that has reached its end after {module.env_steps:,} env steps, so that it would not "
            f"learn by what has changed: {difference_of(changed, there, here)}. Raise max_env_steps above its steps "
            "(and, of one that is solved, set stop_when_solved=false) to train on, or leave them as they were."
        )
    log.info("Resuming from %s at %s env steps.", path, f"{module.env_steps:,}")
    return ended
