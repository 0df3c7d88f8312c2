"""`compile=true`: the same run, to rounding errors. The compiler takes seconds, so that most of this is slow."""

import shutil

import pytest
import torch
from helpers import finish, start

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
SMALL = ("max_env_steps=1500", "eval.every_env_steps=100000", "eval.episodes=2", "record_episode=false", "logger=csv")
RUNS = {
    "gymnasium": ("env=cartpole",),
    "torch, with narrowing": ("env=cartpole_torch",),
    "pathwise": ("env=pendulum_torch", "episodes_per_update=4"),
    "gradients of each episode": ("env=pendulum_torch", "estimator=alpha_order", "episodes_per_update=4"),
    "diagnostics": ("env=cartpole", "callbacks=gradient_diagnostics", "callbacks.gradient_diagnostics.every_updates=1"),
}


def run(folder, *overrides):
    folder.mkdir()
    outcome = finish(start("train", folder, "hydra.run.dir=run", *SMALL, *overrides), folder / "run")
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", RUNS)
def test_a_compiled_run_is_the_run_to_rounding_errors(tmp_path, name):
    """The first update's figures; later ones part, for an action sampled on the other side is another episode."""
    plain = run(tmp_path / "plain", *RUNS[name])
    compiled, again = (run(tmp_path / folder, *RUNS[name], "compile=true") for folder in ("compiled", "again"))
    keys = ("rollout/episode_return_mean", "train/surrogate_loss", "train/grad_norm")
    expected, found = ([float(outcome.rows[0][key]) for key in keys] for outcome in (plain, compiled))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert again.summary["weights_sha256"] == compiled.summary["weights_sha256"]


def test_without_a_compiler_it_is_refused(tmp_path):
    process = start("train", tmp_path, "hydra.run.dir=run", "compile=true", PATH=str(tmp_path), CXX="no-such-compiler")
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 2
    assert "compile=true found no working compiler" in outcome.sentence
    assert "leave it false" in outcome.sentence
