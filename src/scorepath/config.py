"""Checks of a composed config: types, ranges and names, in milliseconds and without importing torch.

A YAML's own value declares its type: where `conf` says `lr: 0.01`, an override must be a number. So a new option needs
no schema beside its YAML. A range is checked where it is needed, in the constructor that takes the option: it refuses
it before any rollout. `RULES` has what no constructor refuses, and the types of options that are null by default.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scorepath.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, in words and as a test."""

    words: str
    test: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _at_least(low: int, high: int) -> Rule:
    return Rule(
        f"a whole number from {low:,} to {high:,}",
        lambda value: _whole(value) and low <= value <= high,
    )


def _between(low: float, high: float) -> Rule:
    return Rule(f"a number from {low:g} to {high:g}", lambda value: _number(value) and low <= value <= high)


def _optional(rule: Rule) -> Rule:
    return Rule(f"{rule.words}, or null", lambda value: value is None or rule.test(value))


def _one_of(*names: str) -> Rule:
    return Rule("one of " + ", ".join(names), lambda value: value in names)


_NUMBER = Rule("a number", _number)
_WHOLE = Rule("a whole number", _whole)
_POSITIVE = Rule("a positive number", lambda value: _number(value) and 0 < value < 1e9)
_NOT_NEGATIVE = Rule("a number of at least 0", lambda value: _number(value) and 0 <= value < 1e9)
_STEPS = _at_least(1, 10**12)
_COUNT = _at_least(1, 1_000_000)
_RANGE = Rule(
    "the least and the most, such as [-1,0]",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(_number, value)) and value[0] <= value[1],
)
_BETAS = Rule(
    "two numbers from 0 to below 1, such as [0.9,0.999]",
    lambda value: (
        isinstance(value, list) and len(value) == 2 and all(_number(beta) and 0 <= beta < 1 for beta in value)
    ),
)
_TEXT = Rule("text", lambda value: isinstance(value, str) and bool(value))

_OPEN_GROUPS = ("callbacks", "logger", "tasks", "peers")  # whatever they hold is built, or measured

# Keys that are null by default need a rule here, or any value passes. All others are checked by type, and by whatever
# takes them.
RULES: dict[str, Rule] = {
    "seed": _at_least(0, 2**63 - 1),
    "max_env_steps": _STEPS,
    "episodes_per_update": _COUNT,
    "gamma": _between(0.0, 1.0),
    "chunk": _optional(_STEPS),
    "max_grad_norm": _optional(_POSITIVE),
    "episodes": _at_least(1, 1_000_000),
    "eval.episodes": _at_least(1, 1_000_000),
    "eval.every_env_steps": _STEPS,
    "record_episode": Rule(
        "true, false or evaluations", lambda value: isinstance(value, bool) or value == "evaluations"
    ),
    "resume": _optional(_TEXT),
    "on_change": _one_of("refuse", "rerun"),
    "file": _optional(_TEXT),
    "title": _optional(_TEXT),
    "gradient_of": _optional(_TEXT),
    "learning": Rule("the options of a sweep, or null", lambda value: value is None or isinstance(value, dict)),
    "threshold": _optional(_NUMBER),
    "threads": _optional(_at_least(1, 4096)),
    "choose": Rule("a list of names, or null", lambda value: value is None or isinstance(value, list)),
    "warm_up": _NOT_NEGATIVE,
    "seconds": _POSITIVE,
    "windows": _at_least(1, 1000),
    "seeds": _at_least(1, 1000),
    "final_seeds": _at_least(1, 1000),
    "trials": _at_least(1, 1_000_000),
    "workers": _at_least(1, 1000),
    "direction": _optional(_one_of("maximize", "minimize")),
    "learning.threshold": _optional(_NUMBER),
    "env.max_episode_steps": _optional(_at_least(1, 10**9)),
    "env.reward_threshold": _optional(_NUMBER),
    "env.reward_range": _optional(_RANGE),
    "env.vectorization": _one_of("auto", "sync", "async", "vector_entry_point", "envpool"),
    "env.workers": _optional(_COUNT),
    "env.step_timeout": _POSITIVE,
    "env.restarts": _at_least(0, 1_000_000),
    "env.dynamics.dim": _at_least(1, 1000),
    "env.dynamics.horizon": _at_least(1, 10**6),
    "env.dynamics.dt": _POSITIVE,
    "env.dynamics.control_cost": _POSITIVE,
    "problem.dynamics.bound": _optional(_POSITIVE),
    "batches": _optional(_at_least(4, 10**9)),
    "bias": _POSITIVE,
    "power": Rule("above 0 and below 1", lambda value: _number(value) and 0 < value < 1),
    "alpha": Rule("above 0 and below 1", lambda value: _number(value) and 0 < value < 1),
    "max_batches": _at_least(4, 10**9),
    "warm_up_updates": _at_least(0, 10**6),
    "env.dynamics.torques": _at_least(2, 1000),
    "estimator.entropy_coefficient": _NOT_NEGATIVE,
    "estimator.window": _optional(_WHOLE),
    "estimator.temperature": _optional(_NUMBER),
    "estimator.tolerance": _optional(_NUMBER),
    "baseline.make_optimizer.lr": _POSITIVE,
    "policy.init": _one_of("torch", "orthogonal"),
    "policy.output_scale": _NOT_NEGATIVE,
    "optimizer.lr": _POSITIVE,
    "optimizer.betas": _BETAS,
    "optimizer.eps": _POSITIVE,
    "optimizer.momentum": _between(0.0, 1.0),
    "optimizer.alpha": _between(0.0, 1.0),
    "lr_schedule.final": _between(0.0, 1.0),
    "logger.csv.purge_step": _optional(_at_least(0, 10**12)),
    "logger.wandb.id": _optional(_TEXT),
    "logger.tensorboard.purge_step": _optional(_at_least(0, 10**12)),
    "trainer.log_every_n_steps": _COUNT,
    "trainer.profiler": _optional(_one_of("simple", "advanced", "pytorch")),
    "trainer.devices": Rule(
        "auto, a number of devices, or a list of them",
        lambda value: value == "auto" or _whole(value) or isinstance(value, list),
    ),
    "trainer.precision": _one_of("32-true", "bf16-mixed"),
    # each process holds the whole policy: none that splits it (FSDP, DeepSpeed), nor forks that know no rank of theirs
    "trainer.strategy": _one_of("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"),
}

