"""A run directory from a stranger is data: what its config may hold before anything is built from it.

Nothing here reads the machine's variables, or imports what a file names outside of the modules that the user trusts.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml  # type: ignore[import-untyped]

from scorepath.errors import ConfigError

_CONF = Path(__file__).resolve().parents[3] / "conf"
_BUILT = ("env", "policy", "dist")  # the nodes of a saved config that are instantiated
_GROUPS = (*_BUILT, "problem")  # whose options name what these nodes are made of
_MAX_CONFIG_BYTES = 1 << 18
_MAX_CONFIG_DEPTH = 50  # PyYAML takes time by its square
_TARGET = re.compile(r"\b_target_: *([\w.]+)")
_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")  # all else between ${ and } may read the machine
# Python's own modules and ours have functions that start what they are given: their members are trusted one by one
_NEVER_WHOLE = sys.stdlib_module_names | {"scorepath"}


def read_config(path: Path, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """What an evaluation reads of a saved config, once nothing in it can run code.

    Args:
        path: of a run's `.hydra/config.yaml`.
        trusted: as of `check_config`.

    Raises:
        ConfigError: if it is no config, or holds what is not trusted.
    """
    return check_config(_read_yaml(path), trusted, str(path))


def read_overrides(path: Path) -> list[str]:
    """The overrides of a saved run, as they were written.

    Args:
        path: of a run's `.hydra/overrides.yaml`.

    Raises:
        ConfigError: if it is no list of texts.
    """
    overrides = _read_yaml(path)
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise ConfigError(f"{path} is not a run's list of overrides: choose another folder of runs.")
    return overrides


def _read_yaml(path: Path) -> Any:
    """A file's dicts, lists and values; the interpolations in it stay as they are."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
        if len(text) > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_CONFIG_BYTES:,} bytes: no run writes such a config.")
        _check_events(text, path)
        return yaml.safe_load(text)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML ({reason}): choose another run.") from error


def _check_events(text: bytes, path: Path) -> None:
    """Refuses what makes a small text large or slow."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{path} has an alias (*{event.anchor}), which may grow without bounds: no run writes one."
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_CONFIG_DEPTH:
            raise ConfigError(f"{path} is nested deeper than {_MAX_CONFIG_DEPTH} levels: no run writes such a config.")


def check_config(config: Any, trusted: Sequence[str] = (), where: str = "the saved config") -> dict[str, Any]:
    """Refuses a config that could run code, or read files or variables of the machine, when it is built.

    A `_target_` must be one of the very strings that `conf` names, for aliases reach any module: in the nodes that are
    built, those of environments, policies and distributions, and elsewhere any. A value of these nodes may be a
    reference to another key's value, and no other interpolation.

    Args:
        config: plain dicts, lists and values, unresolved.
        trusted: what the user allows beyond that: `_target_`s; modules, for what is defined in them and for the
            environments that they register; `module:Id`s; paths.
        where: it lies, for messages.

    Returns:
        `env`, `policy`, `dist` and `seed`, without references.

    Raises:
        ConfigError: with what was found, where, and the override that allows it.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"{where} is not a run's config: it holds a {type(config).__name__}, not keys.")
    _check_targets(config, _targets("**"), trusted, where)
    nodes = {key: _resolve(config[key], config, key, where) for key in (*_BUILT, "seed") if key in config}
    own = {name for group in _GROUPS for name in _targets(group)}
    _check_targets(nodes, own, trusted, where)
    _check_definitions(nodes, own, trusted, where)
    for key, value in _values(nodes):
        _check_value(key, value, trusted, where)
    return nodes


def _targets(group: str) -> set[str]:
    """The `_target_`s that the options of a config group name."""
    return {name for path in _CONF.glob(f"{group}/*.yaml") for name in _TARGET.findall(path.read_text())}


