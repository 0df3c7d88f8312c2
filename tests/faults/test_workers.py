"""Workers of env.vectorization=async that break, with real processes and real signals."""

import contextlib
import multiprocessing
import os
import re
import signal
import time

import pytest
import torch
from helpers import finish, start, train, wait_for, with_mark
from misbehaving import BREAKING, FORGETFUL, LYING

from scorepath.envs import GymnasiumEnvironment
from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.checkpoints import load_checkpoint
from scorepath.seeding import split_seed

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]
SEED = 42
ACTIONS = torch.zeros(3, dtype=torch.int64)
BREAKS = {
    "raises": r"raised ZeroDivisionError: .*\(misbehaving.py, line \d+\)",
    "raises_unpicklable": r"raised misbehaving.UnpicklableError: .*misbehaving.py",
    "raises_unprintable": r"raised misbehaving.UnprintableError.*misbehaving.py",
    "raises_end_of_file": r"raised EOFError: of the environment's own",
    "raises_interrupt": r"raised KeyboardInterrupt",
    "exits": r"raised SystemExit: 3",
    "leaves": r"exited with code 4",
    "sleeps": r"did not answer in 2 s.*env\.step_timeout",
    "closes_its_pipe": r"(closed its pipe|exited with code \d+)",
    "closes_its_pipe_and_sleeps": r"closed its pipe",
    "leaves_a_child_with_its_pipe": r"exited with code 4",
}


def make(how="raises", at=3, **options):
    arguments = {"kwargs": {"how": how, "at": at}, "step_timeout": 2.0, **options}
    return GymnasiumEnvironment(BREAKING, 3, "async", **arguments)


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(multiprocessing.active_children())
    yield
    assert not set(multiprocessing.active_children()) - before


def play_until_it_breaks(env, steps=60):
    env.reset(SEED)
    for _ in range(steps):
        env.step(ACTIONS)


@pytest.mark.parametrize("how", BREAKS)
def test_a_worker_that_breaks_in_a_step_is_named(how):
    env = make(how)
    with pytest.raises(ScorepathError) as error:
        play_until_it_breaks(env)
    sentence = str(error.value)
    assert re.search(BREAKS[how], sentence), sentence
    assert "\n" not in sentence
    assert sentence.startswith("Breaking-v0: worker 1 ")
    assert f"in step {env.steps + 1} of the episode reset with seed {split_seed(SEED, 3)[1]}" in sentence
    # an answer that has not been read may follow that of the step before
    assert env.steps in (2, 3)
    assert not multiprocessing.active_children()
    for again in (lambda: env.step(ACTIONS), lambda: env.reset(SEED)):
        with pytest.raises(ScorepathError, match="cannot continue, for its workers were ended"):
            again()
    env.close()


@pytest.mark.parametrize("how", ["raises", "raises_unpicklable", "exits", "leaves", "sleeps"])
def test_a_worker_that_breaks_in_the_reset_is_named(how):
    env = make(how, at=0)
    with pytest.raises(ScorepathError, match=BREAKS[how]) as error:
        env.reset(SEED)
    assert f"in the reset of the episode reset with seed {split_seed(SEED, 3)[1]}" in str(error.value)


@pytest.mark.parametrize("how", ["raises", "raises_unpicklable", "exits", "leaves"])
def test_a_worker_that_breaks_in_the_constructor_is_named(how):
    with pytest.raises(ConfigError, match=rf"worker 1 {BREAKS[how]}.*before its first reset"):
        make(how, at=-1)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSTOP"])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_worker_that_gets_a_signal_from_outside_is_named(name, steps):
    env = make(at=1000)
    env.reset(SEED)
    for _ in range(steps):
        env.step(ACTIONS)
    (process,) = [child for child in multiprocessing.active_children() if child.name == "environment 2"]
    os.kill(process.pid, signal.Signals[name])
    words = "did not answer in 2 s" if name == "SIGSTOP" else f"was killed by {name}"
    with pytest.raises(ScorepathError, match=f"worker 2 {words}.*in step"):
        for _ in range(50):
            env.step(ACTIONS)
            time.sleep(0.01)  # the signal arrives when the system has time


def test_signals_to_the_group_are_left_to_the_main_process():
    env = make(at=1000)
    env.reset(SEED)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGUSR1)
    for _ in range(5):
        env.step(ACTIONS)
    env.close()


