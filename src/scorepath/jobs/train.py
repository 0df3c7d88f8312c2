"""One training run: from a composed config to a complete run directory."""

import contextlib
import errno
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scorepath import garbage
from scorepath.config import nearest
from scorepath.errors import ConfigError, InterruptedRunError, OutputError, ScorepathError
from scorepath.jobs.resume import has_ended, load_run
from scorepath.run.console import outlive_consoles
from scorepath.run.directory import (
    check_room,
    check_writable,
    forget_other_tasks,
    holds_run,
    is_main_process,
    write_json,
)
from scorepath.run.files import write_text
from scorepath.run.lock import locked
from scorepath.run.reading import check_run_folder
from scorepath.run.redaction import Redaction

if TYPE_CHECKING:
    from scorepath.module import PolicyGradient

log = logging.getLogger("scorepath")

_SUMMARY = (
    "status",
    "seed",
    "env_steps",
    "updates",
    "episodes",
    "train_seconds",
    "total_seconds",
    "env_steps_per_second",
    "eval_return_mean",
    "eval_return_ci95",
    "eval_episodes",
    "solved_at_env_steps",
    "weights_sha256",
    "gradient_bias",
    "irreproducible",
    "versions",
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # of a disk, a user, a file
_WIDE = 512  # episodes; below, one thread is faster than several that wait for each other
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
    if is_main_process():
        check_run_folder(directory)  # before anything is read, logged or written
        check_writable(directory)
        if holds_run(directory) and cfg.resume is None:
            raise ConfigError(
                f"{directory} already holds a run, which is never written over: continue it with resume=auto, or "
                "choose another folder with hydra.run.dir (in a sweep: sweep=NAME)."
            )
        if cfg.objective not in _OBJECTIVES:
            near = nearest(cfg.objective, _OBJECTIVES) or _OBJECTIVES[0]
            raise ConfigError(f"objective={cfg.objective} is no number of summary.json: did you mean {near}?")
    else:
        log.setLevel(logging.WARNING)  # or each line stands there once a process
    with locked(directory) if is_main_process() else contextlib.nullcontext():
        return _train_and_tell(cfg, directory)


def _train_and_tell(cfg: DictConfig, directory: Path) -> float | None:
    """Trains, and writes the summary however it ends."""
    summary: dict[str, Any] = dict.fromkeys(_SUMMARY) | {"status": "failed", "seed": cfg.seed}
    harmless = holds_run(directory)  # a refusal leaves a run that is there as it was
    redaction = Redaction(OmegaConf.to_yaml(cfg))
    for handler in logging.getLogger().handlers:
        handler.addFilter(redaction)
    try:
        objective = _train(cfg, directory, summary)
        harmless = False
    except ConfigError as error:
        summary["error"] = redaction.text(str(error))
        raise
    except BaseException as error:
        harmless = False
        told = _explain(error, cfg, directory)
        if not isinstance(error, InterruptedRunError):
            summary["error"] = redaction.text(str(told)) or type(told).__name__
        elif summary["status"] == "failed":  # and not ended by itself, just before
            summary["status"] = "interrupted"
        with contextlib.suppress(OSError):
            _log_to_file(f"{summary['status']}: {told}")
        if told is error:
            raise
        raise told from error
    finally:
        if is_main_process() and not harmless:
            from scorepath.run.summary import seconds_since_process_start, versions  # noqa: PLC0415

            summary["total_seconds"] = round(seconds_since_process_start(), 3)
            summary["versions"] = versions()
            try:
                write_json(directory / "summary.json", summary)
            except OSError as error:
                if summary["status"] in ("solved", "completed"):
                    raise OutputError(directory / "summary.json", error) from error
    return objective


def _explain(error: BaseException, cfg: DictConfig, directory: Path) -> BaseException:
    """The same error, or one sentence for what a machine has too little of."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return ScorepathError(
            f"There was not enough memory: lower chunk={cfg.chunk} or choose estimator.log_probs=again, with which a "
            f"run that has a checkpoint goes on by resume={directory}; or begin one of fewer "
            f"episodes_per_update={cfg.episodes_per_update}."
        )
    if isinstance(error, OSError):
        path = Path(error.filename if isinstance(error.filename, str) else directory)
        if error.errno in _NO_ROOM or (error.filename and path.absolute().is_relative_to(directory.absolute())):
            return OutputError(path, error)
    return error


def _log_to_file(message: str) -> None:
    """Into train.log alone: the terminal gets the error from whoever catches it."""
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _train(cfg: DictConfig, directory: Path, summary: dict[str, Any]) -> float | None:
    # Imports stand in the functions, so that a refused config costs half a second and not five
    from scorepath.build import make_module  # noqa: PLC0415

    names = HydraConfig.get().runtime.choices
    module, labels = make_module(cfg, names)
    summary.update(labels._asdict())
    with contextlib.closing(module):  # however it ends, no environment's process is left
        return _train_module(cfg, names, module, directory, summary)


def _train_module(
    cfg: DictConfig, names: Mapping[str, str], module: "PolicyGradient", directory: Path, summary: dict[str, Any]
) -> float | None:
    import torch  # noqa: PLC0415

    # weights and what an optimizer keeps of them, twice as much at most
    check_room(directory, 3 * sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values()))

    from scorepath.run.allocator import keep_freed_memory  # noqa: PLC0415

    if cfg.keep_memory:
        keep_freed_memory()
    if cfg.threads is not None or cfg.episodes_per_update < _WIDE:
        torch.set_num_threads(cfg.threads or 1)
    elif (threads := torch.get_num_threads()) > 1:
        summary["irreproducible"].append(
            f"so many episodes are summed up by one thread a core, of which there are {threads} here "
            f"(threads={threads} keeps it so elsewhere)"
        )

    from scorepath.callbacks import explain_refusal  # noqa: PLC0415
    from scorepath.jobs.finish import final_evaluation, finish_dashboard, report  # noqa: PLC0415
    from scorepath.jobs.trainer import make_trainer  # noqa: PLC0415
    from scorepath.run.dashboard import show_config  # noqa: PLC0415
    from scorepath.run.processes import Companions  # noqa: PLC0415
    from scorepath.run.restore import check_progress  # noqa: PLC0415
    from scorepath.run.summary import weights_sha256  # noqa: PLC0415

    resumed = load_run(cfg, directory, module)
    garbage.resume()
    trainer, chosen, stopping, stop_signal = make_trainer(cfg, directory, module)
    if resumed is not None:
        check_progress(trainer, *resumed)
    ended = resumed is not None and has_ended(cfg, module, stopping, *resumed)
    with stop_signal, Companions(directory) as companions:
        if trainer.is_global_zero:
            _save_config(cfg, directory)
        show_config(trainer.loggers, OmegaConf.to_yaml(cfg), module.env_steps)
        for label in summary["gradient_bias"]:
            log.info("The gradient is biased: %s.", label)
        for label in summary["irreproducible"]:
            log.info("The run cannot be repeated exactly: %s.", label)
        started, steps_before = time.perf_counter(), module.env_steps
        try:
            if not ended:
                companions.launched_by(trainer)
                trainer.fit(module, ckpt_path=None if resumed is None else resumed[0], weights_only=True)
        except Exception as error:
            told = explain_refusal(companions.explain(error), chosen)
            if told is error:
                raise
            raise told from error
        finally:
            companions.part()
            seconds = time.perf_counter() - started
            summary.update(
                env_steps=module.env_steps,
                updates=module.update_index,
                episodes=module.episodes,
                train_seconds=round(seconds, 3),
                env_steps_per_second=round((module.env_steps - steps_before) / seconds, 1),
                solved_at_env_steps=stopping.solved_at_env_steps,
                weights_sha256=weights_sha256(module.policy),
            )
        stop_signal.check()
        stop_signal.at_once = True
        final_evaluation(cfg, module, summary)
        stop_signal.at_once = False
        solved = cfg.stop_when_solved and stopping.solved_at_env_steps is not None
        summary["status"] = "solved" if solved else "completed"
        if trainer.is_global_zero:
            finish_dashboard(cfg, trainer, module, names, summary)
            log.info("%s", report(summary, directory))
        stop_signal.check()
    return summary[cfg.objective]


def _save_config(cfg: DictConfig, directory: Path) -> None:
    """Hydra's own three files; Hydra would write them before a folder that holds a run can be refused."""
    hydra_cfg = HydraConfig.get()
    target = directory / ".hydra"
    target.mkdir(exist_ok=True)
    write_text(target / "config.yaml", OmegaConf.to_yaml(cfg))
    write_text(target / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_cfg})))
    write_text(target / "overrides.yaml", OmegaConf.to_yaml(hydra_cfg.overrides.task))
