"""kill -9 while metrics.csv is rewritten: the file is the old one or the new one, and a resume goes on from either."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import PATIENCE, environment, fork, train, without_time

from scorepath.run.csv_logger import CSVLogger, read_metrics
from scorepath.run.files import partial_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("eval.episodes=2", "record_episode=false", "logger=csv", "lr_schedule=constant", "episodes_per_update=4")
SMALL += ("eval.every_env_steps=300", "stop_when_solved=false")
KILLS = 30
ROWS = 100_000


def killed_inside(path: Path, begin: Callable[[], int], kills: int) -> None:
    """Kills processes that rewrite a file, each at another part of it, and looks at what is there.

    Args:
        begin: starts such a process; returns its pid.
    """
    partial, before = partial_of(path), path.read_bytes()
    done = 0
    for _ in range(3 * kills):
        pid, is_alive, begun = begin(), True, False
        part = (done + 0.5) / kills * len(before)
        deadline = time.monotonic() + PATIENCE
        while is_alive and (size := length(partial)) < part and (size >= 0 or not begun):
            assert time.monotonic() < deadline, f"{path} is not rewritten"
            begun = begun or size >= 0
            is_alive = os.waitpid(pid, os.WNOHANG)[0] == 0
            time.sleep(0.001)
        if is_alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if partial.exists():
            assert path.read_bytes() == before
            done += 1
        else:  # it was quicker than the kill
            path.write_bytes(before)
        if done == kills:
            return
    raise AssertionError(f"only {done} of {kills} kills were in time")


def length(path: Path) -> int:
    """In bytes; -1 of no file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def test_killed_while_a_resume_drops_rows(tmp_path):
    torch.set_num_threads(1)
    whole = train(tmp_path, *SMALL, "max_env_steps=1500", directory="whole")
    assert train(tmp_path, *SMALL, "max_env_steps=900").code == 0
    path = tmp_path / "run" / "metrics.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    long_ago = [["0", *rows[0][1:]]] * ROWS  # of a run that has gone on for days
    beyond = [[str(10**6), *rows[-1][1:]]] * 100  # what was written after the last checkpoint
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *long_ago, *rows, *beyond])
        file.write("1000000,0.")
    undisturbed = shutil.copytree(tmp_path / "run", tmp_path / "undisturbed")
    options = (*SMALL, "max_env_steps=1500", "resume=auto")
    killed_inside(path, lambda: fork(tmp_path, *options), KILLS)
    rest = train(tmp_path, *options)
    assert rest.code == 0, rest.err
    assert train(tmp_path, *options, directory="undisturbed").code == 0
    rows = without_time(rest.rows)
    assert rows == without_time(read_metrics(undisturbed / "metrics.csv"))
    assert rows[ROWS:] == without_time(whole.rows)
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_killed_while_the_header_is_widened(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("env_steps,a\r\n" + "".join(f"{steps},{steps / 7}\r\n" for steps in range(2 * ROWS)))

    def widen() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which hold nothing of ours
            pid = os.fork()
        if pid == 0:
            try:
                CSVLogger(path, flush_every=1).log_metrics({"new": 1.0}, 10**7)
            finally:
                os._exit(0)
        return pid

    killed_inside(path, widen, KILLS)
    os.waitpid(widen(), 0)
    rows = read_metrics(path)
    assert len(rows) == 2 * ROWS + 1
    assert rows[7] == {"env_steps": "7", "a": "1.0", "new": ""}
    assert rows[-1] == {"env_steps": "10000000", "a": "", "new": "1.0"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.csv"]


PURGE = """
import resource, sys, time
from scorepath.run.csv_logger import CSVLogger
before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
CSVLogger(sys.argv[1], purge_step=10**6 - 10).save()
seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"1,000,000 rows: {seconds:.1f} s, {(after - before) / 1000:.1f} MB more than before ({after / 1000:.0f} MB)")
"""


def test_a_million_rows(tmp_path):
    """What it takes is printed (pytest -s), and no promise: it depends on the machine."""
    path = tmp_path / "metrics.csv"
    names = ["env_steps", *(f"train/metric_{number}" for number in range(12))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([steps, *(steps / 7 + number for number in range(12))] for steps in range(10**6))
    done = subprocess.run(
        [sys.executable, "-c", PURGE, str(path)], env=environment(), check=True, capture_output=True, text=True
    )
    print(done.stdout)
    with path.open() as file:
        assert sum(1 for _ in file) == 10**6 - 10 + 1
