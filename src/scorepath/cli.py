"""What the scripts share: errors as sentences, and exit codes."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from scorepath import garbage
from scorepath.config import check_config, leaves
from scorepath.errors import ConfigError, InterruptedRunError, ScorepathError
from scorepath.explain import check_text, explain
from scorepath.run.console import Console, consoles
from scorepath.run.directory import claim, is_main_process, unwritable
from scorepath.run.lock import describe_process
from scorepath.run.printing import escape, escape_lines
from scorepath.sources import CONF
from scorepath.sweeps.job import of_sweep, run_job
from scorepath.sweeps.loader import CachingLoader, forget

_FULL_ERROR = "HYDRA_FULL_ERROR"

# Registered on import, for the workers of a parallel launcher need them too
OmegaConf.register_new_resolver("claim", claim, use_cache=True, replace=True)


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

    forget()
    command = describe_process(os.getpid())
    _prefer_our_options()
    failed: list[Exception] = []

    def checked(cfg: DictConfig) -> Any:
        _check_values(cfg)
        return job(cfg)

    def task(cfg: DictConfig) -> Any:
        if of_sweep():
            return run_job(cfg, checked, show_traceback, command)
        try:
            return checked(cfg)
        except Exception as error:
            failed.append(error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # another sweeper may have its own use for it
            return None  # raised below: Hydra would print a line of its own before ours

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
        # anything else came from reading the command line
        _end(explain(error, config_name, sys.argv[1:]), ConfigError.exit_code)
    finally:
        garbage.skip_last()


def _prefer_our_options() -> None:
    """Takes away launchers that other plugins have by the names of ours: Hydra would merge them into ours."""
    Plugins.instance()  # has them all imported
    launchers = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for file in (CONF / "hydra" / "launcher").glob("*.yaml"):
        launchers.pop(file.name, None)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Of what nobody has caught, as Python does it, but escaped."""
    print(escape_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)


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
    job = HydraConfig.get()
    loader = CachingLoader(GlobalHydra.instance().config_loader())
    defaults, alone = loader.defaults(str(job.job.config_name), [*job.overrides.hydra, *job.overrides.task])
    check_config(plain, plain if alone else defaults)
