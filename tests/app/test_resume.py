"""Stopping and going on: a run that was stopped, however, ends with the digest of one that was not."""

import functools
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import (
    FAULTY,
    HOLD,
    Outcome,
    evaluate,
    finish,
    snapshot,
    start,
    succeed,
    sweep,
    train,
    wait_for,
    without_time,
)
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tiers import fast_only, slow

from scorepath.run.checkpoints import load_checkpoint, seal

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("eval.episodes=3", "record_episode=false", "lr_schedule=constant", "logger=csv")
# options, budget of the first part, of the whole
KINDS = {
    "bernoulli": (("episodes_per_update=8",), 1000, 2500),
    "categorical": (("dist=categorical", "episodes_per_update=8"), 1000, 2500),
    "normal with a value network": (("env=pendulum", "baseline=value", "episodes_per_update=2"), 800, 2000),
    "all that is kept": (
        (
            *("env=pendulum", "baseline=value", "estimator.normalize_returns=running", "episodes_per_update=2"),
            *("policy.normalize_observations=true", "optimizer=sgd", "optimizer.momentum=0.9"),
            "env.max_episode_steps=50",
        ),
        200,
        500,
    ),
    "running statistics": (
        ("baseline=moving_average", "estimator.normalize_returns=running", "episodes_per_update=8"),
        1000,
        2500,
    ),
    "greedy episodes": (("baseline=self_critical", "episodes_per_update=8"), 1000, 2500),
    "pathwise": (("env=pendulum_torch", "episodes_per_update=2"), 400, 1200),
    "whole-episode pathwise": (("env=lqr", "episodes_per_update=2"), 400, 1200),
    "normalized observations": (("policy.normalize_observations=true", "episodes_per_update=8"), 1000, 2500),
    "momentum": (("optimizer=sgd", "optimizer.momentum=0.9", "episodes_per_update=8"), 1000, 2500),
}
# counters, networks with optimizers of their own, running statistics. Each of them alone is slow
FAST = ("all that is kept",)


def same_run(resumed: Outcome, whole: Outcome) -> None:
    """In weights, counters and results; how long it took and what it ran on aside."""
    changing = {"train_seconds", "total_seconds", "env_steps_per_second"}
    assert {key: value for key, value in resumed.summary.items() if key not in changing} == {
        key: value for key, value in whole.summary.items() if key not in changing
    }


@pytest.mark.parametrize("kind", fast_only(KINDS, *FAST))
def test_a_run_resumed_is_the_run_uninterrupted(tmp_path, kind):
    """`auto` and a path, to a run or to a checkpoint."""
    options, part, budget = KINDS[kind]
    every = f"eval.every_env_steps={part}"
    whole = succeed(train(tmp_path, *SMALL, *options, every, f"max_env_steps={budget}", directory="whole"))
    first = succeed(train(tmp_path, *SMALL, *options, every, f"max_env_steps={part}", directory="first"))
    assert first.summary["weights_sha256"] != whole.summary["weights_sha256"]
    rest = (*SMALL, *options, every, f"max_env_steps={budget}")
    rows = first.rows
    elsewhere = succeed(train(tmp_path, *rest, "resume=first", directory="elsewhere"))
    same_run(elsewhere, whole)
    resumed = succeed(train(tmp_path, *rest, "resume=auto", directory="first"))
    same_run(resumed, whole)
    assert without_time(resumed.rows) == without_time(whole.rows)
    # what a reader of metrics.csv in the other folder finds is the rest
    assert without_time(elsewhere.rows) == without_time(whole.rows)[len(rows) :]


def test_resume_takes_a_checkpoint(tmp_path):
    options, part, budget = KINDS["bernoulli"]
    whole = succeed(train(tmp_path, *SMALL, *options, f"max_env_steps={budget}", directory="whole"))
    succeed(train(tmp_path, *SMALL, *options, f"max_env_steps={part}", directory="first"))
    path = "resume=first/checkpoints/last.ckpt"
    resumed = succeed(train(tmp_path, *SMALL, *options, f"max_env_steps={budget}", path, directory="rest"))
    same_run(resumed, whole)


