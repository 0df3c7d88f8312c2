"""Searches: spaces, the rule that gives settings up, a study that no process can lose, and whole commands."""

import json
import os
import re
import shlex
import sys
import warnings
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
import yaml
from helpers import CONF, search, succeed, sweep, train
from helpers import _run_here as run_here
from helpers import searched as trials_of
from tiers import fast_only, slow

from scorepath.errors import ConfigError, InUseError
from scorepath.intervals import t95
from scorepath.search.race import is_hopeless

optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState  # noqa: E402

from scorepath.jobs.search import OWN, run_trial  # noqa: E402
from scorepath.search.space import corners, default_setting, overrides_of, parse_space, suggest, text_of  # noqa: E402
from scorepath.search.study import JOURNAL, Study, StudyLock, error_of, values_of  # noqa: E402

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

LR = {"type": "float", "low": 0.001, "high": 0.1, "log": True}
SPACE = {
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "optimizer.lr": LR,
    "optimizer.momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "episodes_per_update": {"type": "int", "low": 2, "high": 4},
}
TINY = ("debug=one_update", "logger=none", "callbacks=none")


def own_space(folder: Path, space) -> tuple[str, str]:
    """A file with a space, and the arguments that choose it."""
    (folder / "mine" / "hparams_search").mkdir(parents=True, exist_ok=True)
    content = {"hydra": {"sweeper": {"space": space}}}
    (folder / "mine" / "hparams_search" / "own.yaml").write_text(
        f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False)}"
    )
    return f"hydra.searchpath=[file://{folder}/mine]", "hparams_search=own"


def study(folder: Path, space=SPACE, seed=0, default=None, maximize=True, **what) -> Study:
    return Study(folder / "it", parse_space(space), default, seed, maximize, {"space": space, **what})


# ------------------------------------------------------------------ spaces


def test_a_key_is_there_for_the_values_that_it_is_for():
    space = parse_space(SPACE)
    assert corners(space) == [
        {"optimizer": "adam", "optimizer.lr": 0.001, "episodes_per_update": 2},
        {"optimizer": "sgd", "optimizer.lr": 0.001, "optimizer.momentum": 0.0, "episodes_per_update": 2},
        {"optimizer": "adam", "optimizer.lr": 0.001, "episodes_per_update": 2},
        {"optimizer": "adam", "optimizer.lr": 0.1, "episodes_per_update": 2},
        {"optimizer": "sgd", "optimizer.lr": 0.001, "optimizer.momentum": 0.0, "episodes_per_update": 2},
        {"optimizer": "sgd", "optimizer.lr": 0.001, "optimizer.momentum": 0.9, "episodes_per_update": 2},
        {"optimizer": "adam", "optimizer.lr": 0.001, "episodes_per_update": 2},
        {"optimizer": "adam", "optimizer.lr": 0.001, "episodes_per_update": 4},
    ]
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [suggest(asked.ask(), space) for _ in range(50)]
    assert {setting["optimizer"] for setting in settings} == {"adam", "sgd"}
    for setting in settings:
        assert ("optimizer.momentum" in setting) == (setting["optimizer"] == "sgd")
        assert 0.001 <= setting["optimizer.lr"] <= 0.1
        assert setting["episodes_per_update"] in (2, 3, 4)
    logs = sorted(setting["optimizer.lr"] for setting in settings)
    assert logs[12] < 0.01 < logs[37]  # its median is at the middle of the logarithms


def test_a_key_may_need_another_that_needs_a_third():
    space = parse_space(
        {
            "a": {"type": "categorical", "choices": [1, 2]},
            "b": {"type": "categorical", "choices": ["x", "y"], "when": {"a": 2}},
            "c": {"type": "int", "low": 0, "high": 1, "when": {"b": "y"}},
        }
    )
    assert {"a": 2, "b": "y", "c": 1} in corners(space)
    assert all(("c" in setting) == (setting.get("b") == "y") for setting in corners(space))


def test_values_stand_in_overrides_as_one_would_write_them():
    (space,) = parse_space({"k": {"type": "categorical", "choices": [[64, 64], True, None, 0.5, 2, "tanh"]}})
    texts = [overrides_of({"k": choice})[0] for choice in space.distribution.choices]
    assert texts == ["k=[64,64]", "k=true", "k=null", "k=0.5", "k=2", "k=tanh"]
    assert float(text_of(1.2345678901234567e-5)) == 1.2345678901234567e-5


