"""Environments that do not keep to Gymnasium's interface: a run trains on them, or ends with one sentence."""

from functools import partial

import pytest
from helpers import train
from misbehaving import LIES, LYING, LYING_VECTOR, RESETS, VECTOR_LIES, VECTOR_RESETS
from tiers import fast_only

from scorepath.run.checkpoints import load_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]
# what harms nobody
SOUND = {
    *("none", "list", "float64", "int64", "outside", "numpy reward", "array without dims", "whole reward"),
    *("true reward", "numpy flags", "no info", "terminated at once", "truncated at once", "both at once"),
}
NOT_FINITE = {"nan observation", "infinite observation", "huge observation", "nan reward", "infinite reward"}
NOT_FINITE |= {"huge reward"}  # in float32
# what is looked at in the first step of a process alone: later it is taken for the value that can be read from it
READABLE = {"string reward", "no flag", "string flag", "array flag"}
# one of each part of an answer, and one that is sound; `pytest -m faults` plays all
FAST = ("list", "wrong shape", "nothing", "nan observation", "string reward", "no flag")
kept = partial(fast_only, others=pytest.mark.faults)
BOTH = pytest.mark.parametrize("vectorization", ["sync", "async"])
ONE_AND_SAVED = ("debug=one_update", "logger=none")
REMEDY = ("does not keep to", "orrect the environment")


def lie(folder, lie, vectorization, *overrides, id=LYING, at=1):
    game = ("env=gym", f"env.id={id}", f"+env.kwargs.lie={lie}", f"+env.kwargs.at={at}", "dist=bernoulli")
    return train(folder, *game, f"env.vectorization={vectorization}", *ONE_AND_SAVED, *overrides)


def trains(outcome):
    assert outcome.code == 0, outcome.err
    assert outcome.summary["updates"] >= 1
    content = load_checkpoint(outcome.directory / "checkpoints" / "last.ckpt")
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())


def is_refused(outcome, name, words):
    """With one sentence, and nothing learned from the lie."""
    assert outcome.code in (1, 2), outcome.out
    assert name in outcome.sentence
    assert len(outcome.sentence) < 900
    for word in words:
        assert word in outcome.sentence
    assert outcome.summary["status"] == "failed"


def words_for(what):
    return ("not finite", "correct the environment") if what in NOT_FINITE else REMEDY


@pytest.mark.parametrize("what", kept(LIES, *FAST))
def test_a_lie_in_the_first_step(tmp_path, what):
    outcome = lie(tmp_path, what, "sync")
    trains(outcome) if what in SOUND else is_refused(outcome, "Lying-v0", words_for(what))


@pytest.mark.faults
@pytest.mark.parametrize("what", LIES)
def test_a_lie_in_the_first_step_of_a_worker(tmp_path, what):
    outcome = lie(tmp_path, what, "async")
    trains(outcome) if what in SOUND else is_refused(outcome, "Lying-v0", words_for(what))


@pytest.mark.faults
@BOTH
@pytest.mark.parametrize("what", LIES)
def test_a_lie_in_step_100(tmp_path, what, vectorization):
    outcome = lie(tmp_path, what, vectorization, "max_env_steps=400", at=100)
    if what in SOUND | READABLE:
        trains(outcome)
    else:
        is_refused(outcome, "Lying-v0", words_for(what))
        assert outcome.summary["updates"] > 5


@pytest.mark.faults
@BOTH
@pytest.mark.parametrize("what", RESETS)
def test_a_lie_in_the_reset(tmp_path, what, vectorization):
    outcome = lie(tmp_path, what, vectorization, at=0)
    if what == "info is none":
        trains(outcome)
    else:
        is_refused(outcome, "Lying-v0", words_for(what))
        assert not outcome.summary["updates"]


@pytest.mark.parametrize("what", kept(VECTOR_LIES, "one lane", "lists", "nan reward"))
@pytest.mark.parametrize("at", [1, pytest.param(50, marks=pytest.mark.faults)])
def test_a_lie_of_a_vector_environment(tmp_path, what, at):
    outcome = lie(tmp_path, what, "auto", "max_env_steps=200", id=LYING_VECTOR, at=at)
    if what in ("lists", "float64", "terminated at once", "outside"):
        trains(outcome)
    else:
        is_refused(outcome, "LyingVector", words_for(what))
        assert bool(outcome.summary["updates"]) == (at == 50)


@pytest.mark.parametrize("what", kept(VECTOR_RESETS, "wrong shape"))
def test_a_lie_in_the_reset_of_a_vector_environment(tmp_path, what):
    is_refused(lie(tmp_path, what, "auto", id=LYING_VECTOR, at=0), "LyingVector", words_for(what))


# ------------------------------------------------------------------ spaces


@pytest.mark.parametrize("vectorization", kept(["sync", "async"], "sync"))
def test_spaces_that_differ_between_copies(tmp_path, vectorization):
    is_refused(lie(tmp_path, "'spaces differ'", vectorization), "Lying-v0", ("space",))


@pytest.mark.faults
@BOTH
def test_actions_that_start_below_zero(tmp_path, vectorization):
    """The environment insists on its space, -1 to 1."""
    trains(lie(tmp_path, "start", vectorization, "dist=categorical"))


@pytest.mark.faults
@pytest.mark.parametrize("space", ["unbounded", "half bounded"])
@pytest.mark.parametrize("dist", ["normal", "laplace", "student_t", "tanh_normal", "beta", "multivariate_normal"])
def test_actions_without_bounds(tmp_path, space, dist):
    """A Normal's samples are clipped to what bounds there are; others need bounds, and say so."""
    outcome = lie(tmp_path, f"'{space}'", "sync", f"dist={dist}")
    if outcome.code:
        is_refused(outcome, "", ("dist=",))
        assert dist not in ("normal", "laplace", "student_t", "multivariate_normal")
    else:
        trains(outcome)


@pytest.mark.parametrize("vectorization", kept(["sync", "async"], "sync"))
@pytest.mark.parametrize("what", ["text", "no space"])
def test_observations_that_no_network_reads(tmp_path, what, vectorization):
    is_refused(lie(tmp_path, f"'{what}'", vectorization), "Lying-v0", ())


@pytest.mark.parametrize(
    "what", kept(["4 parts", "no observation", "long array reward", "nan reward", "no flag"], "4 parts")
)
def test_gymnasium_s_checker_does_not_turn_a_sentence_into_a_traceback(tmp_path, what):
    """It is on by default, and looks at the first step and reset itself."""
    is_refused(lie(tmp_path, what, "sync", id="misbehaving:CheckedLying-v0"), "CheckedLying-v0", ("Correct",))
