"""More of what is refused: misspelt names of every group, lines that break Hydra's grammar, spaces, missing packages.

test_config.py has the values out of range.
"""

import importlib.util
import itertools
import re
import subprocess
import sys

import gymnasium as gym
import pytest
from gymnasium import spaces
from helpers import CONF, evaluate, finish, plot, start, sweep, train
from tiers import fast_only, slow

from scorepath.build import dist_options
from scorepath.build.machine import check_devices
from scorepath.config import nearest
from scorepath.errors import ConfigError

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

GROUPS = {
    path.name: sorted(option.stem for option in path.glob("*.yaml"))
    for path in sorted(CONF.iterdir())
    if path.is_dir() and path.name not in ("hydra", "problem", "comparison")  # the groups of training
}


@pytest.fixture
def no_rollout(monkeypatch):
    """A refusal comes before the first step of any environment."""

    def refuse(*args):
        raise AssertionError("a rollout")

    monkeypatch.setattr("scorepath.rollout.episodes._collect", refuse)


def test_every_option_and_group_is_the_nearest_to_itself_misspelt():
    for names in (GROUPS, *GROUPS.values()):
        for name in names:
            assert nearest(f"{name}x", names) == name


@pytest.mark.parametrize("option", [f"{group}={options[0]}" for group, options in GROUPS.items()])
def test_misspelt_option_names_the_nearest(tmp_path, option):
    outcome = train(tmp_path, f"{option}x")
    assert outcome.code == 2
    assert f"did you mean {option}?" in outcome.sentence
    group = option.partition("=")[0]
    assert f"Options: {', '.join(GROUPS[group])}" in outcome.sentence
    assert not outcome.directory.exists()


@pytest.mark.parametrize("group", ["env", "estimator", "lr_schedule"])
def test_misspelt_group_names_the_nearest(tmp_path, group):
    outcome = train(tmp_path, f"{group}x={GROUPS[group][0]}")
    assert outcome.code == 2
    assert f"did you mean {group}?" in outcome.sentence


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("max_env_step=5", "max_env_steps"),
        slow("eval.episode=5", "eval.episodes"),
        ("eval.env_steps=5", "eval.every_env_steps"),
        slow("sed=1", "seed"),
        ("optimizer.learning_rate=1", "optimizer.lr"),
        slow("policy.hidden_sizes=[32]", "policy.torso.hidden_sizes"),
        slow("estimator.normalise_returns=none", "estimator.normalize_returns"),
        slow("trainer.precison=32-true", "trainer.precision"),
        ("lr=0.1", "optimizer.lr"),
        slow("hidden_sizes=[32]", "policy.torso.hidden_sizes"),
    ],
)
def test_misspelt_key_names_the_nearest(tmp_path, key, near):
    outcome = train(tmp_path, key)
    assert outcome.code == 2
    assert near in outcome.sentence.partition(" is not a key ")[2]


@pytest.mark.parametrize(
    "group", fast_only(("env", "dist", "estimator", "baseline", "policy", "optimizer", "lr_schedule"), "dist")
)
def test_group_that_is_needed_cannot_be_null(tmp_path, group):
    outcome = train(tmp_path, f"{group}=null", "debug=one_update")
    assert outcome.code == 2
    assert group in outcome.sentence


@pytest.mark.parametrize(
    "arguments",
    [
        slow(("seed",)),
        slow(("=3",)),
        ("a=b=c",),
        slow(("seed 1",)),
        slow(("eval=3", "callbacks=none")),
        slow(("optimizer=[adam,sgd]",)),
        slow(("env.kwargs=3",)),
        ("seed=range(0,3)",),
        slow(("dist=bernoulli,categorical",)),
        ("env.id=${nothing}",),
        ("optimizer._target_=torch.optim.Nothing",),
        slow(("policy.torso._target_=scorepath.policy.Nothing",)),
        ("++optimizer.nothing=3",),
        slow(("+dist.nothing=1",)),
        slow(("+env.kwargs.nothing=3",)),
        ("optimizer.betas=[2,3]",),
        ("hydra/launcher=nothing",),
        slow(("trainer.devices=0",)),
        slow(("trainer.accelerator=nothing",)),
        ("-m", "--cfg", "job"),
    ],
    ids=" ".join,
)
def test_one_sentence(tmp_path, no_rollout, arguments):
    outcome = train(tmp_path, *arguments)
    assert outcome.code == 2
    assert outcome.sentence


