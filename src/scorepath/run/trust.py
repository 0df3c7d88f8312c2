"""A run directory from a stranger is data: what its config may hold before anything is built from it.

Nothing here reads the machine's variables, or imports what a file names outside of the modules that the user trusts.
"""

import contextlib
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path, PureWindowsPath
from typing import Any

from scorepath.errors import ConfigError
from scorepath.run.places import CONF, Place, is_special, read_places
from scorepath.run.reading import MAX_YAML_BYTES, read_yaml

_BUILT = ("env", "policy", "dist")  # the nodes of a saved config that are instantiated
_GROUPS = (*_BUILT, "problem")  # whose options name what these nodes are made of
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
    return check_config(read_yaml(path), trusted, str(path))


def read_overrides(path: Path) -> list[str]:
    """The overrides of a saved run, as they were written.

    Args:
        path: of a run's `.hydra/overrides.yaml`.

    Raises:
        ConfigError: if it is no list of texts.
    """
    overrides = read_yaml(path)
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise ConfigError(f"{path} is not a run's list of overrides: choose another folder of runs.")
    return overrides


def check_config(config: Any, trusted: Sequence[str] = (), where: str = "the saved config") -> dict[str, Any]:
    """Refuses a config that could run code, or read files or variables of the machine, when it is built.

    A `_target_` must be one of the very strings that `conf` names, for aliases reach any module: in the nodes that are
    built, at that very place, and elsewhere any. All else in these nodes must be plain values; a value may be a
    reference to another key's value, and no other interpolation.

    Args:
        config: plain dicts, lists and values, unresolved.
        trusted: what the user allows beyond that: `_target_`s, wherever they are; modules, for what is defined in
            them and for the environments that they register; `module:Id`s; paths.
        where: it lies, for messages.

    Returns:
        `env`, `policy`, `dist` and `seed`, without references.

    Raises:
        ConfigError: with what was found, where, and the override that allows it.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"{where} is not a run's config: it holds a {type(config).__name__}, not keys.")
    conf = _targets()
    named = _classes(config, where)
    _refuse_targets([(place, name) for place, name in named if name not in conf], trusted, where)
    known: dict[str, Any] = {}
    nodes = {key: _resolve(config[key], config, key, where, known) for key in (*_BUILT, "seed") if key in config}
    if next(itertools.islice(_values(nodes), MAX_YAML_BYTES, None), None) is not None:  # more than a file has bytes
        raise ConfigError(f"{where} has references that repeat each other's values without end: no run writes them.")
    theirs = _check_classes(nodes, trusted, where)
    for place, value in _values(nodes):
        if place[-1] != "_target_":
            _check_value(place, value, trusted, where)
            theirs |= _members(place, value, trusted)
    for place, name in theirs.items():  # last of all, for trusted modules are imported here
        _check_definition(place, name, trusted, where)
    return nodes


@cache
def _targets() -> set[str]:
    """The `_target_`s that the options of conf name."""
    return {name for path in CONF.glob("**/*.yaml") for name in _TARGET.findall(path.read_text(encoding="utf-8"))}


def _nodes(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """A node and all below it, with their keys from the top."""
    yield place, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _nodes(child, (*place, str(name)))


def _values(node: Any) -> Iterator[tuple[Place, Any]]:
    """Every value that is no dict and no list; and every key, for that may be read as a value too."""
    for place, child in _nodes(node):
        if not isinstance(child, dict | list):
            yield place, child
        elif isinstance(child, dict):
            yield from (((*place, "(key)"), key) for key in child)


def _dotted(place: Place) -> str:
    return ".".join(place)


def _check_classes(nodes: dict[str, Any], trusted: Sequence[str], where: str) -> dict[Place, str]:
    """Refuses a class where conf has none or another, and what has Hydra build a node otherwise than conf does.

    Returns:
        Those that are allowed because the user trusts them.
    """
    places = read_places(_BUILT, _GROUPS)
    theirs = {place: name for place, name in _classes(nodes, where) if name not in places.of(place)}
    _refuse_targets(list(theirs.items()), trusted, where)
    for place, node in _nodes(nodes):
        for key in filter(is_special, node if isinstance(node, dict) else ()):
            name = node.get("_target_", "")
            if key == "_target_" or places.has(place, key, node[key]) or _is_trusted(name, trusted):
                continue
            remedy = f", or allow its class with 'trust=[{name}]'" if name else ""
            raise ConfigError(
                f"{where} has {_dotted((*place, key))}={node[key]}, which tells Hydra how to build what stands there, "
                f"and no option of conf does: leave it out{remedy}."
            )
    return {(*place, "_target_"): name for place, name in theirs.items()}


def _classes(node: Any, where: str) -> list[tuple[Place, str]]:
    """The `_target_`s in a node and below it, and the places of what they are of."""
    dicts = ((place, child) for place, child in _nodes(node) if isinstance(child, dict))
    found = [(place, child["_target_"]) for place, child in dicts if "_target_" in child]
    for place, name in found:
        if not isinstance(name, str):
            raise ConfigError(f"{where} has {_dotted(place)}._target_={name}, which names no class: leave it out.")
    return found


def _refuse_targets(found: Sequence[tuple[Place, str]], trusted: Sequence[str], where: str) -> None:
    """Refuses all of these `_target_`s that the user does not trust."""
    unknown = {name: f"{_dotted(place)}._target_" for place, name in found if not _is_trusted(name, trusted)}
    if unknown:
        modules = [_module_of(name) for name in unknown]
        whole = f", or all that is defined there with 'trust=[{','.join(dict.fromkeys(modules))}]'"
        raise ConfigError(
            f"{where} would import and call {' and '.join(unknown)} (at {' and '.join(unknown.values())}), which this "
            f"project's conf does not name there: if you trust the code, allow it with 'trust=[{','.join(unknown)}]'"
            f"{whole if all(modules) else ''}."
        )


def _check_definition(place: Place, target: str, trusted: Sequence[str], where: str) -> None:
    """Refuses what a trusted module has from elsewhere: by `import os` in it, `mylab.os.system` lies in `mylab`."""
    if target in trusted:
        return
    module = _trusted_module(target, trusted)
    try:
        definition = getattr(_locate(target), "__module__", None)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{where} names {target} (at {_dotted(place)}), which cannot be imported: {error}."
        ) from error
    if not _lies_in(str(definition), module):
        raise ConfigError(
            f"{where} would call {target} (at {_dotted(place)}), which is not defined in {module}, though that has it: "
            f"if you trust the code, allow it with 'trust=[{target}]'."
        )


def _members(place: Place, value: Any, trusted: Sequence[str]) -> dict[Place, str]:
    """What a `module:name` names that is no environment's id but a member of the module, which Gymnasium may call."""
    module, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not colon or value in trusted or not name.isidentifier():
        return {}
    with contextlib.suppress(ImportError):  # Gymnasium will say so
        return {place: f"{module}.{name}"} if hasattr(import_module(module), name) else {}
    return {}