def test_the_default_is_a_setting_where_the_space_holds_it():
    space = parse_space(SPACE)
    values = {"optimizer": "adam", "optimizer.lr": 0.01, "episodes_per_update": 3, "optimizer.momentum": None}
    expected = {"optimizer": "adam", "optimizer.lr": 0.01, "episodes_per_update": 3}
    assert default_setting(space, values) == expected
    for key, value in (("optimizer", "adamw"), ("optimizer.lr", 0.2), ("episodes_per_update", 16)):
        assert default_setting(space, {**values, key: value}) is None


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "a space without keys has nothing to search"),
        ({"optimizer.lr": [0.1, 0.2]}, "optimizer.lr: [0.1, 0.2] is no range"),
        ({"optimizer.lr": {"low": 0.1, "high": 1.0}}, "is no range"),
        ({"optimizer.lr": {**LR, "step": 2}}, "optimizer.lr: step is not known of type: float"),
        ({"optimizer.lr": {**LR, "low": 0.0}}, "optimizer.lr: "),
        ({"optimizer.lr": {**LR, "low": 0.2}}, "optimizer.lr: "),
        ({"optimizer.lr": {"type": "float", "low": 0.1}}, "optimizer.lr: 'high' is missing"),
        ({"optimizer.lr": {**LR, "high": "much"}}, "high=much is no number"),
        ({"k": {"type": "int", "low": 1, "high": 2.5}}, "high=2.5 is no whole number"),
        ({"k": {"type": "categorical", "choices": "adam"}}, "choices are a list"),
        ({"k": {"type": "categorical", "choices": []}}, "k: "),
        ({"k": {**LR, "when": {"j": 1}}}, "when names j, which is no key of the space above it"),
        ({**SPACE, "k": {**LR, "when": {"optimizer": "adamw"}}}, "optimizer=adamw, which is none of its choices"),
    ],
)
def test_what_is_no_space(space, words):
    with pytest.raises(ConfigError) as caught:
        parse_space(space)
    assert words in str(caught.value)
    assert "type: float" in str(caught.value) or "when" in words or "adamw" in words


# ------------------------------------------------------------------ settings that are given up


def test_a_setting_is_given_up_by_students_t():
    """By hand: the best setting's values do not vary, so there is no slope. 90, 88, 89 about 89 have s² = 2 with one
    degree of freedom beside the slope's, 2 of 5 seeds are to come: 11 / (1.414 sqrt(2 / 15)) = 21.3, above 12.706."""
    best = [100.0, 100.0, 100.0, 100.0, 100.0]
    assert is_hopeless([90.0, 88.0, 89.0], best, [])
    assert not is_hopeless([91.0, 87.0, 89.0], best, [])  # 11 / (2.83 sqrt(2 / 15)) = 10.7
    # others tell that values spread by sqrt(16 / 7) = 1.512: with 7 degrees 2.365 is to be passed, on the first seed by
    # 1.512 sqrt(4 / 5) 2.365 = 3.2, and after two by 1.414 (8 degrees) sqrt(3 / 10) 2.306 = 1.8
    others = [[50.0, 48.0], [20.0, 22.0]] * 4
    assert is_hopeless([96.7], best, others)
    assert not is_hopeless([96.9], best, others)
    assert is_hopeless([98.1, 98.1], best, others)
    assert not is_hopeless([98.3, 98.3], best, others)


def test_a_setting_is_given_up_as_the_general_linear_model_has_it():
    """Its expected value and the error of that, by least squares on a column for each setting and one for the slope."""
    random = np.random.default_rng(0)
    best = random.normal(100.0, 30.0, 5)
    rows = [0.7 * best[:m] + random.normal(-20.0, 10.0, m) for m in (2, 5, 1, 3)]
    k, n = len(rows[0]), len(best)
    columns = np.zeros((sum(map(len, rows)), len(rows) + 1))
    for number, row in enumerate(rows):
        begin = sum(map(len, rows[:number]))
        columns[begin : begin + len(row), number] = 1.0
        columns[begin : begin + len(row), -1] = best[: len(row)]
    values = np.concatenate(rows)
    found = np.linalg.solve(columns.T @ columns, columns.T @ values)
    freedom = len(values) - len(found)
    variance = ((values - columns @ found) ** 2).sum() / freedom
    # the mean over all seeds: what is known of it, and the sum of n - k values to come
    ahead = np.array([n - k, 0.0, 0.0, 0.0, best[k:].sum()]) / n
    error = np.sqrt(variance * (ahead @ np.linalg.inv(columns.T @ columns) @ ahead + (n - k) / n**2))
    most = rows[0].sum() / n + ahead @ found + t95(freedom) * error
    for shift, hopeless in ((0.1, False), (-0.1, True)):
        values = [list(row + (best.mean() - most + shift)) for row in rows]
        assert is_hopeless(values[0], list(best), values[1:]) == hopeless


