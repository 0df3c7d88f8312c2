"""Variances and learning curves of estimators side by side: python scripts/compare_estimators.py."""

from omegaconf import DictConfig

from scorepath.cli import main


def compare_estimators(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for torch."""
    from scorepath.jobs import compare_estimators as job  # noqa: PLC0415

    job.compare_estimators(cfg)


if __name__ == "__main__":
    main("compare_estimators", compare_estimators)
