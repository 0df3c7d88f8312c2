"""What a training run does in a second, taken inside the real run."""

import copy
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from benchmarks.limit import measure
from scorepath.module import PolicyGradient
from scorepath.types import Episodes

PARTS = ("environment", "policy forward", "sampling and records", "learning", "logging")


class Window(NamedTuple):
    """What training did between two looks at the clock."""

    seconds: float
    used: int  # env steps that the gradient used
    computed: int  # env steps
    updates: int


class Stopwatch(pl.Callback):
    """Lets a run train for some seconds, and writes how many env steps each of them took.

    Args:
        file: JSON, written when the run ends.
        warm_up: seconds of training that do not count: CartPole's episodes grow long in them.
        seconds: of training that do.
        windows: of about equal length that the latter are cut into, between updates; the rates of these are compared.
        parts: also take the time of each part of an update, at a cost of some microseconds an env step.
        limit: before each window and after the last, also measure what the machine can do at most, which changes with
            its clock and its other guests; a window is compared with the mean of the two beside it.
    """

    def __init__(
        self, file: str, warm_up: float, seconds: float, windows: int, parts: bool = False, limit: bool = False
    ) -> None:
        self.file = Path(file)
        self.warm_up, self.seconds, self.windows, self.limit = warm_up, seconds, windows, limit
        self.parts: dict[str, float] | None = dict.fromkeys(PARTS, 0.0) if parts else None
        self._done: list[Window] = []
        self._limits: list[dict[str, float]] = []
        self._begin: tuple[float, int, int, int] | None = None  # of the window: time, env steps, updates
        self._computed = 0
        self._started = 0.0
        self._wrapped = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if not self._wrapped:  # the environment is there from the first update on
            self._wrap(module)
            self._started = now
        if self._begin is None:
            if now - self._started < self.warm_up:
                return
            if self.parts is not None:
                self.parts.update(dict.fromkeys(PARTS, 0.0))
        else:
            begin, used, computed, updates = self._begin
            if now - begin < self.seconds / self.windows:
                return
            steps, width = module.env_steps - used, self._computed - computed
            self._done.append(Window(now - begin, steps, width, module.update_index - updates))
        if self.limit:
            env = module.make_env(module.device)
            self._limits.append(measure(env, copy.deepcopy(module.policy)))
            env.close()
        if len(self._done) == self.windows:
            trainer.should_stop = True
        self._begin = time.perf_counter(), module.env_steps, self._computed, module.update_index

    def on_fit_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        seconds, used, computed, updates = (sum(column) for column in zip(*self._done, strict=True))
        cuda = module.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result = {
            "env_steps_per_second": [window.used / window.seconds for window in self._done],
            "used_share": used / computed,
            "seconds_per_update": seconds / updates,
            "env_steps_per_update": used / updates,
            "updates": updates,
            "peak_memory_bytes": peak,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
        }
        if self.parts is not None:
            spent = {name: total / updates for name, total in self.parts.items()}
            spent["Lightning"] = seconds / updates - sum(spent.values())
            result["parts"] = spent
        if self.limit:
            result["limit"] = {key: statistics.median(row[key] for row in self._limits) for key in self._limits[0]}
            beside = itertools.pairwise(row["limit_per_second"] for row in self._limits)
            limits = [(before + after) / 2 for before, after in beside]
            rates = result["env_steps_per_second"]
            result["share_of_limit"] = [rate / limit for rate, limit in zip(rates, limits, strict=True)]
        self.file.write_text(json.dumps(result), encoding="utf-8")

    def _wrap(self, module: PolicyGradient) -> None:
        self._wrapped = True
        env = module.env
        assert env is not None
        step = env.step

        def counted(actions: torch.Tensor, playing: torch.Tensor | None = None) -> Any:
            self._computed += len(actions)
            return step(actions, playing)

        env.step = counted  # type: ignore[method-assign]
        if self.parts is not None:
            self._take_parts(module, self.parts)

    def _take_parts(self, module: PolicyGradient, spent: dict[str, float]) -> None:
        """Replaces the methods of this one module by timed ones."""
        env = module.env
        assert env is not None
        collect = module.estimator.collect
        playing = False

        def timed(name: str, function: Callable[..., Any], *, in_rollout: bool = False) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if in_rollout and not playing:
                    return function(*args, **kwargs)
                begin = time.perf_counter()
                result = function(*args, **kwargs)
                seconds = time.perf_counter() - begin
                spent[name] += seconds
                if in_rollout:
                    spent["sampling and records"] -= seconds
                return result

            return call

        def played(*args: Any) -> Iterator[Episodes]:
            nonlocal playing
            windows: Iterator[Episodes] | None = None
            while True:
                begin, playing = time.perf_counter(), True
                windows = collect(*args) if windows is None else windows
                episodes = next(windows, None)
                playing = False
                spent["sampling and records"] += time.perf_counter() - begin
                if episodes is None:
                    return
                yield episodes

        module.estimator.collect = played  # type: ignore[method-assign, assignment]
        env.step = timed("environment", env.step, in_rollout=True)  # type: ignore[method-assign]
        module.policy.forward = timed("policy forward", module.policy.forward, in_rollout=True)  # type: ignore[method-assign]
        module.learn = timed("learning", module.learn)  # type: ignore[method-assign]
        module.log_metrics = timed("logging", module.log_metrics)  # type: ignore[method-assign]
