"""Other processes that tests start: what they are given, and how long they are waited for."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600.0  # seconds until a test gives up on another process; nothing is asserted about times


def environment(**variables: str) -> dict[str, str]:
    """Of another process: one thread, this checkout importable, Hydra's and Lightning's own variables unset."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA_", "LOCAL_RANK", "PYTEST_"))}
    paths = os.pathsep.join((str(ROOT / "tests"), str(ROOT / "src")))  # the sources beside these tests
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **variables}
