"""Speed on this machine: training, its parts, its limit and the peers, each in a process of its own."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scorepath.config import nearest
from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.files import write_text

_ROOT = Path(__file__).resolve().parents[1]  # from which processes of their own import `benchmarks`
_TRAIN = _ROOT / "scripts" / "train.py"
_STOPWATCH = "benchmarks.stopwatch.Stopwatch"
_SECONDS = 600  # that a process may take


def benchmark(cfg: DictConfig) -> None:
    """Measures the parts that are chosen, prints them as tables and writes them as JSON.

    Raises:
        ConfigError: for an unknown part.
        ScorepathError: if a training run fails.
    """
    for part in cfg.parts:
        if part not in _PARTS:
            near = nearest(part, _PARTS) or next(iter(_PARTS))
            raise ConfigError(f"parts=[{part}] is unknown: did you mean {near}? Choose of {', '.join(_PARTS)}.")
    for name in cfg.choose or ():
        if name not in cfg.tasks:
            raise ConfigError(f"choose=[{name}] is none of the tasks {', '.join(cfg.tasks)}.")
    started = datetime.datetime.now()
    file = Path(cfg.file or f"outputs/benchmarks/{started:%Y-%m-%d_%H-%M-%S}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    bench = _Benchmark(cfg)
    results: dict[str, Any] = {"machine": describe_machine(bench.threads), "started": f"{started:%Y-%m-%d %H:%M:%S}"}
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    for part in cfg.parts:
        results[part] = _PARTS[part](bench)
        write_text(file, json.dumps(results, indent=1))
    if {"training", "peers"} <= set(results):
        results["ratio"] = ratios(results["training"], results["peers"])
    write_text(file, json.dumps(results, indent=1))
    print(f"\n{file}")


class _Benchmark:
    """Starts the processes that are measured."""

    def __init__(self, cfg: DictConfig) -> None:
        options: Any = OmegaConf.to_container(cfg, resolve=True)
        self.cfg: dict[str, Any] = options
        chosen = self.cfg["choose"] or list(self.cfg["tasks"])
        self.tasks: dict[str, list[str]] = {name: self.cfg["tasks"][name] for name in chosen}
        self.threads = self.cfg["threads"] or len(os.sched_getaffinity(0))

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """A process with this many threads; its output is kept."""
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=_SECONDS, check=False, env=environment
        )

    def trained(self, overrides: Sequence[str], parts: bool = False, limit: bool = False) -> dict[str, Any]:
        """A run of scripts/train.py with its loggers, stopped by the clock."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "stopwatch.json"
            watch = {"_target_": _STOPWATCH, "file": file, "parts": str(parts).lower(), "limit": str(limit).lower()}
            watch |= {key: self.cfg[key] for key in ("warm_up", "seconds", "windows")}
            options = [f"+callbacks.stopwatch.{key}={value}" for key, value in watch.items()]
            options += ["callbacks=none", "stop_when_solved=false", "max_env_steps=1000000000000", "eval.episodes=1"]
            options += ["record_episode=false", f"hydra.run.dir={folder}/run"]
            done = self.run([str(_TRAIN), *overrides, *self.cfg["options"], *options])
            if done.returncode or not file.exists():
                raise ScorepathError(f"training with {' '.join(overrides)} failed: {last_line(done.stderr)}")
            return json.loads(file.read_text(encoding="utf-8"))


def training(bench: _Benchmark) -> dict[str, Any]:
    """Env steps a second that the gradient uses, learning, Lightning and logging included."""
    results = {name: bench.trained(overrides) for name, overrides in bench.tasks.items()}
    rows = [training_row(name, result) for name, result in results.items()]
    print_table("Training, env steps per second", _TRAINING_HEADS, rows)
    return results


_TRAINING_HEADS = ("task", "median", "lowest", "highest", "steps used", "ms an update", "peak memory")


def training_row(name: str, result: Mapping[str, Any]) -> list[str]:
    """A line of the table of trainings."""
    rates = result["env_steps_per_second"]
    figures = [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]
    used, milliseconds = f"{result['used_share']:.1%}", f"{1000 * result['seconds_per_update']:.1f}"
    return [name, *figures, used, milliseconds, f"{result['peak_memory_bytes'] / 1e9:.2f} GB"]


def limits(bench: _Benchmark) -> dict[str, Any]:
    """Training beside what environment and policy can do by themselves, by turns in one process."""
    results = {name: bench.trained(overrides, limit=True) for name, overrides in bench.tasks.items()}
    keys = ("environment", "forward", "forward_backward", "limit")
    rows = []
    for name, result in results.items():
        figures = [f"{result['limit'][f'{key}_per_second']:,.0f}" for key in keys]
        figures.append(f"{statistics.median(result['env_steps_per_second']):,.0f}")
        shares = result["share_of_limit"]
        rows.append(
            [name, *figures, *(f"{share:.0%}" for share in (statistics.median(shares), min(shares), max(shares)))]
        )
    heads = ("task", "environment", "forward", "forward+backward", "limit", "training", "share", "lowest", "highest")
    print_table("The machine's limit, per second", heads, rows)
    one = next(iter(results.values()))["limit"]
    print(
        f"Matrix products {one['matrix_product_gflops']:.0f} GFLOP/s, tanh {one['tanh_per_second'] / 1e9:.2f} G/s, "
        f"sigmoid {one['sigmoid_per_second'] / 1e9:.2f} G/s. Limit: one env step, one forward and one backward pass."
    )
    return results


