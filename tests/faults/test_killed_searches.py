"""kill -9 of searches: the trials, their values and the report are those of a search that nothing happened to."""

import os
import random
import re
import signal
import time

import pytest
import torch
from helpers import finish, fork, search, searched, start, succeed, wait_for

pytest.importorskip("optuna")

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=100")
SMALL += ("record_episode=false", "logger=csv", "hparams_search=optimizer", "seeds=3", "final_seeds=2")
KILLS = 5


def figures(said: str) -> list[str]:
    """What a search says at its end, but for the seconds that it took."""
    lines = said.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("trial  state"))
    return [re.sub(r"[\d,]+ s\.$", "", line) for line in lines[begin:]]


def test_killed_at_any_moment(tmp_path):
    """Five times, one process: nothing is lost, repeated or left running, and the sampler goes on as if undisturbed."""
    torch.set_num_threads(1)
    arguments = (*SMALL, "trials=12")  # the sampler proper begins with the eleventh
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    begin = time.monotonic()
    _, status = os.waitpid(fork(whole, *arguments, command=search), 0)
    seconds = time.monotonic() - begin
    assert status == 0, (whole / "said").read_text()
    moments = random.Random(0)
    done = 0
    finished: dict = {}
    while True:
        pid = fork(parts, *arguments, command=search)
        if done < KILLS:
            time.sleep(moments.uniform(0.0, 1.5 * seconds / KILLS))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        summaries = {path: path.stat().st_mtime_ns for path in parts.rglob("summary.json")}
        assert finished.items() <= summaries.items()  # no finished run is done again
        finished = summaries
        if not os.WIFSIGNALED(status):
            break
        done += 1
    assert os.WEXITSTATUS(status) == 0, (parts / "said").read_text()
    assert done >= 3
    assert searched(parts / "outputs/searches/it") == searched(whole / "outputs/searches/it")
    assert figures((parts / "said").read_text()) == figures((whole / "said").read_text())
    assert "RUNNING" not in {trial[1] for trial in searched(parts / "outputs/searches/it")}


def test_two_processes_share_a_study_and_outlive_each_other(tmp_path):
    """One of two is killed in its trial; the other does that too, and no trial is done by both."""
    torch.set_num_threads(1)
    held = ("env=gym", "env.id=helpers:HoldCartPole-v0", "dist=bernoulli", *SMALL, "trials=6", "search=it")
    folder = tmp_path / "outputs" / "searches" / "it"
    first = start("search", tmp_path, *held, HOLD="training_step:50")
    wait_for(tmp_path / "held", first)  # in the middle of the first trial
    pid = fork(tmp_path, *held, command=search)
    while len(list(folder.glob("trial-*"))) < 3 and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.05)
    assert searched(folder)[0][1] == "RUNNING"
    first.kill()
    first.communicate()
    assert os.waitpid(pid, 0)[1] == 0, (tmp_path / "said").read_text()
    trials = searched(folder)
    assert [trial[0] for trial in trials] == list(range(6))
    assert {trial[1] for trial in trials} <= {"COMPLETE", "PRUNED"}
    said = (tmp_path / "said").read_text()
    assert [len(re.findall(rf"^trial {number} \(", said, re.MULTILINE)) for number in range(6)] == [1] * 6
    for number, _, _, _, values in trials:
        assert len(list(folder.glob(f"trial-{number:04}/seed-*/summary.json"))) == len(values) >= 1


def test_workers_are_started_by_the_command_and_end_with_it(tmp_path):
    """Each trial is done by one of them; when the first process is killed, the other stops, and the command goes on."""
    arguments = (*SMALL, "trials=6", "search=it", "workers=2")
    folder = tmp_path / "outputs" / "searches" / "it"
    first = start("search", tmp_path, *arguments)
    wait_for(folder / "trial-0001", first)
    first.kill()
    first.communicate()
    again = succeed(finish(start("search", tmp_path, *arguments), folder))
    trials = searched(folder)
    assert [trial[0] for trial in trials] == list(range(6))
    assert {trial[1] for trial in trials} <= {"COMPLETE", "PRUNED"}
    logs = "".join(path.read_text() for path in folder.glob("worker-*.log")) + again.out
    for number in range(6):
        # at most one line for each: the killed process's lines are gone with it
        assert len(re.findall(rf"^trial {number} \(", logs, re.MULTILINE)) <= 1
    assert "6 trials" in again.out
    assert figures(succeed(search(tmp_path, *SMALL, "trials=6")).out) == figures(again.out)


def test_a_signal_stops_a_search_and_the_command_continues_it(tmp_path):
    held = ("env=gym", "env.id=helpers:HoldCartPole-v0", "dist=bernoulli", *SMALL, "trials=1")
    folder = tmp_path / "outputs" / "searches" / "it"
    process = start("search", tmp_path, *held, "search=it", HOLD="training_step:100")
    wait_for(tmp_path / "held", process)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    stopped = finish(process, folder)
    assert stopped.code == 143
    assert (
        "SIGTERM: stopped after the update in progress. The same command with search=it continues" in stopped.sentence
    )
    assert searched(folder)[0][1] == "RUNNING"
    succeed(search(tmp_path, *held))
    assert searched(folder)[0][1] == "COMPLETE"