@pytest.mark.parametrize("group", fast_only(("dist", "trainer", "logger"), "dist"))
def test_deleted_group_is_missing(tmp_path, no_rollout, group):
    outcome = train(tmp_path, f"~{group}")
    assert outcome.code == 2
    assert outcome.sentence == f"{group} is missing: the run needs it; leave out what deletes it."


def test_deleted_key_is_not_suggested_for_itself(tmp_path):
    outcome = train(tmp_path, "~seed")
    assert outcome.code == 2
    assert "did you mean seed" not in outcome.sentence


def test_keyword_of_an_environment_is_added_with_a_plus(tmp_path, no_rollout):
    """env.kwargs is open, but Hydra wants a plus before a new key."""
    outcome = train(tmp_path, "env=lunar_lander", "env.kwargs.gravity=-5.0")
    assert outcome.code == 2
    assert "+env.kwargs.gravity=" in outcome.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("env.id=Cartpole-v1",), "CartPole-v1"),
        slow(("env.id=LunarLander-v2",), "LunarLander-v3"),
        slow(("env.id=MountainCar",), "MountainCar-v0"),
        (("env.id=nowhere:CartPole-v1",), "nowhere"),
        (("env.id=ScorepathTest/NoTimeLimit-v0",), "env.max_episode_steps="),
        (("env.id=3",), "text"),
        slow(("env.id=null",), "text"),
    ],
)
def test_gymnasium_ids(tmp_path, no_rollout, arguments, words):
    outcome = train(tmp_path, "env=gym", *arguments)
    assert outcome.code == 2
    assert words in outcome.sentence
    assert "???" not in outcome.sentence


def test_environment_without_a_time_limit_plays_with_the_cap_it_is_told(tmp_path):
    capped = ("env=gym", "env.id=ScorepathTest/NoTimeLimit-v0", "env.max_episode_steps=3")
    outcome = train(tmp_path, *capped, "debug=one_update", "logger=none")
    assert outcome.code == 0, outcome.err
    assert outcome.summary["env_steps"] == 2 * 3


def test_package_of_a_namespace_is_named(tmp_path):
    if importlib.util.find_spec("ale_py"):
        pytest.skip("ale_py is installed")
    outcome = train(tmp_path, "env=gym", "env.id=ALE/Pong-v5", "dist=categorical")
    assert outcome.code == 2
    assert 'pip install "gymnasium[atari]"' in outcome.sentence


# ------------------------------------------------------------------ a user's own conf

OWN = {
    "env/own": ("defaults: [cartpole]\nkwargs: {}\nspeed: 1.0", "env.speed"),
    "dist/own": ("defaults: [bernoulli]\ntemperature: 1.0", "dist.temperature"),
    "estimator/own": ("defaults: [score_function]\nhorizon: 1.0", "estimator.horizon"),
    "baseline/own": ("_target_: mine.Baseline\nmomentums: 1.0", "baseline.momentums"),
    "policy/own": ("defaults: [mlp]\nsharpness: 1.0", "policy.sharpness"),
    "optimizer/own": ("_target_: mine.Optimizer\n_partial_: true\nlr: 0.1\nrho: 1.0", "optimizer.rho"),
    "experiment/own": ("# @package _global_\ndefaults: [override /dist: own]\ngamma: 0.5", "dist.temperature"),
}
OUT = ("hydra.run.dir=out",)  # after Hydra's flags


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a conf of somebody's own, as a folder and as a package."""
    folder = tmp_path_factory.mktemp("own")
    for option, (text, _) in OWN.items():
        file = folder / "mine" / "conf" / f"{option}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in ("mine", "mine/conf"):
        (folder / name / "__init__.py").touch()
    (folder / "mine" / "conf" / "mytrain.yaml").write_text(
        f"defaults: [train, _self_]\nhydra: {{searchpath: ['file://{CONF}']}}\nseed: 3"
    )
    return folder


