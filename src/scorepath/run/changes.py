"""What a run is, by its config: its digest, and how it differs from another."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from scorepath.config import leaves

OF_THE_COMMAND = ("sweep", "resume", "retry_failed", "on_change", "print_config")  # keys that do not make another run


def of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a config that say what a run is, without those of the command that began it."""
    return {key: value for key, value in leaves(config).items() if key not in OF_THE_COMMAND}


def config_sha256(config: Mapping[str, Any]) -> str:
    """SHA-256 of what a run is: equal for configs whose runs are the same.

    Args:
        config: composed, as plain containers, unresolved: no value of an environment variable goes into it.
    """
    text = json.dumps(of_the_run(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In which keys two runs differ, the first three in words; empty if in none."""
    there, here = of_the_run(there), of_the_run(here)
    return difference_of(sorted(key for key in {*there, *here} if there.get(key) != here.get(key)), there, here)


def difference_of(keys: Sequence[str], there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first three of these leaves in words."""
    words = [f"{key} was {there.get(key, 'absent')} and is {here.get(key, 'absent')}" for key in keys[:3]]
    return ", ".join(words) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
