"""The end of a training run: the figure that may be reported, and the last entries of the dashboard."""

import copy
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scorepath.build import Judge
from scorepath.dashboards.run import show_gif, show_hparams
from scorepath.dashboards.tabs import hparams_of, keys_of
from scorepath.intervals import return_ci95
from scorepath.module import PolicyGradient
from scorepath.run import recording
from scorepath.run.directory import is_main_process
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
    """The HParams row and then the GIF, whose driver may crash, and all loggers on disk."""
    command = HydraConfig.get()
    # unresolved: the values of environment variables must not be in a file that others may get
    config: Any = OmegaConf.to_container(cfg, resolve=False)
    overrides: Any = OmegaConf.to_container(command.overrides.task, resolve=False)
    hparams = hparams_of(config, command.runtime.choices, keys_of(overrides))
    name = Path(command.runtime.output_dir).name
    show_hparams(trainer.loggers, name, hparams, _results(summary), module.env_steps)
    if cfg.record_episode is True:  # else there is one of the last evaluation
        record(cfg, trainer, module, judge)
    for logger in trainer.loggers:
        logger.finalize("success")


def _results(summary: Summary) -> dict[str, float]:
    """Those that there are, by the names of `dashboards.tabs.METRICS`."""
    low, high = summary.eval_return_ci95 or (None, None)
    results = {
        "final/return_mean": summary.eval_return_mean,
        "final/return_low": low,
        "final/return_high": high,
        "final/env_steps": summary.env_steps,
        "final/env_steps_per_second": summary.env_steps_per_second,
        "final/solved_at_env_steps": summary.solved_at_env_steps,
    }
    return {name: value for name, value in results.items() if value is not None}


class RecordEvaluations(pl.Callback):
    """A GIF after each evaluation, for `record_episode=evaluations`."""

    def __init__(self, cfg: DictConfig, judge: Judge) -> None:
        self._cfg, self._judge = cfg, judge

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        if trainer.is_global_zero:
            with torch.random.fork_rng():
                record(self._cfg, trainer, module, self._judge)


def record(cfg: DictConfig, trainer: pl.Trainer, module: PolicyGradient, judge: Judge) -> None:
    """An episode with the policy as it is, as a GIF in TensorBoard; a warning where none can be drawn."""
    if not trainer.loggers:
        return
    try:
        env = judge.drawable()
        seed_torch(cfg.seed, Stream.FINAL_ACTION, index=module.update_index)
        stride = max(1, round(env.render_fps / recording.GIF_FPS))
        seed = derive_seed(cfg.seed, Stream.FINAL_ENVIRONMENT, index=1)
        frames, _ = recording.record_episode(env, copy.deepcopy(module.policy).cpu(), seed, stride=stride)
        fps = env.render_fps / stride
        env.close()
    except Exception as error:  # a machine without OpenGL or pygame must not lose the run for a picture
        log.warning("No picture of an episode: %s", str(error).split("\n", 1)[0])
        return
    if frames:
        show_gif(trainer.loggers, *recording.encode_gif(frames, fps), module.env_steps)
