"""What environment variables hold stays out of a run's files, which are passed on to others."""

import logging
import os
import re

_NAMED = re.compile(r"\boc\.env: *['\"]?(\w+)")
_SHORTEST = 4  # letters of a secret; fewer may occur in any sentence


class Redaction(logging.Filter):
    """Puts `${oc.env:NAME}` in the place of the value of each environment variable that a config names.

    Saved configs keep the name anyway; this is for sentences, which may quote any value: those of log records, as a
    filter of handlers, and others by `text`.

    Args:
        config: as text, unresolved.
    """

    def __init__(self, config: str) -> None:
        super().__init__()
        values = {os.environ.get(name, ""): name for name in _NAMED.findall(config)}
        self._names = {value: name for value, name in values.items() if len(value) >= _SHORTEST}

    def text(self, text: str) -> str:
        """The text with names for values."""
        for value, name in self._names.items():
            text = text.replace(value, f"${{oc.env:{name}}}")
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        if self._names:
            record.msg, record.args = self.text(record.getMessage()), ()
        return True
