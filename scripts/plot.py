"""Draws learning curves over seeds: python scripts/plot.py runs=outputs/sweeps/NAME."""

from omegaconf import DictConfig

from scorepath.cli import main


def plot(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for matplotlib."""
    from scorepath.jobs import plot as job  # noqa: PLC0415

    job.plot(cfg)


if __name__ == "__main__":
    main("plot", plot)
