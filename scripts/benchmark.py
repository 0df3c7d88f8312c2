"""Measures speed on this machine: python scripts/benchmark.py [parts=[training,limit]] ... ."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from scorepath.cli import main


def benchmark(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `benchmarks` is no part of the package
    from benchmarks import job  # noqa: PLC0415

    job.benchmark(cfg)


if __name__ == "__main__":
    main("benchmark", benchmark)