def test_another_one_plays_on_as_if_nothing_had_happened():
    """No answer of the broken workers finds its way into a fresh object's."""
    sound = make(at=1000)
    expected = [sound.reset(SEED), *(sound.step(ACTIONS).observations for _ in range(8))]
    sound.close()
    with pytest.raises(ScorepathError):
        play_until_it_breaks(make("sleeps"))
    again = make(at=1000)
    found = [again.reset(SEED), *(again.step(ACTIONS).observations for _ in range(8))]
    again.close()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_closing_does_not_wait_for_an_environment_that_hangs_in_close(tmp_path):
    """Its `close` runs in the worker; after some seconds it is killed."""
    script = tmp_path / "hangs.py"
    script.write_text(
        "import time\nimport gymnasium as gym\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Hangs(CartPoleEnv):\n    def close(self):\n        import multiprocessing\n"
        "        if multiprocessing.parent_process():\n            time.sleep(1e6)\n"
        "gym.register('HangsInClose-v0', Hangs, max_episode_steps=5, disable_env_checker=True)\n"
    )
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        env = GymnasiumEnvironment("hangs:HangsInClose-v0", 2, "async")
    finally:
        sys.path.remove(str(tmp_path))
    env.reset(0)
    env.close()


def test_a_constructor_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr("scorepath.envs.workers._START", 2.0)
    with pytest.raises(ConfigError, match=r"worker 1 did not answer in 2 s, before its first reset"):
        make("sleeps", at=-1)


@pytest.mark.parametrize("how", ["raises_beside_its_simulator", "sleeps_beside_its_simulator"])
def test_what_an_environment_has_started_ends_with_its_worker(monkeypatch, how):
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("MARK", mark)
    env = make(how)
    with pytest.raises(ScorepathError, match="worker 1"):
        play_until_it_breaks(env)
    deadline = time.monotonic() + 5
    while with_mark(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not with_mark(mark)


# ------------------------------------------------------------------ workers restarted


def play(env, steps=40, left_out=None):
    """What three environments show, the second left out from a step on; ends of episodes are not looked at."""
    shown = [env.reset(SEED)]
    for step in range(steps):
        actions = torch.tensor([step % 2, 1 - step % 2, step % 3 % 2])
        if left_out is not None and step >= left_out:
            if step == left_out:
                env.keep(torch.tensor([1, 2]))
            actions = actions[1:]
        shown.extend(env.step(actions)[:2])
    return shown


@pytest.mark.parametrize("left_out", [None, 10])
@pytest.mark.parametrize("at", [0, 1, 25])
@pytest.mark.parametrize("how", ["raises", "leaves", "sleeps"])
def test_workers_started_anew_play_on_as_if_nothing_had_happened(tmp_path, how, at, left_out):
    sound = make(at=1000)
    expected = play(sound, left_out=left_out)
    sound.close()
    lives = tmp_path / "lives"
    env = GymnasiumEnvironment(
        *(BREAKING, 3, "async"), kwargs={"how": how, "at": at, "lives": str(lives)}, step_timeout=2.0, restarts=1
    )
    found = play(env, left_out=left_out)
    env.close()
    assert lives.stat().st_size >= 2  # it broke once, and came to the same place again
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_workers_that_break_too_often_end_the_run(tmp_path, caplog):
    env = make("raises", restarts=2)
    with pytest.raises(ScorepathError, match=r"worker 1 raised ZeroDivisionError.*all workers were ended; correct"):
        play_until_it_breaks(env)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert re.fullmatch(r"Breaking-v0: worker 1 raised .* restarted \(2 of env.restarts=2\)\.", told[1])
    assert not multiprocessing.active_children()


def test_episodes_that_cannot_be_repeated_are_not_gone_on_with(tmp_path):
    options = {"kwargs": {"how": "leaves", "lives": str(tmp_path / "lives")}, "step_timeout": 2.0, "restarts": 5}
    env = GymnasiumEnvironment(FORGETFUL, 3, "async", **options)
    with pytest.raises(ScorepathError, match=r"one exited with code 4, gave other answers to the same"):
        play_until_it_breaks(env)


def test_only_workers_can_be_started_anew():
    with pytest.raises(ConfigError, match=r"env\.restarts=1 has no meaning for env\.vectorization=sync"):
        GymnasiumEnvironment("CartPole-v1", 3, "sync", restarts=1)


# ------------------------------------------------------------------ whole runs

RUN = (
    *("env=gym", f"env.id={BREAKING}", "dist=bernoulli", "env.vectorization=async", "env.step_timeout=2"),
    *("episodes_per_update=3", "eval.episodes=2", "eval.every_env_steps=100", "record_episode=false", "logger=csv"),
)


@pytest.mark.parametrize("how", ["raises", "raises_unpicklable", "leaves", "sleeps"])
def test_a_run_ends_with_a_sentence_and_keeps_its_checkpoint(tmp_path, how):
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    process = start(
        "train", tmp_path, "hydra.run.dir=run", *RUN, f"+env.kwargs.how={how}", "+env.kwargs.at=400", MARK=mark
    )
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 1, outcome.err
    assert re.search(BREAKS[how], outcome.sentence)
    assert outcome.sentence.startswith("Breaking-v0: worker 1 ")
    assert outcome.summary["status"] == "failed"
    assert outcome.summary["error"] == outcome.sentence
    content = load_checkpoint(outcome.directory / "checkpoints" / "last.ckpt")
    assert 100 <= content["scorepath"]["env_steps"] < 2000
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())
    assert not with_mark(mark)


