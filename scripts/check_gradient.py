"""Proves a gradient: python scripts/check_gradient.py estimator=... dist=... baseline=... problem=... ."""

from omegaconf import DictConfig

from scorepath.cli import main


def check_gradient(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for torch."""
    from scorepath.jobs import check_gradient as job  # noqa: PLC0415

    job.check_gradient(cfg)


if __name__ == "__main__":
    main("check_gradient", check_gradient)
