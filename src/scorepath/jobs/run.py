"""One run from its parts: Lightning's Trainer, the fit, the final evaluation, and what is shown of them."""

import contextlib
import logging
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scorepath import garbage
from scorepath.build import Parts, make_environment
from scorepath.callbacks import explain_refusal
from scorepath.dashboards.run import show_start
from scorepath.envs import AbstractEnvironment
from scorepath.jobs.config_tree import config_tree
from scorepath.jobs.finish import RecordEvaluations, final_evaluation, finish_dashboard
from scorepath.jobs.outcome import write_summary
from scorepath.jobs.report import report_line, report_table
from scorepath.jobs.resume import has_ended, load_run
from scorepath.jobs.trainer import make_callbacks, make_loggers, make_trainer
from scorepath.module import PolicyGradient
from scorepath.run.allocator import keep_freed_memory
from scorepath.run.changes import OF_THE_COMMAND
from scorepath.run.digest import weights_sha256
from scorepath.run.directory import check_room
from scorepath.run.evaluation_log import EvaluationLog
from scorepath.run.files import write_text
from scorepath.run.processes import Companions
from scorepath.run.restore import check_progress
from scorepath.run.schedule import Schedule
from scorepath.run.signals import Signals
from scorepath.run.summary import Summary
from scorepath.sweeps.names import key_of

log = logging.getLogger("scorepath")

_PATIENCE = 60.0  # seconds that a step may take before a run that is to stop is taken for hung
_WIDE = 512  # episodes; below, one thread is faster than several that wait for each other


def run(cfg: DictConfig, directory: Path, parts: Parts, summary: Summary) -> None:
    """Trains and evaluates, writes everything but the summary, and fills that in."""
    summary.gradient_bias, summary.irreproducible = parts.labels
    module = make_module(cfg, parts)
    with contextlib.closing(module):  # however it ends, no environment's process is left
        # weights and what an optimizer keeps of them, twice as much at most
        check_room(directory, 3 * sum(tensor.nbytes for tensor in module.state_dict().values()))
        _set_machine(cfg, summary.irreproducible)
        resumed = load_run(cfg, directory, module)
        garbage.resume()
        signals = Signals(directory, cfg.env.get("step_timeout") or _PATIENCE, module.progress)
        chosen = make_callbacks(cfg)
        threshold = parts.judge.known.reward_threshold
        schedule = Schedule(cfg.max_env_steps, threshold, cfg.stop_when_solved, signals, chosen.values())
        many = HydraConfig.get().mode == RunMode.MULTIRUN
        evaluations = EvaluationLog(cfg.max_env_steps, many, chosen.values())
        pictures = [RecordEvaluations(cfg, parts.judge)] if cfg.record_episode == "evaluations" else []
        trainer = make_trainer(
            cfg, [*chosen.values(), evaluations, *pictures, schedule], make_loggers(cfg, directory, module), module
        )
        if resumed is not None:
            check_progress(trainer, *resumed)
        ended = resumed is not None and has_ended(cfg, module, schedule, *resumed)
        with signals, Companions(directory) as companions:
            _announce(cfg, directory, trainer, module, summary)
            started, steps_before = time.perf_counter(), module.env_steps
            try:
                if not ended:
                    _fit(trainer, module, None if resumed is None else resumed[0], companions, chosen)
            finally:
                companions.part()
                seconds = time.perf_counter() - started
                summary.env_steps = module.env_steps
                summary.updates = module.update_index
                summary.episodes = module.episodes
                summary.train_seconds = round(seconds, 3)
                summary.env_steps_per_second = round((module.env_steps - steps_before) / seconds, 1)
                summary.solved_at_env_steps = schedule.solved_at_env_steps
                summary.weights_sha256 = weights_sha256(module.policy)
            with signals.heard_at_once():
                final_evaluation(cfg, module, summary)
            summary.status = "solved" if schedule.solved else "completed"
            if trainer.is_global_zero:
                _report(summary, directory, many, evaluations.best)
                # A driver that crashes while it draws takes the process with it. What is done is marked last.
                write_summary(replace(summary, status="interrupted"), directory)
                finish_dashboard(cfg, trainer, module, parts.judge, summary)
            signals.check()