def test_workers_go_with_a_main_process_that_is_killed(tmp_path):
    """Also one that hangs, which does not look at its pipe."""
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    options = (*RUN, "env.step_timeout=1000", "+env.kwargs.how=sleeps", "+env.kwargs.at=400", "max_env_steps=10000000")
    process = start("train", tmp_path, "hydra.run.dir=run", *options, MARK=mark)
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    deadline = time.monotonic() + 60
    assert len(with_mark(mark)) == 4
    process.kill()
    process.communicate()
    while with_mark(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not with_mark(mark)


def test_control_c_reaches_the_workers_too_and_the_run_is_saved(tmp_path):
    """A terminal sends SIGINT to every process of the group."""
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    options = (*RUN, "+env.kwargs.how=raises", "+env.kwargs.at=100000000", "max_env_steps=10000000")
    process = start("train", tmp_path, "hydra.run.dir=run", *options, "stop_when_solved=false", MARK=mark)
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    group = with_mark(mark)
    assert len(group) == 4
    for pid in group:
        os.kill(pid, signal.SIGINT)
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 130
    assert "SIGINT: stopped after the update in progress" in outcome.sentence
    assert outcome.summary["status"] == "interrupted"
    assert not with_mark(mark)


def test_no_worker_stays_when_a_run_fails_for_another_reason(tmp_path):
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    game = ("env=gym", f"env.id={LYING}", "+env.kwargs.lie=nan reward", "+env.kwargs.at=50", "dist=bernoulli")
    process = start("train", tmp_path, "hydra.run.dir=run", *game, "env.vectorization=async", "logger=none", MARK=mark)
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 1
    assert "not finite" in outcome.sentence
    assert not with_mark(mark)


def test_fewer_workers_than_episodes(tmp_path):
    outcome = train(tmp_path, *RUN, "env.workers=2", "+env.kwargs.how=raises", "+env.kwargs.at=400")
    assert outcome.code == 1
    assert re.search(BREAKS["raises"], outcome.sentence)
    assert outcome.summary["updates"] > 0


@pytest.mark.parametrize("workers", ["env.workers=null", "env.workers=2"])
def test_a_run_whose_workers_are_killed_ends_with_the_same_weights(tmp_path, workers):
    options = (
        *RUN,
        workers,
        "env.restarts=5",
        "max_env_steps=2000",
        "+env.kwargs.how=raises",
        "+env.kwargs.at=1000000",
    )
    undisturbed = train(tmp_path, *options, directory="undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    mark = f"scorepath-mark-{os.getpid()}-{time.monotonic_ns()}"
    process = start("train", tmp_path, "hydra.run.dir=run", *options, MARK=mark)
    killed = 0
    while process.poll() is None:
        time.sleep(0.1)
        workers_now = [pid for pid in with_mark(mark) if pid != process.pid]
        if killed < 5 and len(workers_now) >= 2 and (tmp_path / "run" / "metrics.csv").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers_now[-1], signal.SIGKILL)
                killed += 1
    outcome = finish(process, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "was killed by SIGKILL" in outcome.err + outcome.out
    assert outcome.summary["weights_sha256"] == undisturbed.summary["weights_sha256"]
