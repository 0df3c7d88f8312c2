"""Sweeps: a folder and a summary for each job, a table at the end, and an exit code that tells of a failed job."""

import json
import re
import signal

import pytest
from helpers import FAULTY, HOLD, Outcome, finish, plot, start, sweep, train, wait_for
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=300")
GRID = ("env=cartpole", "dist=bernoulli,categorical", "seed=range(0,2)")
FOLDERS = {f"dist-{dist}_env-cartpole" for dist in ("bernoulli", "categorical")}


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
    assert len(jobs) == 4
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
        (line,) = [line for line in lines if f"dist={dist}" in line]
        runs = [summary for folder, summary in summaries(grid).items() if dist in folder]
        mean = sum(summary["eval_return_mean"] for summary in runs) / 2
        assert re.split(r"\s{2,}", line)[1:3] == ["2", f"{mean:.2f}"]


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
    assert "runs=nowhere holds no finished run" in outcome.sentence


def test_plot_of_an_unknown_metric_says_so(grid):
    outcome = plot(grid.directory.parents[2], f"runs={grid.directory}", "metric=eval/return", "file=none.png")
    assert outcome.code == 2
    assert "metric=eval/return" in outcome.sentence
    assert "eval/return_mean" in outcome.sentence


# ------------------------------------------------------------------ jobs that fail


@pytest.mark.parametrize(
    ("axis", "bad", "words"),
    [("dist=bernoulli,normal,categorical", "dist-normal", "Box"), ("optimizer.lr=0.01,-1,0.02", "lr--1", "positive")],
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


def test_jobs_are_never_written_over(grid):
    def files():
        every = [path for path in grid.directory.glob("*/**/*") if path.is_file()]
        return {path: path.read_bytes() for path in every}

    before = files()
    again = sweep(grid.directory.parents[2], *SMALL, *GRID, "record_episode=false")
    assert again.err.count("already holds a run") == 4
    assert files() == before


def test_a_sweep_of_one_job_without_overrides(tmp_path):
    """There is nothing to name its folder after."""
    unnamed = "hydra.job.config.override_dirname.exclude_keys=[sweep,resume,debug]"
    outcome = sweep(tmp_path, "debug=one_update", unnamed)
    assert outcome.code == 0, outcome.err
    assert len(table(outcome)) == 1


def test_search_of_hparams_is_a_sweep(tmp_path):
    outcome = sweep(tmp_path, "hparams_search=lr", "debug=one_update", "logger=none", "callbacks=none")
    assert outcome.code == 0, outcome.err
    assert len(table(outcome)) == 9
    assert {summary["seed"] for summary in summaries(outcome).values()} == {0, 1, 2}


# ------------------------------------------------------------------ processes


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


def test_a_signal_ends_the_sweep_and_the_jobs_can_be_resumed(tmp_path):
    held = ("env=gym", f"env.id={HOLD}", "dist=bernoulli", *SMALL, "logger=csv", "record_episode=false", "seed=0,1")
    process = start("train", tmp_path, "-m", "sweep=it", *held, HOLD="training_step:100")
    wait_for(tmp_path / "held", process)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    stopped = finish(process, tmp_path / "outputs" / "sweeps" / "it")
    assert stopped.code == 143
    assert "SIGTERM" in stopped.sentence
    assert [summary["status"] for summary in summaries(stopped).values()] == ["interrupted"]
    resumed = sweep(tmp_path, *held, "resume=auto")
    assert resumed.code == 0, resumed.err
    assert [summary["status"] for summary in summaries(resumed).values()] == ["completed", "completed"]