def test_seeds_are_compared_with_themselves():
    """A hard seed is hard for all."""
    best = [100.0, 20.0, 100.0, 20.0, 60.0]
    others = [[80.0, 1.0, 79.0, 0.0, 40.0]]
    assert is_hopeless([90.0, 9.0], best, others)
    assert is_hopeless([60.0], best, others)  # for that one was easy
    assert not is_hopeless([100.0], best, others)
    assert not is_hopeless([60.0], best, [[60.0, 59.0, 61.0, 60.0, 60.0]])  # it was not: the others do not show it


def test_what_is_better_or_on_all_seeds_or_alone_is_not_given_up():
    best = [10.0, 10.0, 10.0]
    assert not is_hopeless([11.0, 11.0], best, [[0.0, 0.1, 0.2]])
    assert not is_hopeless([10.0, 10.0], best, [[5.0, 5.0, 5.0]])  # which may still be as good
    assert not is_hopeless([0.0, 0.0, 0.0], best, [])
    assert not is_hopeless([-1e6], best, [])  # nothing is known of the spread
    assert not is_hopeless([-1e6, 0.0], best, [[0.0]])
    assert is_hopeless([0.0], best, [[5.0, 5.0, 5.0]])


# ------------------------------------------------------------------ the study


def begin(own: Study, number: int = 100):
    """A trial that is begun, and whose process then ends."""
    with own.claimed(number) as trial:
        return trial


def test_a_setting_follows_from_the_seed_the_number_and_the_trials_before(tmp_path):
    """Also when each is asked by a process of its own, so that no sampler has a state."""
    whole = study(tmp_path / "whole", default={"optimizer": "adam", "optimizer.lr": 0.01, "episodes_per_update": 3})
    for number in range(14):  # the sampler proper begins with the eleventh
        trial = begin(whole)
        assert trial.number == number
        whole.report(trial, [float(number % 5)])
        whole.tell(trial, float(number % 5))
        parts = study(tmp_path / "parts", default=whole.default)
        part = begin(parts)
        parts.report(part, [float(number % 5)])
        parts.tell(part, float(number % 5))
    assert trials_of(tmp_path / "whole" / "it") == trials_of(tmp_path / "parts" / "it")
    settings = [trial.params for trial in whole.trials()]
    assert settings[0] == whole.default
    assert len({json.dumps(setting) for setting in settings}) == 14
    other = study(tmp_path / "other", seed=1)
    assert begin(other).params != settings[0]


def test_a_trial_without_a_process_is_the_next_one(tmp_path):
    own = study(tmp_path)
    lost = begin(own)
    with own.claimed(100) as trial:
        assert (trial.number, trial.params) == (lost.number, lost.params)
        with study(tmp_path).claimed(100) as another:  # which is held
            assert another.number == 1
        own.tell(trial, 1.0)
        own.tell(trial, 2.0)  # as by a process that was stopped after it had told
    assert begin(own).number == 1
    assert own.trials()[0].value == 1.0
    assert begin(own, number=2).number == 1
    own.tell(own.trials()[1], None, "a cause")
    assert begin(own, number=2) is None
    assert not own.at_work()
    assert [error_of(trial) for trial in own.trials()] == [None, "a cause"]


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path):
    own = study(tmp_path)
    own.tell(begin(own), 1.0)
    journal = tmp_path / "it" / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:20])
    again = study(tmp_path)
    assert journal.read_bytes() == whole
    assert begin(again).number == 1
    assert [trial[1] for trial in trials_of(tmp_path / "it")] == ["COMPLETE", "RUNNING"]


