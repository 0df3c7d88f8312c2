"""What a training run does in a second, taken inside the real run."""

import itertools
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from scorepath.module import PolicyGradient
from scorepath.types import Episodes

PARTS = ("environment", "policy forward", "sampling and records", "learning", "logging")


class Stopwatch(pl.Callback):
    """Lets a run train for some seconds, and writes how many env steps each of them took.

    Args:
        file: JSON, written when the run ends.
        warm_up: seconds of training that do not count: CartPole's episodes grow long in them.
        seconds: of training that do.
        windows: of about equal length that the latter are cut into, between updates; the rates of these are compared.
        parts: also take the time of each part of an update, at a cost of some microseconds an env step.
    """

    def __init__(self, file: str, warm_up: float, seconds: float, windows: int, parts: bool = False) -> None:
        self.file = Path(file)
        self.warm_up, self.seconds, self.windows = warm_up, seconds, windows
        self.parts: dict[str, float] | None = dict.fromkeys(PARTS, 0.0) if parts else None
        self._marks: list[tuple[float, int, int]] = []  # time, env steps used and computed
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
        if now - self._started < self.warm_up:
            return
        if not self._marks and self.parts is not None:
            self.parts.update(dict.fromkeys(PARTS, 0.0))
        self._marks.append((now, module.env_steps, self._computed))
        if now - self._marks[0][0] >= self.seconds and len(self._marks) > self.windows:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        (begin, used, computed), (end, all_used, all_computed) = self._marks[0], self._marks[-1]
        updates = len(self._marks) - 1
        cuda = module.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result = {
            "env_steps_per_second": self._rates(),
            "used_share": (all_used - used) / (all_computed - computed),
            "seconds_per_update": (end - begin) / updates,
            "env_steps_per_update": (all_used - used) / updates,
            "updates": updates,
            "peak_memory_bytes": peak,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
        }
        if self.parts is not None:
            spent = {name: seconds / updates for name, seconds in self.parts.items()}
            spent["Lightning"] = (end - begin) / updates - sum(spent.values())
            result["parts"] = spent
        self.file.write_text(json.dumps(result), encoding="utf-8")

    def _rates(self) -> list[float]:
        """Env steps per second of each window."""
        begin = self._marks[0][0]
        length = (self._marks[-1][0] - begin) / self.windows
        edges = [self._marks[0]]
        for mark in self._marks[1:]:
            if mark[0] >= begin + len(edges) * length - 1e-9:
                edges.append(mark)
        return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(edges)]

    def _wrap(self, module: PolicyGradient) -> None:
        self._wrapped = True
        env = module.env
        assert env is not None
        step = env.step

        def counted(actions: torch.Tensor) -> Any:
            self._computed += len(actions)
            return step(actions)

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
