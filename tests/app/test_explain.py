"""Command lines that cannot mean anything: one sentence with what is taken instead, before any work."""

import inspect
import os
import re

import lightning.pytorch as pl
import pytest
from helpers import check_gradient, compare, evaluate, finish, start, train
from tiers import fast_only, slow

from scorepath.build.machine import check_nodes
from scorepath.config import OURS
from scorepath.errors import ConfigError
from scorepath.explain import valid_names
from scorepath.sources import Sources

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

# what Lightning's Trainer takes and a run passes on, none of which stands in the way of what we set
PASSED_ON = {
    *("accelerator", "strategy", "devices", "num_nodes", "precision", "max_time", "log_every_n_steps", "deterministic"),
    *("benchmark", "inference_mode", "use_distributed_sampler", "profiler", "detect_anomaly", "sync_batchnorm"),
    *("default_root_dir", "enable_autolog_hparams", "model_registry"),
}


@pytest.fixture
def no_module(monkeypatch):
    """A refusal comes before anything is built."""

    def refuse(*args):
        raise AssertionError("built")

    monkeypatch.setattr("scorepath.build.make_parts", refuse)


def test_every_argument_of_the_trainer_is_ours_or_passed_on():
    """A new one of Lightning's has to be looked at."""
    assert set(inspect.signature(pl.Trainer).parameters) == {*OURS, *PASSED_ON}


def test_what_we_give_the_trainer_names_the_key_of_ours():
    known = valid_names(Sources.of_command("train", []), [])
    for argument, remedy in OURS.items():
        # of which the last part may be one that has to be added
        words = set(re.findall(r"[a-z_]+(?:\.[a-z_]+)*", remedy))
        words |= {word.rpartition(".")[0] for word in words}
        assert words & known, argument


@pytest.mark.parametrize("argument", fast_only(OURS, "max_epochs"))
def test_what_we_give_the_trainer_is_not_taken(tmp_path, no_module, argument):
    outcome = train(tmp_path, f"+trainer.{argument}=3")
    assert outcome.code == 2
    assert outcome.sentence == f"trainer.{argument}=3 is not taken: {OURS[argument]}."
    assert not list(outcome.directory.iterdir())


@pytest.mark.parametrize("value", ["fsdp", slow("deepspeed"), slow("ddp_spawn"), "null"])
def test_strategies_that_split_a_policy_or_fork_are_refused(tmp_path, no_module, value):
    outcome = train(tmp_path, f"+trainer.strategy={value}")
    assert outcome.code == 2
    assert "it must be one of auto, ddp" in outcome.sentence


def test_several_machines_want_somebody_who_starts_them(tmp_path):
    """Each would wait for the others for ever."""
    outcome = train(tmp_path, "+trainer.num_nodes=3", "debug=one_update")
    assert outcome.code == 2
    assert outcome.sentence.startswith("trainer.num_nodes=3 needs somebody who starts the run on each of 3 machines")
    assert "a whole number" in train(tmp_path, "+trainer.num_nodes=many", "debug=one_update").sentence


@pytest.mark.parametrize(
    "variables",
    [
        {"NODE_RANK": "1"},
        {"TORCHELASTIC_RUN_ID": "3"},
        {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"},
    ],
)
def test_several_machines_that_somebody_has_started(monkeypatch, variables):
    with pytest.raises(ConfigError, match="num_nodes=2"):
        check_nodes(2)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check_nodes(2)


@pytest.mark.parametrize(
    ("group", "remedy"),
    [
        ("env", "choose one of acrobot, "),
        slow("dist", "choose one of bernoulli, "),
        slow("optimizer", "choose one of adam, adamw, rmsprop, sgd."),
        slow("trainer", "choose one of cpu, ddp, default, gpu."),
        ("baseline", "did you mean baseline=none?"),
        slow("logger", "did you mean logger=none?"),
        slow("callbacks", "did you mean callbacks=none?"),
    ],
)
def test_null_is_no_option(tmp_path, group, remedy):
    outcome = train(tmp_path, f"{group}=null")
    assert outcome.code == 2
    assert outcome.sentence.startswith(f"{group}=null is no option: {remedy}")


def test_groups_of_another_command(tmp_path):
    assert evaluate(tmp_path, "env=acrobot").sentence == (
        "eval takes no env=...: it takes checkpoint, deterministic, episodes, run_dir, seed, trust, video."
    )
    assert check_gradient(tmp_path, "env=cartpole").sentence.startswith(
        "check_gradient takes no env=...: it takes problem (ball_with_wall, bandit, "
    )
    assert compare(tmp_path, "env=cartpole").sentence.startswith(
        "compare_estimators takes no env=...: it takes comparison (pendulum, tutorial), "
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("optimizer.betas=[0.9]",), "two numbers from 0 to below 1, such as [0.9,0.999]"),
        slow(("optimizer.betas=[0.9,0.9,0.9]",), "two numbers"),
        (("baseline=value", "+baseline.make_optimizer.betas=[0.9]"), "baseline.make_optimizer was refused"),
        (("optimizer=sgd", "~optimizer.momentum", "optimizer._target_=torch.optim.LBFGS"), "optimizer was refused"),
        # which torch notices in the first step alone
        (("optimizer=sgd", "+optimizer.fused=true", "+optimizer.differentiable=true"), "optimizer was refused"),
        slow(("baseline=value", "+baseline.make_optimizer.amsgrad=3", "baseline.make_optimizer.lr=-1"), "positive"),
        slow(("baseline=value", "+baseline.make_optimizer.eps=-1"), "baseline.make_optimizer was refused"),
    ],
)
def test_optimizers_are_tried_before_any_work(tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr("scorepath.rollout.episodes._collect", lambda *args: pytest.fail("a rollout"))
    outcome = train(tmp_path, *arguments)
    assert outcome.code == 2
    assert words in outcome.sentence


@pytest.mark.parametrize(
    "id", [":", slow(":CartPole-v1"), slow("gymnasium:"), "a:b:CartPole-v1", slow(".x:CartPole-v1")]
)
def test_ids_that_are_none(tmp_path, id):
    outcome = train(tmp_path, "env=gym", f"env.id='{id}'")
    assert outcome.code == 2
    assert outcome.sentence == f"env.id={id} is no id: give Name-v0, or module:Name-v0 for one that a module registers."


NOT_TEXT = "\udcff"  # a byte that is not UTF-8, as Python has it


@pytest.mark.parametrize("override", ["sweep={}", "hydra.run.dir={}", "sweep='{}'", "env.id='{}'", "resume={}"])
def test_arguments_that_are_not_text(tmp_path, override):
    outcome = train(tmp_path, override.format(NOT_TEXT), directory=None)
    assert outcome.code == 2
    assert "\\udcff" in outcome.sentence
    assert "is not UTF-8 text" in outcome.sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["sweep=${oc.env:NAME}", "hydra.run.dir=${oc.env:NAME}"])
def test_variables_that_are_not_text(tmp_path, monkeypatch, override):
    monkeypatch.setenv("NAME", NOT_TEXT)
    outcome = train(tmp_path, override, directory=None)
    assert outcome.code == 2
    assert "is not UTF-8 text" in outcome.sentence


def test_a_working_directory_that_is_not_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    outcome = finish(start("train", folder, "debug=one_update"), tmp_path)
    assert outcome.code == 2
    assert "is not UTF-8 text" in outcome.sentence
    assert not os.listdir(folder)