def test_the_lock_is_one_processs_which_may_take_it_again(tmp_path, monkeypatch):
    monkeypatch.setattr("scorepath.search.study._PATIENCE", 0.0)

    def taken_by_another() -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that are held elsewhere: ours hold nothing
            pid = os.fork()
        if not pid:
            try:
                StudyLock(tmp_path).acquire()
                os._exit(0)
            except InUseError:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    lock = StudyLock(tmp_path)
    with lock:
        with lock:
            pass
        assert not taken_by_another()
    assert taken_by_another()  # which has ended since
    with lock:
        pass


def test_a_space_that_is_exhausted_ends_the_search(tmp_path):
    """And no setting comes twice."""
    own = study(
        tmp_path, {"a": {"type": "categorical", "choices": [1, 2, 3]}, "b": {"type": "int", "low": 0, "high": 4}}
    )
    while (trial := begin(own)) is not None:
        own.report(trial, [float(trial.params["b"])])
        own.tell(trial, float(trial.params["b"]))
    settings = {(trial.params["a"], trial.params["b"]) for trial in own.trials()}
    assert len(settings) == len(own.trials()) == 15


def race(folder: Path, table, maximize=True, **options) -> Study:
    """A search whose measurements are a table's: setting k -> values on the seeds."""
    choices = {"k": {"type": "categorical", "choices": list(range(len(table)))}}
    own = study(folder, choices, maximize=maximize)

    def measure(place, overrides):
        chosen = dict(text.split("=") for text in overrides)
        value = table[int(chosen["k"])][int(chosen["seed"])]
        return (value, None) if isinstance(value, float) else (None, value)

    while True:
        with own.claimed(len(table)) as trial:
            if trial is None:
                return own
            run_trial(own, trial, range(len(table[0])), measure, options.get("prune", True))


def test_settings_are_given_up_and_fail_and_the_best_mean_wins(tmp_path):
    good, bad = [90.0, 91.0, 89.0, 90.0, 92.0], [10.0, 12.0, 9.0, 10.0, 11.0]
    table = [bad, good, ["is broken"] * 5, [value + 0.5 for value in good], [value + 1.0 for value in bad], bad]
    for maximize in (True, False):
        rows = table if maximize else [[-v if isinstance(v, float) else v for v in row] for row in table]
        own = race(tmp_path / str(maximize), rows, maximize)
        best = own.best()
        assert best.params == {"k": 3}
        assert best.value == pytest.approx(sum(rows[3]) / 5)
        by_setting = {trial.params["k"]: trial for trial in own.trials()}
        assert by_setting[2].state == TrialState.FAIL
        assert error_of(by_setting[2]) == "seed 0: is broken"
        first_good = min(by_setting[1].number, by_setting[3].number)
        for k in (0, 4, 5):
            trial = by_setting[k]
            late = trial.number > first_good
            assert trial.state == (TrialState.PRUNED if late else TrialState.COMPLETE)
            assert (len(values_of(trial)) < 5) == late
            assert values_of(trial) == rows[k][: len(values_of(trial))]
            assert trial.value == pytest.approx(sum(values_of(trial)) / len(values_of(trial)))
        assert not own.at_work()
        assert set(own.importances()) == {"k"}


def test_without_pruning_all_seeds_are_run(tmp_path):
    own = race(tmp_path, [[90.0, 91.0, 89.0], [10.0, 12.0, 9.0], [11.0, 12.0, 9.0]], prune=False)
    assert [len(values_of(trial)) for trial in own.trials()] == [3, 3, 3]


def test_a_trial_that_is_not_of_the_space_is_refused(tmp_path):
    """A journal may be another's, and a setting is what is run."""
    study(tmp_path)
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "it" / JOURNAL))
    stranger = optuna.load_study(study_name="it", storage=optuna.storages.JournalStorage(journal))
    stranger.ask().suggest_categorical("env._target_", ["os.system"])
    with pytest.raises(ConfigError, match=r"Trial 0 of .*it is not of this space"):
        study(tmp_path)


def test_a_trial_whose_folder_is_a_link_is_refused(tmp_path):
    own = study(tmp_path)
    (tmp_path / "it" / "trial-0000").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="trial-0000 is a link"):
        begin(own)