def _values(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no dict and no list, with its dotted key."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield key, node
        return
    for name, child in children:
        yield from _values(child, f"{key}.{name}" if key else str(name))


def _check_targets(node: Any, own: set[str], trusted: Sequence[str], where: str) -> None:
    allowed = {*own, *trusted}
    unknown = {
        str(value): key
        for key, value in _values(node)
        if _is_target(key) and value not in allowed and not _trusted_module(value, trusted)
    }
    if unknown:
        modules = [_module_of(name) for name in unknown]
        whole = f", or all that is defined there with 'trust=[{','.join(dict.fromkeys(modules))}]'"
        raise ConfigError(
            f"{where} would import and call {' and '.join(unknown)} (at {' and '.join(unknown.values())}), which this "
            f"project's conf does not name there: if you trust the code, allow it with 'trust=[{','.join(unknown)}]'"
            f"{whole if all(modules) else ''}."
        )


def _check_definitions(node: Any, own: set[str], trusted: Sequence[str], where: str) -> None:
    """Refuses what a trusted module has from elsewhere: by `import os` in it, `mylab.os.system` lies in `mylab`."""
    for key, value in _values(node):
        if not _is_target(key) or value in {*own, *trusted}:
            continue
        module = _trusted_module(value, trusted)
        try:
            definition = getattr(_locate(value), "__module__", None)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{where} names {value} (at {key}), which cannot be imported: {error}.") from error
        if not _lies_in(str(definition), module):
            raise ConfigError(
                f"{where} would call {value} (at {key}), which is not defined in {module}, though that has it: if you "
                f"trust the code, allow it with 'trust=[{value}]'."
            )


def _locate(target: str) -> Any:
    """What a dotted name stands for, looked up as Hydra does."""
    path, *names = target.split(".")
    found: Any = import_module(path)
    for name in names:
        path = f"{path}.{name}"
        found = getattr(found, name) if hasattr(found, name) else import_module(path)
    return found


def _trusted_module(target: Any, trusted: Sequence[str]) -> str:
    """The trusted module in which a dotted name lies, or no text."""
    modules = (module for module in trusted if module.split(".")[0] not in _NEVER_WHOLE)
    return next((module for module in modules if _lies_in(str(target), module)), "")


def _lies_in(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")  # by whole words between dots


def _module_of(target: str) -> str:
    """The module that a `_target_` seems to lie in, if that can be trusted as a whole; or no text."""
    module = target.rpartition(".")[0]
    names = module.split(".")
    return module if all(name.isidentifier() for name in names) and names[0] not in _NEVER_WHOLE else ""


def _is_target(key: str) -> bool:
    return "_target_" in key.split(".")  # or of a dict or list in its place


def _resolve(node: Any, config: dict[str, Any], key: str, where: str) -> Any:
    """A node with the references in it replaced by the values that they name, which hold no further ones."""
    if isinstance(node, dict):
        return {name: _resolve(child, config, f"{key}.{name}", where) for name, child in node.items()}
    if isinstance(node, list):
        return [_resolve(child, config, f"{key}.{index}", where) for index, child in enumerate(node)]
    if not isinstance(node, str) or "${" not in node:
        return node
    reference = _REFERENCE.fullmatch(node)
    if reference is None:
        raise ConfigError(
            f"{where} has {key}={node}, which may read variables of this machine: only a reference to another key, "
            "such as ${gamma}, is resolved; write the value itself in its place."
        )
    value: Any = config
    for name in reference[1].split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or any(isinstance(found, str) and "${" in found for _, found in _values(value)):
        raise ConfigError(f"{where} has {key}={node}, which names no plain value: write the value itself in its place.")
    return value


def _check_value(key: str, value: Any, trusted: Sequence[str], where: str) -> None:
    if value is None or isinstance(value, bool | int | float) or value in trusted or _is_target(key):
        return
    if not isinstance(value, str):
        raise ConfigError(f"{where} has {key}={value}, a {type(value).__name__}: no run writes one.")
    path = PureWindowsPath(value)  # which knows both separators
    if path.anchor or ".." in path.parts or value.startswith("~") or "://" in value:
        raise ConfigError(
            f"{where} has {key}={value}, a path outside this folder: if you trust what is there, allow it with "
            f"'trust=[\"{value}\"]'."
        )
    module, colon, _ = value.partition(":")
    if key.startswith("env.") and colon and module not in trusted and not _trusted_module(module, trusted):
        # Gymnasium takes an id apart wherever it is given one, also as an argument of a wrapper
        raise ConfigError(
            f"{where} has {key}={value}, for which Gymnasium would import {module}: if you trust the code, allow it "
            f"with 'trust=[{module}]'."
        )


def check_links(folder: Path, *names: str) -> None:
    """Refuses a folder in which a file that is to be written is a link: what it points to would be written over.

    Raises:
        ConfigError: with its path.
    """
    for path in (folder / name for name in names):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link to {path.readlink()}, which would be written over: remove the link.")