def ratios(trained: Mapping[str, Any], peers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as fast training is as each peer at its best number of environments."""
    best = {name: max(row["env_steps_per_second"] for row in rows) for name, rows in peers.items()}
    reached = {
        name: statistics.median(result["env_steps_per_second"])
        for name, result in trained.items()
        if name.startswith("cartpole")
    }
    results = {name: {peer: rate / other for peer, other in best.items()} for name, rate in reached.items()}
    rows = [[name, *(f"{value:.2f}" for value in row.values())] for name, row in results.items()]
    if rows and best:
        print_table("Training, as a multiple of each peer's best", ("task", *best), rows)
    return results


def update_parts(bench: _Benchmark) -> dict[str, Any]:
    """Where the time of an update goes."""
    results = {name: bench.trained(overrides, parts=True) for name, overrides in bench.tasks.items()}
    rows = []
    for name, result in results.items():
        whole = result["seconds_per_update"]
        rows.append([name, *(f"{seconds / whole:.1%}" for seconds in result["parts"].values())])
    heads = next(iter(results.values()))["parts"]
    print_table("Parts of an update", ("task", *heads), rows)
    return results


def peers(bench: _Benchmark) -> dict[str, Any]:
    """The same task by other libraries, each in a process of its own."""
    results: dict[str, Any] = {}
    rows = []
    for name, peer in bench.cfg["peers"].items():
        for number in peer["num_envs"]:
            module, seconds = f"benchmarks.peers.{peer['module']}", str(bench.cfg["seconds"])
            options = ["--num-envs", str(number), "--seconds", seconds, "--threads", str(bench.threads)]
            done = bench.run(["-m", module, *options])
            if done.returncode:
                rows.append([name, str(number), last_line(done.stderr)])
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            results.setdefault(name, []).append(result)
            rows.append([name, str(number), f"{result['env_steps_per_second']:,.0f}"])
    print_table("Peers on CartPole-v1, env steps per second", ("peer", "environments", "training"), rows)
    return results


def startup(bench: _Benchmark) -> dict[str, Any]:
    """Seconds from the command to what a user waits for."""
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        commands: dict[str, Callable[[int], list[str]]] = {
            "--help": lambda seed: [str(_TRAIN), "--help"],
            "config error": lambda seed: [str(_TRAIN), "env=cartpol"],
            "solved and evaluated, env=cartpole dist=bernoulli": lambda seed: [
                str(_TRAIN), "env=cartpole", "dist=bernoulli", f"seed={seed}", f"hydra.run.dir={folder}/{seed}",
            ],
        }  # fmt: skip
        for name, command in commands.items():
            results[name] = [seconds_of(bench, command(seed)) for seed in range(bench.cfg["seeds"])]
        for name, peer in bench.cfg["peers"].items():
            for seed in range(bench.cfg["seeds"]):
                solve = ["-m", f"benchmarks.peers.{peer['module']}", "--solve", str(seed)]
                begin = time.perf_counter()
                if bench.run(solve).returncode == 0:
                    results.setdefault(f"{name}, solved and evaluated", []).append(time.perf_counter() - begin)
    rows = [
        [name, *(f"{value:.2f}" for value in (statistics.median(s), min(s), max(s)))] for name, s in results.items()
    ]
    print_table("Seconds from the command", ("command", "median", "lowest", "highest"), rows)
    return results


def seconds_of(bench: _Benchmark, command: Sequence[str]) -> float:
    """Wall-clock seconds of a process, whatever it ends with."""
    begin = time.perf_counter()
    bench.run(command)
    return time.perf_counter() - begin


def scaling(bench: _Benchmark) -> dict[str, Any]:
    """How cost grows with episodes, their length, and the policy's width."""
    results = {" ".join(overrides): bench.trained(overrides) for overrides in bench.cfg["scaling"]}
    rows = [training_row(name, result) for name, result in results.items()]
    print_table("Scaling, env steps per second", _TRAINING_HEADS, rows)
    return results


_PARTS: dict[str, Callable[[_Benchmark], dict[str, Any]]] = {
    "training": training,
    "limit": limits,
    "parts": update_parts,
    "peers": peers,
    "startup": startup,
    "scaling": scaling,
}


def describe_machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {"processor": model, "cores": os.cpu_count(), "threads": threads, "Python": platform.python_version()}


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for row in table:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    sys.stdout.flush()
