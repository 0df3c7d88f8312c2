"""The errors that a user can mend: each is one sentence that says what, why, and the remedy."""


class ScorepathError(Exception):
    """Base class: the command line prints its message without a traceback and exits with `exit_code`."""

    exit_code = 1


class ConfigError(ScorepathError):
    """A value, combination or file was refused before any work was done."""

    exit_code = 2


class NonFiniteError(ScorepathError):
    """A NaN or an infinity appeared; the update it belongs to was not applied."""
