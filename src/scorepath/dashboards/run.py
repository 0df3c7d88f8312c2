"""What TensorBoard shows of a run beside its curves: their layout, the config, a row of HParams, a moving picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from scorepath.dashboards.tabs import HParam, experiment, layout, session, session_end

_EVENTS = "events.out.tfevents."  # before the second and the machine in a file's name


def _writers(loggers: Sequence[Logger]) -> list[Any]:
    """TensorBoard's, in the main process, each with a file that comes last; Lightning closes them when `fit` ends."""
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return []
    writers = [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]
    for writer in writers:
        _come_last(writer._get_file_writer().event_writer)  # noqa: SLF001 (there is no other way to its file)
    return writers


def _come_last(events: Any) -> None:
    """Has TensorBoard read what is written from now on after all that is there, also if the clock was set back since.

    It reads a folder's files in the order of their names, which begin with the second that they were made in, and never
    goes back to one. The writer opens its file by name each time; it has written no more than a head so far.
    """
    file = Path(events._file_name)  # noqa: SLF001
    latest = max((_made(other) for other in file.parent.glob(f"{_EVENTS}*") if other != file), default=0)
    if latest >= _made(file):
        events.flush()
        _, _, rest = file.name.removeprefix(_EVENTS).partition(".")
        later = file.rename(file.with_name(f"{_EVENTS}{latest + 1:010}.{rest}"))
        events._file_name = events._general_file_writer.filename = str(later)  # noqa: SLF001


def _made(file: Path) -> int:
    """The second that an event file was made in, by its name."""
    second = file.name.removeprefix(_EVENTS).partition(".")[0]
    return int(second) if second.isdecimal() else 0


def show_start(loggers: Sequence[Logger], texts: Mapping[str, str], env_steps: int) -> None:
    """The layout of the Custom Scalars tab, and texts.

    Args:
        loggers: of the run.
        texts: name -> Markdown, at the step from which it holds: a resumed run may have another config.
        env_steps: that step.
    """
    for writer in _writers(loggers):
        writer._get_file_writer().add_summary(layout(), env_steps)  # noqa: SLF001 (takes what is made here)
        for name, text in texts.items():
            writer.add_text(name, text, env_steps)


def show_hparams(
    loggers: Sequence[Logger], name: str, hparams: Mapping[str, HParam], metrics: Mapping[str, float], env_steps: int
) -> None:
    """One row of the HParams tab, by a name, in the same file as all else; add_hparams would make another.

    Beyond the last step, so that a run resumed at its end writes them again instead of twice.
    """
    for writer in _writers(loggers):
        for summary in (experiment([hparams]), session(name, hparams), session_end()):
            writer._get_file_writer().add_summary(summary, env_steps + 1)  # noqa: SLF001
        for name, value in metrics.items():
            writer.add_scalar(name, value, env_steps + 1)


def show_gif(loggers: Sequence[Logger], gif: bytes, size: tuple[int, int], env_steps: int) -> None:
    """An animated GIF, below the curves by its name; add_video re-encodes it, and writes nothing with moviepy 2."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 (slow)

    image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=gif)
    for writer in _writers(loggers):
        summary = Summary(value=[Summary.Value(tag="video/episode", image=image)])
        writer._get_file_writer().add_summary(summary, env_steps)  # noqa: SLF001 (add_image takes arrays only)
