"""Trains a policy: python scripts/train.py env=cartpole dist=bernoulli."""

from omegaconf import DictConfig

from scorepath.cli import main


def train(cfg: DictConfig) -> float | None:
    """The job of one run; imported when it runs, so that --help does not wait for torch."""
    from scorepath.jobs import train as job  # noqa: PLC0415

    return job.train(cfg)


if __name__ == "__main__":
    main("train", train)