@pytest.fixture(params=fast_only(("--config-dir", "hydra.searchpath", "file://", "pkg://", "-m"), "--config-dir", "-m"))
def way(request, own, monkeypatch) -> tuple[str, ...]:
    """How the conf is given."""
    monkeypatch.syspath_prepend(str(own))
    return {
        "--config-dir": ("--config-dir", "mine/conf"),
        "hydra.searchpath": ("hydra.searchpath=[mine/conf]",),
        "file://": (f"hydra.searchpath=[file://{own}/mine/conf]",),
        "pkg://": ("hydra.searchpath=[pkg://mine.conf]",),
        "-m": ("-m", "--config-dir", "mine/conf", "seed=0,1"),
    }[request.param]


@pytest.mark.parametrize("option", fast_only(OWN, "dist/own", "experiment/own"))
def test_options_of_a_user_s_own_are_hinted_at(own, no_rollout, option):
    """Names of options and keys, as of ours."""
    group, _, name = option.partition("/")
    key = OWN[option][1]
    given = ("--config-dir", "mine/conf")
    misspelt = train(own, *given, f"{group}={name}x", directory=None)
    assert misspelt.code == 2
    assert f"did you mean {group}={name}? Options: " in misspelt.sentence
    unknown = train(own, *given, f"{group}={name}", f"{key}x=3", directory=None)
    assert unknown.code == 2
    assert f"{key}x is not a key of the config: did you mean {key}?" in unknown.sentence


@pytest.mark.parametrize("option", fast_only(OWN, "dist/own", "experiment/own"))
def test_values_of_a_user_s_own_options_are_checked(own, no_rollout, option):
    group, _, name = option.partition("/")
    key = OWN[option][1]
    outcome = train(own, "--config-dir", "mine/conf", f"{group}={name}", f"{key}=high", *OUT, directory=None)
    assert outcome.code == 2
    assert outcome.sentence == f"{key}=high has the wrong type: it must be a number, such as 1.0."


def test_every_way_to_a_user_s_own_conf(own, no_rollout, way):
    unknown = train(own, *way, "dist=own", "dist.temperatur=3", directory=None)
    assert unknown.code == 2
    assert unknown.sentence.startswith("dist.temperatur is not a key of the config: did you mean dist.temperature?")
    if "-m" in way:
        return
    wrong = train(own, *way, "dist=own", "dist.temperature=high", *OUT, directory=None)
    assert wrong.code == 2
    assert wrong.sentence == "dist.temperature=high has the wrong type: it must be a number, such as 1.0."


def test_a_primary_config_of_a_user_s_own(own, no_rollout):
    given = ("--config-path", str(own / "mine" / "conf"), "--config-name", "mytrain", "dist=own")
    assert "did you mean dist.temperature?" in train(own, *given, "dist.temperatur=3", directory=None).sentence
    assert "must be a number" in train(own, *given, "dist.temperature=high", *OUT, directory=None).sentence


def test_the_key_is_looked_for_in_the_job_that_lacks_it(own, no_rollout):
    outcome = train(own, "-m", "--config-dir", "mine/conf", "dist=own,normal", "dist.temperature=2", directory=None)
    assert outcome.code == 2
    assert outcome.sentence.startswith("dist.temperature is not a key of the config: did you mean dist.")
    assert "Keys of dist: _target_, initial_std, mean, std, validate_args." in outcome.sentence


def test_distributions_of_a_user_s_own_are_among_the_remedies(own, no_rollout):
    """An option of the common heads is named as ours are."""
    (own / "mine" / "conf" / "dist" / "a_broken.yaml").write_text("_target_: nowhere.Nothing")
    (own / "mine" / "conf" / "dist" / "another.yaml").write_text("defaults: [categorical]")
    outcome = train(own, "--config-dir", "mine/conf", "env=acrobot", "dist=bernoulli", *OUT, directory=None)
    assert outcome.code == 2
    assert outcome.sentence.endswith("use dist=another or dist=categorical.")
    assert "nowhere" not in outcome.out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--config-dir", "nowhere"), "nowhere, which is no folder"),
        (("--config-path", "nowhere"), "which is no folder: give an absolute path"),
        (("--config-name", "trian"), "did you mean --config-name=train?"),
        (("hydra.searchpath=[pkg://nowhere.conf]",), "nowhere.conf, which is no package"),
        (("-m", "hydra.searchpath=[file:///nowhere]", "seed=0,1"), "hydra.searchpath names /nowhere"),
        (("hydra.searchpath=nowhere",), "must be a list"),
    ],
)
def test_a_conf_that_is_not_there(tmp_path, no_rollout, given, words):
    outcome = train(tmp_path, *given, directory=None)
    assert outcome.code == 2
    assert words in outcome.sentence


