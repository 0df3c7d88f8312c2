"""scripts/benchmark.py: that its figures are of one run and agree with one another. None of them is asserted."""

import json
import math

import pytest
from helpers import benchmark, finish, start

from benchmarks.peers.command import MISSING

slow = pytest.mark.slow
QUICK = ("warm_up=0.2", "seconds=0.6", "windows=1", "threads=1", "file=out.json")
TASKS = (
    "+tasks.small=['env=cartpole','episodes_per_update=4']",
    "choose=[small]",
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    outcome = benchmark(folder, "parts=[training,limit,parts]", *TASKS, *QUICK)
    assert outcome.code == 0, outcome.err
    return outcome, json.loads((folder / "out.json").read_text())


@slow
def test_training_is_measured_in_windows(measured):
    result = measured[1]["training"]["small"]
    assert len(result["env_steps_per_second"]) == 1
    assert all(rate > 0 for rate in result["env_steps_per_second"])
    assert 0.8 < result["used_share"] <= 1.0
    rate = result["env_steps_per_update"] / result["seconds_per_update"]
    assert min(result["env_steps_per_second"]) * 0.999 <= rate <= max(result["env_steps_per_second"]) * 1.001
    assert result["peak_memory_bytes"] > 1e8
    assert result["device"] == "cpu"


@slow
def test_the_limit_is_that_of_one_env_step_and_one_pass(measured):
    result = measured[1]["limit"]["small"]
    limit = result["limit"]
    assert all(value > 0 and math.isfinite(value) for value in limit.values())
    both = 1.0 / (1.0 / limit["environment_per_second"] + 1.0 / limit["forward_backward_per_second"])
    assert limit["limit_per_second"] == pytest.approx(both, rel=0.5)  # each is the median over the run
    assert limit["limit_per_second_of_two_passes"] < limit["limit_per_second"]
    assert len(result["share_of_limit"]) == 1
    assert all(0 < share < 1 for share in result["share_of_limit"])


@slow
def test_parts_add_up_to_an_update(measured):
    result = measured[1]["parts"]["small"]
    assert sum(result["parts"].values()) == pytest.approx(result["seconds_per_update"])
    assert all(seconds > 0 for name, seconds in result["parts"].items() if name != "logging")


@slow
def test_tables_are_printed(measured):
    outcome, results = measured
    for title in ("Training, env steps per second", "The machine's limit", "Parts of an update", "out.json"):
        assert title in outcome.out
    assert results["machine"]["threads"] == 1


def test_the_script_works_from_any_directory(tmp_path):
    """`benchmarks` is not installed: the script has to find it beside itself."""
    outcome = finish(start("benchmark", tmp_path, "parts=[]", *QUICK), tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("\nout.json\n")
    assert json.loads((tmp_path / "out.json").read_text())["machine"]["threads"] == 1


def test_peers_are_found_from_any_directory(tmp_path):
    """One that is not installed is a line of the table."""
    peer = "+peers.JAX={module:jax_one_device,num_envs:[8]}"
    outcome = benchmark(tmp_path, "parts=[peers]", "~peers", peer, *QUICK)
    assert outcome.code == 0, outcome.err
    row = next(line for line in outcome.out.splitlines() if line.split()[:2] == ["JAX", "8"])
    assert MISSING in row or "JAX" in json.loads((tmp_path / "out.json").read_text())["peers"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parts=[trainin]", "parts=[trainin] is unknown: did you mean training?"),
        ("choose=[cartpol]", "choose=[cartpol] is none of the tasks cartpole_64"),
    ],
)
def test_what_is_misspelt_is_refused_before_anything_is_measured(tmp_path, override, message):
    outcome = benchmark(tmp_path, override, *QUICK)
    assert outcome.code == 2
    assert message in outcome.sentence
    assert not (tmp_path / "out.json").exists()


@slow
def test_a_task_that_fails_is_named(tmp_path):
    outcome = benchmark(
        tmp_path, "parts=[training]", "+tasks.bad=['env=cartpole','dist=normal']", "choose=[bad]", *QUICK
    )
    assert outcome.code != 0
    assert "training with env=cartpole dist=normal failed: " in outcome.sentence
    assert "dist=normal needs a Box" in outcome.sentence
