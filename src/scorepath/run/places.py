"""Which classes are allowed where in a config, read off the options of conf: by structure, not by names of classes."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

CONF = Path(__file__).resolve().parents[3] / "conf"
_PACKAGE = re.compile(r"^# *@package +(\S+)", re.MULTILINE)
_PLACED = re.compile(r"(?:override +)?/?(\w+)@([\w.]+)")  # `/dist@heads.box: normal`, an option in another's place

Place = tuple[str, ...]  # the keys from the top of a config down to a node
Value = bool | int | float | str | None


class Places(NamedTuple):
    """What conf writes into the nodes that are built, and where."""

    targets: dict[Place, set[str]]  # the `_target_`s that a node may have
    keys: set[tuple[Place, str, Value]]  # Hydra's other keys in it, with their values

    def of(self, place: Place) -> set[str]:
        """The `_target_`s that are allowed at a place: none, if conf has no class there."""
        return self.targets.get(self.known(place), set())

    def has(self, place: Place, key: str, value: Any) -> bool:
        """Whether conf writes this key of Hydra's there, with this value."""
        return isinstance(value, Value) and (self.known(place), key, value) in self.keys

    def known(self, place: Place) -> Place:
        """A place, or that of all names beside it."""
        return place if place in self.targets else (*place[:-1], "*")


def is_special(key: Any) -> bool:
    """Whether a key controls how Hydra builds a node, as `_target_` and `_partial_` do, and is no argument."""
    return isinstance(key, str) and len(key) > 2 and key.startswith("_") and key.endswith("_")


@cache
def read_places(built: Sequence[str], groups: Sequence[str]) -> Places:
    """The places of classes in the options of conf.

    A class is known by where conf has it: those of a group's options themselves, or of the same key within options,
    whichever option that is (`dynamics` of an environment and of a problem). Where an option holds nothing but options
    of a group, as `heads` of dist=product does, their names are free.

    Args:
        built: the nodes that are built.
        groups: whose options are read.
    """
    kinds: dict[Place, str] = {(group,): group for group in groups}
    named: dict[str, set[str]] = defaultdict(set)
    written: list[tuple[Place, str, Value]] = []
    for group in groups:
        for path in sorted((CONF / group).glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            header = _PACKAGE.search(text)
            option = yaml.safe_load(text) or {}
            root = (group,) if header is None else _place(header[1])
            placed = dict(_placed(option.pop("defaults", []), root))
            kinds |= placed
            nodes = dict(_nodes(option, root))
            for place, node in nodes.items():
                kinds_below = [placed.get((*place, name)) for name in node]
                if kinds_below and None not in kinds_below:
                    kinds |= {(*place, "*"): kind for kind in kinds_below if kind is not None}
                if isinstance(node.get("_target_"), str):
                    named[kinds.setdefault(place, place[-1])].add(node["_target_"])
                written += [(place, key, value) for key, value in node.items() if is_special(key) and key != "_target_"]
    targets = {place: named[kind] for place, kind in kinds.items() if place[0] in built}
    free = {place[:-1] for place in targets if place[-1] == "*"}
    own = {place: names for place, names in targets.items() if place[-1] == "*" or place[:-1] not in free}
    places = Places(own, set())
    places.keys.update((places.known(place), key, value) for place, key, value in written)
    return places


def _place(package: str) -> Place:
    return tuple(name for name in package.split(".") if name != "_global_")


def _placed(defaults: Sequence[Any], root: Place) -> Iterator[tuple[Place, str]]:
    """Where a list of defaults puts options of groups, and of which."""
    for entry in defaults:
        for key in entry if isinstance(entry, dict) else []:
            if found := _PLACED.fullmatch(key):
                group, package = found.groups()
                yield (() if package.startswith("_global_") else root) + _place(package), group


def _nodes(node: Any, place: Place) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every mapping below a node, with its place."""
    if isinstance(node, dict):
        yield place, node
        for key, child in node.items():
            yield from _nodes(child, (*place, str(key)))
