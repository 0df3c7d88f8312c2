"""metrics.csv: one row per logged update or evaluation, on the env-steps axis."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from scorepath.errors import ConfigError
from scorepath.run.reading import MAX_METRICS_BYTES, read_bytes


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

    def save(self) -> None:
        columns = self._open() if self._columns is None else self._columns
        if not self._pending:
            return
        new = [key for row in self._pending for key in row if key not in columns]
        if new:
            columns = [*columns, *dict.fromkeys(new)]
            self._rewrite(read_metrics(self.path), columns)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerows(self._pending)
        self._pending.clear()

    def _open(self) -> list[str]:
        rows = read_metrics(self.path)
        self._columns = list(rows[0]) if rows else []
        if self.purge_step is not None and rows:
            self._rewrite([row for row in rows if int(row["env_steps"]) < self.purge_step], self._columns)
        return self._columns

    def finalize(self, status: str) -> None:
        self.save()

    def _rewrite(self, rows: list[dict[str, str]], columns: list[str]) -> None:
        self._columns = columns
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv as strings, empty where a row lacks the metric; [] if there is no file.

    Raises:
        ConfigError: if it is none.
    """
    if not path.exists():
        return []
    try:
        text = read_bytes(path, MAX_METRICS_BYTES).decode()
        whole = text[: text.rfind("\n") + 1]  # a process that was killed may have left half a line
        rows = list(csv.DictReader(whole.splitlines(), strict=True))
        for row in rows:
            float(row["env_steps"])
            if None in row or None in row.values():
                raise ValueError("a row does not fit the header")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged ({error}): move it away, or choose another run.") from error
    return rows