def test_resume_auto_of_nothing_starts_from_the_beginning_and_says_so(tmp_path):
    resumed = succeed(train(tmp_path, "debug=one_update", "logger=none", "resume=auto"))
    assert "starts from the beginning" in resumed.out
    fresh = succeed(train(tmp_path, "debug=one_update", "logger=none", directory="fresh"))
    same_run(resumed, fresh)


def test_resuming_a_finished_run_changes_nothing_but_times(tmp_path):
    options = (*SMALL, "episodes_per_update=8", "max_env_steps=1000")
    first = succeed(train(tmp_path, *options))
    summary, rows, checkpoint = first.summary, first.rows, (first.directory / "checkpoints/last.ckpt").read_bytes()
    again = succeed(train(tmp_path, *options, "resume=auto"))
    assert again.rows == rows
    assert (again.directory / "checkpoints/last.ckpt").read_bytes() == checkpoint
    for key in ("status", "weights_sha256", "eval_return_mean", "env_steps", "updates", "episodes"):
        assert again.summary[key] == summary[key]


def test_resuming_a_solved_run_stays_solved(tmp_path):
    options = (*SMALL, "episodes_per_update=8", "eval.every_env_steps=500", "env.reward_threshold=12")
    first = succeed(train(tmp_path, *options)).summary
    again = succeed(train(tmp_path, *options, "resume=auto")).summary
    assert first["status"] == again["status"] == "solved"
    for key in ("weights_sha256", "solved_at_env_steps", "env_steps"):
        assert again[key] == first[key]


def test_best_checkpoint_stays_the_best_over_a_resume(tmp_path):
    """Of all evaluations, the first part's included."""
    options = (*SMALL, "episodes_per_update=8", "eval.every_env_steps=400")
    succeed(train(tmp_path, *options, "max_env_steps=1200"))
    resumed = succeed(train(tmp_path, *options, "max_env_steps=2400", "resume=auto"))
    evaluated = {
        int(row["env_steps"]): float(row["eval/return_mean"]) for row in resumed.rows if row["eval/return_mean"]
    }
    best = torch.load(resumed.directory / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["scorepath"]["env_steps"] == max(evaluated, key=lambda steps: evaluated[steps])


def test_an_equal_evaluation_after_a_resume_is_no_new_best(tmp_path):
    """Every episode is worth -10, so that the first evaluation stays the best."""
    equal = ("env=mountain_car", "env.max_episode_steps=10", "episodes_per_update=4", "eval.every_env_steps=200")
    equal = (*equal, "env.reward_threshold=0")
    succeed(train(tmp_path, *SMALL, *equal, "max_env_steps=200"))
    resumed = succeed(train(tmp_path, *SMALL, *equal, "max_env_steps=400", "resume=auto"))
    assert resumed.summary["env_steps"] == 400
    best = torch.load(resumed.directory / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["scorepath"]["env_steps"] == 200


# ------------------------------------------------------------------ refused


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Outcome:
    return succeed(train(tmp_path_factory.mktemp("once"), *SMALL, "episodes_per_update=8", "max_env_steps=500"))


@pytest.fixture
def stopped(once, tmp_path) -> Outcome:
    """A run that reached its budget: a copy for each test."""
    return replace(once, directory=shutil.copytree(once.directory, tmp_path / "run"))


def test_a_finished_run_that_is_resumed_as_another_stays_byte_for_byte(tmp_path):
    """With all that a run writes, and nothing left to learn."""
    options = ("eval.episodes=2", "episodes_per_update=8", "max_env_steps=500")
    first = succeed(train(tmp_path, *options))
    before = snapshot(first.directory)
    assert {"summary.json", "metrics.csv", "train.log", ".hydra/config.yaml", "checkpoints/last.ckpt"} <= set(before)
    assert any(name.startswith("tensorboard/") for name in before)
    outcome = train(tmp_path, *options, "resume=auto", "optimizer=sgd")
    assert outcome.code == 2
    assert "optimizer._target_ was torch.optim.Adam and is torch.optim.SGD" in outcome.sentence
    assert snapshot(first.directory) == before


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("policy.torso.hidden_sizes=[32]", "policy.torso.hidden_sizes was [64, 64] and is [32]"),
        slow("policy=linear", "it was trained with"),
        slow("dist=categorical", "it was trained with"),
        ("baseline=value", "it was trained with"),
        slow("env=acrobot", "it was trained with"),
        slow("gamma=0.5", "gamma was 0.99 and is 0.5"),
        slow("estimator.normalize_returns=none", "estimator.normalize_returns was batch and is none"),
        slow("estimator=score_function_unbiased", "estimator.discount_steps was False and is True"),
        slow("baseline=leave_one_out", "baseline._target_ was scorepath.baselines.TimeMean"),
        ("optimizer=sgd", "optimizer._target_ was torch.optim.Adam and is torch.optim.SGD"),
        slow("optimizer.eps=0.1", "optimizer.eps was 1e-08 and is 0.1"),
        slow("max_grad_norm=0.5", "max_grad_norm was None and is 0.5"),
        slow("episodes_per_update=4", "episodes_per_update was 8 and is 4"),
        slow("trainer.precision=bf16-mixed", "trainer.precision was 32-true and is bf16-mixed"),
        slow("env=cartpole_v0", "env.id was CartPole-v1 and is CartPole-v0"),
        slow("+env.kwargs.sutton_barto_reward=true", "env.kwargs.sutton_barto_reward was absent and is True"),
        slow("policy.init=orthogonal", "policy.init was torch and is orthogonal"),
        slow("policy.normalize_observations=true", "it was trained with"),
        slow("seed=1", "seed was 0 and is 1"),
    ],
)
def test_resuming_as_another_run_is_refused_and_harms_nothing(stopped, change, remedy):
    before = snapshot(stopped.directory)
    outcome = train(
        stopped.directory.parent, *SMALL, "episodes_per_update=8", "max_env_steps=900", change, "resume=auto"
    )
    assert outcome.code == 2
    assert remedy in outcome.sentence
    assert snapshot(stopped.directory) == before