# What Lightning's Trainer takes and is given by us, or cannot have: the key of ours that does it.
_BUDGET = "the budget is max_env_steps (debug=one_update for one update)"
_EVALUATION = "evaluations are set by eval.every_env_steps and eval.episodes (callbacks=none leaves them out)"
_CLIPPING = "gradients are clipped by max_grad_norm"
_NO_LOOP = "evaluations are set by eval.episodes, and scripts/eval.py evaluates a saved run"
OURS: dict[str, str] = {
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps", "overfit_batches", "fast_dev_run"), _BUDGET),
    **dict.fromkeys(("limit_train_batches", "reload_dataloaders_every_n_epochs"), _BUDGET),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "limit_val_batches"), _EVALUATION),
    "num_sanity_val_steps": _EVALUATION,
    **dict.fromkeys(("limit_test_batches", "limit_predict_batches"), _NO_LOOP),
    **dict.fromkeys(("gradient_clip_val", "gradient_clip_algorithm"), _CLIPPING),
    "accumulate_grad_batches": "an optimizer step learns from episodes_per_update, and chunk bounds its memory",
    "callbacks": "callbacks are added by +callbacks.NAME._target_=CLASS",
    "logger": "loggers are chosen by logger=... or added by +logger.NAME._target_=CLASS",
    "plugins": "checkpoints are written by scorepath, and the rest is chosen by trainer.strategy and trainer.precision",
    "enable_checkpointing": "checkpoints are saved by callbacks=default (and not by callbacks=none)",
    "enable_progress_bar": "the progress bar is left out by +callbacks.progress.show=false",
    "enable_model_summary": "no table of layers is printed: add one by +callbacks.NAME._target_=CLASS",
    "barebones": "loggers and callbacks are left out by logger=none and callbacks=none",
}


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like `name`, or None if none is close."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return near[0] if near else None


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as {dotted key: value}; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_config(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses values of the wrong type or out of range.

    Args:
        config: the composed config as plain containers, resolved.
        defaults: the same, composed from the same group choices without any value overridden.

    Raises:
        ConfigError: naming the first such key, its value, and what is wanted; or an added key that nothing reads.
    """
    declared = leaves(defaults)
    given = leaves(config)
    for key in declared:
        if ("." not in key or key.startswith("eval.")) and key not in given and key not in config:
            raise ConfigError(f"{key} is missing: the run needs it; its default is {declared[key]}.")
    for group in defaults:
        if group not in config:
            raise ConfigError(f"{group} is missing: the run needs it; leave out what deletes it.")
    for key, value in given.items():
        if key not in declared and not _is_read(key, config, declared):
            near = nearest(key, declared)
            hint = f"did you mean {near}?" if near else "leave it out."
            raise ConfigError(f"{key} was added, but nothing reads it: {hint}")
        group, _, argument = key.partition(".")
        if group == "trainer" and argument.partition(".")[0] in OURS:
            raise ConfigError(f"{key}={value} is not taken: {OURS[argument.partition('.')[0]]}.")
        rule = RULES.get(key)
        if rule is not None:
            if not rule.test(value):
                raise ConfigError(f"{key}={value} is out of range: it must be {rule.words}.")
        elif key in declared and not _same_type(value, declared[key]):
            raise ConfigError(
                f"{key}={value} has the wrong type: it must be {_words(declared[key])}{_such_as(declared[key])}."
            )


def _is_read(key: str, config: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
    """Whether a key that was added with +key=value reaches a constructor, which refuses what it does not know."""
    first, *rest = key.split(".")
    if first in _OPEN_GROUPS:
        return True
    node: Any = config[first]
    for name in rest:
        if "_target_" in node:
            return True
        node = node[name]
    parents = (key.rsplit(".", count)[0] for count in range(1, len(rest) + 1))
    if any(declared.get(parent) == {} for parent in parents):  # an empty mapping is there to be filled
        return True
    return any(name.startswith(f"{key}.") for name in declared)  # a mapping that was emptied, or put in its place


def _same_type(value: Any, example: Any) -> bool:
    if example is None:
        return True
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, float):
        return _number(value)
    if isinstance(example, list):
        return isinstance(value, list)
    if isinstance(example, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, type(example))


def _such_as(example: Any) -> str:
    return "" if example == "???" else f", such as {example}"


def _words(example: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
    }
    return names.get(type(example), "a mapping")