def make_module(cfg: DictConfig, parts: Parts) -> PolicyGradient:
    """The LightningModule around the parts."""
    return PolicyGradient(
        make_env=partial(_make_training_environment, cfg),
        make_eval_env=partial(parts.judge.environment, cfg.eval.episodes),
        policy=parts.policy,
        estimator=parts.estimator,
        baseline=parts.baseline,
        make_optimizer=parts.make_optimizer,
        lr_schedule=parts.lr_schedule,
        max_env_steps=cfg.max_env_steps,
        gamma=cfg.gamma,
        chunk=cfg.chunk,
        max_grad_norm=cfg.max_grad_norm,
        log_every_n_updates=cfg.trainer.log_every_n_steps,
        seed=cfg.seed,
        eval_episodes=cfg.eval.episodes,
        eval_deterministic=cfg.eval.deterministic,
        # unresolved: the values of environment variables must not be in a file that others may get
        config=OmegaConf.to_container(cfg, resolve=False),  # type: ignore[arg-type]
    )


def _make_training_environment(cfg: DictConfig, device: torch.device) -> AbstractEnvironment:
    env = make_environment(cfg.env, cfg.episodes_per_update, device)
    if cfg.compile:
        env.compile()
    return env


def _set_machine(cfg: DictConfig, irreproducible: list[str]) -> None:
    """Memory and threads of this process."""
    if cfg.keep_memory:
        keep_freed_memory()
    if cfg.threads is not None or cfg.episodes_per_update < _WIDE:
        torch.set_num_threads(cfg.threads or 1)
    elif (threads := torch.get_num_threads()) > 1:
        irreproducible.append(
            f"so many episodes are summed up by one thread a core, of which there are {threads} here "
            f"(threads={threads} keeps it so elsewhere)"
        )


def _announce(cfg: DictConfig, directory: Path, trainer: pl.Trainer, module: PolicyGradient, summary: Summary) -> None:
    """Writes down what is about to be trained, and what its labels are."""
    if trainer.is_global_zero:
        _save_config(cfg, directory)
        if cfg.print_config:
            for line in config_tree(cfg, HydraConfig.get().runtime.choices):
                log.info("%s", line)
    show_start(trainer.loggers, _texts(cfg, summary), module.env_steps)
    for label in summary.gradient_bias or ():
        log.info("The gradient is biased: %s.", label)
    for label in summary.irreproducible or ():
        log.info("The run cannot be repeated exactly: %s.", label)


def _texts(cfg: DictConfig, summary: Summary) -> dict[str, str]:
    """What the dashboard's Text tab says of a run."""
    # as it was written: the values of environment variables must not be in a file that others may get
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    told = [text for text in overrides if key_of(text) not in OF_THE_COMMAND]
    texts = {
        "config": f"```yaml\n{OmegaConf.to_yaml(cfg)}\n```",
        "command": f"`python scripts/train.py {shlex.join(told)}`",
        "gradient_bias": "\n".join(
            f"- {label}" for label in summary.gradient_bias or ["none: the gradient is unbiased"]
        ),
    }
    if summary.irreproducible:
        texts["irreproducible"] = "\n".join(f"- {label}" for label in summary.irreproducible)
    return texts


def _report(summary: Summary, directory: Path, many: bool, best: float | None) -> None:
    lines = [report_line(summary, directory)] if many else report_table(summary, directory, best)
    for line in lines:
        log.info("%s", line)


def _save_config(cfg: DictConfig, directory: Path) -> None:
    """Hydra's own three files; Hydra would write them before a folder that holds a run can be refused."""
    hydra_cfg = HydraConfig.get()
    target = directory / ".hydra"
    target.mkdir(exist_ok=True)
    write_text(target / "config.yaml", OmegaConf.to_yaml(cfg))
    write_text(target / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_cfg})))
    write_text(target / "overrides.yaml", OmegaConf.to_yaml(hydra_cfg.overrides.task))


def _fit(
    trainer: pl.Trainer,
    module: PolicyGradient,
    checkpoint: Path | None,
    companions: Companions,
    chosen: Mapping[str, pl.Callback],
) -> None:
    """Trains; what a lost process or a callback's refusal raises is one sentence."""
    try:
        companions.launched_by(trainer)
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except Exception as error:
        explained = explain_refusal(companions.explain(error), chosen)
        if explained is error:
            raise
        raise explained from error
