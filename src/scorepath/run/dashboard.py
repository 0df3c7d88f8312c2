"""What TensorBoard shows beside the curves: the config, one HParams row, and a moving picture."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger


def _writers(loggers: Sequence[Logger]) -> list[Any]:
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def show_config(loggers: Sequence[Logger], config_yaml: str, env_steps: int) -> None:
    """The composed config as text, at the step from which it holds: a resumed run may have another."""
    for writer in _writers(loggers):
        writer.add_text("config", f"```yaml\n{config_yaml}\n```", env_steps)


def show_hparams(
    loggers: Sequence[Logger],
    hparams: dict[str, bool | str | float | int],
    metrics: dict[str, float],
    env_steps: int,
) -> None:
    """One row of the HParams tab; `run_name="."` keeps it in the run's own folder.

    Beyond the last step, so that a run resumed at its end writes them again instead of twice.
    """
    for writer in _writers(loggers):
        writer.add_hparams(hparams, metrics, run_name=".", global_step=env_steps + 1)


def show_gif(loggers: Sequence[Logger], gif: bytes, size: tuple[int, int], env_steps: int) -> None:
    """An animated GIF in the Images tab; add_video would re-encode it, and writes nothing with moviepy 2."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 (slow)

    image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=gif)
    for writer in _writers(loggers):
        summary = Summary(value=[Summary.Value(tag="eval/episode", image=image)])
        writer._get_file_writer().add_summary(summary, env_steps)  # noqa: SLF001 (add_image takes arrays only)
