"""Sweeps: a folder and a summary for each job, a table at the end, and an exit code that tells of a failed job."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import hydra
import numpy as np
import pytest
from helpers import (
    CONF,
    FAULTY,
    HOLD,
    Outcome,
    finish,
    plot,
    read_only,
    snapshot,
    start,
    succeed,
    sweep,
    train,
    wait_for,
)
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from PIL import Image
from processes import environment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiers import slow

from scorepath.jobs.outcome import reported
from scorepath.jobs.plot import draw_group
from scorepath.run.lock import is_locked, locked
from scorepath.run.summary import Summary
from scorepath.sweeps import stopping
from scorepath.sweeps.loader import CachingLoader
from scorepath.sweeps.names import name_jobs
from scorepath.sweeps.records import known_jobs, read_sweep, record_overrides
from scorepath.sweeps.state import FAILED, FINISHED, RUNNING, STOPPED, WAITING, settled, state_of

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=300")
GRID = ("env=cartpole", "dist=bernoulli,categorical", "seed=range(0,2)")
FOLDERS = {f"dist-{dist}_seed-{seed}" for dist in ("bernoulli", "categorical") for seed in (0, 1)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Outcome:
    """Two by two jobs."""
    return sweep(tmp_path_factory.mktemp("grid"), *SMALL, *GRID, "record_episode=false")


def summaries(outcome: Outcome) -> dict[str, dict]:
    """By the job's folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in outcome.directory.glob("*/summary.json")}


def table(outcome: Outcome) -> dict[str, list[str]]:
    """The cells of the printed table by job."""
    lines = outcome.out.splitlines()
    rule = max(number for number, line in enumerate(lines) if re.fullmatch("[- ]+", line) and "---" in line)
    assert lines[rule - 1].split()[:3] == ["job", "status", "return"]
    return {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line) for line in lines[rule + 1 :])}


def test_every_job_has_a_folder_and_a_summary(grid):
    assert grid.code == 0, grid.err
    jobs = summaries(grid)
    assert set(jobs) == FOLDERS  # by what varies
    chosen = set()
    for folder, summary in jobs.items():
        assert summary["status"] == "completed"
        assert not set(folder) & set("=, ")  # of what a shell or Hydra would want quoted
        dist = "categorical" if "categorical" in folder else "bernoulli"
        chosen.add((dist, summary["seed"]))
        assert f"seed-{summary['seed']}" in folder
        files = {path.name for path in (grid.directory / folder).iterdir()}
        expected = {".hydra", ".lock", "train.log", "checkpoints", "tensorboard", "metrics.csv", "summary.json"}
        assert files == expected
    assert chosen == {(dist, seed) for dist in ("bernoulli", "categorical") for seed in (0, 1)}


def test_jobs_do_not_share_their_weights(grid):
    assert len({summary["weights_sha256"] for summary in summaries(grid).values()}) == 4


def test_a_job_of_a_sweep_is_the_run_of_its_own(grid, tmp_path):
    alone = train(tmp_path, *SMALL, "dist=categorical", "seed=1", "record_episode=false", "logger=none")
    (summary,) = [
        summary for folder, summary in summaries(grid).items() if "categorical" in folder and "seed-1" in folder
    ]
    assert alone.summary["weights_sha256"] == summary["weights_sha256"]


def test_table_of_results(grid):
    rows = table(grid)
    jobs = summaries(grid)
    assert set(rows) == set(jobs)
    for folder, (status, mean, interval, env_steps, *_) in rows.items():
        assert status == "completed"
        assert mean == f"{jobs[folder]['eval_return_mean']:.2f}"
        low, high = jobs[folder]["eval_return_ci95"]
        assert interval == f"{low:.2f} .. {high:.2f}"
        assert env_steps == str(jobs[folder]["env_steps"])


def test_one_hparams_row_for_each_job(grid):
    for folder, summary in summaries(grid).items():
        events = EventAccumulator(str(grid.directory / folder / "tensorboard")).Reload()
        assert set(events.PluginTagToContent("hparams")) == {
            "_hparams_/experiment",
            "_hparams_/session_start_info",
            "_hparams_/session_end_info",
        }
        (final,) = events.Scalars("final/return_mean")
        assert final.value == pytest.approx(summary["eval_return_mean"])


