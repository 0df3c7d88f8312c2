"""metrics.csv: one row per logged update or evaluation, on the env-steps axis."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from scorepath.errors import ConfigError
from scorepath.run.files import replacing
from scorepath.run.reading import MAX_METRICS_BYTES, open_regular

_LONGEST = 1 << 20  # letters of a line; no run writes one of a thousandth of that


class CSVLogger(Logger):
    """Appends rows to one file, and widens its header when a metric appears for the first time.

    Lightning's own CSVLogger deletes the rows of a run that is resumed.

    Args:
        path: of the file; an existing one is continued.
        flush_every: rows kept in memory between writes.
        purge_step: the first write drops the rows from this env step on, which a resumed run writes again.
    """

    def __init__(self, path: Path | str, flush_every: int = 50, purge_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.flush_every = flush_every
        self.purge_step = purge_step
        self._pending: list[dict[str, Any]] = []
        self._columns: list[str] | None = None  # None until the first write

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is saved beside the file."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._pending.append({"env_steps": step, **metrics})
        if len(self._pending) >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        begins = self._columns is None
        columns = next(_stream(self.path), []) if self._columns is None else self._columns
        new = list(dict.fromkeys(key for row in self._pending for key in row if key not in columns))
        if new or (begins and self.path.exists()):
            self._rewrite(new, self.purge_step if begins else None)
        self._columns = [*columns, *new]
        if self._pending:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(self._pending)
            self._pending.clear()

    def finalize(self, status: str) -> None:
        self.save()

    def _rewrite(self, new: Sequence[str], purge_step: int | None) -> None:
        """Adds columns, and drops the rows that are purged, and half a line of a process that was killed."""
        end = math.inf if purge_step is None else purge_step
        with replacing(self.path, text=True) as file:
            writer, rows = csv.writer(file), _stream(self.path)
            header, blank = next(rows, []), [""] * len(new)
            if header or new:
                writer.writerow([*header, *new])
            for row in rows:
                if float(row[header.index("env_steps")]) < end:
                    writer.writerow(row + blank)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv as strings, empty where a row lacks the metric; [] if there is no file.

    Raises:
        ConfigError: if it is none.
    """
    rows = _stream(path)
    header = next(rows, [])
    return [dict(zip(header, row, strict=True)) for row in rows]


def _stream(path: Path) -> Iterator[list[str]]:
    """The header of a metrics.csv and its rows, one at a time, for a long run has more than fit into memory."""
    if not path.exists():
        return
    try:
        with io.TextIOWrapper(open_regular(path, MAX_METRICS_BYTES), encoding="utf-8", newline="\n") as file:
            rows = csv.reader(_whole_lines(file), strict=True)
            if (header := next(rows, None)) is None:
                return
            steps = header.index("env_steps")
            yield header
            for row in rows:
                if not row:  # an empty line
                    continue
                if len(row) != len(header):
                    raise ValueError("a row does not fit the header")
                float(row[steps])
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged ({error}): move it away, or choose another run.") from error


def _whole_lines(file: IO[str]) -> Iterator[str]:
    """Lines with their ends; a process that was killed may have left half a line after them."""
    while line := file.readline(_LONGEST):
        if line.endswith("\n"):
            yield line
        elif file.read(1):
            raise ValueError(f"a line is longer than {_LONGEST:,} letters")
