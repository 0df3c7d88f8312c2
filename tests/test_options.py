"""Every option of every config group trains one update, so that none is there that does not work."""

import importlib.util

import pytest
from helpers import CONF, ONE_UPDATE, train

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    # Box2D's SWIG wrappers warn when they are imported
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]

TINY = ("episodes_per_update=2", "max_env_steps=1", "eval.episodes=2", "logger=csv", "record_episode=false")
EXTRAS = {
    **dict.fromkeys(("lunar_lander", "lunar_lander_continuous", "bipedal_walker"), "Box2D"),
    **dict.fromkeys(("inverted_pendulum", "inverted_double_pendulum", "swimmer", "hopper", "halfcheetah"), "mujoco"),
    **dict.fromkeys(("reacher", "walker2d", "ant", "humanoid"), "mujoco"),
}
# what an option needs beside itself
ALSO = {
    "env=gym": ("env.id=CartPole-v1",),
    "env=gymnasium": ("env.id=CartPole-v1",),
    "dist=normal": ("env=pendulum",),
    "dist=normal_rsample": ("env=pendulum_torch",),
    "estimator=pathwise": ("env=pendulum_torch",),
    "estimator=pathwise_episode": ("env=lqr",),
}
# options that need hardware, an account or several processes, and folders that are not groups of ours
NOT_HERE = {"trainer=gpu", "trainer=ddp", "logger=wandb", "hparams_search=lr"}
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in NOT_HERE])
def test_an_option_trains_one_update(option, tmp_path):
    package = EXTRAS.get(option.removeprefix("env="))
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    tiny = [text for text in TINY if text.split("=")[0] != option.split("=")[0]]
    outcome = train(tmp_path, *ALSO.get(option, ()), option, *tiny)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["updates"] == 1
    assert outcome.summary["status"] in ("completed", "solved")


@pytest.mark.parametrize(
    "space", ["FrozenLake-v1 dist=categorical", "Blackjack-v1 dist=bernoulli env.max_episode_steps=50"]
)
def test_any_gymnasium_id_works(space, tmp_path):
    """Discrete and Tuple observations are flattened."""
    id, *others = space.split()
    outcome = train(tmp_path, "env=gym", f"env.id={id}", *others, *ONE_UPDATE)
    assert outcome.code == 0, outcome.err