def test_plot_draws_the_curves_and_prints_a_table_over_seeds(grid):
    outcome = plot(grid.directory.parents[2], f"runs={grid.directory}", "title=Two seeds", "threshold=475")
    assert outcome.code == 0, outcome.err
    with Image.open(grid.directory / "curves.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 20
    lines = outcome.out.splitlines()
    for dist in ("bernoulli", "categorical"):
        (line,) = [line for line in lines if f"dist-{dist}" in line]
        runs = [summary for folder, summary in summaries(grid).items() if dist in folder]
        mean = sum(summary["eval_return_mean"] for summary in runs) / 2
        assert re.split(r"\s{2,}", line)[1:3] == ["2", f"{mean:.2f}"]


def test_plot_of_runs_that_may_only_be_read_prints_its_table(grid, tmp_path):
    runs = shutil.copytree(grid.directory, tmp_path / "runs")
    expected = plot(tmp_path, "runs=runs", "file=elsewhere.png")
    with read_only(runs):
        outcome = plot(tmp_path, "runs=runs")
        elsewhere = plot(tmp_path, "runs=runs", "file=elsewhere.png")
    assert outcome.code == elsewhere.code == 0, outcome.err
    assert re.search(r"the figure could not be saved as runs/curves.png .*file=NAME.png", outcome.sentence)
    assert outcome.out.splitlines() == expected.out.splitlines()[:-1]  # all but the name of the file
    assert elsewhere.out == expected.out


def test_plot_takes_a_folder_above_the_sweep_and_a_run_of_its_own(grid, tmp_path):
    """outputs has sweeps in it, and runs by their date."""
    above = plot(tmp_path, f"runs={grid.directory.parent}", "file=above.png")
    assert above.code == 0, above.err
    assert [re.split(r"\s{2,}", line)[1] for line in above.out.splitlines()[2:4]] == ["2", "2"]
    folder, summary = next(iter(summaries(grid).items()))
    single = plot(tmp_path, f"runs={grid.directory / folder}", "file=single.png")
    assert single.code == 0, single.err
    assert re.split(r"\s{2,}", single.out.splitlines()[2])[1:3] == ["1", f"{summary['eval_return_mean']:.2f}"]


def test_plot_says_where_no_runs_are(tmp_path):
    outcome = plot(tmp_path, "runs=nowhere")
    assert outcome.code == 2
    assert "runs=nowhere holds no run" in outcome.sentence


def test_plot_of_an_unknown_metric_says_so(grid):
    outcome = plot(grid.directory.parents[2], f"runs={grid.directory}", "metric=eval/return", "file=none.png")
    assert outcome.code == 2
    assert "metric=eval/return" in outcome.sentence
    assert "eval/return_mean" in outcome.sentence


def test_plot_of_runs_that_are_going_on_or_were_killed(grid, tmp_path):
    """Beside finished ones: without a summary, with half of the metrics, an empty file, a header alone, or none."""
    runs = tmp_path / "runs"
    shutil.copytree(grid.directory, runs)
    header, first, *_ = (runs / "dist-bernoulli_seed-0" / "metrics.csv").read_text().splitlines()
    contents = {"half": f"{header}\n{first}\n78,", "empty": "", "header": f"{header}\n", "none": None}
    for name, text in contents.items():
        shutil.copytree(runs / "dist-bernoulli_seed-0", runs / name)
        (runs / name / "summary.json").unlink()
        (runs / name / "metrics.csv").unlink()
        if text is not None:
            (runs / name / "metrics.csv").write_text(text)
    outcome = plot(tmp_path, f"runs={runs}", "metric=rollout/episode_return_mean", "file=mixed.png")
    assert outcome.code == 0, outcome.err
    rows = {cells[0]: cells for cells in (re.split(r"\s{2,}", line) for line in outcome.out.splitlines())}
    assert rows["dist-bernoulli"][1] == "2 of 6"
    assert rows["dist-bernoulli"][-1] == "2 completed, 4 stopped"
    assert rows["dist-categorical"][-1] == "2 completed"
    live = plot(tmp_path, f"runs={runs / 'half'}", "metric=rollout/episode_return_mean", "file=live.png")
    assert live.code == 0, live.err
    assert "0 of 1" in live.out
    for file, lines in (("mixed.png", 2), ("live.png", 1)):
        with Image.open(tmp_path / file) as picture:
            colours = {colour for count, colour in picture.convert("RGB").getcolors(1_000_000) if count > 10}
        # matplotlib's first two colours
        assert len(colours & {(31, 119, 180), (255, 127, 14)}) == lines


@pytest.mark.parametrize("name", ["empty", "header", "none"])
def test_plot_of_a_run_without_metrics_says_so(grid, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(grid.directory / "dist-bernoulli_seed-0", run)
    header = (run / "metrics.csv").read_text().splitlines()[0]
    (run / "metrics.csv").write_text("" if name == "empty" else f"{header}\n")
    if name == "none":
        (run / "metrics.csv").unlink()
    outcome = plot(tmp_path, "runs=run")
    assert outcome.code == 2
    assert "no run below run has a row in its metrics.csv" in outcome.sentence


@pytest.mark.parametrize("file", ["nowhere/curves.png", "curves.nothing"])
def test_plot_into_a_file_that_cannot_be(grid, tmp_path, file):
    outcome = plot(tmp_path, f"runs={grid.directory}", f"file={file}")
    assert outcome.code == 2
    assert f"file={file} cannot be written" in outcome.sentence


def test_curves_that_share_no_step_are_drawn_one_by_one():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    early, late = ((np.array([0.0, 10.0]) + start, np.array([1.0, 2.0])) for start in (0.0, 50.0))
    draw_group(axes, "runs", [early, late], [])
    drawn = [tuple(line.get_xdata()) for line in axes.lines]
    assert drawn == [(), (0.0, 10.0), (50.0, 60.0)]


# ------------------------------------------------------------------ names of jobs


def planned(folder, *jobs: str, swept: str = "seed") -> list[str]:
    return name_jobs([job.split(" ") for job in jobs], swept.split(), known_jobs(folder))


def begin(folder, name: str, job: str) -> None:
    record_overrides(folder / name, job.split(" "))


def test_jobs_are_named_by_what_varies(tmp_path):
    assert planned(tmp_path, "env=cartpole seed=0", "env=cartpole seed=1") == ["seed-0", "seed-1"]
    assert planned(tmp_path, "env=cartpole gamma=0.9", swept="") == ["env-cartpole_gamma-0.9"]  # nothing does
    assert name_jobs([[]], []) == ["defaults"]
    assert planned(tmp_path, "dist@x=a seed=1", "dist@x=b seed=1", swept="") == ["dist-x-a", "dist-x-b"]


def test_a_job_that_has_begun_keeps_its_name_whatever_else_is_swept_later(tmp_path):
    begin(tmp_path, "seed-0", "dist=bernoulli seed=0")
    wider = ("dist=bernoulli seed=0", "dist=bernoulli seed=1", "dist=normal seed=0", "dist=normal seed=1")
    names = ["seed-0", "dist-bernoulli_seed-1", "dist-normal_seed-0", "dist-normal_seed-1"]
    assert planned(tmp_path, *wider, swept="dist seed") == names


def test_keys_are_as_short_as_they_can_be(tmp_path):
    assert planned(tmp_path, "optimizer.lr=0.1", "optimizer.lr=0.2", swept="") == ["lr-0.1", "lr-0.2"]
    both = ["optimizer.lr=0.1 baseline.make_optimizer.lr=1", "optimizer.lr=0.1 baseline.make_optimizer.lr=2"]
    assert planned(tmp_path, *both, swept="") == ["make_optimizer.lr-1", "make_optimizer.lr-2"]
    assert planned(tmp_path, "+env.kwargs.g=1 g=2", "+env.kwargs.g=3 g=2", swept="") == ["kwargs.g-1", "kwargs.g-3"]
    assert planned(tmp_path, "a.b=1 c.b=2", "a.b=2 c.b=1", swept="") == ["a.b-1_c.b-2", "a.b-2_c.b-1"]


def test_a_job_with_another_fixed_value_is_another_job(tmp_path):
    begin(tmp_path, "seed-0", "optimizer.lr=0.1 seed=0")
    assert planned(tmp_path, "optimizer.lr=0.2 seed=0") == ["lr-0.2_seed-0"]
    assert planned(tmp_path, "seed=1 optimizer.lr=0.1") == ["seed-1"]
    assert planned(tmp_path, "seed=0 optimizer.lr=0.1") == ["seed-0"]


def test_names_of_any_overrides_are_distinct_short_and_safe(tmp_path):
    values = [f"[{','.join(map(str, range(size)))}]" for size in (300, 301)] + [
        "/a/b",
        "a-b",
        "'a b'",
        '"a b"',
        "$HOME/ü",
    ]
    values += ["x" * 1000, "ü" * 500, "=,'\"", "${seed}"]
    jobs = [f"title={value.replace(' ', '_')} seed={seed}" for value in values for seed in (0, 1)]
    many = [" ".join(f"some.long.key_{key}={key}{seed}" for key in range(40)) for seed in (0, 1)]
    for names in (planned(tmp_path, *jobs, swept="title seed"), planned(tmp_path, *many, swept="")):
        assert len(set(names)) == len(names)
        assert max(len(name.encode()) for name in names) <= 130
        assert all(re.fullmatch(r"[\w.+-]+", name) and not name.startswith((".", "-")) for name in names)
    assert planned(tmp_path, *jobs, swept="title seed")[:2] != planned(tmp_path, *jobs, swept="title seed")[2:4]


@pytest.mark.slow
def test_a_sweep_that_grows_continues_in_its_folders(tmp_path):
    """With overrides whose names would not fit into one name, of a file system's 255 bytes."""
    fixed = (
        *SMALL,
        "logger=none",
        "record_episode=false",
        "optimizer.eps=1e-7",
        "policy.output_scale=0.5",
        "chunk=9999",
    )
    fixed += ("policy.torso.hidden_sizes=[8,8,8,8,8,8,8,8,8,8,8,8]", "estimator.entropy_coefficient=0.001", "gamma=0.9")
    first = sweep(tmp_path, *fixed, "seed=0,1")
    assert first.code == 0, first.err
    before = summaries(first)
    assert set(before) == {"seed-0", "seed-1"}
    wider = sweep(tmp_path, *fixed, "seed=0,1", "optimizer.lr=0.01,0.02")
    assert wider.code == 0, wider.err
    assert set(summaries(wider)) == {
        "seed-0",
        "seed-1",
        *(f"lr-{lr}_seed-{s}" for lr in (0.01, 0.02) for s in (0, 1)),
    }
    again = sweep(tmp_path, *fixed, "seed=0,1")
    assert again.code == 0, again.err
    after = summaries(again)
    assert {name: after[name]["weights_sha256"] for name in before} == {
        name: summary["weights_sha256"] for name, summary in before.items()
    }
    assert table(again).keys() == after.keys()


def test_only_jobs_count_as_jobs(tmp_path):
    """submitit puts a folder of its own beside them, and so may anybody."""
    for name in (".submitit/17", "figures"):
        (tmp_path / "outputs" / "sweeps" / "it" / name).mkdir(parents=True)
    outcome = sweep(tmp_path, "debug=one_update", "logger=none", "callbacks=none", "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert set(table(outcome)) == {"seed-0", "seed-1"}


def test_a_job_that_was_killed_at_once_counts(tmp_path):
    begin(tmp_path, "seed-0", "seed=0")
    assert [(row["job"], row["status"]) for row in read_sweep(tmp_path)] == [("seed-0", "waiting")]


# ------------------------------------------------------------------ jobs that fail


@pytest.mark.parametrize(
    ("axis", "bad", "words"),
    [
        ("dist=bernoulli,normal,categorical", "dist-normal", "Box"),
        pytest.param("optimizer.lr=0.01,-1,0.02", "lr--1", "positive", marks=pytest.mark.slow),
    ],
)
def test_a_refused_job_does_not_end_the_others(tmp_path, axis, bad, words):
    outcome = sweep(tmp_path, *SMALL, axis, "logger=none", "record_episode=false")
    assert outcome.code == 1
    jobs, rows = summaries(outcome), table(outcome)
    assert len(jobs) == len(rows) == 3
    for folder, summary in jobs.items():
        expected = "failed" if bad in folder else "completed"
        assert summary["status"] == rows[folder][0] == expected
    (failed,) = [summary for summary in jobs.values() if summary["status"] == "failed"]
    assert words in failed["error"]
    assert "Traceback" not in outcome.err
    first, last = [line for line in outcome.err.splitlines() if line.startswith("scorepath: ")]
    assert first == f"scorepath: {failed['error']}"
    assert "1 of 3 jobs did not finish" in last
    assert bad in last


def test_of_many_failed_jobs_the_sentence_names_a_few(tmp_path):
    """And each has a line of its own below it."""
    outcome = sweep(tmp_path, "dist=normal", "seed=range(0,12)")
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    named = ", ".join(f"seed-{seed}" for seed in range(10))
    (number,) = [index for index, line in enumerate(lines) if "12 of 12 jobs did not finish: " in line]
    assert f" did not finish: {named}, 2 more. The same command" in lines[number]
    assert len(lines[number + 1 :]) == 12


def test_a_broken_job_shows_its_traceback_and_does_not_end_the_others(tmp_path):
    """What is no mistake of the command line is somebody's bug, who wants to see where."""
    faulty = ("env=gym", f"env.id={FAULTY}", "dist=bernoulli", "logger=none", "record_episode=false")
    outcome = sweep(tmp_path, *SMALL, *faulty, "+env.kwargs.bad=raise", "+env.kwargs.under=training_step,nobody")
    assert outcome.code == 1
    assert "ZeroDivisionError" in outcome.err
    jobs = summaries(outcome)
    assert len(jobs) == 2
    for folder, summary in jobs.items():
        assert summary["status"] == ("completed" if "nobody" in folder else "failed")


def test_a_job_that_exits_does_not_end_the_others(tmp_path):
    faulty = ("env=gym", f"env.id={FAULTY}", "dist=bernoulli", "logger=none", "record_episode=false")
    outcome = sweep(tmp_path, *SMALL, *faulty, "+env.kwargs.bad=exit", "+env.kwargs.under=training_step,nobody")
    assert outcome.code == 1
    states = {summary["status"]: summary.get("error") for summary in summaries(outcome).values()}
    assert set(states) == {"completed", "failed"}
    assert states["failed"].startswith("sys.exit(3) was called while the run was at work")


def test_a_launcher_s_worker_that_leaves_is_no_failure_of_its_job(tmp_path, monkeypatch):
    """It may be told to in the middle of an import, where the job does not listen yet."""
    monkeypatch.setattr(stopping, "_following", {os.getpid()})
    summary = Summary(seed=0)
    with pytest.raises(SystemExit, match="143"), reported(summary, OmegaConf.create({}), tmp_path):
        sys.exit(143)
    assert (summary.status, summary.error) == ("interrupted", None)
    assert state_of(tmp_path) == STOPPED


def test_jobs_of_a_namespaced_id_are_found(tmp_path):
    """ALE/Pong-v5 is one: its slash must not become a folder in a folder."""
    scripted = ("env=gym", "env.id=ScorepathTest/Scripted-v0", "dist=bernoulli", "debug=one_update", "seed=0,1")
    outcome = sweep(tmp_path, *scripted, "logger=none")
    assert outcome.code == 0, outcome.err
    assert len(table(outcome)) == len(summaries(outcome)) == 2


def test_a_misspelt_option_refuses_the_whole_sweep(tmp_path):
    outcome = sweep(tmp_path, *SMALL, "env=cartpole,cartpoel")
    assert outcome.code == 2
    assert "did you mean env=cartpole?" in outcome.sentence


def test_the_same_command_does_nothing_that_is_done(grid):
    """Not a byte of a job's folder changes, and the table is the same."""
    before = snapshot(grid.directory)
    again = succeed(sweep(grid.directory.parents[2], *SMALL, *GRID, "record_episode=false"))
    assert snapshot(grid.directory).keys() == before.keys()
    assert {path for path, content in snapshot(grid.directory).items() if content != before[path]} <= {"multirun.yaml"}
    assert table(again) == table(grid)
    assert again.err == ""


def test_a_sweep_of_one_job_without_overrides(tmp_path):
    """There is nothing to name its folder after."""
    outcome = sweep(tmp_path, "hydra.verbose=false", "max_env_steps=1")
    assert outcome.code == 0, outcome.err
    assert set(table(outcome)) == {"max_env_steps-1"}


# ------------------------------------------------------------------ states


def summarized(folder, **content) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(content))


def test_the_state_of_a_job_is_that_of_its_folder(tmp_path):
    job = tmp_path / "job"
    assert state_of(job) == WAITING
    record_overrides(job, ["seed=0"])
    assert state_of(job) == WAITING
    with locked(job):
        assert state_of(job) == RUNNING
    assert state_of(job) == WAITING  # held for an instant, before anything was done
    (job / "train.log").touch()
    assert state_of(job) == STOPPED
    summarized(job, status="interrupted")
    assert state_of(job) == STOPPED
    summarized(job, status="failed", error="no")
    assert state_of(job) == FAILED
    with locked(job):
        assert state_of(job) == RUNNING  # again
    for status in ("solved", "completed"):
        summarized(job, status=status)
        with locked(job):
            assert state_of(job) == FINISHED  # which is about to end
        assert state_of(job) == FINISHED
    (job / "summary.json").write_text("{")
    assert state_of(job) == STOPPED


@pytest.mark.parametrize(
    ("status", "retry", "expected"),
    [
        ("completed", False, True),
        ("solved", True, True),
        ("failed", False, True),
        ("failed", True, False),
        ("interrupted", False, False),
    ],
)
def test_a_job_is_settled_by_its_status(tmp_path, status, retry, expected):
    """As another process may have left it in the meantime."""
    summarized(tmp_path, status=status, env_steps=7)
    assert settled(tmp_path, retry) == ({"status": status, "env_steps": 7} if expected else None)
    assert settled(tmp_path / "nothing", retry) is None


def test_a_folder_can_be_asked_about_while_a_run_takes_it(tmp_path):
    """Those who ask hold the lock for an instant, which refuses nobody."""
    script = "import sys; from pathlib import Path; from scorepath.run.lock import is_locked\n"
    script += "while True: is_locked(Path(sys.argv[1]))"
    (tmp_path / ".lock").touch()
    askers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment()) for _ in range(2)]
    try:
        for _ in range(200):
            with locked(tmp_path):
                assert is_locked(tmp_path)
    finally:
        for asker in askers:
            asker.kill()
            asker.wait()


