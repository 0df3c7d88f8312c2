"""What scripts without a config share: their arguments, and errors as sentences."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.console import consoles
from scorepath.run.printing import escape

_INTERRUPTED, _NO_READER = 130, 141  # the shell's


class Parser(argparse.ArgumentParser):
    """Whose errors are sentences like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is.")


def run_command(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs a script's command.

    Args:
        command: arguments -> exit code.
        arguments: of the command line.

    Returns:
        The exit code: the command's; 2 for a mistake; 130 after Ctrl-C.
    """
    with consoles():
        try:
            return command(arguments)
        except ScorepathError as error:
            print(f"scorepath: {escape(str(error))}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return _INTERRUPTED
        except BrokenPipeError:
            os._exit(_NO_READER)  # `| head` is no error
        except OSError as error:
            reason = f"{error.filename} cannot be read ({error.strerror}): choose one that can."
            print(f"scorepath: {escape(reason)}", file=sys.stderr)
            return ConfigError.exit_code


def positive(text: str) -> float:
    """An argument that must be a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < 1e9:
            return number
    raise argparse.ArgumentTypeError(f"{text} must be a positive number")
