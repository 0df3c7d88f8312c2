"""Two processes of N episodes are one of 2 N: gradients, statistics and value networks, to rounding in float64."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import PATIENCE, environment

from scorepath.ranks import gather, gather_columns, mean, world_size


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of rank 0, of rank 1, and of one process with the whole batch: {combination: {name: tensor}} each."""
    folder = tmp_path_factory.mktemp("ranks")
    script = str(Path(__file__).parents[1] / "two_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(folder), rank], env=environment(), stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1", "alone")
    ]
    for process in processes:
        try:
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == 0, said
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("0", "1", "alone")]


def test_two_processes_are_one_of_twice_the_episodes(results):
    """Every baseline with every normalisation, and the estimators that weigh by variances: after the mean over both
    processes and after clipping, in chunks and in one; and all that is kept for the next update. A value network stays
    one also where each process fits it to other episodes.
    """
    first, second, alone = results
    assert first.keys() == second.keys() == alone.keys()
    assert len(alone) > 60
    for combination, wanted in alone.items():
        assert first[combination].keys() == wanted.keys()
        for name, value in wanted.items():
            for rank, found in enumerate((first, second)):
                torch.testing.assert_close(
                    found[combination][name], value, rtol=1e-9, atol=1e-9, msg=f"{combination}: {name} of rank {rank}"
                )


def test_the_comparison_compares_something(results):
    """Gradients differ between combinations, and are clipped where they are told to be."""
    *_, alone = results
    name = "head.logits.bias, limit None"
    gradients = [result[name] for result in alone.values() if name in result]
    distinct = {tuple(gradient.tolist()) for gradient in gradients}
    assert len(distinct) > 30
    for combination, result in alone.items():
        clipped = [value for name, value in result.items() if name.endswith("limit 0.01") and "norm," not in name]
        assert float(torch.nn.utils.get_total_norm(clipped)) == pytest.approx(0.01, rel=1e-3), combination
        assert result["norm, limit 0.01"] > 0.02, combination


def test_alone_everything_is_handed_back():
    x = torch.randn(3, 2)
    assert world_size() == 1
    assert gather(x) is x and gather_columns(x) is x and mean(x) is x
