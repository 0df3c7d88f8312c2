"""Evaluates a saved run: python scripts/eval.py run_dir=outputs/DATE/TIME [episodes=100] [video=true]."""

from omegaconf import DictConfig

from scorepath.cli import main


def evaluate(cfg: DictConfig) -> None:
    """The job; imported when it runs, so that --help does not wait for torch."""
    from scorepath.jobs import evaluate as job  # noqa: PLC0415

    job.evaluate(cfg)


if __name__ == "__main__":
    main("eval", evaluate)
