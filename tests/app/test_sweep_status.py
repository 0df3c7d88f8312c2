"""How a sweep stands: counts, progress, the best so far; once and watched; and that nothing is written for it."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import HOLD, SCRIPTS, finish, imported_by, plot, snapshot, start, succeed, sweep, wait_for
from processes import PATIENCE, environment

from scorepath.jobs.sweep_status import main
from scorepath.run.lock import locked
from scorepath.sweeps.names import name_jobs, name_settings
from scorepath.sweeps.progress import Progress, Standing, SweepProgress, best_job, best_setting, read_progress
from scorepath.sweeps.progress import seconds_left as left
from scorepath.sweeps.records import read_sweep, record_overrides
from scorepath.sweeps.table import format_progress, format_seconds

SMALL = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=300")
IT = Path("outputs", "sweeps", "it")


@pytest.fixture
def it(tmp_path, monkeypatch):
    """The folder of a sweep, from the working directory."""
    monkeypatch.chdir(tmp_path)
    IT.mkdir(parents=True)
    return IT


def make(folder: Path, overrides: str, **summary) -> Path:
    """A job that is planned, or has this summary."""
    record_overrides(folder, overrides.split())
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def metrics(folder: Path, *rows: str) -> None:
    text = "\n".join(["env_steps,time/env_steps_per_second,eval/return_mean", *rows])
    (folder / "metrics.csv").write_text(text)


def status(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    return code, *capsys.readouterr()


def rows(text: str) -> dict[str, list[str]]:
    """Lines of the tables by their first cell."""
    return {cells[0]: cells[1:] for line in text.splitlines() for cells in [re.split(r"\s{2,}", line)]}


def best(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line) for line in text.splitlines() if re.match("(setting|job) ", line)]


def watch(folder: Path, *arguments: str, **streams) -> subprocess.Popen:
    # without the variables by which a terminal's size can be overruled
    command = [sys.executable, str(SCRIPTS / "sweep.py"), "it", "--watch", "--every", "0.05", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams}
    return subprocess.Popen(command, cwd=folder, env=environment(COLUMNS="", LINES=""), **streams)


# ------------------------------------------------------------------ a living sweep


def test_a_living_sweep(tmp_path, monkeypatch, capsys):
    """Two jobs are refused, one ends, one is held in its middle, one waits: in the status, table and plot, and then."""
    held = ("env=gym", f"env.id={HOLD}", "dist=normal,bernoulli", "logger=csv", "record_episode=false", "seed=0,1,2")
    process = start("train", tmp_path, "-m", "sweep=it", *SMALL, *held, HOLD="training_step:1100")
    watcher = None
    try:
        wait_for(tmp_path / "held", process)
        watcher = watch(tmp_path)
        first = watcher.stdout.readline()
        monkeypatch.chdir(tmp_path)
        before = snapshot(IT)
        code, out, err = status(capsys, "it")
        assert (code, err, snapshot(IT)) == (1, "", before)
        assert out.startswith(f"{IT}: 6 jobs: 1 finished, 1 running, 3 failed, 1 waiting; about ")
        steps = (IT / "dist-bernoulli_seed-1" / "metrics.csv").read_text().splitlines()[-1].partition(",")[0]
        share, counts, time_left = rows(out)["dist-bernoulli_seed-1"]
        assert counts == f"{steps} of 600"
        assert share == f"{int(steps) / 600:.0%}"
        assert re.fullmatch(r"\d+ \w+( \d+ \w+)?", time_left)
        for seed in range(3):
            (line,) = [line for line in out.splitlines() if line.startswith(f"  dist-normal_seed-{seed}: ")]
            assert "Box" in line
        mean = json.loads((IT / "dist-bernoulli_seed-0" / "summary.json").read_text())["eval_return_mean"]
        assert best(out) == [
            ["setting", "dist-bernoulli", f"{mean:.2f}", "1"],
            ["job", "dist-bernoulli_seed-0", f"{mean:.2f}", "1"],
        ]
        states = {row["job"]: row["status"] for row in read_sweep(IT)}
        assert [states[f"dist-bernoulli_seed-{seed}"] for seed in range(3)] == ["completed", "running", "waiting"]
        curves = succeed(plot(tmp_path, f"runs={IT}", "metric=rollout/episode_return_mean", "file=live.png"))
        table = rows(curves.out)
        assert table["dist-bernoulli"][0] == "1 of 3"
        assert table["dist-bernoulli"][-1] == "1 completed, 1 running, 1 waiting"
        assert table["dist-normal"][-1] == "3 failed"
        (tmp_path / "go").touch()
        assert finish(process, tmp_path / IT).code == 1
        watched = finish(watcher, tmp_path / IT)
    finally:
        for one in (process, watcher):
            if one is not None and one.poll() is None:
                one.kill()
                one.communicate()
    assert (watched.code, watched.err) == (1, "")
    assert "1 finished, 1 running, 3 failed, 1 waiting" in first
    assert f"{IT}: 6 jobs: 3 finished, 3 failed\n" in watched.out
    assert len(best(watched.out)) == 2  # the whole of it at the end


@pytest.mark.slow
def test_a_sweep_that_was_killed(tmp_path, monkeypatch, capsys):
    held = ("env=gym", f"env.id={HOLD}", "dist=bernoulli", "logger=csv", "record_episode=false", "seed=0,1")
    process = start("train", tmp_path, "-m", "sweep=it", *SMALL, *held, HOLD="training_step:450")
    wait_for(tmp_path / "held", process)
    process.kill()
    process.communicate()
    monkeypatch.chdir(tmp_path)
    code, out, _ = status(capsys, "it")
    assert code == 0
    assert (
        out
        == f"{IT}: 2 jobs: 1 stopped, 1 waiting; no process is at work on it: the command that began it continues it\n"
    )
    assert [row["status"] for row in read_sweep(IT)] == ["stopped", "waiting"]
    succeed(sweep(tmp_path, *SMALL, *held))
    assert status(capsys, "it")[1].startswith(f"{IT}: 2 jobs: 2 finished\n")


# ------------------------------------------------------------------ what is printed


def test_best_setting_is_that_of_the_highest_mean_over_seeds(it, capsys):
    returns = {"0.1": (10.0, 30.0), "0.2": (24.0, 22.0, 26.0), "0.3": ()}
    for lr, values in returns.items():
        for seed, value in enumerate(values):
            overrides = f"env=cartpole optimizer.lr={lr} seed={seed} sweep=it"
            make(it / f"lr-{lr}_seed-{seed}", overrides, status="completed", eval_return_mean=value)
    make(it / "lr-0.3_seed-0", "env=cartpole optimizer.lr=0.3 seed=0 sweep=it", status="failed", eval_return_mean=99.0)
    code, out, _ = status(capsys, "it")
    assert code == 1
    assert best(out) == [["setting", "lr-0.2", "24.00", "3"], ["job", "lr-0.1_seed-1", "30.00", "1"]]


def test_settings_are_named_as_folders_are_without_the_seed(it):
    fixed = "env=cartpole +env.kwargs.g=9.8"
    jobs = [
        f"{fixed} dist={dist} optimizer.lr={lr} seed={seed} sweep=it".split()
        for dist in ("bernoulli", "categorical")
        for lr in (0.01, 0.1)
        for seed in (0, 1)
    ]
    names = name_jobs(jobs, ("dist", "optimizer.lr", "seed"))
    assert names[1] == "dist-bernoulli_lr-0.01_seed-1"
    for name, job in zip(names, jobs, strict=True):
        record_overrides(it / name, job)
    settings = {one.job: one.setting for one in SweepProgress(it).look()}
    assert settings == {name: name.rpartition("_seed-")[0] for name in names}


def test_settings_of_one_name_are_told_apart():
    first, same, other = name_settings([["a/b=x y", "seed=0"], ["seed=1", "a/b=x y", "resume=auto"], ["a/b=x-y"]])
    assert first == same != other
    assert name_settings([["seed=0"], ["seed=1"]]) == ["defaults", "defaults"]
    assert name_settings([["seed=0", "b=2", "a=1"]]) == ["a-1_b-2"]  # nothing varies


def test_many_jobs_take_few_lines(it, capsys):
    with contextlib.ExitStack() as locks:
        for number in range(30):
            make(it / f"seed-{number:02}", f"seed={number}")
            locks.enter_context(locked(it / f"seed-{number:02}"))
            cause = f"broken\x1b[31m {'word ' * 200}"
            make(it / f"lr-{number:02}", f"lr={number}", status="failed", error=cause)
        code, out, _ = status(capsys, "it", "--lines", "4")
    assert code == 1
    assert out.count("and 26 more") == 2
    assert len(out.splitlines()) == 16
    assert "30 running, 30 failed; time left unknown" in out
    assert "broken\\x1b[31m word word" in out
    assert all(len(line) < 400 and line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600 * 5, "5 h 0 min"), (86400 * 3 + 7300, "3 d 2 h")],
)
def test_times_in_two_units(seconds, words):
    assert format_seconds(seconds) == words


def test_what_is_not_known_yet_is_left_open(it, capsys):
    with locked(make(it / "seed-0", "seed=0")):
        assert rows(status(capsys, "it")[1])["seed-0"] == ["-", "-", "-"]
        metrics(it / "seed-0", "50,10.0,", "")
        assert rows(status(capsys, "it")[1])["seed-0"] == ["-", "50 of ?", "-"]


# ------------------------------------------------------------------ progress


def begin(folder: Path, seconds: float) -> Path:
    """A job that began to train so many seconds ago."""
    make(folder, "seed=0")
    config = folder / ".hydra" / "config.yaml"
    config.write_text("seed: 0\nmax_env_steps: 1000\nenv:\n  max_env_steps: 7\n")
    os.utime(config, (time.time() - seconds,) * 2)
    return folder


def test_progress_is_that_of_the_last_whole_row(tmp_path):
    """While another is being written, and after evaluations, whose rows have no rate."""
    folder = begin(tmp_path / "job", 20.0)
    metrics(folder, "100,50.0,", "200,40.0,", "250,30.0,", "250,,12.5", "9999,1")
    progress = read_progress(folder)
    assert (progress.env_steps, progress.max_env_steps, progress.share) == (250, 1000, 0.25)
    assert progress.seconds_left == pytest.approx(750 / (250 / 20.0), rel=0.05)  # all its seconds count


def test_steps_before_a_continuation_took_other_seconds(tmp_path):
    """Then the rate of the last updates is the better one."""
    folder = begin(tmp_path / "job", 1.0)
    metrics(folder, "800,50.0,", "900,50.0,", "")
    assert read_progress(folder).seconds_left == pytest.approx(100 / 50.0)


def test_only_the_end_of_long_metrics_is_read(tmp_path):
    folder = begin(tmp_path / "job", 20.0)
    metrics(folder, "1,1.0,", "")
    with (folder / "metrics.csv").open("r+b") as file:
        file.truncate(1 << 32)  # of zeros, which take no room on the disk
        file.seek(0, 2)
        file.write(b"\n500,50.0,\n")
    assert read_progress(folder).env_steps == 500


@pytest.mark.parametrize(
    "text", ["", "x", "env_steps\n", "a,b\n1,2\n", "env_steps\nnan\n", "env_steps\n1e999\n", "\xff\n"]
)
def test_metrics_that_say_nothing(tmp_path, text):
    folder = begin(tmp_path / "job", 20.0)
    (folder / "metrics.csv").write_text(text, encoding="latin-1")
    progress = read_progress(folder)
    assert progress.env_steps in (None, 0)
    assert progress.seconds_left is None


def standing(job: str, state: str, **more) -> Standing:
    return Standing(job, Path(job), state, "", **more)


def test_time_left_of_a_sweep():
    done = [standing("a", "finished", seconds=10.0), standing("b", "finished", seconds=30.0)]
    ahead = [standing("c", "waiting"), standing("d", "stopped"), standing("e", "failed")]
    known, unknown = Progress(50, 100, 5.0, 5.0), Progress(None, None, 12.0, None)
    running = [standing("f", "running", progress=known), standing("g", "running", progress=unknown)]
    assert left([*done, *ahead, *running]) == pytest.approx((5 + (20 - 12) + 2 * 20) / 2)
    assert left([*done, *running]) == pytest.approx(8)  # the last one, for it cannot be shared
    assert left([*ahead, running[0]]) == pytest.approx(5 + 2 * 10)  # none has finished: the one that runs tells
    assert left([*ahead, running[1]]) is None
    assert left([*done, *ahead]) is None  # there is no process


def test_seconds_of_a_finished_job_are_all_but_its_start(it):
    folder = begin(it / "seed-0", 40.0)
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "train_seconds": 3.0}))
    (looked,) = SweepProgress(it).look()
    assert looked.seconds == pytest.approx(40.0, rel=0.05)
    copied = shutil.copytree(it, it.with_name("copied"), copy_function=shutil.copyfile)
    (looked,) = SweepProgress(copied).look()
    assert looked.seconds == pytest.approx(3.0, abs=2.0)


def test_what_has_finished_is_read_once(it):
    make(it / "seed-0", "seed=0", status="completed", eval_return_mean=1.0)
    make(it / "seed-1", "seed=1")
    progress = SweepProgress(it)
    first = progress.look()
    (it / "seed-0" / "summary.json").unlink()
    make(it / "seed-1", "seed=1", status="solved", eval_return_mean=3.0)
    second = progress.look()
    assert first[0] == second[0]
    assert best_setting(second).mean == 2.0
    assert best_job(second).name == "seed-1"
    assert best_setting([standing("a", "waiting")]) is best_job([]) is None


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ti"], "ti is neither a sweep in outputs/sweeps nor the folder of one: did you mean it?"),
        (["nothing/like/any"], "nothing/like/any is neither .*: there are it"),
        ([], "required: NAME"),
        (["x" * 5000], r"xxx cannot be read \(File name too long\)"),
        (["it", "--wach"], "unrecognized arguments: --wach"),
        (["it", "--every", "0"], "--every: 0 must be a positive number"),
        (["it", "--lines", "few"], "--lines: few must be a positive number"),
    ],
)
def test_mistakes_are_one_sentence(it, capsys, arguments, words):
    make(it / "seed-0", "seed=0")
    code, out, err = status(capsys, *arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"scorepath: .*{words}.*\n", err), err


def test_a_path_is_taken_too(it, capsys, tmp_path):
    make(it / "seed-0", "seed=0", status="completed")
    assert status(capsys, str(tmp_path / IT))[:2] == (0, f"{tmp_path / IT}: 1 job: 1 finished\n")


def test_it_takes_none_of_the_heavy_packages(it, tmp_path):
    make(it / "seed-0", "seed=0")
    assert imported_by("sweep", tmp_path, "it") == set()


def test_watching_ends_by_itself_where_nothing_is_left(it, capsys):
    make(it / "seed-0", "seed=0", status="completed", eval_return_mean=1.0)
    assert status(capsys, "it", "--watch")[:2] == status(capsys, "it")[:2]
    make(it / "seed-1", "seed=1", status="failed", error="why")
    code, out, _ = status(capsys, "it", "--watch")
    assert code == 1
    assert "seed-1: why (no log)" in out


def test_control_c_ends_watching(it, tmp_path):
    make(it / "seed-0", "seed=0")
    process = watch(tmp_path)
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    ended = finish(process, it)
    assert (ended.code, ended.out, ended.err) == (130, "", "")
    assert re.match(r"\d\d:\d\d:\d\d 1 waiting; no process is at work on it", line)


def test_a_terminal_is_drawn_again(it, tmp_path):
    """From where the last drawing began, and never wider or longer than it is."""
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    for number in range(12):
        make(it / f"seed-{number}", f"seed={number}", status="failed", error="w" * 200)
    make(it / "seed-12", "seed=12")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 60, 0, 0))
    process = watch(tmp_path, stdout=theirs, text=False)
    os.close(theirs)
    shown, deadline = "", time.monotonic() + PATIENCE
    while shown.count("\x1b[J") < 3 and time.monotonic() < deadline:
        shown += os.read(ours, 1 << 16).decode()
    process.send_signal(signal.SIGINT)
    while process.poll() is None:  # it would wait for ever for somebody to read what it draws
        if select.select([ours], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):  # there is nobody any more who draws
                os.read(ours, 1 << 16)
        assert time.monotonic() < deadline
    assert process.returncode == 130
    os.close(ours)
    assert process.stderr.read() == b""
    process.stderr.close()
    first, again, *_ = shown.split("\x1b[J")[1:]
    drawn = first.rpartition("\x1b[")[0].split("\r\n")[:-1]
    assert drawn[0].startswith(f"{IT}: 13 jobs: 12 failed, 1 waiting")
    assert len(drawn) == 7
    assert max(map(len, drawn)) == 59
    assert first.endswith("\x1b[7A")
    assert again.startswith(drawn[0])


def test_a_closed_pipe_is_no_error(it, tmp_path):
    make(it / "seed-0", "seed=0")
    script = f"{sys.executable} {SCRIPTS / 'sweep.py'} it | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() in ("141", "0")
    assert done.stderr == ""


def test_a_run_of_its_own_is_no_sweep(it, capsys):
    run = make(Path("run"), "seed=0", status="completed")
    (run / "checkpoints").mkdir()
    code, _, err = status(capsys, "run")
    assert code == 2
    assert "run is neither a sweep" in err


def test_the_text_of_no_job_that_ended(tmp_path):
    assert format_progress(tmp_path, [standing("a", "waiting")], 5).count("\n") == 0