def test_the_dashboard_opens_a_study(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    own = race(tmp_path, [[90.0, 91.0, 89.0], [10.0, 12.0, 9.0]])
    journal = optuna.storages.journal.JournalFileBackend(str(own.folder / JOURNAL))
    request: dict = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(request)
    said = []
    body = b"".join(
        dashboard.wsgi(optuna.storages.JournalStorage(journal))(request, lambda *head: said.append(head[0]))
    )
    assert said == ["200 OK"]
    (shown,) = json.loads(body)["study_summaries"]
    assert shown["study_name"] == "it"


# ------------------------------------------------------------------ whole commands


def test_the_keys_of_a_search_are_those_that_training_has_not():
    own, below = (yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in ("search", "train"))
    assert set(own) - {"defaults", "hydra"} == set(OWN)
    assert not set(OWN) & set(below)


def test_a_search_from_its_command_to_its_experiment(tmp_path):
    space = {**SPACE, "optimizer.lr": {**LR, "low": 0.02}}  # without the default, which is run for the report alone
    arguments = (*own_space(tmp_path, space), *TINY, "gamma=0.9", "trials=2", "seeds=2", "final_seeds=1")
    first = succeed(search(tmp_path, *arguments))
    folder = first.directory
    names = {path.relative_to(folder).parent.as_posix() for path in folder.rglob("summary.json")}
    trials = trials_of(folder)
    best = max(trials, key=lambda trial: trial[3])
    tuned = {f"trial-{number:04}/seed-{seed}" for number in range(2) for seed in (0, 1)}
    assert names == tuned | {f"best-{best[0]:04}/seed-5000", "default/seed-5000"}
    for number, state, params, value, values in trials:
        summaries = [
            json.loads((folder / f"trial-{number:04}/seed-{seed}/summary.json").read_text()) for seed in (0, 1)
        ]
        assert [summary["seed"] for summary in summaries] == [0, 1]
        assert values == [summary["eval_return_mean"] for summary in summaries]
        assert state == "COMPLETE"
        assert value == pytest.approx(sum(values) / 2)
        config = yaml.safe_load((folder / f"trial-{number:04}/seed-0/.hydra/config.yaml").read_text())
        assert config["gamma"] == 0.9
        assert config["optimizer"]["lr"] == params["optimizer.lr"]
        assert config["optimizer"]["_target_"] == f"torch.optim.{ {'adam': 'Adam', 'sgd': 'SGD'}[params['optimizer']] }"
        assert "space" not in config and "trials" not in config
    # an ordinary run, with what an ordinary run learns
    setting = [f"{key}={value}" for key, value in best[2].items()]
    alone = succeed(train(tmp_path, *TINY, "gamma=0.9", *setting, "seed=1"))
    expected = json.loads((folder / f"trial-{best[0]:04}/seed-1/summary.json").read_text())
    assert alone.summary["weights_sha256"] == expected["weights_sha256"]
    assert alone.summary["config_sha256"] == expected["config_sha256"]
    # the same by the command and by the experiment that it ends with
    (command,) = [line for line in first.out.splitlines() if line.startswith("  python") and "--config-dir" not in line]
    arguments_of_best = shlex.split(command)[2:]
    by_command = succeed(train(tmp_path, *arguments_of_best, "seed=1", directory="command"))
    # Hydra's own flag stands before the overrides
    by_file = run_here(
        "train", tmp_path, "file", f"--config-dir={folder}", "experiment=best", "seed=1", "hydra.run.dir=file"
    )
    for outcome in (by_command, succeed(by_file)):
        assert outcome.summary["weights_sha256"] == expected["weights_sha256"]
        assert outcome.summary["config_sha256"] == expected["config_sha256"]
    assert re.search(r"^best +[\d.]+ +- +1$", first.out, re.MULTILINE)
    assert re.search(r"^difference ", first.out, re.MULTILINE)
    assert "What matters: " in first.out
    assert "2 trials, 0 given up early: 4 runs of 4. With the report's, 6 runs of " in first.out
    # again: nothing is run, and the same is said
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".json", ".log", ".ckpt")}
    again = succeed(search(tmp_path, *arguments))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (
        again.out
        == "\n".join(line for line in first.out.splitlines() if not line.startswith("trial ") or "state" in line) + "\n"
    )