def test_several_changes_are_refused_together(stopped):
    changes = ("optimizer.lr=0.5", "gamma=0.5", "estimator.normalize_returns=none", "max_env_steps=900")
    outcome = train(stopped.directory.parent, *SMALL, "episodes_per_update=8", *changes, "resume=auto")
    assert outcome.code == 2
    assert (
        "another run: estimator.normalize_returns was batch and is none, gamma was 0.99 and is 0.5." in outcome.sentence
    )


def saved_config(outcome: Outcome):
    return OmegaConf.load(outcome.directory / ".hydra" / "config.yaml")


def test_a_changed_learning_rate_takes_effect_and_is_saved(stopped):
    """One so small that nothing moves: the resumed part ends with the weights that it began with."""
    before = stopped.summary
    resumed = succeed(
        train(
            *(stopped.directory.parent, *SMALL, "episodes_per_update=8", "max_env_steps=1500", "resume=auto"),
            "optimizer.lr=1e-30",
        )
    )
    assert resumed.summary["env_steps"] > before["env_steps"]
    assert resumed.summary["weights_sha256"] == before["weights_sha256"]
    assert float(resumed.rows[-2]["train/learning_rate"]) == pytest.approx(1e-30)
    assert saved_config(resumed).optimizer.lr == 1e-30


def test_a_changed_learning_rate_of_the_value_network_takes_effect(tmp_path):
    options = (*SMALL, "env=pendulum", "baseline=value", "episodes_per_update=2")

    def network(outcome):
        state = load_checkpoint(outcome.directory / "checkpoints" / "last.ckpt")["state_dict"]
        return {name: tensor for name, tensor in state.items() if name.startswith("baseline.")}

    first = network(succeed(train(tmp_path, *options, "max_env_steps=400")))
    more = (*options, "max_env_steps=1200", "resume=auto", "baseline.make_optimizer.lr=1e-30")
    second = network(succeed(train(tmp_path, *more)))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "change", ["optimizer.lr=0.5", slow("lr_schedule=linear"), "max_env_steps=300"], ids=lambda change: change
)
def test_a_run_at_its_end_does_not_say_that_it_learned_otherwise(stopped, change):
    before = snapshot(stopped.directory)
    options = (*SMALL, "episodes_per_update=8", "max_env_steps=500", "resume=auto", change)
    outcome = train(stopped.directory.parent, *options)
    assert outcome.code == 2
    assert "has reached its end after" in outcome.sentence and "Raise max_env_steps" in outcome.sentence
    assert snapshot(stopped.directory) == before


