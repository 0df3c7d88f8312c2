"""The resolved config as a tree, with the names of environment variables in the place of what they hold."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_ENVIRONMENT = "oc.env"
_MARK = "\x00"  # around a number; no value of a config has it in it


def config_tree(cfg: DictConfig, choices: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a tree: the run's own keys, then each group with its option.

    Args:
        cfg: composed.
        choices: group -> name of its option.
    """
    resolved = _resolve(cfg)
    own = {key: value for key, value in resolved.items() if key not in choices}
    yield from _lines(own, "")
    for group in (key for key in resolved if key in choices):
        value = resolved[group]
        yield f"{group}={choices[group]}" + ("" if isinstance(value, Mapping) else f": {_text(value)}")
        if isinstance(value, Mapping):
            yield from _lines(value, "  ")


def _lines(node: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {_text(value)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _resolve(cfg: DictConfig) -> dict[str, Any]:
    """Plain containers in which what reads an environment variable stands as it was written.

    It is taken out before anything is resolved, so that its value is not seen by what refers to it either.
    """
    hidden: list[str] = []

    def hide(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: hide(value) for key, value in node.items()}
        if isinstance(node, list):
            return [hide(value) for value in node]
        if isinstance(node, str) and _ENVIRONMENT in node:
            hidden.append(node)
            return f"{_MARK}{len(hidden) - 1}{_MARK}"
        return node

    def show(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: show(value) for key, value in node.items()}
        if isinstance(node, list):
            return [show(value) for value in node]
        if isinstance(node, str):
            for number, text in enumerate(hidden):
                node = node.replace(f"{_MARK}{number}{_MARK}", text)
        return node

    unresolved = hide(OmegaConf.to_container(cfg, resolve=False))
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(unresolved), resolve=True)
    except OmegaConfBaseException:  # something is computed from what a variable holds
        resolved = unresolved
    return show(resolved)
