"""summary.json: what a run was and what came out of it."""

import hashlib
import importlib.metadata
import math
import os
import platform
import time
from pathlib import Path

import torch
from torch import Tensor, nn

# two-sided 95 % quantiles of Student's t for 1..30 degrees of freedom (scipy would cost a second to import)
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
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


def weights_sha256(policy: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a policy's parameters and buffers: equal if it acts equally."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(torch.uint8).numpy().tobytes() if array.dim() else array.numpy().tobytes())
    return digest.hexdigest()


def t95(degrees_of_freedom: int) -> float:
    """Quantile of Student's t for a two-sided 95 % interval (three digits; a series beyond 30 degrees)."""
    if degrees_of_freedom < 1:
        return math.nan
    if degrees_of_freedom <= len(_T95):
        return _T95[degrees_of_freedom - 1]
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees_of_freedom + second / degrees_of_freedom**2  # Abramowitz & Stegun 26.7.5


def mean_ci95(values: Tensor) -> tuple[float, list[float] | None]:
    """Mean and its 95 % t interval [low, high] over independent values (n,); no interval for n = 1."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None
    half = t95(len(values) - 1) * float(values.std()) / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    installed = {name: importlib.metadata.distributions(name=name) for name in _PACKAGES}
    found |= {name: match.version for name, matches in installed.items() for match in matches}
    # the build too, +cpu or +cu130, on which results depend: what is installed from PyPI leaves it out of its name
    return found | {"torch": str(torch.__version__)}


def seconds_since_process_start() -> float:
    """Wall-clock age of this process in seconds; since the import of this module where the system does not tell."""
    try:
        started = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED


_IMPORTED = time.perf_counter()