def test_a_run_at_its_end_may_be_evaluated_otherwise(stopped):
    options = (*SMALL, "episodes_per_update=8", "max_env_steps=500", "resume=auto", "eval.episodes=5")
    again = succeed(train(stopped.directory.parent, *options))
    assert again.summary["eval_episodes"] == 5
    assert again.summary["weights_sha256"] == stopped.summary["weights_sha256"]
    assert saved_config(again).eval.episodes == 5


def test_a_checkpoint_of_format_2_goes_on(tmp_path):
    """Which holds the config of three groups, and the seed beside it."""
    options = (*SMALL, "episodes_per_update=8")
    whole = succeed(train(tmp_path, *options, "max_env_steps=1500", directory="whole"))
    first = succeed(train(tmp_path, *options, "max_env_steps=500"))
    path = first.directory / "checkpoints" / "last.ckpt"
    content = load_checkpoint(path)
    own = content["scorepath"]
    own["format"] = 2
    own["config"] = {group: own["config"][group] for group in ("env", "dist", "policy")}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue() + seal(buffer.getvalue()))
    more = (*options, "max_env_steps=1500", "resume=auto")
    refused = train(tmp_path, *more, "seed=1")
    assert refused.code == 2 and "seed was 0 and is 1" in refused.sentence
    same_run(succeed(train(tmp_path, *more)), whole)


def test_resuming_with_a_bad_value_harms_nothing(stopped):
    before = snapshot(stopped.directory)
    outcome = train(stopped.directory.parent, "resume=auto", "dist=normal")
    assert outcome.code == 2
    assert "dist=normal needs a Box" in outcome.sentence
    assert snapshot(stopped.directory) == before


@pytest.mark.parametrize("size", [slow(0), slow(1000), -1], ids=["empty", "cut short", "bits flipped"])
def test_damaged_checkpoint_is_refused(stopped, size):
    for path in (stopped.directory / "checkpoints").glob("*.ckpt"):
        content = path.read_bytes()
        path.write_bytes(content[:size] if size >= 0 else b"x" * 100 + content[100:])
    before = snapshot(stopped.directory)
    outcome = train(stopped.directory.parent, *SMALL, "max_env_steps=900", "resume=auto")
    assert outcome.code == 2
    assert "last.ckpt is " in outcome.sentence and "No checkpoint of this run is sound" in outcome.sentence
    assert snapshot(stopped.directory) == before


# ------------------------------------------------------------------ signals

HELD = (
    *("env=gym", f"env.id={HOLD}", "dist=bernoulli", "logger=default", "record_episode=false", "episodes_per_update=4"),
    *("eval.episodes=3", "eval.every_env_steps=300", "max_env_steps=1500"),
)


# name -> signal, and the step at which it comes (HOLD of helpers.Hold)
INTERRUPTIONS = {
    "SIGTERM": (signal.SIGTERM, "training_step:600"),  # between two evaluations: there is no checkpoint of this update
    "SIGINT": (signal.SIGINT, "training_step:{due}"),  # in an update after which an evaluation is due
    "evaluation": (signal.SIGTERM, "validation_step:20"),
    "final evaluation, SIGTERM": (signal.SIGTERM, "evaluate!validation_step:20"),
    "final evaluation, SIGINT": (signal.SIGINT, "evaluate!validation_step:20"),
    "SIGKILL": (signal.SIGKILL, "training_step:800"),
    "SIGINT twice": (signal.SIGINT, "training_step:600"),
}


