"""What a search may choose: keys of train.yaml with their ranges, some for certain values of others alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from scorepath.errors import ConfigError

Params = dict[str, Any]
_KEYS = {
    "float": {"type", "low", "high", "log", "when"},
    "int": {"type", "low", "high", "log", "when"},
    "categorical": {"type", "choices", "when"},
}
_FORMS = (
    "{type: float, low: 0.001, high: 0.1, log: true}, {type: int, low: 4, high: 64} or "
    "{type: categorical, choices: [adam, sgd]}, each with when: {KEY: VALUE} if another key's value decides whether "
    "there is one"
)


class Dimension(NamedTuple):
    """One key of a space."""

    key: str  # of an override
    distribution: BaseDistribution
    when: dict[str, tuple[Any, ...]]  # keys above -> the values with which there is this one

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Whether a setting with these values of the keys above has this key."""
        return all(key in params and params[key] in values for key, values in self.when.items())

    def extremes(self) -> tuple[Any, ...]:
        """All choices, or the least and the most."""
        if isinstance(self.distribution, CategoricalDistribution):
            return tuple(self.distribution.choices)
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return self.distribution.low, self.distribution.high


def parse_space(content: Any) -> list[Dimension]:
    """The dimensions of a space from its YAML.

    Args:
        content: key -> what it may be, as plain containers.

    Raises:
        ConfigError: naming the first key that is no dimension.
    """
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"a space without keys has nothing to search: give optimizer.lr: one of {_FORMS}.")
    space: list[Dimension] = []
    for key, given in content.items():
        space.append(_parse(str(key), given, {dimension.key: dimension for dimension in space}))
    return space


def _parse(key: str, given: Any, above: Mapping[str, Dimension]) -> Dimension:
    if not isinstance(given, Mapping) or given.get("type") not in _KEYS:
        raise ConfigError(f"{key}: {given} is no range: write {_FORMS}.")
    unknown = sorted(map(str, set(given) - _KEYS[given["type"]]))
    if unknown:
        raise ConfigError(f"{key}: {unknown[0]} is not known of type: {given['type']}: write {_FORMS}.")
    try:
        distribution = _distribution(given)
    except (TypeError, ValueError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"{key}: {reason}: write {_FORMS}.") from error
    when = {}
    for name, values in (given.get("when") or {}).items():
        if name not in above:
            raise ConfigError(f"{key}: when names {name}, which is no key of the space above it: put it there, before.")
        allowed = tuple(map(_choice, values)) if isinstance(values, list) else (_choice(values),)
        parent = above[name].distribution
        wrong = [value for value in allowed if value not in getattr(parent, "choices", allowed)]
        if wrong:
            raise ConfigError(f"{key}: when asks for {name}={wrong[0]}, which is none of its choices.")
        when[name] = allowed
    return Dimension(key, distribution, when)


def _distribution(given: Mapping[str, Any]) -> BaseDistribution:
    if given["type"] == "categorical":
        if not isinstance(given["choices"], list):
            raise ValueError("choices are a list")
        return CategoricalDistribution([_choice(value) for value in given["choices"]])
    whole = given["type"] == "int"
    for end in ("low", "high"):
        if isinstance(given[end], bool) or not isinstance(given[end], int if whole else int | float):
            raise ValueError(f"{end}={given[end]} is no {'whole ' if whole else ''}number")
    kind = IntDistribution if whole else FloatDistribution
    return kind(given["low"], given["high"], log=bool(given.get("log", False)))


def _choice(value: Any) -> Any:
    """As Optuna can keep it: lists as the text of an override."""
    return text_of(value) if isinstance(value, list | Mapping) else value


def text_of(value: Any) -> str:
    """A value as it stands in an override."""
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text_of(own)}" for key, own in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, float) else str(value)


def shown(value: Any) -> str:
    """A value in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else text_of(value)


def overrides_of(params: Mapping[str, Any]) -> list[str]:
    """A setting as overrides of train.py."""
    return [f"{key}={text_of(value)}" for key, value in params.items()]


def suggest(trial: optuna.Trial, space: Sequence[Dimension]) -> Params:
    """A setting as Optuna's sampler would have it next."""
    params: Params = {}
    for dimension in space:
        if dimension.is_active(params):
            params[dimension.key] = _suggest(trial, dimension)
    return params


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    key, distribution = dimension.key, dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)


def corners(space: Sequence[Dimension]) -> list[Params]:
    """Settings in which each dimension takes each of its extremes, with whatever it needs of the keys above."""
    found = []
    for dimension in space:
        for value in dimension.extremes():
            params: Params = {}
            wanted = {dimension.key: (value,)}
            for own in reversed(space):  # what a key needs stands above it
                if own.key in wanted:
                    wanted = {**own.when, **wanted}
            for own in space:
                if own.is_active(params):
                    params[own.key] = wanted.get(own.key, own.extremes())[0]
            found.append(params)
    return found


def default_setting(space: Sequence[Dimension], values: Mapping[str, Any]) -> Params | None:
    """What the config has without a search, where the space holds it.

    Args:
        space: its dimensions.
        values: by their keys.
    """
    params: Params = {}
    for dimension in space:
        if not dimension.is_active(params):
            continue
        value = values.get(dimension.key)
        if isinstance(dimension.distribution, CategoricalDistribution):
            same = [own for own in dimension.distribution.choices if text_of(own) == text_of(value)]
            if not same:
                return None
            value = same[0]
        elif not _is_within(value, dimension.distribution):
            return None
        params[dimension.key] = value
    return params


def _is_within(value: Any, distribution: BaseDistribution) -> bool:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = int if isinstance(distribution, IntDistribution) else int | float
    return isinstance(value, kind) and not isinstance(value, bool) and distribution.low <= value <= distribution.high
