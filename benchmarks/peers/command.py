"""The command line that all peers share. Imports nothing heavy: the start-up of a peer is part of what is measured."""

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

MISSING = 'This peer is not installed: pip install -e ".[peers]".'

HIDDEN = (64, 64)  # of every peer's policy, with tanh between the layers
GAMMA = 0.99
EVALUATION_EPISODES = 100
SOLVED = 475.0  # mean return of the evaluation episodes


def main(
    measure: Callable[[int, float, int], dict[str, Any]],
    solve: Callable[[int, int], dict[str, Any]] | None,
    default_num_envs: int,
) -> None:
    """Parses the command line, measures, prints one JSON line.

    Args:
        measure: from (num_envs, seconds, threads), the useful environment steps per second of training.
        solve: from (seed, threads), what it took to train and evaluate; None if the peer offers no such script.
        default_num_envs: of `--num-envs`.
    """
    parser = argparse.ArgumentParser(description="Training steps per second on CartPole-v1, as one JSON line.")
    parser.add_argument("--num-envs", type=int, default=default_num_envs, help="environments stepped together")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, after warm-up and compilation")
    parser.add_argument("--threads", type=int, default=len(available_cores()), help="cores to use")
    if solve is not None:
        parser.add_argument("--solve", type=int, metavar="SEED", help="train until solved and evaluated instead")
    args = parser.parse_args()
    if args.num_envs < 1 or args.seconds <= 0 or args.threads < 1:
        parser.error("--num-envs, --seconds and --threads must be positive")
    if solve is not None and args.solve is not None:
        result = solve(args.solve, args.threads)
        result["total_seconds"] = round(seconds_since_process_start(), 3)
    else:
        result = measure(args.num_envs, args.seconds, args.threads)
    print(json.dumps(result))


def available_cores() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def keep_to_cores(number: int) -> None:
    """Holds the process to so many cores, where the system can: some libraries size their pools by nothing else."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(available_cores())[:number])


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of the packages."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def seconds_since_process_start() -> float:
    """Wall-clock age of this process in seconds, from Linux's /proc.

    Raises:
        OSError: on other systems.
    """
    started = float(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19])
    uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return uptime - started / os.sysconf("SC_CLK_TCK")
