"""The same command gives the same weights: twice, with one thread and two, watched or not, in one process or many."""

import itertools

import numpy as np
import pytest
from helpers import finish, start, train

from scorepath.seeding import Stream, derive_seed, split_seed

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("eval.episodes=2", "record_episode=false", "max_env_steps=1500", "eval.every_env_steps=700")
KINDS = {
    "whole batch": ("env=cartpole", "episodes_per_update=8"),
    "one by one": ("env=cartpole", "env.vectorization=sync", "episodes_per_update=8"),
    "acrobot": ("env=acrobot", "episodes_per_update=2", "env.max_episode_steps=100"),
    "torch": ("env=cartpole_torch", "episodes_per_update=64"),
    "wide torch": ("env=cartpole_torch", "episodes_per_update=2048"),
    "lqr": ("env=lqr", "episodes_per_update=8"),
    "windows": ("env=pendulum_torch", "episodes_per_update=4"),
    "relaxed": ("env=pendulum_discrete_torch", "estimator=gumbel_softmax", "episodes_per_update=4"),
    "value network": ("env=pendulum", "dist=normal", "baseline=value", "episodes_per_update=4"),
}
KINDS |= {
    f"pendulum {dist}": ("env=pendulum", f"dist={dist}", "episodes_per_update=4")
    for dist in (
        "normal",
        "laplace",
        "student_t",
        "tanh_normal",
        "beta",
        "kumaraswamy",
        "truncated_normal",
        "von_mises",
    )
}
KINDS |= {f"cartpole {dist}": ("env=cartpole", f"dist={dist}", "episodes_per_update=8") for dist in ("categorical",)}
CHANGES = {
    "again": ("threads=1",),
    "two threads": ("threads=2",),
    "unwatched": ("threads=1", "logger=none", "callbacks=none"),
    "diagnosed": ("threads=1", "callbacks=gradient_diagnostics", "callbacks.gradient_diagnostics.every_updates=1"),
}


def digest(folder, name, *overrides) -> str:
    outcome = train(folder, *SMALL, *overrides, directory=name)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["irreproducible"] == []
    return outcome.summary["weights_sha256"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_command_one_digest(tmp_path, kind):
    expected = digest(tmp_path, "first", *KINDS[kind], "threads=1", "logger=csv")
    changes = dict(CHANGES)
    if kind == "wide torch":
        del changes["two threads"]  # sums over 2,048 episodes are cut at another place
    if kind in ("one by one", "acrobot", "pendulum normal"):  # not stepped by an implementation of a whole batch
        changes["processes"] = ("threads=1", "env.vectorization=async")
    found = {name: digest(tmp_path, name, *KINDS[kind], *change) for name, change in changes.items()}
    assert found == dict.fromkeys(changes, expected)


@pytest.mark.parametrize(("cores", "told"), [("1", []), ("2", ["2 here (threads=2 keeps it so elsewhere)"])])
def test_a_batch_so_wide_that_the_number_of_cores_counts_says_so(tmp_path, cores, told):
    wide = ("env=cartpole_torch", "episodes_per_update=512", "debug=one_update", "logger=none")
    process = start("train", tmp_path, "hydra.run.dir=run", *wide, OMP_NUM_THREADS=cores)
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    labels = outcome.summary["irreproducible"]
    assert [label[-len(end) :] for label, end in zip(labels, told, strict=True)] == told
    assert ("cannot be repeated exactly: so many episodes" in outcome.out) == bool(told)


def test_no_two_environments_ever_share_a_stream():
    """100 seeds x 8 ranks x 1,000 updates x 64 environments; by chance two 63-bit seeds agree once in 7,000."""
    grid = itertools.product(range(100), range(8), range(1000))
    seeds = np.empty((800_000, 64), dtype=np.uint64)
    for row, (seed, rank, update) in enumerate(grid):
        seeds[row] = split_seed(derive_seed(seed, Stream.ENVIRONMENT, rank, update), 64)
    flat = seeds.ravel()
    flat.sort()
    assert (flat[1:] != flat[:-1]).all()
