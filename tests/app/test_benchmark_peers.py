"""The peers of the benchmark: what can be checked of them where they are installed, and what is said where not."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from helpers import ROOT
from tiers import fast_only

import benchmarks.peers as peers
from benchmarks.peers.command import MISSING, available_cores, seconds_since_process_start

REQUIRED = {
    "jax_reinforce": "jax",
    "jax_one_device": "jax",
    "sb3_a2c": "stable_baselines3",
    "tianshou_reinforce": "tianshou",
    "torchrl_reinforce": "torchrl",
}


def run(peer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.peers.{peer}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_every_peer_is_listed():
    found = {path.stem for path in Path(peers.__file__).parent.glob("*.py")} - {"__init__", "command"}
    assert found == set(REQUIRED)


@pytest.mark.parametrize("peer", fast_only(REQUIRED, "sb3_a2c"))
def test_a_missing_peer_says_what_to_install(peer):
    if importlib.util.find_spec(REQUIRED[peer]):
        pytest.skip(f"{REQUIRED[peer]} is installed")
    result = run(peer)
    assert result.returncode == 1
    assert result.stderr.strip() == MISSING
    assert not result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("peer", REQUIRED)
def test_a_peer_prints_one_line_of_json(peer):
    pytest.importorskip(REQUIRED[peer])
    result = run(peer, "--num-envs", "8", "--seconds", "0.5", "--threads", "1")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert {"peer", "num_envs", "env_steps_per_second", "versions"} <= set(report)
    assert report["peer"] == peer
    assert report["num_envs"] == 8
    assert report["env_steps_per_second"] > 0


@pytest.mark.slow
def test_the_jax_peer_learns():
    pytest.importorskip("jax")
    result = run("jax_reinforce", "--solve", "0")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["eval_return_mean"] >= 475
    assert report["startup_seconds"] < report["total_seconds"]


def test_the_jax_cartpole_is_gymnasiums():
    jax = pytest.importorskip("jax")
    from benchmarks.peers.jax_reinforce import transition

    step = jax.jit(transition)
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    bounds = np.array([2.6, 2.0, 0.22, 2.0])
    terminations = 0
    for state in generator.uniform(-bounds, bounds, (500, 4)):
        action = int(generator.integers(2))
        env.state, env.steps_beyond_terminated = state, None
        expected, _, terminated, _, _ = env.step(action)
        after, stands = step(state[None].astype(np.float32), np.array([action == 1]))
        np.testing.assert_allclose(after[0], expected, atol=1e-6)
        assert bool(stands[0]) is not terminated
        terminations += terminated
    assert 50 < terminations < 450


def test_cores_and_age_of_the_process():
    assert available_cores()
    if Path("/proc/self/stat").exists():
        assert seconds_since_process_start() > 0


@pytest.mark.parametrize("arguments", [("--num-envs", "0"), ("--seconds", "-1"), ("--threads", "0")])
def test_sizes_must_be_positive(arguments, monkeypatch, capsys):
    from benchmarks.peers.command import main

    monkeypatch.setattr(sys, "argv", ["peer", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main(lambda *_: {}, None, 8)
    assert "must be positive" in capsys.readouterr().err
