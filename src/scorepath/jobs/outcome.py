"""How a training run ends, however it does: its summary, and one sentence for what a machine has too little of."""

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from scorepath.errors import ConfigError, InterruptedRunError, OutputError, ScorepathError, SweepInterruptedError
from scorepath.run.directory import holds_run, is_main_process, write_json
from scorepath.run.printing import log_to_file
from scorepath.run.redaction import Redaction
from scorepath.run.summary import Summary, seconds_since_process_start, versions
from scorepath.sweeps.stopping import is_worker

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # of a disk, a user, a file


@contextlib.contextmanager
def reported(summary: Summary, cfg: DictConfig, directory: Path) -> Iterator[None]:
    """Writes the summary of what is run inside, however it ends; a refusal leaves a run that is there as it was."""
    harmless = holds_run(directory)
    redaction = Redaction(OmegaConf.to_yaml(cfg))
    for handler in logging.getLogger().handlers:
        handler.addFilter(redaction)
    try:
        yield
        harmless = False
    except ConfigError as error:
        summary.error = redaction.text(str(error))
        raise
    except BaseException as error:
        harmless = False
        # a launcher's worker leaves by SystemExit, also in the middle of a job, which is not at fault
        leaving = isinstance(error, SystemExit) and is_worker()
        explained = error if leaving else _explain(error, cfg, directory)
        if not (leaving or isinstance(error, InterruptedRunError | SweepInterruptedError | KeyboardInterrupt)):
            summary.error = redaction.text(str(explained)) or type(explained).__name__
        elif summary.status == "failed":  # and not ended by itself, just before
            summary.status = "interrupted"
        with contextlib.suppress(OSError):
            log_to_file(f"{summary.status}: {explained}")
        if explained is error:
            raise
        raise explained from error
    finally:
        if is_main_process() and not harmless:
            try:
                write_summary(summary, directory)
            except OSError as error:
                if summary.status in ("solved", "completed"):
                    raise OutputError(directory / "summary.json", error) from error


def write_summary(summary: Summary, directory: Path) -> None:
    """summary.json, as it stands."""
    summary.total_seconds = round(seconds_since_process_start(), 3)
    summary.versions = versions()
    write_json(directory / "summary.json", summary.content())


def _explain(error: BaseException, cfg: DictConfig, directory: Path) -> BaseException:
    """The same error, or one sentence for what a machine has too little of."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return ScorepathError(
            f"There was not enough memory: lower chunk={cfg.chunk} or choose estimator.log_probs=again, with which a "
            f"run that has a checkpoint continues by resume={directory}; or begin one of fewer "
            f"episodes_per_update={cfg.episodes_per_update}."
        )
    if isinstance(error, SystemExit):
        return ScorepathError(
            f"sys.exit({error.code!r}) was called while the run was at work, by its environment or a callback: have it "
            "raise an error that says what is wrong."
        )
    if isinstance(error, OSError):
        path = Path(error.filename if isinstance(error.filename, str) else directory)
        if error.errno in _NO_ROOM or (error.filename and path.absolute().is_relative_to(directory.absolute())):
            return OutputError(path, error)
    return error
