"""One job of a sweep: its errors stay its own, and its folder says how it ended."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scorepath.errors import ConfigError, InterruptedRunError, InUseError, ScorepathError, SweepInterruptedError
from scorepath.run.directory import holds_run, write_json
from scorepath.run.printing import describe
from scorepath.run.reading import check_run_folder
from scorepath.run.redaction import Redaction
from scorepath.sweeps.stopping import follow_parent

SWEEPER = "hydra_plugins.scorepath_plugins.ScorepathSweeper"


def of_sweep() -> bool:
    """Whether this is a job of our sweeper, whose folder may hold a part of it."""
    job = HydraConfig.get()
    return job.mode == RunMode.MULTIRUN and job.sweeper.get("_target_") == SWEEPER


def run_job(cfg: DictConfig, job: Callable[[DictConfig], Any], show_traceback: bool) -> Any:
    """Runs one job; prints what is wrong with it, and writes it into a folder that has no run in it.

    Args:
        cfg: composed.
        job: config -> what a sweeper optimises.
        show_traceback: also of a user's mistake.

    Raises:
        ScorepathError: one sentence, which another process can be handed.
        SweepInterruptedError: if a signal ended it.
    """
    follow_parent()
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_run_folder(directory, of_sweep=True)
        return job(cfg)
    except InUseError:
        return None  # another process has it, which is no failure
    except InterruptedRunError as error:
        # without its remedy: it is the sweep that continues
        raise SweepInterruptedError(str(error).partition(";")[0], error.exit_code) from error
    except Exception as error:
        sentence = Redaction(OmegaConf.to_yaml(cfg)).text(str(error)) or type(error).__name__
        _write_failure(directory, sentence)
        print(describe(error, show_traceback), file=sys.stderr)
        raise ScorepathError(sentence) from None


def _write_failure(directory: Path, sentence: str) -> None:
    """A summary for a job that was refused before it wrote its own; nothing that is there is written over."""
    try:
        check_run_folder(directory, of_sweep=True)
    except ConfigError:
        return  # which is the failure: nothing is written through a link
    if not holds_run(directory):
        write_json(directory / "summary.json", {"status": "failed", "error": sentence})
