"""The end of a training run: the figure that may be reported, and the last entries of the dashboard."""

import logging
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scorepath.build import Judge
from scorepath.module import PolicyGradient
from scorepath.run import dashboard, recording
from scorepath.run.directory import is_main_process
from scorepath.run.intervals import return_ci95
from scorepath.run.summary import Summary
from scorepath.seeding import Stream, derive_seed, seed_torch

log = logging.getLogger("scorepath")


def final_evaluation(cfg: DictConfig, module: PolicyGradient, summary: Summary) -> None:
    """Episodes that no stopping rule has seen: the figure that may be reported."""
    with torch.no_grad():
        module.eval()
        evaluation = module.evaluate(Stream.FINAL_ENVIRONMENT, Stream.FINAL_ACTION, cfg.eval.episodes)
    summary.eval_return_mean, summary.eval_return_ci95 = return_ci95(evaluation, warn=is_main_process())
    summary.eval_episodes = len(evaluation.returns)


def finish_dashboard(
    cfg: DictConfig, trainer: pl.Trainer, module: PolicyGradient, judge: Judge, summary: Summary
) -> None:
    """The GIF and the HParams row, and all loggers on disk."""
    if cfg.record_episode:
        _record(cfg, trainer, module, judge)
    groups = ("env", "dist", "estimator", "baseline", "policy", "optimizer", "lr_schedule")
    names = HydraConfig.get().runtime.choices
    hparams: dict[str, Any] = {group: str(names.get(group)) for group in groups}
    hparams |= {key: cfg[key] for key in ("seed", "gamma", "episodes_per_update")} | {"lr": cfg.optimizer.lr}
    metrics: dict[str, Any] = {"final/return_mean": summary.eval_return_mean, "final/env_steps": summary.env_steps}
    dashboard.show_hparams(trainer.loggers, hparams, metrics, module.env_steps)
    for logger in trainer.loggers:
        logger.finalize("success")


def _record(cfg: DictConfig, trainer: pl.Trainer, module: PolicyGradient, judge: Judge) -> None:
    if not trainer.loggers:
        return
    try:
        env = judge.drawable()
        seed_torch(cfg.seed, Stream.FINAL_ACTION, index=module.update_index)
        stride = max(1, round(env.render_fps / recording.GIF_FPS))
        seed = derive_seed(cfg.seed, Stream.FINAL_ENVIRONMENT, index=1)
        frames, _ = recording.record_episode(env, module.policy.cpu(), seed, stride=stride)
        fps = env.render_fps / stride
        env.close()
    except Exception as error:  # a machine without OpenGL or pygame must not lose the run for a picture
        log.warning("No picture of an episode: %s", str(error).split("\n", 1)[0])
        return
    if frames:
        dashboard.show_gif(trainer.loggers, *recording.encode_gif(frames, fps), module.env_steps)
