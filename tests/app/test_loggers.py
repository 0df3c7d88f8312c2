"""Loggers of other services, where they are installed."""

import pytest
from helpers import finish, start

SMALL = ("env=cartpole", "logger=wandb", "logger.wandb.offline=true", "record_episode=false", "eval.episodes=2")


@pytest.mark.slow
def test_a_resumed_run_goes_on_at_wandb(tmp_path):
    """Offline: each part leaves a folder whose name ends with the run's id."""
    pytest.importorskip("wandb")

    def part(folder, *overrides):
        return finish(start("train", tmp_path, *SMALL, f"hydra.run.dir={folder}", *overrides), tmp_path / folder)

    assert part("run", "max_env_steps=500").code == 0
    resumed = part("run", "max_env_steps=900", "resume=auto")
    assert resumed.code == 0, resumed.err
    assert part("other", "max_env_steps=500").code == 0
    ids = [
        [path.name.rpartition("-")[2] for path in sorted(folder.glob("wandb/offline-run-*"))]
        for folder in (tmp_path / "run", tmp_path / "other")
    ]
    (first, second), (other,) = ids
    assert first == second != other
    assert first == (tmp_path / "run" / ".id").read_text().strip()