# ------------------------------------------------------------------ jobs that have changed


@pytest.fixture
def conf(tmp_path):
    """A folder with an option of one's own, which can be changed."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)

    def write(lr: float) -> str:
        text = f"# @package _global_\nmax_env_steps: 1\nrecord_episode: false\noptimizer: {{lr: {lr}}}\n"
        (tmp_path / "conf" / "experiment" / "own.yaml").write_text(text)
        return f"hydra.searchpath=[file://{tmp_path / 'conf'}]"

    return write


def test_a_job_whose_config_has_changed_is_refused_or_run_beside(tmp_path, conf):
    command = ("experiment=own", "seed=0,1", "logger=csv", conf(0.01))
    first = succeed(sweep(tmp_path, *command))
    before = snapshot(first.directory)
    conf(0.02)
    refused = sweep(tmp_path, *command, "seed=0,1,2")
    assert refused.code == 2
    assert "seed-0 holds a run of another config: optimizer.lr was 0.01 and is 0.02." in refused.sentence
    assert "on_change=rerun" in refused.sentence
    assert snapshot(first.directory) == before
    beside = succeed(sweep(tmp_path, *command, "seed=0,1,2", "on_change=rerun"))
    after = snapshot(first.directory)
    assert before.items() - after.items() == {("multirun.yaml", before["multirun.yaml"])}
    jobs = summaries(beside)
    assert len(jobs) == 5
    assert {name.rpartition("_")[0] for name in jobs if name.count("_")} == {"seed-0", "seed-1"}
    assert {"seed-0", "seed-1", "seed-2"} <= set(jobs)
    # what stands beside is found again, by either command
    assert summaries(succeed(sweep(tmp_path, *command, "seed=0,1,2"))).keys() == jobs.keys()
    conf(0.01)
    assert summaries(succeed(sweep(tmp_path, *command))).keys() == jobs.keys()


def test_what_the_command_alone_is_about_is_no_change(tmp_path):
    command = ("max_env_steps=1", "record_episode=false", "logger=none", "seed=0,1")
    first = succeed(sweep(tmp_path, *command))
    before = {path: content for path, content in snapshot(first.directory).items() if path != "multirun.yaml"}
    for more in ("resume=auto", "retry_failed=true", "on_change=rerun"):
        again = succeed(sweep(tmp_path, *command, more))
        after = {path: content for path, content in snapshot(again.directory).items() if path != "multirun.yaml"}
        assert after == before


def test_a_value_that_is_no_value_for_changes(tmp_path):
    outcome = sweep(tmp_path, "on_change=ignore", "seed=0,1")
    assert "on_change=ignore is out of range: it must be one of refuse, rerun" in outcome.err


@pytest.mark.slow
def test_search_of_hparams_is_a_sweep(tmp_path):
    outcome = sweep(tmp_path, "hparams_search=lr", "debug=one_update", "logger=none", "callbacks=none")
    assert outcome.code == 0, outcome.err
    assert len(table(outcome)) == 9
    assert {summary["seed"] for summary in summaries(outcome).values()} == {0, 1, 2}


def test_failed_jobs_are_run_again_when_they_are_asked_for(tmp_path):
    """And not before; what has finished is left as it is."""
    faulty = ("env=gym", f"env.id={FAULTY}", "dist=bernoulli", "logger=none", "record_episode=false")
    command = (*SMALL, *faulty, "+env.kwargs.bad=raise", "+env.kwargs.under=training_step,nobody")
    first = sweep(tmp_path, *command)
    before = snapshot(first.directory)
    for more, tried in (((), False), (("retry_failed=true",), True)):
        again = sweep(tmp_path, *command, *more)
        assert again.code == 1
        assert ("Traceback" in again.err) == tried
        changed = {path for path, content in snapshot(again.directory).items() if content != before.get(path)}
        assert {path for path in changed if "nobody" in path} == set()
        assert any("training_step" in path for path in changed) == tried
        (line,) = [line for line in again.err.splitlines() if line.startswith("  under-training_step: ")]
        assert "by zero" in line
        assert line.endswith(f"({again.directory.relative_to(tmp_path) / 'under-training_step' / 'train.log'})")


def test_several_processes_of_a_run_are_refused(tmp_path):
    outcome = sweep(tmp_path, "trainer=default,ddp", "seed=0,1")
    assert outcome.code == 2
    assert "trainer.devices=2 is a run of several processes" in outcome.sentence
    assert "without -m" in outcome.sentence
    assert not outcome.directory.exists()


@pytest.mark.parametrize("swept", ["optimizer.lr=interval(0,1)", "optimizer.lrr=0.1,0.2", "optimizer.lr=0.1,0.2 sed=1"])
def test_what_cannot_be_swept_is_refused_before_a_job_begins(tmp_path, swept):
    outcome = sweep(tmp_path, *swept.split())
    assert outcome.code == 2
    assert outcome.sentence.startswith(swept.split()[-1].partition("=")[0])
    assert not outcome.directory.exists()


@pytest.mark.parametrize(
    "overrides",
    [
        slow(""),
        slow("env=cartpole dist=bernoulli seed=1 optimizer.lr=0.1"),
        "env=pendulum_torch gamma=0.9 +env.more.deep=[1,2] hydra.sweep.subdir='a-b' hydra.verbose=true",
        "experiment=cartpole_bernoulli ~debug logger=none ~optimizer.betas policy.torso.hidden_sizes=[3]",
        slow("callbacks=none ++title='a,b' sweep=x resume=auto"),
    ],
)
def test_configs_of_jobs_are_those_that_hydra_composes(overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", ["env=pendulum", "hydra.job.chdir=false"], RunMode.MULTIRUN)
        expected = OmegaConf.to_yaml(loader.load_sweep_config(master, overrides.split()))
        for _ in range(2):
            composed = CachingLoader(loader).load_sweep_config(master, overrides.split())
            assert OmegaConf.to_yaml(composed) == expected
            plain = OmegaConf.to_container(composed, resolve=False)
            assert {**CachingLoader(loader).plain(master, overrides.split()), "hydra": plain["hydra"]} == plain


# ------------------------------------------------------------------ processes


@pytest.mark.slow
def test_joblib_runs_two_jobs_at_a_time(tmp_path):
    """The same digests as one after the other, and a failed job is told of in the same way."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = (*SMALL, "logger=csv", "record_episode=false", "dist=bernoulli,normal,categorical")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    folder = tmp_path / "parallel"
    folder.mkdir()
    process = start("train", folder, "-m", "sweep=it", *launcher, *arguments)
    serial = sweep(tmp_path, *arguments)
    parallel = finish(process, folder / "outputs" / "sweeps" / "it")
    assert parallel.code == serial.code == 1
    assert table(parallel).keys() == table(serial).keys()
    one, other = summaries(serial), summaries(parallel)
    for folder in one:
        assert other[folder]["status"] == one[folder]["status"]
        assert other[folder].get("weights_sha256") == one[folder].get("weights_sha256")
    assert "1 of 3 jobs did not finish" in parallel.err
    assert "Traceback" not in parallel.err