def test_a_conf_that_is_not_there_ends_a_process_of_its_own(tmp_path):
    """Hydra would warn and go on; in this process pytest makes errors of warnings."""
    outcome = finish(start("train", tmp_path, "hydra.searchpath=[nowhere]", "debug=one_update"), tmp_path)
    assert outcome.code == 2
    assert outcome.sentence.startswith("hydra.searchpath names nowhere, which is no folder")
    assert not (tmp_path / "outputs").exists()


# ------------------------------------------------------------------ devices


@pytest.mark.parametrize("given", ["trainer=gpu", *map(slow, ("trainer.accelerator=cuda", "trainer.accelerator=tpu"))])
def test_accelerator_that_is_not_there(tmp_path, no_rollout, given):
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    outcome = train(tmp_path, given)
    assert outcome.code == 2
    assert "is not there" in outcome.sentence
    assert "trainer.accelerator=cpu" in outcome.sentence


def test_more_devices_than_there_are(monkeypatch):
    """Of an accelerator that somebody has added to Lightning's, of which this machine has one."""
    from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator

    class One(CPUAccelerator):
        @staticmethod
        def name():
            return "one"

    AcceleratorRegistry.register("one", One)
    try:
        for devices in (1, "auto", -1, [0]):
            check_devices("one", devices)
        for devices in (3, [0, 2]):
            with pytest.raises(ConfigError, match=r"needs 3 devices of trainer.accelerator=one, and torch finds 1"):
                check_devices("one", devices)
    finally:
        AcceleratorRegistry.remove("one")
    check_devices("cpu", 3)


# ------------------------------------------------------------------ distributions and spaces

SPACES = {
    "Discrete2": spaces.Discrete(2),
    "Discrete5": spaces.Discrete(5),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(-1.0, 1.0, (2,)),
    "Tuple": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
}
# what a refusal names, if anything usual works
USUAL = {
    "Discrete2": {"bernoulli", "categorical"},
    "Discrete5": {"categorical"},
    "MultiDiscrete": {"categorical"},
    "MultiBinary": {"bernoulli"},
    "Box": {"normal", "normal_rsample"},
    "Tuple": set(),
}
for _name, _space in SPACES.items():
    gym.register(
        f"{_name}-v0",
        gym.spec("ScorepathTest/Scripted-v0").entry_point,
        max_episode_steps=50,
        disable_env_checker=True,
        kwargs={"action_space": _space},
    )


# accepted and refused, with remedies and without, and what acts by weights; test_compatibility.py has all pairs
FEW = {
    *(("bernoulli", "Discrete2"), ("normal", "Discrete2"), ("relaxed_bernoulli", "Discrete2")),
    *(("bernoulli", "MultiDiscrete"), ("normal", "Box"), ("categorical", "Tuple")),
}


