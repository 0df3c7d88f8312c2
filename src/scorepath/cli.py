"""What the scripts share: errors as sentences, exit codes, and the table at the end of a sweep."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from scorepath import garbage
from scorepath.config import check_config, leaves
from scorepath.errors import ConfigError, InterruptedRunError, ScorepathError
from scorepath.explain import check_text, explain
from scorepath.run.console import Console, consoles, outlive_consoles
from scorepath.run.directory import claim, holds_run, is_main_process, unwritable, write_json
from scorepath.run.printing import escape, escape_lines
from scorepath.run.reading import check_run_folder, check_sweep_folder
from scorepath.run.redaction import Redaction
from scorepath.run.sweep import (
    Plan,
    format_sweep,
    identity,
    is_another_job,
    job_name,
    key_of,
    plan_sweep,
    read_sweep,
    record_overrides,
)
from scorepath.sources import CONF, Sources, split_jobs

_FULL_ERROR = "HYDRA_FULL_ERROR"
_DONE = ("solved", "completed")  # statuses of a job with a result

# Registered on import, for the workers of a parallel launcher need them too
OmegaConf.register_new_resolver("claim", claim, use_cache=True, replace=True)
OmegaConf.register_new_resolver("folder", lambda _root_: _folder(_root_), replace=True)
OmegaConf.register_new_resolver("jobs", lambda _root_: _plan(_root_).jobs, replace=True)


def main(config_name: str, job: Callable[[DictConfig], Any]) -> None:
    """Runs a job under Hydra; a user's mistake ends it with one sentence and exit code 2, other failures with 1.

    Args:
        config_name: of the primary config in `conf`.
        job: composed config -> what a sweeper optimises, or None.
    """
    with consoles():
        _main(config_name, job)


def _main(config_name: str, job: Callable[[DictConfig], Any]) -> None:
    garbage.postpone()
    # GNU OpenMP's threads spin for milliseconds by default: two runs at a time would slow each other 100 times
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    sys.excepthook = _print_traceback
    show_traceback = os.environ.get(_FULL_ERROR, "0") not in ("", "0")
    os.environ[_FULL_ERROR] = "1"  # so that Hydra hands its errors to us instead of printing them

    failed: list[Exception] = []
    SweepTable.begun = None

    def task(cfg: DictConfig) -> Any:
        try:
            _record_job()
            _check_values(cfg)
            return job(cfg)
        except Exception as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                failed.append(error)  # raised below: Hydra would print a line of its own before ours
            elif isinstance(error, InterruptedRunError):
                _end(f"{error}{_left(cfg.sweep)}", error.exit_code)
            else:
                # One failing job does not end a sweep; the table at its end, and its exit code, show it
                _write_failure(Redaction(OmegaConf.to_yaml(cfg)).text(str(error)))
                print(_describe(error, show_traceback), file=sys.stderr)
            return None

    # a folder of options that is not there: Hydra would only say so, and continue
    warnings.filterwarnings("error", message="provider=.* is not available", category=UserWarning)
    try:
        for text in (os.getcwd(), *sys.argv[1:]):
            check_text(text)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()
        if failed:
            raise failed[0]
    except BrokenPipeError:
        if Console.outlived:
            raise  # of something else
        os._exit(141)  # as the shell has it for SIGPIPE: `--help | head` is no error
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except Exception as error:
        if show_traceback and is_main_process():  # whose own setting reaches the others of a distributed run
            raise
        if isinstance(error, InterruptedRunError) and not is_main_process():
            sys.exit(error.exit_code)  # the main process says it for all
        if isinstance(error, ScorepathError):
            _end(str(error), error.exit_code)
        if failed:
            raise  # an error of the job that is not the user's
        if isinstance(error, OSError) and error.errno is not None:  # Hydra's errors are OSErrors without one
            _end(unwritable(Path(error.filename or "."), error), ConfigError.exit_code)
        if SweepTable.begun is not None and not isinstance(error, HydraException | OmegaConfBaseException):
            _end(_explain_loss(error, SweepTable.begun), 1)
        # anything else came from reading the command line
        _end(explain(error, config_name, sys.argv[1:]), ConfigError.exit_code)
    finally:
        garbage.skip_last()


def _explain_loss(error: Exception, config: DictConfig) -> str:
    """The table of a sweep whose launcher has ended before its jobs, and one sentence about them."""
    done = [row["job"] for row in _print_sweep(config) if row["status"] in _DONE]
    left = [job for job in _plan(config).jobs if job not in done]
    return (
        f"a process of the launcher was lost ({type(error).__name__}), as when it is killed or memory runs out. Of "
        f"{len(_plan(config).jobs)} jobs these are not done: {'; '.join(left)}. The same command with "
        f"sweep={config.sweep} resume=auto continues with them; fewer at a time (hydra.launcher.n_jobs) need less "
        "memory."
    )


def _left(sweep: str) -> str:
    """Which jobs of a sweep are not done after the one that is running was stopped."""
    job: Any = HydraConfig.get()
    jobs = DictConfig({"jobs": "${jobs:}"}, parent=job).jobs
    return (
        f". Of {len(jobs)} jobs these are left, the first of them begun: {'; '.join(jobs[job.job.num :])}. The same "
        f"command with sweep={sweep} resume=auto continues with them."
    )


def _plan(root: DictConfig) -> Plan:
    """The names of a sweep's jobs: made from the sweep's own config, and kept where Hydra keeps its starting time.

    So each job has the plan that its sweep began with, also in a process of a launcher's.
    """
    kept = OmegaConf.get_cache(root)
    if "plan" in kept:
        return kept["plan"]
    params = root.hydra.sweeper.get("params") or {}
    arguments = [*(f"{key}={value}" for key, value in params.items()), *root.hydra.overrides.task]
    parsed = OverridesParser.create().parse_overrides(arguments)
    swept = {str(override.key_or_group) for override in parsed if override.is_sweep_override()}
    ignored = list(root.hydra.job.config.override_dirname.exclude_keys)
    kept["plan"] = plan_sweep(Path(root.hydra.sweep.dir), split_jobs(arguments), swept, ignored)
    return kept["plan"]


def _folder(root: DictConfig) -> str:
    """The name of a job's folder."""
    plan = _plan(root)
    ignored = list(root.hydra.job.config.override_dirname.exclude_keys)
    overrides = [text for text in root.hydra.overrides.task if key_of(text) not in ignored]
    key = identity(overrides)
    name = plan.names.get(key) or job_name(overrides, plan.varying)
    # another sweep of the same name may have begun since the plan was made
    return f"{name}_{key[:8]}" if is_another_job(Path(root.hydra.sweep.dir, name), overrides, ignored) else name


