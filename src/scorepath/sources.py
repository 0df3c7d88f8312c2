"""Where the options of a command come from: our conf and whatever its user added, as Hydra's own loader finds them."""

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import compute_search_path_dir, create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

CONF = Path(__file__).resolve().parents[2] / "conf"
_SEARCHPATH = "hydra.searchpath"
_FLAGS = {"main": "--config-path", "command-line": "--config-dir"}  # of Hydra, by what it calls their folders


class Sources:
    """The groups and options that one command can choose from.

    Args:
        loader: Hydra's, which knows our conf, `--config-dir` and `--config-path`.
        config_name: of the primary config, which may have a `hydra.searchpath` of its own.
        overrides: of the command line, for a `hydra.searchpath` among them.
    """

    def __init__(self, loader: ConfigLoader, config_name: str | None, overrides: Sequence[str]) -> None:
        self.config_name = config_name
        self.overrides = overrides
        self._loader = cast(ConfigLoaderImpl, loader)
        self._search = [text for text in overrides if text.partition("=")[0].lstrip("+") == _SEARCHPATH]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `unavailable` reports a folder that is missing
            # with which Hydra begins every composition
            _, self._repository = self._loader._parse_overrides_and_create_caching_repo(config_name, self._search)  # noqa: SLF001

    @classmethod
    def of_command(cls, config_name: str, arguments: Sequence[str]) -> "Sources":
        """Of a command line, also of one that cannot be composed.

        Args:
            config_name: of the script's own primary config.
            arguments: as they were given, Hydra's flags included.
        """
        given = get_args_parser().parse_args(arguments)
        path = create_config_search_path(compute_search_path_dir(__file__, None, given.config_path or str(CONF)))
        if given.config_dir is not None:
            directory = f"file://{os.path.abspath(given.config_dir)}"
            path.prepend("command-line", directory, SearchPathQuery(provider="schema"))
        return cls(ConfigLoaderImpl(path), given.config_name or config_name, given.overrides)

    @classmethod
    def of_job(cls) -> "Sources":
        """Of the job that is running; outside of Hydra, our own conf."""
        if not (HydraConfig.initialized() and GlobalHydra.instance().is_initialized()):
            return cls.of_command("train", [])
        job = HydraConfig.get()
        overrides = [*job.overrides.hydra, *job.overrides.task]
        return cls(GlobalHydra.instance().config_loader(), job.job.config_name, overrides)

    def groups(self) -> list[str]:
        """The names of the groups at the top."""
        return self._repository.get_group_options("", ObjectType.GROUP)

    def options(self, group: str) -> list[str]:
        """The options of a group; for the group '', the primary configs."""
        found = self._repository.get_group_options(group, ObjectType.CONFIG)
        return [name for name in found if not name.startswith("_")]  # Hydra's own

    def is_choice(self, override: str) -> bool:
        """Whether an override chooses a group's option, or adds or deletes one."""
        name = OverridesParser.create().parse_override(override).key_or_group
        return "." not in name and self._repository.group_exists(name)

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The groups of the primary config, and the option that it takes of each."""
        cfg = self._loader.load_configuration(self.config_name, self._search, RunMode.RUN)
        return {group: option for group, option in cfg.hydra.runtime.choices.items() if "/" not in group}

    def target(self, group: str, option: str) -> str:
        """The `_target_` of an option, its own or that of the options it is made of."""
        found = cast(ConfigResult, self._repository.load_config(f"{group}/{option}"))
        own: Any = OmegaConf.to_container(found.config, resolve=False)
        return own["_target_"] if "_target_" in own else self.compose([f"{group}={option}"])[group]["_target_"]

    def compose(self, overrides: Sequence[str], resolve: bool = False) -> dict[str, Any]:
        """The primary config with these overrides, as plain containers.

        Raises:
            HydraException: if it cannot be composed.
        """
        cfg = self._loader.load_configuration(self.config_name, [*self._search, *overrides], RunMode.RUN)
        with open_dict(cfg):
            del cfg["hydra"]
        plain: Any = OmegaConf.to_container(cfg, resolve=resolve)
        return plain

    def sound_choices(self) -> Iterator[list[str]]:
        """For each job of the command, those of its choices of options that exist; each such list once."""
        seen = set()
        for job in split_jobs(self.overrides):
            parsed = OverridesParser.create().parse_overrides(job)
            sound = tuple(text for text, override in zip(job, parsed, strict=True) if self._exists(override))
            if sound not in seen:
                seen.add(sound)
                yield list(sound)

    def _exists(self, override: Override) -> bool:
        if override.is_delete() or not self.is_choice(override.input_line or ""):
            return False
        if override.key_or_group not in self.chosen:
            return False
        chosen, options = override.value(), self.options(override.key_or_group)
        return all(name in options for name in (chosen if isinstance(chosen, list) else [chosen]))

    def unavailable(self) -> str | None:
        """One sentence about a folder or package of options that is not there, if one is."""
        for source in self._repository.get_sources():
            if source.available():
                continue
            given = _FLAGS.get(source.provider, _SEARCHPATH)
            if source.scheme() == "pkg":
                wanted = "no package with an __init__.py that can be imported: see that its parent is in PYTHONPATH"
            else:
                wanted = "no folder: give an absolute path, or one from the working directory"
                if given == "--config-path":
                    wanted = "no folder: give an absolute path"  # Hydra takes others from the place of our sources
            return f"{given} names {source.path}, which is {wanted}."
        return None


def split_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra's own sweeper makes them; another's values are not known."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    try:
        return BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException:  # an interval, of which another sweeper takes values as it goes
        return [[text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]]