@pytest.mark.parametrize(
    ("dist", "space"),
    [pair if pair in FEW else slow(*pair) for pair in itertools.product(GROUPS["dist"], SPACES)],
)
def test_dist_and_space(tmp_path, dist, space):
    """Every pair trains, or is refused with the usual options that would work, or others."""
    game = ("env=gym", f"env.id={space}-v0", f"dist={dist}", "estimator=score_function", "baseline=none")
    outcome = train(tmp_path, *game, "debug=one_update", "logger=none", "callbacks=none")
    if outcome.code == 0:
        return
    assert dist not in USUAL[space]
    assert outcome.code == 2
    assert outcome.sentence.startswith(f"dist={dist} ")
    remedies = re.findall(r"dist=(\w+)", outcome.sentence.partition(": ")[2])
    assert set(remedies) == USUAL[space] or not USUAL[space]
    assert 1 <= len(remedies) <= 4
    heads = dist_options()
    assert all(heads[name].accepts(SPACES[space]) for name in remedies)
    assert not heads[dist].accepts(SPACES[space]) or heads[dist].acts_in_weights


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("env=cartpole", "estimator=pathwise"), "estimator=score_function"),
        slow(("env=acrobot", "estimator=pathwise_episode"), "estimator=score_function"),
        (("env=pendulum", "estimator=pathwise"), "env=pendulum_torch"),
        slow(("env=pendulum", "dist=normal_rsample"), "env=pendulum_torch"),
        slow(("env=pendulum", "dist=normal_rsample", "estimator=pathwise_episode"), "env=lqr"),
        slow(("env=pendulum_torch", "baseline=time_mean"), "baseline=value"),
        (("env=pendulum_torch", "baseline=batch_mean"), "baseline=value"),
        slow(("env=lqr", "baseline=batch_mean"), "baseline=none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_pathwise_pairs(tmp_path, no_rollout, arguments, remedy):
    outcome = train(tmp_path, *arguments)
    assert outcome.code == 2
    assert remedy in outcome.sentence
    assert outcome.summary["status"] == "failed"
    assert outcome.summary["error"] == outcome.sentence


# ------------------------------------------------------------------ folders


def test_folder_of_a_sweep_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    outcome = sweep(tmp_path, "hydra.sweep.dir=file/sweep", "seed=0,1")
    assert outcome.code == 2
    assert "cannot be written to" in outcome.sentence
    assert "hydra.sweep.dir" in outcome.sentence


def test_default_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "outputs").touch()
    outcome = train(tmp_path, directory=None)
    assert outcome.code == 2
    assert "cannot be written to" in outcome.sentence


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").touch()
    outcome = train(tmp_path)
    assert outcome.code == 2
    assert "cannot be written to" in outcome.sentence


def test_objective_is_checked_before_the_first_rollout(tmp_path, no_rollout):
    outcome = train(tmp_path, "objective=nothing")
    assert outcome.code == 2
    assert "objective=nothing" in outcome.sentence


@pytest.mark.parametrize("resume", fast_only(("/nowhere", "run/nowhere.ckpt", "."), "/nowhere"))
def test_resume_of_nothing(tmp_path, no_rollout, resume):
    outcome = train(tmp_path, f"resume={resume}")
    assert outcome.code == 2
    assert f"resume={resume}" in outcome.sentence


# ------------------------------------------------------------------ packages that are not there

FINDER = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder())
"""


def without(package: str, folder, script: str, *arguments: str) -> subprocess.Popen:
    """A script on a machine that lacks a package: a finder that comes first refuses to import it."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(FINDER.format(blocked=package))
    return start(script, folder, *arguments, PYTHONPATH=str(folder))


def test_missing_package_names_the_command(tmp_path):
    """Processes, for this one has imported everything long ago; together, for each waits for torch."""
    processes = {
        'pip install "gymnasium[mujoco]"': without("mujoco", tmp_path / "a", "train", "env=hopper"),
        'pip install "gymnasium[box2d]"': without("Box2D", tmp_path / "b", "train", "env=lunar_lander"),
    }
    outcomes = {command: finish(process, tmp_path) for command, process in processes.items()}
    for command, outcome in outcomes.items():
        assert outcome.code == 2, (command, outcome)
        assert command in outcome.sentence


def test_plot_without_matplotlib_names_the_command(tmp_path, monkeypatch):
    """The table needs none, and is printed."""
    finished = sweep(tmp_path, "debug=one_update", "seed=0,1")
    assert finished.code == 0, finished.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = plot(tmp_path, f"runs={finished.directory}")
    assert outcome.code == 2
    assert 'pip install -e ".[plots]"' in outcome.sentence
    assert "95 % over seeds" in outcome.out


def test_video_without_ffmpeg_is_a_gif(tmp_path, monkeypatch):
    run = train(tmp_path, "debug=one_update", "logger=none")
    assert run.code == 0, run.err
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    outcome = evaluate(tmp_path, "run_dir=run", "episodes=1", "video=true")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "run" / "episode.gif").read_bytes().startswith(b"GIF89a")


def test_wandb_is_an_extra(tmp_path, no_rollout):
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    outcome = train(tmp_path, "logger=wandb")
    assert outcome.code == 2
    assert "pip install" in outcome.sentence


def test_scripts_are_not_given_the_keys_of_another(tmp_path):
    assert "did you mean" in evaluate(tmp_path, "run_dir=x", "episode=3").sentence
    assert "did you mean" in plot(tmp_path, "runs=x", "metrics=eval/return_mean").sentence
