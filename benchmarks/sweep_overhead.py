"""What a sweep costs beside its jobs: python benchmarks/sweep_overhead.py [--jobs 12] [--env-steps 6000] [--turns 3].

1. CPU seconds of one more job of `scripts/train.py -m`, of which the job's own training is the part that grows with its
   env steps. For jobs of no size at all, all of it is overhead.
2. Wall-clock seconds of the jobs with joblib's two workers, over those of two bare processes with half of the jobs,
   by turns.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TRAIN = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
_JOB = ("episodes_per_update=4", "eval.episodes=3", "record_episode=false", "stop_when_solved=false")


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--env-steps", type=int, default=6000, help="of a job; 6,000 take about a second")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    size = f"max_env_steps={given.env_steps}"
    costs, ratios = [], []
    for turn in range(given.turns):
        few, many = (_cpu_seconds("max_env_steps=1", f"seed=range(0,{jobs})") for jobs in (2, 22))
        costs.append((many - few) / 20)
        half = given.jobs // 2
        bare = _wall_seconds([[size, f"seed=range({start},{start + half})"] for start in (0, half)])
        launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
        joblib = _wall_seconds([[size, f"seed=range(0,{2 * half})", *launcher]])
        ratios.append(joblib / bare)
        print(f"turn {turn}: {costs[-1]:.3f} CPU s a job; joblib {joblib:.1f} s, bare {bare:.1f} s, {ratios[-1]:.2f}x")
    print(f"median: {statistics.median(costs):.3f} CPU s a job; joblib {statistics.median(ratios):.2f}x of bare")


def _cpu_seconds(*overrides: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _wall_seconds([list(overrides)])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _wall_seconds(commands: list[list[str]]) -> float:
    """Of sweeps side by side, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        running = []
        for number, overrides in enumerate(commands):
            command = [sys.executable, str(_TRAIN), "-m", f"sweep=side-{number}", *_JOB, *overrides]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            running.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL))
        if any(process.wait() for process in running):
            sys.exit("a sweep failed: see above")
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
