"""Measures speed on this machine: python scripts/benchmark.py [parts=[training,limit]] ... ."""

from omegaconf import DictConfig

from scorepath.cli import main


def benchmark(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for it."""
    from scorepath.jobs import benchmark as job  # noqa: PLC0415

    job.benchmark(cfg)


if __name__ == "__main__":
    main("benchmark", benchmark)
