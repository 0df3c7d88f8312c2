"""One evaluation of a saved run, on the original environment: what can be refused before torch is imported."""

from pathlib import Path

from omegaconf import DictConfig

from scorepath.errors import ConfigError
from scorepath.run.reading import check_links
from scorepath.run.trust import read_config


def evaluate(cfg: DictConfig) -> None:
    """Evaluates a saved run on the original environment, prints JSON and writes `evaluation.json` beside it.

    A folder that cannot be written to is evaluated too, and it is said that nothing was saved.

    Raises:
        ConfigError: if the folder does not hold a run, or one that could do more than be evaluated.
    """
    run = Path(cfg.run_dir)
    saved = run / ".hydra" / "config.yaml"
    if not saved.is_file():
        raise ConfigError(f"run_dir={run} does not hold a run (no .hydra/config.yaml): choose one under outputs/.")
    checkpoint_path = run / "checkpoints" / f"{cfg.checkpoint}.ckpt"
    if not checkpoint_path.is_file():
        there = [path.stem for path in sorted(checkpoint_path.parent.glob("*.ckpt"))]
        remedy = f"use checkpoint={' or checkpoint='.join(there)}" if there else "the run ended before it saved one"
        raise ConfigError(f"checkpoint={cfg.checkpoint} is not in {checkpoint_path.parent}: {remedy}.")
    check_links(run, ".evaluation.json.partial", "episode.gif", "episode.mp4")
    nodes = read_config(saved, list(cfg.trust))

    from scorepath.jobs.judge import judge  # noqa: PLC0415 (seconds to import)

    judge(cfg, run, checkpoint_path, nodes)
