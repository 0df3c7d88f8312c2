"""One training run: from a composed config to a complete run directory."""

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scorepath.config import nearest
from scorepath.errors import ConfigError
from scorepath.jobs.outcome import reported
from scorepath.run.changes import config_sha256
from scorepath.run.console import outlive_consoles
from scorepath.run.directory import check_writable, forget_other_tasks, holds_run, is_main_process
from scorepath.run.lock import locked
from scorepath.run.reading import check_run_folder
from scorepath.run.summary import Summary
from scorepath.sweeps.job import of_sweep
from scorepath.sweeps.state import settled

log = logging.getLogger("scorepath")

_OBJECTIVES = (
    "eval_return_mean",
    "env_steps",
    "updates",
    "episodes",
    "train_seconds",
    "env_steps_per_second",
    "solved_at_env_steps",
)


def train(cfg: DictConfig) -> float | None:
    """Trains, evaluates and writes the run directory.

    Returns:
        The summary's value of `objective`, for sweepers.

    Raises:
        ConfigError: for a config that was refused before the first rollout.
        InterruptedRunError: after SIGINT, SIGTERM or SIGHUP, with everything saved.
    """
    outlive_consoles()
    directory = Path(HydraConfig.get().runtime.output_dir)
    if cfg.trainer.devices == cfg.trainer.get("num_nodes", 1) == 1:
        forget_other_tasks()
    if not is_main_process():
        log.setLevel(logging.WARNING)  # or each line is printed once by each process
        return _train(cfg, directory)
    in_sweep = of_sweep()
    _check(cfg, directory, in_sweep)
    with locked(directory):
        if in_sweep:
            summary = settled(directory, cfg.retry_failed)  # by another process, just now
            if summary is not None:
                return summary.get(cfg.objective)
            log.info("%s", directory.name)
            cfg.resume = cfg.resume or ("auto" if holds_run(directory) else None)
        return _train(cfg, directory)


def _check(cfg: DictConfig, directory: Path, in_sweep: bool) -> None:
    """What can be refused before anything is read, logged, written or imported."""
    check_run_folder(directory)
    check_writable(directory)
    if holds_run(directory) and cfg.resume is None and not in_sweep:
        raise ConfigError(
            f"{directory} already holds a run, which is never written over: continue it with resume=auto, or "
            "choose another folder with hydra.run.dir."
        )
    check_objective(cfg.objective)


def check_objective(name: str) -> None:
    """Refuses what is no number of summary.json."""
    if name not in _OBJECTIVES:
        near = nearest(name, _OBJECTIVES) or _OBJECTIVES[0]
        raise ConfigError(f"objective={name} is no number of summary.json: did you mean {near}?")


def _train(cfg: DictConfig, directory: Path) -> float | None:
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    summary = Summary(seed=cfg.seed, config_sha256=config_sha256(plain))
    with reported(summary, cfg, directory):
        # Imported here, so that what is refused above costs half a second: this one takes torch
        from scorepath.build import make_parts  # noqa: PLC0415

        parts = make_parts(cfg, HydraConfig.get().runtime.choices)

        # and this one Lightning, seconds more
        from scorepath.jobs.run import run  # noqa: PLC0415

        run(cfg, directory, parts, summary)
    return getattr(summary, cfg.objective)
