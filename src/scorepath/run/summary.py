"""summary.json: what a run was and what came out of it. Imports no torch."""

import importlib.metadata
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PACKAGES = (
    "scorepath",
    "torch",
    "lightning",
    "hydra-core",
    "omegaconf",
    "gymnasium",
    "numpy",
    "tensorboard",
)


@dataclass(kw_only=True)
class Summary:
    """What summary.json holds, filled in on the way; None is what the run has not come to."""

    status: str = "failed"  # solved, completed, interrupted
    seed: int
    env_steps: int | None = None
    updates: int | None = None
    episodes: int | None = None
    train_seconds: float | None = None
    total_seconds: float | None = None
    env_steps_per_second: float | None = None
    eval_return_mean: float | None = None
    eval_return_ci95: list[float] | None = None
    eval_episodes: int | None = None
    solved_at_env_steps: int | None = None
    weights_sha256: str | None = None
    config_sha256: str | None = None  # of what the run is
    gradient_bias: list[str] | None = None
    irreproducible: list[str] | None = None
    versions: dict[str, str] | None = None
    error: str | None = None  # why a run has failed

    def content(self) -> dict[str, Any]:
        """For the file: without `error` where there was none."""
        return {key: value for key, value in asdict(self).items() if key != "error" or value is not None}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    import torch  # noqa: PLC0415 (seconds to import; the caller has it already)

    found = {"python": platform.python_version()}
    installed = {name: importlib.metadata.distributions(name=name) for name in _PACKAGES}
    found |= {name: match.version for name, matches in installed.items() for match in matches}
    # the build too, +cpu or +cu130, on which results depend: what is installed from PyPI leaves it out of its name
    return found | {"torch": str(torch.__version__)}


def seconds_since_process_start() -> float:
    """Wall-clock age of this process in seconds; where the system does not report it, since this module's import."""
    try:
        started = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED


_IMPORTED = time.perf_counter()
