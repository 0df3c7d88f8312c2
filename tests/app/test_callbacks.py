"""Callbacks of Lightning's in the config: they work on our axis, or are refused before the first rollout."""

import pytest
from helpers import train
from tiers import slow

from scorepath.run.checkpoints import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

SMALL = ("episodes_per_update=4", "eval.episodes=2", "record_episode=false", "logger=csv")
FEW = (*SMALL, "max_env_steps=400", "eval.every_env_steps=200")


def callback(name, **arguments):
    target = f"+callbacks.mine._target_=lightning.pytorch.callbacks.{name}"
    return (target, *(f"+callbacks.mine.{key}={value}" for key, value in arguments.items()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (callback("ModelCheckpoint"), "callbacks=default saves best.ckpt and last.ckpt"),
        slow(callback("OnExceptionCheckpoint", dirpath="there"), "callbacks=default saves best.ckpt and last.ckpt"),
        (callback("TQDMProgressBar"), "callbacks.progress and callbacks.mine each draw a progress bar"),
        (callback("GradientAccumulationScheduler", scheduling="{0:4}"), "is not supported for manual optimization"),
        slow(callback("StochasticWeightAveraging", swa_lrs=0.01), "provide `swa_epoch_start` as an integer"),
    ],
    ids=lambda value: value[0].rpartition(".")[2] if isinstance(value, tuple) else "",
)
def test_refused_with_a_remedy(tmp_path, given, words):
    outcome = train(tmp_path, *FEW, *given)
    assert outcome.code == 2
    assert words in outcome.sentence
    assert "leave it out with ~callbacks.mine" in outcome.sentence or "leave one out with" in outcome.sentence
    assert outcome.summary["env_steps"] in (None, 0)


@pytest.mark.parametrize(
    "given",
    [
        (*callback("TQDMProgressBar"), "~callbacks.progress"),
        slow(callback("ModelSummary")),
        slow(callback("Timer")),
        callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1),
        slow(callback("EarlyStopping", monitor="eval/return_mean", mode="max")),
    ],
    ids=lambda value: value[0].rpartition(".")[2],
)
def test_works(tmp_path, given):
    outcome = train(tmp_path, *FEW, *given)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["env_steps"] > 0


def test_a_checkpoint_holds_what_the_others_have_made_of_its_evaluation(tmp_path):
    """Or a resumed run waits for an evaluation longer than one that was not stopped."""
    patient = {"monitor": "eval/return_mean", "mode": "max", "patience": 100, "min_delta": 1e9}
    outcome = train(tmp_path, *FEW, *callback("EarlyStopping", **patient))
    assert outcome.code == 0, outcome.err
    states = load_checkpoint(outcome.directory / "checkpoints" / "last.ckpt")["callbacks"]
    (waited,) = [state["wait_count"] for key, state in states.items() if key.startswith("EarlyStopping")]
    assert waited == len([row for row in outcome.rows if row["eval/return_mean"]]) - 1 > 0


def test_what_lightning_logs_stands_at_env_steps(tmp_path):
    """Its own step is the number of updates."""
    outcome = train(tmp_path, *FEW, "trainer.log_every_n_steps=1", *callback("LearningRateMonitor"))
    assert outcome.code == 0, outcome.err
    updates = [int(row["env_steps"]) for row in outcome.rows if row["train/learning_rate"]]
    assert len(updates) > 2
    monitored = {int(row["env_steps"]): float(row["lr-Adam"]) for row in outcome.rows if row["lr-Adam"]}
    assert list(monitored) == [0, *updates[:-1]]  # before each update
