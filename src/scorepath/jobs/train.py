"""One training run: from a composed config to a complete run directory."""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scorepath.config import nearest
from scorepath.errors import ConfigError
from scorepath.jobs.outcome import reported
from scorepath.run.console import outlive_consoles
from scorepath.run.directory import check_writable, forget_other_tasks, holds_run, is_main_process
from scorepath.run.lock import locked
from scorepath.run.reading import check_run_folder
from scorepath.run.summary import Summary

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
    _check(cfg, directory)
    with locked(directory):
        return _train(cfg, directory)


def _check(cfg: DictConfig, directory: Path) -> None:
    """What can be refused before anything is read, logged, written or imported."""
    check_run_folder(directory)
    check_writable(directory)
    if holds_run(directory) and cfg.resume is None:
        raise ConfigError(
            f"{directory} already holds a run, which is never written over: continue it with resume=auto, or "
            "choose another folder with hydra.run.dir (in a sweep: sweep=NAME)."
        )
    if cfg.objective not in _OBJECTIVES:
        near = nearest(cfg.objective, _OBJECTIVES) or _OBJECTIVES[0]
        raise ConfigError(f"objective={cfg.objective} is no number of summary.json: did you mean {near}?")


def _train(cfg: DictConfig, directory: Path) -> float | None:
    summary = Summary(seed=cfg.seed)
    with reported(summary, cfg, directory):
        # Imported here, so that what is refused above costs half a second: this one takes torch
        from scorepath.build import make_parts  # noqa: PLC0415

        parts = make_parts(cfg, HydraConfig.get().runtime.choices)

        # and this one Lightning, seconds more
        from scorepath.jobs.run import run  # noqa: PLC0415

        run(cfg, directory, parts, summary)
    return getattr(summary, cfg.objective)