def test_settings_that_all_fail_are_said(tmp_path):
    """A constructor refuses what no type does."""
    space = {"estimator.log_probs": {"type": "categorical", "choices": ["sometimes", "never"]}}
    outcome = search(tmp_path, *own_space(tmp_path, space), *TINY, "seeds=1", "final_seeds=1")
    assert outcome.code == 1
    assert "No trial of outputs/searches/it has a value. trial 0: seed 0: " in outcome.err
    assert [trial[1] for trial in trials_of(outcome.directory)] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("space", "arguments", "words"),
    [
        (
            {"optimizer.lrr": LR},
            (),
            "hparams_search=own: optimizer.lrr is not a key of the config: did you mean optimizer.lr?",
        ),
        slow(
            {"optimizer.momentum": {**LR, "log": False}}, (), "optimizer.momentum is not a key of the config"
        ),  # of adam
        ({"optimizer": {"type": "categorical", "choices": ["adm"]}}, (), "did you mean optimizer=adam"),
        ({"gamma": {"type": "float", "low": 0.9, "high": 1.5}}, (), "gamma=1.5 is out of range"),
        slow({"episodes_per_update": {"type": "float", "low": 1.0, "high": 2.0}}, (), "episodes_per_update=1.0"),
        slow({}, (), "hparams_search=own: a space without keys"),
        (None, (), "hparams_search=own: there is no space to search"),
        slow(SPACE, ("seeds=0",), "seeds=0 is out of range"),
        (SPACE, ("search=a/b",), "search=a/b names a folder"),
        slow(SPACE, ("objective=loss",), "objective=loss is no number"),
        slow(SPACE, ("direction=up",), "direction=up is out of range"),
        (SPACE, ("trainer=ddp",), "trainer.devices="),
        slow(SPACE, ("seed=9223372036854775807",), "is out of range"),
        (SPACE, ("trialz=3",), "trialz is not a key of the config: did you mean trials?"),
    ],
)
def test_what_is_refused_before_anything_begins(tmp_path, space, arguments, words):
    outcome = search(tmp_path, *own_space(tmp_path, space), *arguments)
    assert outcome.code == 2
    assert words in outcome.sentence
    assert not (tmp_path / "outputs").exists()


def test_a_folder_of_another_search_is_refused(tmp_path):
    study(tmp_path / "outputs" / "searches", SPACE)
    before = (tmp_path / "outputs" / "searches" / "it" / JOURNAL).read_bytes()
    other = {**SPACE, "optimizer.lr": {**LR, "high": 0.2}}
    with pytest.raises(ConfigError, match=r"space.optimizer.lr.high was 0.1 and is 0.2. Put that back, or choose"):
        study(tmp_path / "outputs" / "searches", other)
    outcome = search(tmp_path, *own_space(tmp_path, SPACE), *TINY)
    assert outcome.code == 2
    assert "outputs/searches/it is another search: " in outcome.sentence
    assert (tmp_path / "outputs" / "searches" / "it" / JOURNAL).read_bytes() == before


def test_a_damaged_journal_is_said(tmp_path):
    own = study(tmp_path)
    journal = tmp_path / "it" / JOURNAL
    journal.write_text("what is this\nand this\n")
    with pytest.raises(ConfigError, match="cannot be read as a journal"):
        study(tmp_path)
    assert own.folder == tmp_path / "it"


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = search(tmp_path, "hparams_search=cartpole")
    assert outcome.code == 2
    assert 'pip install "scorepath[search]"' in outcome.sentence


@pytest.mark.parametrize(
    "name", fast_only(sorted(path.stem for path in (CONF / "hparams_search").glob("*.yaml")), "cartpole", "lr")
)
def test_a_grid_is_no_space_and_a_space_no_grid(tmp_path, name):
    """Each of ours is one of them, and every corner of a space can be composed."""
    content = yaml.safe_load((CONF / "hparams_search" / f"{name}.yaml").read_text())["hydra"]["sweeper"]
    if "space" in content:
        outcome = sweep(tmp_path, f"hparams_search={name}")
        assert "use scripts/search.py, without -m" in outcome.sentence
        # refused at the last moment, after all of the space has been checked
        (tmp_path / "outputs").mkdir()
        (tmp_path / "outputs" / "searches").touch()
        outcome = search(tmp_path, f"hparams_search={name}")
        assert "outputs/searches" in outcome.sentence
    else:
        outcome = search(tmp_path, f"hparams_search={name}")
        assert "there is no space to search" in outcome.sentence
    assert outcome.code == 2