def _record_job() -> None:
    """Marks a folder of a sweep as this job's before anything can go wrong."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        directory = Path(HydraConfig.get().runtime.output_dir)
        check_run_folder(directory, of_sweep=True)
        try:
            record_overrides(directory, HydraConfig.get().overrides.task)
        except OSError as error:
            raise ConfigError(unwritable(directory, error)) from error


def _print_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Of what nobody has caught, as Python does it, but escaped."""
    print(escape_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def _describe(error: Exception, show_traceback: bool) -> str:
    if isinstance(error, ScorepathError) and not show_traceback:
        return f"scorepath: {escape(str(error))}"
    return escape_lines("".join(traceback.format_exception(error)))


def _write_failure(sentence: str) -> None:
    """A summary for a job that was refused before it wrote its own; nothing that is there is written over."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_run_folder(directory, of_sweep=True)
    except ConfigError:
        return  # which is the failure: nothing is written through a link
    if not holds_run(directory):
        write_json(directory / "summary.json", {"status": "failed", "error": sentence})


def _end(sentence: str, exit_code: int) -> None:
    sys.stdout.flush()
    print(f"scorepath: {escape(sentence)}", file=sys.stderr)
    sys.exit(exit_code)


def _check_values(cfg: DictConfig) -> None:
    """Types and ranges, against the same choices of options with no value overridden."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value: give {error.full_key}=... on the command line.") from error
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    for text in (HydraConfig.get().runtime.output_dir, *leaves(plain).values()):
        check_text(str(text))
    sources = Sources.of_job()
    choices = [text for text in sources.overrides if sources.is_choice(text) and not text.startswith("~")]
    alone = set(HydraConfig.get().overrides.task) <= set(choices)
    check_config(plain, plain if alone else sources.compose(choices, resolve=True))


class SweepTable(Callback):
    """Names a sweep's jobs, prints their results at its end, and sets the exit code if one has failed."""

    begun: ClassVar[DictConfig | None] = None  # the config of a sweep that has begun in this process

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        outlive_consoles()  # the launcher's processes may be others
        try:
            check_sweep_folder(Path(config.hydra.sweep.dir), _plan(config).jobs)
        except ConfigError as error:
            _end(str(error), error.exit_code)  # Hydra would only warn of an exception, and continue
        SweepTable.begun = config

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        rows = _print_sweep(config)
        failed = [row["job"] for row in rows if row["status"] not in _DONE]
        if failed:
            print(
                f"scorepath: {len(failed)} of {len(rows)} jobs did not finish: {escape(', '.join(failed))}",
                file=sys.stderr,
            )
            sys.exit(1)


def _print_sweep(config: DictConfig) -> list[dict[str, Any]]:
    """The rows of a sweep's table, which is printed."""
    rows = read_sweep(Path(config.hydra.sweep.dir))
    print(format_sweep(rows))
    return rows
