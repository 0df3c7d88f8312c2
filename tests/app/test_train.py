"""Training end to end: the run directory, the metrics, reproducibility, how a run ends, and what a fault leaves."""

import math
import re
import threading

import pytest
import torch
from helpers import FAULTY, SCRIPTS, Outcome, finish, imported_by, snapshot, start, succeed, train, without_time
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiers import fast_only, slow

from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.run.directory import claim
from scorepath.run.summary import versions

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

SMALL = ("max_env_steps=3000", "eval.every_env_steps=1000", "eval.episodes=4", "episodes_per_update=8")
SUMMARY = {
    *("status", "seed", "env_steps", "updates", "episodes", "train_seconds", "total_seconds", "env_steps_per_second"),
    *("eval_return_mean", "eval_return_ci95", "eval_episodes", "solved_at_env_steps", "weights_sha256", "versions"),
    *("config_sha256", "gradient_bias", "irreproducible"),
}
METRICS = {
    *("rollout/episode_return_mean", "rollout/episode_length_mean", "train/surrogate_loss", "train/entropy"),
    *("train/grad_norm", "eval/return_mean", "time/env_steps_per_second"),
}
# of a value network alone
VALUE_METRICS = {"baseline/explained_variance"}
# TensorBoard's HParams tab reads these; they are no curves
HPARAM_TAGS = {
    f"final/{name}" for name in ("return_mean", "return_low", "return_high", "env_steps", "env_steps_per_second")
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Outcome:
    """A run with everything on."""
    return succeed(train(tmp_path_factory.mktemp("reference"), *SMALL))


@pytest.fixture(scope="module")
def with_value(tmp_path_factory) -> Outcome:
    return succeed(train(tmp_path_factory.mktemp("value"), *SMALL, "baseline=value", "record_episode=false"))


# ------------------------------------------------------------------ the run directory


def test_run_directory_is_complete(reference):
    files = set(snapshot(reference.directory))
    events = {name for name in files if name.startswith("tensorboard/events.out.tfevents.")}
    assert events
    assert files - events == {
        *(".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "train.log", "summary.json"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/previous.ckpt", ".lock"),
        *("metrics.csv", "tensorboard/hparams.yaml"),
    }


def test_nothing_is_written_beside_the_run_directory(tmp_path):
    succeed(train(tmp_path, "debug=one_update"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_saved_config_is_the_config_that_ran(reference):
    saved = OmegaConf.load(reference.directory / ".hydra" / "config.yaml")
    assert saved.max_env_steps == 3000
    assert saved.env.id == "CartPole-v1"
    overrides = OmegaConf.load(reference.directory / ".hydra" / "overrides.yaml")
    assert list(overrides) == list(SMALL)


def test_summary_has_the_keys_of_the_design_and_no_others(reference):
    assert set(reference.summary) == SUMMARY


def test_a_biased_gradient_is_labelled(reference, tmp_path):
    """In the summary, and in the log and on the terminal before the first update; an unbiased one is not."""
    labels = reference.summary["gradient_bias"]
    assert [label.split(" by ")[0] for label in labels] == ["steps are not weighed", "advantages are whitened"]
    for label in labels:
        assert f"The gradient is biased: {label}." in (reference.directory / "train.log").read_text()
    exact = ("estimator.normalize_returns=none", "estimator.discount_steps=true")
    unbiased = succeed(train(tmp_path, "debug=one_update", "logger=none", *exact))
    assert unbiased.summary["gradient_bias"] == []
    clipped = succeed(
        train(tmp_path, "debug=one_update", "logger=none", *exact, "max_grad_norm=5", directory="clipped")
    )
    assert [label.partition(",")[0] for label in clipped.summary["gradient_bias"]] == [
        "gradients are clipped at a norm of 5"
    ]
    assert "is biased" not in unbiased.out


def test_summary_agrees_with_the_metrics(reference, with_value):
    for outcome in (reference, with_value):
        summary, updates = outcome.summary, [row for row in outcome.rows if row["rollout/episode_return_mean"]]
        assert summary["updates"] == len(updates)
        assert summary["episodes"] == 8 * len(updates)
        assert summary["env_steps"] == int(updates[-1]["env_steps"])
        assert summary["eval_episodes"] == 4
        low, high = summary["eval_return_ci95"]
        assert low < summary["eval_return_mean"] < high
        assert summary["seed"] == 0
        assert summary["total_seconds"] >= summary["train_seconds"] > 0
        assert re.fullmatch("[0-9a-f]{64}", summary["weights_sha256"])
        assert summary["versions"]["torch"] == torch.__version__


def test_the_build_of_torch_is_part_of_its_version(monkeypatch):
    """PyPI's wheels are named 2.13.0, whichever CUDA they were built for."""
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.13.0+cu130"))
    assert versions()["torch"] == "2.13.0+cu130"
    assert set(versions()) >= {"python", "scorepath", "torch", "lightning", "numpy"}


def test_env_steps_are_the_lengths_of_all_episodes(reference):
    updates = [row for row in reference.rows if row["rollout/episode_return_mean"]]
    steps = [0, *(int(row["env_steps"]) for row in updates)]
    for before, after, row in zip(steps, steps[1:], updates, strict=False):
        assert after - before == round(8 * float(row["rollout/episode_length_mean"]))
        assert row["rollout/episode_return_mean"] == row["rollout/episode_length_mean"]  # CartPole pays 1 a step


def test_metrics_have_the_names_of_the_design(reference, with_value):
    assert set(reference.rows[0]) >= {"env_steps"} | METRICS
    assert set(with_value.rows[0]) >= {"env_steps"} | METRICS | VALUE_METRICS


def test_every_metric_is_a_finite_number(with_value):
    for row in with_value.rows:
        assert all(math.isfinite(float(value)) for value in row.values() if value)


def test_evaluation_comes_after_the_update_that_crosses_its_interval(reference):
    updates = [int(row["env_steps"]) for row in reference.rows if row["rollout/episode_return_mean"]]
    evaluated = [int(row["env_steps"]) for row in reference.rows if row["eval/return_mean"]]
    assert evaluated == [next(steps for steps in updates if steps >= due) for due in (1000, 2000, 3000)]


@pytest.mark.parametrize("fixture", ["reference", "with_value"])
def test_tensorboard_has_the_metrics_of_the_csv_over_env_steps(fixture, request):
    outcome = request.getfixturevalue(fixture)
    events = EventAccumulator(str(outcome.directory / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    columns = set(outcome.rows[0]) - {"env_steps"}
    assert set(events.Tags()["scalars"]) - HPARAM_TAGS == columns
    for name in columns:
        written = [(int(row["env_steps"]), float(row[name])) for row in outcome.rows if row[name]]
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in shown] == [step for step, _ in written]
        assert [value for _, value in shown] == pytest.approx([value for _, value in written], rel=1e-6)


def test_tensorboard_has_the_config_and_a_picture(reference):
    events = EventAccumulator(str(reference.directory / "tensorboard")).Reload()
    (text,) = events.Tensors("config/text_summary")
    assert b"CartPole-v1" in text.tensor_proto.string_val[0]
    (image,) = events.Images("video/episode")
    assert image.step == reference.summary["env_steps"]
    assert image.encoded_image_string[:6] == b"GIF89a"


def test_log_file_has_what_the_terminal_shows(reference):
    lines = reference.out.splitlines()
    assert any("completed after" in line for line in lines)
    log = (reference.directory / "train.log").read_text().splitlines()
    assert [line.partition("][INFO] ")[2] for line in log] == lines
    assert not reference.err


def test_checkpoints_are_plain_data(reference):
    """So that torch's safe loader takes them, whoever sent them."""
    for name in ("best", "last"):
        checkpoint = torch.load(reference.directory / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["scorepath"]["seed"] == 0
    assert checkpoint["scorepath"]["env_steps"] == reference.summary["env_steps"]


# ------------------------------------------------------------------ reproducibility


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> dict[str, Outcome]:
    """Two processes that claim one name together, as runs of the same second do."""
    folder = tmp_path_factory.mktemp("pair")
    arguments = (*SMALL, "hydra.run.dir=${claim:outputs/same}", "logger=csv")
    processes = [start("train", folder, *arguments, f"seed={seed}") for seed in (0, 1)]
    for process in processes:
        succeed(finish(process, folder))
    return {path.name: Outcome(0, "", "", path) for path in (folder / "outputs").iterdir()}


def test_two_runs_of_one_second_get_two_folders(pair):
    assert set(pair) == {"same", "same_2"}
    assert {outcome.summary["seed"] for outcome in pair.values()} == {0, 1}
    assert {outcome.summary["status"] for outcome in pair.values()} == {"completed"}


def test_same_command_gives_the_same_weights_in_a_process_of_its_own(reference, pair):
    (again,) = [outcome for outcome in pair.values() if outcome.summary["seed"] == 0]
    for key in ("weights_sha256", "eval_return_mean", "env_steps", "updates"):
        assert again.summary[key] == reference.summary[key]
    assert without_time(again.rows) == without_time(reference.rows)


@pytest.mark.slow
def test_processes_change_nothing_but_time(tmp_path):
    """Environments one by one, and each in a process of its own: the same episodes, the same weights."""
    digests = []
    for vectorization in ("sync", "async"):
        options = ("episodes_per_update=3", "max_env_steps=150", "eval.episodes=2", "record_episode=false")
        vectorized = f"env.vectorization={vectorization}"
        outcome = succeed(train(tmp_path, *options, "logger=none", vectorized, directory=vectorization))
        digests.append(outcome.summary["weights_sha256"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "change",
    [
        ("logger=none", "callbacks=none", "record_episode=false"),
        ("+callbacks.progress.show=true", "eval.every_env_steps=200", "eval.episodes=7", "trainer.log_every_n_steps=3"),
        *(
            slow(change)
            for change in (
                ("logger=none",),
                ("logger=csv",),
                ("callbacks=none",),
                ("callbacks.checkpoints=null",),
                ("eval.every_env_steps=200", "eval.episodes=7"),
                ("trainer.log_every_n_steps=3",),
                ("debug=profiler",),
                ("debug=anomaly",),
                ("stop_when_solved=false",),
            )
        ),
    ],
    ids=" ".join,
)
def test_watching_does_not_change_the_weights(reference, tmp_path, change):
    outcome = succeed(train(tmp_path, *SMALL, *change))
    assert outcome.summary["weights_sha256"] == reference.summary["weights_sha256"]
    assert outcome.summary["env_steps"] == reference.summary["env_steps"]


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "gamma=0.9",
        *map(slow, ("dist=categorical", "optimizer.lr=0.011", "episodes_per_update=9")),
        slow("max_env_steps=2500"),
    ],
)
def test_what_should_change_the_weights_does(reference, tmp_path, change):
    outcome = succeed(train(tmp_path, *SMALL, change, "logger=none", "callbacks=none"))
    assert outcome.summary["weights_sha256"] != reference.summary["weights_sha256"]


def test_a_baseline_does_not_change_the_episodes_of_the_first_update(tmp_path):
    """Whatever it plays or draws: those are a function of the seed and the weights."""
    returns = {}
    for option in ("none", "self_critical", "optimal_constant", "value", "moving_average"):
        small = ("debug=one_update", "logger=csv", "callbacks=none", f"baseline={option}")
        returns[option] = succeed(train(tmp_path, *small, directory=option)).rows[0]["rollout/episode_return_mean"]
    assert len(set(returns.values())) == 1, returns


# ------------------------------------------------------------------ how a run ends


def test_the_update_that_crosses_the_budget_is_the_last(reference):
    steps = [int(row["env_steps"]) for row in reference.rows if row["rollout/episode_return_mean"]]
    assert steps[-2] < 3000 <= steps[-1] == reference.summary["env_steps"]
    assert reference.summary["status"] == "completed"
    assert reference.summary["solved_at_env_steps"] is None


def test_a_run_stops_when_solved(tmp_path):
    outcome = succeed(train(tmp_path, *SMALL, "env.reward_threshold=12"))
    summary = outcome.summary
    assert summary["status"] == "solved"
    assert summary["solved_at_env_steps"] == summary["env_steps"] < 2000
    assert set(summary) == SUMMARY
    (evaluation,) = [row for row in outcome.rows if row["eval/return_mean"]]
    assert float(evaluation["eval/return_mean"]) >= 12


def test_a_run_may_go_on_after_it_is_solved(tmp_path, reference):
    outcome = succeed(train(tmp_path, *SMALL, "env.reward_threshold=12", "stop_when_solved=false"))
    assert outcome.summary["status"] == "completed"
    assert 1000 <= outcome.summary["solved_at_env_steps"] < 2000
    assert outcome.summary["weights_sha256"] == reference.summary["weights_sha256"]


@pytest.fixture(scope="module")
def even(tmp_path_factory) -> Outcome:
    """Ten updates of four episodes of ten steps, each worth -10: whatever is counted comes out even."""
    options = ("env=mountain_car", "env.max_episode_steps=10", "episodes_per_update=4", "max_env_steps=400")
    watched = ("eval.every_env_steps=200", "eval.episodes=2", "record_episode=false", "logger=csv")
    solved = ("env.reward_threshold=-10", "stop_when_solved=false", "optimizer.lr=0.01")
    return succeed(train(tmp_path_factory.mktemp("even"), *options, *watched, *solved))


def test_a_budget_that_is_reached_exactly_is_used_up(even):
    assert even.summary["env_steps"] == 400
    assert even.summary["updates"] == 10


def test_a_threshold_that_is_reached_exactly_solves_and_the_first_time_counts(even):
    evaluated = {int(row["env_steps"]): float(row["eval/return_mean"]) for row in even.rows if row["eval/return_mean"]}
    assert evaluated == {200: -10, 400: -10}
    assert even.summary["solved_at_env_steps"] == 200


def test_the_first_of_equal_evaluations_is_the_best(even):
    best, last = (
        torch.load(even.directory / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    assert best["scorepath"]["env_steps"] == 200
    assert last["scorepath"]["env_steps"] == 400


def test_the_learning_rate_falls_in_a_straight_line_of_env_steps(even):
    """Update k, of 10, is taken at 1 - k / 10 of the first rate."""
    rates = [float(row["train/learning_rate"]) for row in even.rows if row["train/learning_rate"]]
    assert rates == pytest.approx([0.01 * (1 - k / 10) for k in range(10)], rel=1e-6)


def testfinal_evaluation_is_of_episodes_that_no_stopping_rule_has_seen(reference):
    last = [row for row in reference.rows if row["eval/return_mean"]][-1]
    assert float(last["eval/return_mean"]) != reference.summary["eval_return_mean"]


@pytest.mark.parametrize(
    ("options", "metric"),
    [
        (("env=pendulum_torch", "episodes_per_update=2", "max_env_steps=800"), "baseline/explained_variance"),
        *(
            slow(options, metric)
            for options, metric in (
                (("env=lqr", "episodes_per_update=2", "max_env_steps=800"), "train/grad_norm"),
                (
                    ("env=pendulum", "baseline=value", "episodes_per_update=2", "max_env_steps=800"),
                    "baseline/explained_variance",
                ),
                (("policy.normalize_observations=true", "max_env_steps=800"), "train/entropy"),
            )
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_other_ways_to_train(tmp_path, options, metric):
    """The budget is crossed, the metric is there, and a second run gives the same weights."""
    small = ("eval.episodes=2", "eval.every_env_steps=400", "record_episode=false")
    first = succeed(train(tmp_path, *options, *small))
    again = succeed(train(tmp_path, *options, *small, "logger=none", "callbacks=none", directory="again"))
    assert first.summary["status"] == "completed"
    assert first.summary["env_steps"] >= 800
    assert any(row[metric] for row in first.rows)
    assert first.summary["weights_sha256"] == again.summary["weights_sha256"]


def test_default_folder_is_named_after_date_and_time(tmp_path):
    succeed(train(tmp_path, "debug=one_update", "logger=none", directory=None))
    (summary,) = tmp_path.glob("outputs/*/*/summary.json")
    date, time = summary.parts[-3:-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
    assert re.fullmatch(r"\d\d-\d\d-\d\d", time)


def test_claim_is_exclusive(tmp_path):
    base, claimed = str(tmp_path / "a" / "b"), []
    threads = [threading.Thread(target=lambda: claimed.append(claim(base))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(claimed)) == 20
    assert base in claimed


def test_a_run_is_never_written_over(tmp_path):
    succeed(train(tmp_path, "debug=one_update"))
    before = snapshot(tmp_path)
    outcome = train(tmp_path, "debug=one_update", "seed=1")
    assert outcome.code == 2
    assert "resume=auto" in outcome.sentence
    assert "hydra.run.dir" in outcome.sentence
    assert snapshot(tmp_path) == before


# ------------------------------------------------------------------ faults of the environment


FAULT = (
    *("env=gym", f"env.id={FAULTY}", "dist=bernoulli", "record_episode=false"),
    *("episodes_per_update=2", "eval.episodes=2", "eval.every_env_steps=50"),
)


@pytest.fixture(scope="module", params=fast_only(["reward", "observation"], "reward"))
def failed(tmp_path_factory, request) -> tuple[str, Outcome]:
    """What was NaN, and the run that it ended."""
    bad = f"+env.kwargs.bad={request.param}"
    return request.param, train(tmp_path_factory.mktemp("failed"), *FAULT, bad, "+env.kwargs.under=training_step")


def test_nan_stops_the_run_before_the_optimizer_step(failed):
    what, outcome = failed
    assert outcome.code == 1
    sentence = outcome.sentence
    assert f"{what} that is not finite" in sentence
    assert re.search(r"at step 7 after action [01] of the episode reset with seed \d+", sentence)
    summary = outcome.summary
    assert summary["status"] == "failed"
    assert summary["error"] == sentence
    checkpoint = torch.load(outcome.directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["scorepath"]["env_steps"] > 0
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["state_dict"].values())
    assert outcome.rows


def test_failed_run_has_the_error_in_its_log(failed):
    _, outcome = failed
    assert outcome.sentence in (outcome.directory / "train.log").read_text()


def test_nan_in_an_evaluation_is_a_failure_too(tmp_path):
    outcome = train(tmp_path, *FAULT, "+env.kwargs.bad=reward", "+env.kwargs.under=validation_step")
    assert outcome.code == 1
    assert "not finite" in outcome.sentence
    assert outcome.summary["status"] == "failed"


def test_full_error_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    outcome = train(tmp_path, *FAULT, "+env.kwargs.bad=reward", "+env.kwargs.under=training_step")
    assert outcome.code == 1
    assert "Traceback (most recent call last)" in outcome.err
    assert "NonFiniteError" in outcome.err


def test_failed_run_has_a_complete_summary(failed):
    _, outcome = failed
    assert set(outcome.summary) == SUMMARY | {"error"}
    assert outcome.summary["env_steps"] > 0


def test_an_environment_that_raises_shows_its_traceback_and_leaves_a_summary(tmp_path):
    """A bug in somebody's environment is no mistake at the command line: its author wants to see where."""
    outcome = train(tmp_path, *FAULT, "+env.kwargs.bad=raise", "+env.kwargs.under=training_step")
    assert outcome.code == 1
    assert "ZeroDivisionError" in outcome.err
    assert outcome.summary["status"] == "failed"
    assert "division" in outcome.summary["error"]


def test_a_gradient_that_is_not_finite_is_not_applied(tmp_path):
    """A reward that is finite, but whose square is not."""
    scripted = ("env=gym", "env.id=ScorepathTest/Scripted-v0", "+env.kwargs.bad_reward=3", "+env.kwargs.bad=1e30")
    outcome = train(tmp_path, *scripted, "baseline=none", "estimator.normalize_returns=none")
    assert outcome.code == 1
    assert outcome.sentence.startswith("The gradient of update 0 is not finite")
    assert outcome.summary["status"] == "failed"


def test_pathwise_that_diverges_says_so(tmp_path):
    outcome = train(tmp_path, *SMALL, "env=lqr", "optimizer.lr=1e6")
    assert outcome.code == 1
    assert "lqr (dim=1) gave a reward that is not finite" in outcome.sentence
    assert outcome.summary["status"] == "failed"


# ------------------------------------------------------------------ what is built and imported


@pytest.mark.parametrize(("override", "number"), [slow("env=cartpole", 4), ("env=pendulum_torch", 5)])
def test_what_an_environment_is_is_asked_once(tmp_path, monkeypatch, override, number):
    """One to ask, one that trains, one that judges and one that is drawn; of a twin, one more: what judges it."""
    built = []
    for kind in (GymnasiumEnvironment, TorchEnvironment):
        monkeypatch.setattr(kind, "__init__", counted(kind.__init__, built))
    succeed(train(tmp_path, "debug=one_update", "episodes_per_update=2", "record_episode=true", override))
    assert len(built) == number


def counted(make, built):
    def init(self, *args, **kwargs):
        built.append(self)
        make(self, *args, **kwargs)

    return init


@pytest.mark.parametrize(
    "script",
    [name if name in ("train", "eval") else slow(name) for name in sorted(path.stem for path in SCRIPTS.glob("*.py"))],
)
def test_help_calls_each_script_by_its_name(tmp_path, script):
    outcome = finish(start(script, tmp_path, "--help"), tmp_path)
    assert outcome.code == 0
    without_config = ("sweep", "dashboard")
    words = f"usage: {script}.py" if script in without_config else f"{script} is powered by Hydra."
    assert outcome.out.startswith(words)


@pytest.mark.parametrize("arguments", [("--help",), slow(("--cfg", "job")), ("seed=-1",), slow(("env=x",))])
def test_nothing_is_imported_to_say_a_word(tmp_path, arguments):
    """Help, the config and a refused value cost half a second, not the five of torch and Lightning."""
    assert imported_by("train", tmp_path, *arguments) == set()


def test_refused_combination_does_not_import_lightning(tmp_path):
    assert imported_by("train", tmp_path, "dist=normal") == {"torch"}
