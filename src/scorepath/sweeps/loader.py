"""Configs of a sweep's jobs: each choice of options is composed once, and the values are set on a copy of it.

Hydra composes a job's whole config from its files, twice (once to see that it can be done), and we a third time with
the values left out, to check them: .14 s each. A copy takes .01 s.
"""

import copy
import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

_SEARCHPATH = "hydra.searchpath"

# Of this process, for a launcher's worker is handed a new loader with each job
_composed: dict[tuple[str, ...], DictConfig] = {}
_defaults: dict[tuple[str, ...], dict[str, Any]] = {}
_plain: dict[tuple[str, ...], dict[str, Any]] = {}
_groups: dict[tuple[str, ...], Callable[[str], bool]] = {}  # whether there is a group of a name


def forget() -> None:
    """For a new command, before which files may have changed."""
    _composed.clear()
    _defaults.clear()
    _plain.clear()
    _groups.clear()


class CachingLoader(ConfigLoaderImpl):
    """Hydra's loader, whose `load_sweep_config` gives what Hydra's gives.

    Args:
        loader: Hydra's own.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        super().__init__(cast(ConfigLoaderImpl, loader).config_search_path)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        given = cast(list[str], OmegaConf.to_container(master_config.hydra.overrides.hydra))
        overrides = [*given, *sweep_overrides]
        config = self._load(master_config.hydra.job.config_name, overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    def defaults(self, config_name: str, overrides: Sequence[str]) -> tuple[dict[str, Any], bool]:
        """The primary config with these choices of options and no value overridden, and whether there is none.

        Returns:
            (plain containers, resolved, which are everybody's; whether the overrides are choices alone)
        """
        parsed, chooses = self._parse(config_name, list(overrides))
        choices = [text for text in parsed if chooses(text) and not text.is_delete()]
        key = self._key(config_name, choices)
        if key not in _defaults:
            config = self._chosen(config_name, choices)
            plain: Any = OmegaConf.to_container(without_hydra(config), resolve=True)
            _defaults[key] = plain
        return _defaults[key], all(text in choices or text.is_hydra_override() for text in parsed)

    def plain(self, master_config: DictConfig, sweep_overrides: list[str]) -> dict[str, Any]:
        """What `load_sweep_config` gives, as plain containers, unresolved, without Hydra's own part.

        A hundred times as fast where values are set that stand in the config already.
        """
        config_name = master_config.hydra.job.config_name
        overrides = [*master_config.hydra.overrides.hydra, *sweep_overrides]
        parsed, chooses = self._parse(config_name, overrides)
        choices = [text for text in parsed if chooses(text)]
        key = self._key(config_name, choices)
        if key not in _plain:
            whole: Any = OmegaConf.to_container(without_hydra(self._chosen(config_name, choices)), resolve=False)
            _plain[key] = whole
        plain = copy.deepcopy(_plain[key])
        if all(_set(plain, text) for text in parsed if not (chooses(text) or text.is_hydra_override())):
            return plain
        whole = OmegaConf.to_container(without_hydra(self._load(config_name, overrides)), resolve=False)
        return whole

    def _chosen(self, config_name: str, choices: Sequence[Override]) -> DictConfig:
        key = self._key(config_name, choices)
        if key not in _composed:
            lines = [str(choice.input_line) for choice in choices]
            _composed[key] = self.load_configuration(config_name, lines, RunMode.RUN)
        return _composed[key]

    def _key(self, config_name: str, choices: Sequence[Override]) -> tuple[str, ...]:
        """Paths of the search path may be relative."""
        return str(self.config_search_path), os.getcwd(), config_name, *(str(choice.input_line) for choice in choices)

    def _parse(self, config_name: str, overrides: list[str]) -> tuple[list[Override], Callable[[Override], bool]]:
        """The overrides, and what says whether Hydra takes one for a choice, or for where to choose from."""
        parsed = [_parse_one(text) for text in overrides]
        searchpath = [text for text in overrides if text.partition("=")[0].lstrip("+") == _SEARCHPATH]
        key = (str(self.config_search_path), os.getcwd(), config_name, *searchpath)
        if key not in _groups:
            _, repository = self._parse_overrides_and_create_caching_repo(config_name, searchpath)
            _groups[key] = cache(repository.group_exists)

        def chooses(override: Override) -> bool:
            if override.key_or_group == _SEARCHPATH:
                return True
            return not isinstance(override.value(), dict) and _groups[key](override.key_or_group)

        return parsed, chooses

    def _load(self, config_name: str, overrides: list[str]) -> DictConfig:
        parsed, chooses = self._parse(config_name, overrides)
        self.validate_sweep_overrides_legal(overrides=parsed, run_mode=RunMode.RUN, from_shell=True)
        config = copy.deepcopy(self._chosen(config_name, [override for override in parsed if chooses(override)]))
        self._apply_overrides_to_config([override for override in parsed if not chooses(override)], config)
        # and what Hydra writes down of the overrides
        task = [override for override in parsed if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in task]
        config.hydra.overrides.hydra = [override.input_line for override in parsed if override.is_hydra_override()]
        with open_dict(config.hydra):
            for name in config.hydra.job.env_copy:
                config.hydra.job.env_set[name] = os.environ[name]
        settings = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            overrides=task, kv_sep=settings.kv_sep, item_sep=settings.item_sep, exclude_keys=settings.exclude_keys
        )
        return config


@lru_cache(10_000)
def _parse_one(text: str) -> Override:
    return OverridesParser.create().parse_overrides([text])[0]


def _set(plain: dict[str, Any], override: Override) -> bool:
    """Sets a value, if it and the one that it replaces are of the simplest kind; says whether it did."""
    value = override.value()
    simple = value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and "${" not in value)
    if override.is_add() or override.is_force_add() or override.is_delete() or not simple:
        return False
    *path, last = override.key_or_group.split(".")
    for name in path:
        plain = plain.get(name)  # type: ignore[assignment]
        if not isinstance(plain, dict):
            return False
    if last not in plain or isinstance(plain[last], dict | list):
        return False
    plain[last] = value
    return True


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy without Hydra's own part."""
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
    return config
