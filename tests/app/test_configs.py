"""Experiments as a sweep runs them, on their own and with other options on top; two processes. Single options are in
test_config.py."""

import fnmatch
import json

import pytest
from helpers import CONF, finish, start, sweep, train, without_time
from tiers import slow

from scorepath.run.csv_logger import read_metrics

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    # the tutorial's environment is Gymnasium's old one
    pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date:DeprecationWarning"),
]

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
TINY = ("debug=one_update", "logger=none", "callbacks=none")


@pytest.mark.parametrize("pattern", ["*_pathwise", slow("*")])
def test_experiments_in_one_sweep(tmp_path, pattern):
    outcome = sweep(tmp_path, f"experiment=glob({pattern})", *TINY)
    assert outcome.code == 0, outcome.err
    folders = {path.parent.name: json.loads(path.read_text()) for path in outcome.directory.glob("*/summary.json")}
    experiments = fnmatch.filter(EXPERIMENTS, pattern)
    assert len(folders) == len(experiments) > 1
    for experiment in experiments:
        (summary,) = [summary for folder, summary in folders.items() if f"experiment-{experiment}" in folder]
        assert summary["updates"] == 1


@pytest.mark.parametrize(
    "change",
    [
        "optimizer=sgd",
        slow("optimizer=adamw"),
        slow("lr_schedule=constant"),
        slow("policy=linear"),
        slow("policy=mlp"),
        "gamma=0.9",
        slow("logger=csv"),
    ],
)
def test_an_experiment_is_a_start_that_the_command_line_may_change(tmp_path, change):
    outcome = train(tmp_path, "experiment=tutorial", *TINY, change)
    assert outcome.code == 0, outcome.err


STATISTICS = (
    "policy.normalize_observations=true",
    "baseline=moving_average",
    "estimator.normalize_returns=running",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("env=cartpole",),
        ("env=cartpole", "chunk=64"),  # several backward passes for one optimizer step
        ("env=pendulum_torch",),  # and several optimizer steps an update
        ("env=cartpole", "baseline=value"),  # which has an optimizer of its own
        STATISTICS,
    ],
    ids=" ".join,
)
def test_processes_learn_the_same_weights(tmp_path, options):
    """With one optimizer step or many an update: each is taken with the mean of all processes' gradients."""
    small = ("episodes_per_update=4", "max_env_steps=3000", "eval.episodes=2", "logger=none", "callbacks=none")
    small += ("record_episode=false", "+callbacks.digests._target_=helpers.Digests", "trainer.accelerator=cpu")
    directory = tmp_path / "run"
    process = start("train", tmp_path, *options, *small, "trainer=ddp", f"hydra.run.dir={directory}")
    outcome = finish(process, directory)
    assert outcome.code == 0, outcome.err
    one, other = ((tmp_path / f"rank_{rank}").read_text() for rank in range(2))
    assert one == other
    assert "unused" not in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("options", [STATISTICS, ("baseline=value",)], ids=" ".join)
def test_processes_that_were_stopped_and_resumed_end_as_those_that_were_not(tmp_path, options):
    small = ("episodes_per_update=4", "eval.episodes=2", "logger=csv", "record_episode=false", "lr_schedule=constant")
    small += (*options, "trainer=ddp", "trainer.accelerator=cpu", "stop_when_solved=false")
    digests = {}
    for name, *parts in (("whole", 2000), ("parts", 1000, 2000)):
        for budget in parts:
            directory = tmp_path / name
            arguments = (*small, f"max_env_steps={budget}", f"hydra.run.dir={directory}", "resume=auto")
            outcome = finish(start("train", tmp_path, *arguments), directory)
            assert outcome.code == 0, outcome.err
        digests[name] = outcome.summary["weights_sha256"]
        logged = without_time(outcome.rows)
        digests[f"{name}, rows"] = [row for row in logged if not row["eval/return_mean"]]
    assert digests["whole"] == digests["parts"]
    assert digests["whole, rows"] == digests["parts, rows"]


@pytest.mark.slow
def test_what_two_processes_log_is_of_all_their_episodes(tmp_path):
    """Episodes of one length each: the mean over both processes of what they paid, and the steps of both."""
    options = ("env=pendulum", "dist=normal", "episodes_per_update=2", "debug=one_update", "logger=csv")
    returns = []
    directory = tmp_path / "two"
    mark = ("record_episode=false", "+callbacks.returns._target_=helpers.Returns", "trainer=ddp")
    two = finish(
        start("train", tmp_path, *options, *mark, "trainer.accelerator=cpu", f"hydra.run.dir={directory}"), directory
    )
    assert two.code == 0, two.err
    said = (two.out + two.err).splitlines()
    assert len(said) == len(set(said))  # each line by one of them
    returns = [float(value) for rank in range(2) for value in (tmp_path / f"returns_{rank}").read_text().split()]
    (row,) = [row for row in two.rows if row["rollout/episode_return_mean"]]
    assert len(set(returns)) == 4
    assert float(row["rollout/episode_return_mean"]) == pytest.approx(sum(returns) / 4, rel=1e-5)
    assert int(row["env_steps"]) == 4 * 200


@pytest.mark.slow
def test_processes_never_wait_for_a_window_that_another_has_not(tmp_path):
    """Episodes that end by themselves have windows of different numbers: refused for several processes alone."""
    options = ("env=pendulum_torch", "env.dynamics._target_=helpers.FallingPendulum", "debug=one_update", "logger=none")
    assert train(tmp_path, *options, directory="alone").code == 0
    directory = tmp_path / "two"
    two = (*options, "trainer=ddp", "trainer.accelerator=cpu", f"hydra.run.dir={directory}")
    refused = finish(start("train", tmp_path, *two), directory)
    assert refused.code != 0
    assert "use estimator.window=null, or trainer.devices=1" in refused.err
    whole = finish(start("train", tmp_path, *two, "estimator.window=null", "resume=auto"), directory)
    assert whole.code == 0, whole.err


@pytest.mark.slow
def test_two_processes_share_their_gradients(tmp_path):
    """Rank 0 plays the episodes of the single process: equal weights would mean that it learned from these alone."""
    options = ("debug=one_update", "logger=csv", "record_episode=false")
    alone = train(tmp_path, *options, directory="alone")
    directory = tmp_path / "two"
    process = start("train", tmp_path, *options, "trainer=ddp", "trainer.accelerator=cpu", f"hydra.run.dir={directory}")
    two = finish(process, directory)
    assert two.code == 0, two.err
    assert two.summary["episodes"] == 2 * alone.summary["episodes"]
    assert two.summary["env_steps"] > alone.summary["env_steps"]
    assert two.summary["weights_sha256"] != alone.summary["weights_sha256"]
    assert len(read_metrics(directory / "metrics.csv")) == 2  # one update, one evaluation, written once
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "two"}