@pytest.mark.slow
def test_submitit_runs_jobs_in_processes_of_their_own(tmp_path):
    pytest.importorskip("submitit")
    arguments = ("debug=one_update", "logger=none", "callbacks=none", "dist=bernoulli,normal", "seed=0")
    process = start("train", tmp_path, "-m", "sweep=it", "hydra/launcher=submitit_local", *arguments)
    outcome = finish(process, tmp_path / "outputs" / "sweeps" / "it")
    assert outcome.code == 1
    assert {job: cells[0] for job, cells in table(outcome).items()} == {
        "dist-bernoulli": "completed",
        "dist-normal": "failed",
    }
    assert "1 of 2 jobs did not finish: dist-normal" in outcome.err


def test_a_signal_ends_the_sweep_and_the_jobs_can_be_resumed(tmp_path):
    held = ("env=gym", f"env.id={HOLD}", "dist=bernoulli", *SMALL, "logger=csv", "record_episode=false", "seed=0,1")
    process = start("train", tmp_path, "-m", "sweep=it", *held, HOLD="training_step:100")
    wait_for(tmp_path / "held", process)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    stopped = finish(process, tmp_path / "outputs" / "sweeps" / "it")
    assert stopped.code == 143
    assert "SIGTERM" in stopped.sentence
    assert "Of 2 jobs these are left: seed-0; seed-1. The same command continues with them." in stopped.err
    assert [summary["status"] for summary in summaries(stopped).values()] == ["interrupted"]
    resumed = sweep(tmp_path, *held)
    assert resumed.code == 0, resumed.err
    assert [summary["status"] for summary in summaries(resumed).values()] == ["completed", "completed"]
    assert (stopped.directory / "seed-0" / "train.log").read_text().count("Resuming from") == 1
