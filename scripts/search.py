"""Searches for hyperparameters over seeds: python scripts/search.py hparams_search=NAME search=STUDY [trials=30]."""

from omegaconf import DictConfig

from scorepath.cli import main


def search(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for Optuna."""
    from scorepath.jobs import search as job  # noqa: PLC0415

    job.search(cfg)


if __name__ == "__main__":
    main("search", search)