class Forked:
    """A run in a process that begins where this one is, without the seconds that imports take; used as a Popen is."""

    def __init__(self, folder: Path, *overrides: str, **variables: str) -> None:
        self.folder = folder
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(overrides, variables))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that are held elsewhere: ours hold nothing
            self._process.start()

    def _run(self, overrides: tuple[str, ...], variables: dict[str, str]) -> None:
        os.environ.update(variables)
        outcome = train(self.folder, *overrides)
        for name, text in (("out", outcome.out), ("err", outcome.err)):
            (self.folder / name).write_text(text)
        sys.exit(outcome.code)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> list[str]:
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("a forked run", timeout)
        return [(self.folder / name).read_text() if (self.folder / name).exists() else "" for name in ("out", "err")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Outcome:
    """With the linear schedule, which depends on env steps alone."""
    return succeed(train(tmp_path_factory.mktemp("uninterrupted"), *HELD))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, uninterrupted) -> dict[str, Outcome]:
    """Real runs that got a real signal in the middle of an episode; the first of them a script from its very start."""
    processes = {}
    ends = [int(row["env_steps"]) for row in uninterrupted.rows if row["rollout/episode_return_mean"]]
    first = ends.index(next(int(row["env_steps"]) for row in uninterrupted.rows if row["eval/return_mean"]))
    due = (ends[first - 1] + ends[first]) // 2
    for name, (_, where) in INTERRUPTIONS.items():
        folder = tmp_path_factory.mktemp("interrupted")
        hold = where.format(due=due)
        if name == "SIGTERM":
            processes[name] = folder, start("train", folder, "hydra.run.dir=run", *HELD, HOLD=hold)
        else:
            processes[name] = folder, Forked(folder, *HELD, HOLD=hold)
    outcomes = {}
    try:
        for name, (folder, process) in processes.items():
            number = INTERRUPTIONS[name][0]
            wait_for(folder / "held", process)
            process.send_signal(number)
            if name == "SIGINT twice":
                # the environment goes on waiting; of signals sent together the system may make one
                while process.poll() is None:
                    time.sleep(0.2)
                    process.send_signal(number)
            (folder / "go").touch()
            outcomes[name] = finish(process, folder / "run")
    finally:
        for _, process in processes.values():
            process.kill()  # which does nothing to one that has ended
            process.communicate()
    return outcomes


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, interrupted) -> Callable[[str], Outcome]:
    """A run that was interrupted, by its name, after it went on: in a copy, for others look at what it was."""

    @functools.cache
    def resume(name: str) -> Outcome:
        folder = tmp_path_factory.mktemp("resumed")
        shutil.copytree(interrupted[name].directory, folder / "run")
        return succeed(train(folder, *HELD, "resume=auto"))

    return resume


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "evaluation"])
def test_a_signal_ends_a_run(interrupted, uninterrupted, name):
    number, stopped = INTERRUPTIONS[name][0], interrupted[name]
    assert stopped.code == 128 + number
    assert number.name in stopped.sentence
    assert "continue with resume=" in stopped.sentence
    summary = stopped.summary
    assert summary["status"] == "interrupted"
    # the update in progress is finished, and another is not begun
    finished = [int(row["env_steps"]) for row in uninterrupted.rows if row["rollout/episode_return_mean"]]
    assert summary["env_steps"] == finished[summary["updates"] - 1] < 1500
    checkpoint = torch.load(stopped.directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["scorepath"]["env_steps"] == summary["env_steps"]
    assert int(stopped.rows[-1]["env_steps"]) == summary["env_steps"]


@pytest.mark.parametrize("name", fast_only(["SIGTERM", "SIGINT", "evaluation", "SIGKILL"], "SIGKILL"))
def test_an_interrupted_run_resumed_is_the_run_uninterrupted(resumed, uninterrupted, name):
    assert "Resuming from" in resumed(name).out
    same_run(resumed(name), uninterrupted)


@pytest.mark.parametrize("name", fast_only(["SIGTERM", "evaluation", "SIGKILL"], "SIGKILL"))
def test_metrics_of_a_run_resumed_are_those_of_the_run_uninterrupted(resumed, uninterrupted, name):
    """Each row once."""
    assert without_time(resumed(name).rows) == without_time(uninterrupted.rows)


def test_an_evaluation_that_was_due_at_the_interruption_is_made_up_for(interrupted, resumed, uninterrupted):
    """Or a run that it would have solved goes on, and ends with other weights."""
    evaluations = [int(row["env_steps"]) for row in uninterrupted.rows if row["eval/return_mean"]]
    assert interrupted["SIGINT"].summary["env_steps"] == evaluations[0]
    assert [int(row["env_steps"]) for row in resumed("SIGINT").rows if row["eval/return_mean"]] == evaluations


def test_interrupted_run_has_a_complete_summary_and_log(interrupted, uninterrupted):
    stopped = interrupted["SIGTERM"]
    assert set(stopped.summary) == set(uninterrupted.summary)
    assert stopped.sentence in (stopped.directory / "train.log").read_text()


@pytest.mark.parametrize("name", ["final evaluation, SIGTERM", slow("final evaluation, SIGINT")])
def test_a_signal_during_the_final_evaluation(interrupted, resumed, uninterrupted, name):
    """All is learned; what is missing is the figure that may be reported."""
    number, stopped = INTERRUPTIONS[name][0], interrupted[name]
    assert stopped.code == 128 + number
    assert stopped.summary["status"] == "interrupted"
    same_run(resumed(name), uninterrupted)


def test_second_sigint_leaves_at_once(interrupted):
    stopped = interrupted["SIGINT twice"]
    assert stopped.code == 130
    assert not (stopped.directory / "summary.json").exists()


BROKEN = (
    *("env=gym", f"env.id={FAULTY}", "dist=bernoulli", "record_episode=false", "episodes_per_update=2"),
    *("eval.episodes=2", "max_env_steps=600", "+env.kwargs.bad=reward"),
)


@pytest.mark.parametrize("every", [100, slow(400)], ids=["with a checkpoint", "before the first checkpoint"])
def test_a_run_that_failed_is_shown_once_when_it_is_resumed(tmp_path, every, monkeypatch):
    """What it wrote after its last checkpoint, or without one, is written again."""
    options = (*BROKEN, f"eval.every_env_steps={every}", "+env.kwargs.under='${oc.env:UNDER}'")
    monkeypatch.setenv("UNDER", "training_step")
    failed = train(tmp_path, *options)
    assert failed.code == 1
    assert (failed.directory / "checkpoints").exists() == (every == 100)
    assert failed.rows
    monkeypatch.setenv("UNDER", "nothing")  # the environment is fixed
    resumed = succeed(train(tmp_path, *options, "resume=auto"))
    rows = [int(row["env_steps"]) for row in resumed.rows if row["rollout/episode_return_mean"]]
    assert rows == sorted(set(rows))
    assert len(rows) == resumed.summary["updates"]
    events = EventAccumulator(str(resumed.directory / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("rollout/episode_return_mean")] == rows


@pytest.mark.parametrize("ahead", [slow(0.0), 1e8], ids=["in the same second", "after the clock was set back"])
def test_a_dashboard_shows_what_a_resumed_run_adds(tmp_path, monkeypatch, ahead):
    """One that is open goes on with it, and one that is opened later has the same."""
    now = time.time()
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: now + ahead)
        small = ("episodes_per_update=8", "eval.episodes=2", "stop_when_solved=false", "record_episode=false")
        first = succeed(train(tmp_path, *small, "max_env_steps=500"))
    options = {"size_guidance": {"scalars": 0}}
    opened = EventMultiplexer(**options).AddRunsFromDirectory(str(first.directory)).Reload()
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: now)
        resumed = succeed(train(tmp_path, *small, "max_env_steps=900", "resume=auto"))
    for dashboard in (opened.Reload(), EventMultiplexer(**options).AddRunsFromDirectory(str(first.directory)).Reload()):
        curve = dashboard.Scalars("tensorboard", "rollout/episode_return_mean")
        assert [event.step for event in curve] == [
            int(row["env_steps"]) for row in resumed.rows if row["rollout/episode_return_mean"]
        ]
        assert dashboard.Scalars("tensorboard", "final/env_steps")[-1].value == resumed.summary["env_steps"]


def test_resumed_run_can_be_evaluated(tmp_path):
    succeed(train(tmp_path, *SMALL, "episodes_per_update=8", "max_env_steps=500"))
    succeed(train(tmp_path, *SMALL, "episodes_per_update=8", "max_env_steps=900", "resume=auto"))
    assert evaluate(tmp_path, "run_dir=run", "episodes=2", "checkpoint=last").code == 0


def test_a_sweep_resumes_where_its_jobs_stopped(tmp_path):
    options = (*SMALL, "episodes_per_update=8", "seed=0,1")
    first = succeed(sweep(tmp_path, *options, "max_env_steps=500"))
    digests = {path.parent.name: path.read_bytes() for path in first.directory.glob("*/checkpoints/last.ckpt")}
    again = succeed(sweep(tmp_path, *options, "max_env_steps=500", "resume=auto"))
    assert {path.parent.name: path.read_bytes() for path in again.directory.glob("*/checkpoints/last.ckpt")} == digests