def _locate(target: str) -> Any:
    """What a dotted name names, looked up as Hydra does."""
    path, *names = target.split(".")
    found: Any = import_module(path)
    for name in names:
        path = f"{path}.{name}"
        found = getattr(found, name) if hasattr(found, name) else import_module(path)
    return found


def _is_trusted(target: str, trusted: Sequence[str]) -> bool:
    return target in trusted or bool(_trusted_module(target, trusted))


def _trusted_module(target: str, trusted: Sequence[str]) -> str:
    """The trusted module in which a dotted name lies, or no text."""
    return next((module for module in trusted if _is_whole(module) and _lies_in(target, module)), "")


def _is_whole(module: str) -> bool:
    """Whether this may be the name of a module that can be trusted as a whole."""
    names = module.split(".")
    return all(name.isidentifier() for name in names) and names[0] not in _NEVER_WHOLE


def _lies_in(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")  # by whole words between dots


def _module_of(target: str) -> str:
    """The module that a `_target_` seems to lie in, if that can be trusted as a whole; or no text."""
    module = target.rpartition(".")[0]
    return module if _is_whole(module) else ""


def _resolve(node: Any, config: dict[str, Any], key: str, where: str, known: dict[str, Any]) -> Any:
    """A node with the references in it replaced by the values that they name, which hold no further ones.

    Args:
        known: what references have been found to name, for each is to be looked through but once.
    """
    if isinstance(node, dict):
        return {name: _resolve(child, config, f"{key}.{name}", where, known) for name, child in node.items()}
    if isinstance(node, list):
        return [_resolve(child, config, f"{key}.{index}", where, known) for index, child in enumerate(node)]
    if not isinstance(node, str) or "${" not in node:
        return node
    if node in known:
        return known[node]
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
    known[node] = value
    return value


def _check_value(place: Place, value: Any, trusted: Sequence[str], where: str) -> None:
    key = _dotted(place)
    if value is None or isinstance(value, bool | int | float) or value in trusted:
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
    # Gymnasium takes an id apart wherever it is given one, also as an argument of a wrapper
    if colon and not _trusted_module(module, trusted):
        allowed = module if _is_whole(module) else f'"{value}"'
        raise ConfigError(
            f"{where} has {key}={value}, for which Gymnasium would import {module}: if you trust the code, allow it "
            f"with 'trust=[{allowed}]'."
        )
