"""What the scripts share: errors as sentences, exit codes, and the table at the end of a sweep."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from scorepath import garbage
from scorepath.config import check_config, leaves, nearest
from scorepath.errors import ConfigError, InterruptedRunError, ScorepathError
from scorepath.run.directory import claim, holds_run, is_main_process, unwritable, write_json
from scorepath.run.redaction import Redaction
from scorepath.run.sweep import format_sweep, read_sweep

_FULL_ERROR = "HYDRA_FULL_ERROR"

# Registered on import, for the workers of a parallel launcher need them too
OmegaConf.register_new_resolver("claim", claim, use_cache=True, replace=True)
OmegaConf.register_new_resolver("folder", lambda _root_: _folder(_root_), replace=True)


def main(config_name: str, job: Callable[[DictConfig], Any]) -> None:
    """Runs a job under Hydra; a user's mistake ends it with one sentence and exit code 2, other failures with 1.

    Args:
        config_name: of the primary config in `conf`.
        job: composed config -> what a sweeper optimises, or None.
    """
    garbage.postpone()
    # GNU OpenMP's threads spin for milliseconds by default: two runs at a time would slow each other 100 times
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    show_traceback = os.environ.get(_FULL_ERROR, "0") not in ("", "0")
    os.environ[_FULL_ERROR] = "1"  # so that Hydra hands its errors to us instead of printing them

    failed: list[Exception] = []

    def task(cfg: DictConfig) -> Any:
        try:
            _check_values(cfg, config_name)
            return job(cfg)
        except Exception as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                failed.append(error)  # raised below: Hydra would print a line of its own before ours
            elif isinstance(error, InterruptedRunError):
                _end(f"{error}{_left(sys.argv[1:], HydraConfig.get().job.num, cfg.sweep)}", error.exit_code)
            else:
                # One failing job does not end a sweep; the table at its end, and its exit code, tell
                _write_failure(Redaction(OmegaConf.to_yaml(cfg)).text(str(error)))
                print(_describe(error, show_traceback), file=sys.stderr)
            return None

    conf = Path(__file__).resolve().parents[2] / "conf"
    try:
        hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)(task)()
        if failed:
            raise failed[0]
    except BrokenPipeError:
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


def _left(arguments: list[str], number: int, sweep: str) -> str:
    """Which jobs of a sweep are not done after the one of that number was stopped."""
    overrides = OverridesParser.create().parse_overrides([text for text in arguments if not text.startswith("-")])
    jobs = [" ".join(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    common = set.intersection(*(set(job.split()) for job in jobs))
    names = [" ".join(part for part in job.split() if part not in common) for job in jobs[number:]]
    return (
        f". Of {len(jobs)} jobs these are left, the first of them begun: {'; '.join(names)}. The same command with "
        f"sweep={sweep} resume=auto goes on with them."
    )


def _folder(root: DictConfig) -> str:
    """The name of a job's folder: its overrides as they were written, for names are shown and passed on."""
    job: Any = OmegaConf.to_container(root.hydra.job, resolve=False)
    # with a $ Hydra would resolve the name wherever it reads it
    return job["override_dirname"].replace("/", "-").replace("$", "") or "defaults"


def _describe(error: Exception, show_traceback: bool) -> str:
    if isinstance(error, ScorepathError) and not show_traceback:
        return f"scorepath: {error}"
    return "".join(traceback.format_exception(error))


def _write_failure(sentence: str) -> None:
    """A summary for a job that was refused before it wrote its own; nothing that is there is written over."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    if not holds_run(directory):
        write_json(directory / "summary.json", {"status": "failed", "error": sentence})


def _end(sentence: str, exit_code: int) -> None:
    sys.stdout.flush()
    print(f"scorepath: {sentence}", file=sys.stderr)
    sys.exit(exit_code)


def _check_values(cfg: DictConfig, config_name: str) -> None:
    """Types and ranges, against the same group choices with no value overridden."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value: give {error.full_key}=... on the command line.") from error
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    overrides = HydraConfig.get().overrides
    choices = [text for text in [*overrides.hydra, *overrides.task] if _is_group(text)]
    if len(choices) == len(overrides.hydra) + len(overrides.task):
        return  # no value but those of the files, which the tests have checked
    defaults: Any = OmegaConf.to_container(hydra.compose(config_name, overrides=choices), resolve=True)
    check_config(plain, defaults)


def _is_group(override: str) -> bool:
    """Whether an override chooses a config group's option, or adds or deletes one."""
    parsed = OverridesParser.create().parse_override(override)
    name = parsed.key_or_group
    return (_conf() / name).is_dir() and "." not in name


def _conf() -> Path:
    return Path(__file__).resolve().parents[2] / "conf"


def explain(error: Exception, config_name: str, arguments: list[str]) -> str:
    """One sentence with the nearest valid name, for an error of Hydra's composition."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        near = nearest(option, error.options)
        hint = f"did you mean {group}={near}? " if near else ""
        return f"{group}={option} does not exist: {hint}Options: {', '.join(error.options)}."
    text = str(error)
    found = re.search(r"Could not override '([^'@]+)", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if found:
        key = found.group(1)
        names = set(valid_names(config_name, arguments)) - {key}
        prefix, _, last = key.rpartition(".")
        if prefix.endswith("kwargs") and prefix in names:
            return f"{key} is a new keyword: add it with a plus, +{key}=..."
        siblings = sorted({name[len(prefix) + 1 :].split(".")[0] for name in names if name.startswith(f"{prefix}.")})
        sibling = nearest(last, siblings)
        ending = sorted((name for name in names if name.rpartition(".")[2] == last), key=len)
        near = f"{prefix}.{sibling}" if sibling else ending[0] if ending else nearest(key, names)
        hint = f"did you mean {near}?" if near else "see --help for the names."
        known = f" Keys of {prefix}: {', '.join(siblings)}." if prefix and siblings else ""
        return f"{key} is not a key of the config: {hint}{known}"
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return f"{first} (in: {' '.join(arguments)}; HYDRA_FULL_ERROR=1 shows the whole traceback)"


def valid_names(config_name: str, arguments: list[str]) -> list[str]:
    """Every group and dotted key of the config composed from those group choices that are sound."""
    groups = [path.name for path in _conf().iterdir() if path.is_dir()]
    sound = []
    for text in arguments:
        name, _, value = text.partition("=")
        if name in groups and (_conf() / name / f"{value}.yaml").is_file():
            sound.append(text)
    with hydra.initialize_config_dir(str(_conf()), version_base="1.3"):
        cfg: Any = OmegaConf.to_container(hydra.compose(config_name, overrides=sound), resolve=False)
    keys = list(leaves(cfg))
    parents = [key.rpartition(".")[0] for key in keys if "." in key]
    return [*groups, *keys, *parents]


class SweepTable(Callback):
    """Prints a sweep's results when its last job is done, and makes the exit code tell of a failed one."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        rows = read_sweep(Path(config.hydra.sweep.dir))
        print(format_sweep(rows))
        failed = [row["job"] for row in rows if row["status"] not in ("solved", "completed")]
        if failed:
            print(
                f"scorepath: {len(failed)} of {len(rows)} jobs did not finish: {', '.join(failed)}",
                file=sys.stderr,
            )
            sys.exit(1)
