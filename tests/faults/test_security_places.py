"""Every argument of every class that a saved config may name, given what would run a stranger's code."""

import inspect
import pkgutil
import sys
from typing import Any

import gymnasium as gym
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiers import slow

from scorepath.errors import ConfigError
from scorepath.run.places import Place, read_places
from scorepath.run.trust import _BUILT, _GROUPS, check_config
from scorepath.sources import Sources

PLACES = read_places(_BUILT, _GROUPS)
CARTPOLE = {"_target_": "scorepath.envs.GymnasiumEnvironment", "num_episodes": 1}
IMPORTS = {**CARTPOLE, "id": "stranger:X-v0"}
# what would import the module `stranger`, run a command, or read a file or a variable, if it reached anything but a
# constructor that takes it for what it is: dicts, lists and texts
REFUSED: dict[str, Any] = {
    "own class": IMPORTS,
    "partial": {**IMPORTS, "_partial_": True},
    "other class": {"_target_": "stranger.Thing"},
    "function": {"_target_": "os.system", "_args_": ["true"]},
    "in a list": [0, IMPORTS],
    "in a dict": {"a": {"b": [IMPORTS]}},
    "id": "stranger:X-v0",
    "id in a list": ["stranger:X-v0"],
    "id as a key": {"stranger:X-v0": 1},
    "member": "os:system",
    "file": "/etc/passwd",
    "file above": {"a": "../secret"},
    "variable": "${oc.env:HOME}",
    "variable in a list": [["${oc.env:HOME}"]],
}
PLAIN = ["stranger.Thing", *map(slow, ("stranger", "os.system", ["stranger.Thing"], {"a": "stranger.Thing"}))]
# what the class at a place is built with, beside its config
BESIDES: dict[Place, dict[str, Any]] = {
    ("env",): {"num_episodes": 1},
    ("env", "dynamics"): {},
    ("policy", "torso"): {"in_features": 4},
    ("dist",): {"action_space": gym.spaces.Discrete(2), "in_features": 4},
    ("dist", "heads", "*"): {"action_space": gym.spaces.Discrete(2), "in_features": 4},
}


@pytest.fixture(autouse=True)
def _stranger(tmp_path, monkeypatch):
    """A module that must not be imported."""
    (tmp_path / "stranger.py").write_text("class Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "stranger" not in sys.modules
    yield
    assert sys.modules.pop("stranger", None) is None


def arguments() -> list[tuple[Place, str, str]]:
    """The places, the classes that may stand there, and the names of their constructors' arguments."""
    found = []
    for place, targets in PLACES.targets.items():
        for target in sorted(targets):
            names = [*inspect.signature(pkgutil.resolve_name(target)).parameters, "nothing_of_its", "_args_"]
            found += [(place, target, name) for name in names]
    return found


def config(place: Place, node: Any) -> dict[str, Any]:
    """A config with this node at a place."""
    whole: dict[str, Any] = {"env": {}, "policy": {}, "dist": {}}
    inner = whole
    for key in place[:-1]:
        inner = inner.setdefault(key, {})
    inner["box" if place[-1] == "*" else place[-1]] = node
    return whole


def test_classes_stand_where_conf_has_them():
    assert set(PLACES.targets) - {("policy",)} == set(BESIDES)
    assert not PLACES.of(("policy",))
    assert PLACES.of(("dist", "heads", "mine")) == PLACES.of(("dist",)) >= {"scorepath.distributions.Beta"}
    assert PLACES.keys == {(("dist", "heads", "*"), "_partial_", True)}
    assert not PLACES.of(("env", "kwargs"))
    assert "scorepath.verify.LQRProblem" not in set().union(*PLACES.targets.values())


@pytest.mark.slow
@pytest.mark.parametrize("group", ["env", "dist", "policy", "experiment"])
def test_own_options_pass(group):
    sources = Sources.of_command("train", [])
    for option in sources.options(group):
        check_config(sources.compose([f"{group}={option}"]))


def test_own_options_in_other_places_pass():
    sources = Sources.of_command("train", [])
    check_config(sources.compose(["dist=product", "dist@dist.heads.box=tanh_normal", "+dist@dist.heads.my=beta"]))
    check_config(sources.compose(["env=lqr", "env.dynamics._target_=scorepath.envs.dynamics.Choice"]))


@pytest.mark.parametrize("attack", REFUSED)
def test_attack_at_every_argument_is_refused(attack):
    assert len(arguments()) > 200
    for place, target, name in arguments():
        node = {"_target_": target, name: REFUSED[attack]}
        with pytest.raises(ConfigError):
            check_config(config(place, node))


@pytest.mark.parametrize("value", [*PLAIN, {"stranger": None}], ids=str)
def test_text_at_every_argument_stays_text(value):
    for place, target, name in arguments():
        whole = config(place, {"_target_": target, name: value})
        if name == "_args_":
            with pytest.raises(ConfigError):
                check_config(whole)
            continue
        node = OmegaConf.create(check_config(whole))
        for key in place[:-1]:
            node = node[key]
        node = node["box" if place[-1] == "*" else place[-1]]
        besides = {key: found for key, found in BESIDES[place].items() if key != name}
        try:
            instantiate(node, **besides)
        except Exception as error:
            assert "stranger" not in sys.modules, error
        assert "stranger" not in sys.modules, (target, name, value)


def test_own_classes_elsewhere_are_refused():
    for place, targets in PLACES.targets.items():
        for other in BESIDES:
            for target in sorted(targets - PLACES.of(other)):
                with pytest.raises(ConfigError, match="does not name there"):
                    check_config(config(other, {"_target_": target}))
            assert place
