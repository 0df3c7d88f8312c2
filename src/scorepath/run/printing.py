"""Texts of files and overrides on terminals and in logs: what would steer the terminal, or feign a line, is escaped."""

import logging
import traceback
import unicodedata
from typing import Any

from scorepath.errors import ScorepathError

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format, surrogates, line and paragraph separators
_JOINERS = "\u200c\u200d"  # of letters in several scripts, and of emoji: ordinary text, and harmless


def escape(text: str) -> str:
    r"""The text on one line, with `\x1b`, `\n`, `\u202e` and their like for what is not shown itself."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if unicodedata.category(letter) in _STEERING else letter for letter in text)


def escape_lines(text: str) -> str:
    """The same for each of several lines."""
    return "\n".join(map(escape, text.split("\n")))


def describe(error: Exception, show_traceback: bool) -> str:
    """An error as it is printed: a sentence for a user's mistake, and a traceback for whatever else it is.

    Args:
        error: as it was raised.
        show_traceback: also of a mistake.
    """
    if isinstance(error, ScorepathError) and not show_traceback:
        return f"scorepath: {escape(str(error))}"
    return escape_lines("".join(traceback.format_exception(error)))


def log_to_file(message: str, level: int = logging.ERROR) -> None:
    """Into train.log alone: the terminal gets an error where it is caught."""
    log = logging.getLogger("scorepath")
    record = log.makeRecord(log.name, level, __file__, 0, message, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _escaped(letter: str) -> str:
    return letter if letter in _JOINERS else letter.encode("unicode_escape").decode()


class EscapingFormatter(logging.Formatter):
    """Log records on one line each, but for a traceback after them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        return escape(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return escape_lines(super().formatException(ei))
