"""Run directories of strangers are data: what their configs name is not imported, called, opened or looked up."""

import ast
import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
import yaml
from helpers import CONF, FAULTY, ONE_UPDATE, ROOT, Outcome, environment, evaluate, plot, search, sweep, train
from tiers import slow

from scorepath.errors import ConfigError
from scorepath.run import trust
from scorepath.run.reading import SafeLoader
from scorepath.run.trust import check_config, read_config, read_overrides

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

SMALL = ("episodes_per_update=2", "eval.episodes=2", "record_episode=false", "logger=none", "max_env_steps=1")
SECRET = "correct-horse-battery-staple"
STRANGER = """
from pathlib import Path
import gymnasium as gym
from scorepath.envs import GymnasiumEnvironment
Path("ran").touch()
gym.register("Strange-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=10)
class Environment(GymnasiumEnvironment):
    pass
"""
RUN = {"_target_": "os.system", "_args_": ["touch ran"]}
CARTPOLE = "scorepath.envs.GymnasiumEnvironment"

IMPORTS = {"_target_": CARTPOLE, "num_episodes": 1, "id": "stranger:Strange-v0"}

# dotted key -> what a stranger puts there; each would touch the file `ran` as it is imported or called
TARGETS: list[dict[str, Any]] = [
    {"env": RUN},
    {"env": {"_target_": "subprocess.call", "_args_": [["touch", "ran"]]}},
    {"env": {"_target_": "builtins.eval", "_args_": ["open('ran', 'w')"]}},
    {"env": {"_target_": "builtins.exec", "_args_": ["open('ran', 'w')"]}},
    {"env": {"_target_": "builtins.__import__", "_args_": ["stranger"]}},
    {"env": {"_target_": "importlib.import_module", "name": "stranger"}},
    {"env": {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["ran"]}]}},
    {"env": {"_target_": "hydra.utils.instantiate", "config": RUN}},
    {"env": {"_target_": "hydra.utils.get_class", "path": "stranger.Environment"}},
    {"env": {"_target_": "torch.load", "f": "ran", "weights_only": False}},
    {"env": {"_target_": "functools.partial", "_args_": [RUN]}},
    {"env._target_": "stranger.Environment"},
    {"env._target_": "scorepath.run.directory.os.system", "env._args_": ["touch ran"]},  # this project's, by an alias
    {"env._target_": "scorepath.envs.gymnasium_env.gym.make", "env.id": "stranger:Strange-v0"},
    {"env._target_": f" {CARTPOLE}"},
    {"env._target_": [CARTPOLE]},
    {"env._target_": {"_target_": CARTPOLE}},
    {"env._target_": None},
    {"env._target_": "${evil}", "evil": "os.system"},
    {"env": "${evil}", "evil": RUN},
    {"env": "${evil.sub}", "evil": {"sub": {"_target_": "scorepath.run.csv_logger.CSVLogger", "path": "ran"}}},
    {"env": {"_target_": "scorepath.run.csv_logger.CSVLogger", "path": "ran", "purge_step": None}},  # conf's, elsewhere
    {"env.kwargs.render_mode": RUN},
    {"env.kwargs": {"a": {"b": [0, [{"c": RUN}]]}}},
    {"env._args_": [RUN]},
    {"policy.torso._target_": "stranger.Environment"},
    {"policy.torso.hidden_sizes": [64, RUN]},
    {"policy.init": {**RUN, "_partial_": True}},
    {"dist._target_": "stranger.Environment"},
    {"dist._partial_": True, "dist.heads": {"box": {**RUN, "_partial_": True}}},
    # conf's own classes, of which some import what their arguments name, where conf has none or others
    *({key: IMPORTS} for key in ("policy.torso.hidden_sizes", "policy.torso.activation", "policy.init", "policy")),
    *({key: IMPORTS} for key in ("dist.x", "dist.validate_args", "dist", "env.dynamics", "env.kwargs.a", "seed")),
    {"policy.torso.hidden_sizes": [IMPORTS]},
    {"env.kwargs": {"a": [{"b": {"_target_": "scorepath.policy.MLP", "in_features": 1, "hidden_sizes": IMPORTS}}]}},
    {"dist": {"_target_": "scorepath.distributions.Product", "heads": {"box": IMPORTS}}},
    {"dist": {"_target_": "scorepath.distributions.Product", "heads": {"box": {"a": IMPORTS}}}},
    {"dist": {"_target_": "scorepath.distributions.Product", "heads.box": IMPORTS}},  # a key with a dot in it
    {"policy.torso.hidden_sizes": "${there}", "there": IMPORTS},
    {"policy.torso._args_": [IMPORTS]},
    {"env": {"_target_": "scorepath.policy.MLP", "in_features": 1, "hidden_sizes": []}},
    {"env._partial_": True},
    {"dist._convert_": "all"},
    {"policy._recursive_": False},
    {"env.kwargs._args_": ["a"]},
    {"env._new_key_of_hydra_": 1},
    {"logger.mine": RUN},  # nodes that an evaluation never builds, and another command may
    {"callbacks.mine": {"_target_": "stranger.Environment"}},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("saved")
    outcome = train(folder, *SMALL)
    assert outcome.code == 0, outcome.err
    return outcome.directory


@pytest.fixture
def run(saved, tmp_path, monkeypatch) -> Path:
    """A copy of it, `run`, in a folder whose module `stranger` touches the file `ran` when it is imported."""
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "run"
    sys.modules.pop("stranger", None)
    gym.registry.pop("Strange-v0", None)


def plain(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / ".hydra" / "config.yaml").read_text())


def changed(run: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """The run's config with other values at dotted keys, also written to its file."""
    config = plain(run)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    (run / ".hydra" / "config.yaml").write_text(yaml.dump(config))
    return config


def play(run: Path, *overrides: str) -> Outcome:
    return evaluate(run.parent, "run_dir=run", "episodes=2", *overrides)


def refusal(run: Path, *trusted: str) -> str:
    """What `play(run, "trust=[...]")` is refused with, without the command around it."""
    with contextlib.chdir(run.parent), pytest.raises(ConfigError) as error:  # where `is_untouched` looks
        read_config(run / ".hydra" / "config.yaml", trusted)
    return str(error.value)


def is_untouched(run: Path) -> bool:
    return not (run.parent / "ran").exists() and "stranger" not in sys.modules


def test_own_config_is_trusted(run):
    assert play(run).code == 0
    config = plain(run)
    nodes = read_config(run / ".hydra" / "config.yaml")
    assert nodes == {key: config[key] for key in ("env", "policy", "dist", "seed")}


def test_every_target_of_conf_is_found():
    """They are searched for in the text, which is a hundred times faster than reading YAML."""
    named = set()
    for path in CONF.rglob("*.yaml"):
        nodes = [yaml.safe_load(path.read_text())]
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict):
                named |= {node["_target_"]} if "_target_" in node else set()
                nodes += node.values()
            elif isinstance(node, list):
                nodes += node
    assert named
    assert trust._targets() == named


NO_TARGET = re.compile(r"trust=\[|names no plain value|names no class|how to build what stands there")


@pytest.mark.parametrize("changes", TARGETS, ids=str)
def test_target_of_a_stranger_is_refused(run, changes):
    changed(run, changes)
    assert NO_TARGET.search(refusal(run))
    assert is_untouched(run)


@pytest.mark.parametrize("changes", [TARGETS[0], *(slow(changes) for changes in TARGETS[1:])], ids=str)
def test_an_evaluation_refuses_before_anything_else(run, changes):
    changed(run, changes)
    outcome = play(run)
    assert outcome.code == 2
    assert f"{run.parent}/{outcome.sentence}" == refusal(run)
    assert is_untouched(run)


def test_an_evaluation_is_told_what_is_trusted(run):
    changed(run, {"env": {"_target_": "stranger.Path.touch", "_args_": ["harm"]}})
    assert f"{run.parent}/{play(run, 'trust=[other,stranger]').sentence}" == refusal(run, "other", "stranger")
    assert not (run.parent / "harm").exists()


def test_the_sentence_names_the_override_that_allows_it(run):
    changed(run, {"env._target_": "stranger.Environment"})
    sentence = refusal(run)
    assert "at env._target_" in sentence
    assert re.findall(r"'(trust=\S*)'", sentence) == ["trust=[stranger.Environment]", "trust=[stranger]"]


@pytest.mark.parametrize("allowed", ["stranger.Environment", "stranger"])
def test_a_target_is_allowed_by_its_name_or_its_module(run, allowed):
    changed(run, {"env._target_": "stranger.Environment"})
    outcome = play(run, f"trust=[{allowed}]")
    assert outcome.code == 0, outcome.err
    assert (run.parent / "ran").exists()


def test_a_module_is_trusted_with_what_lies_in_it(run):
    package = run.parent / "mylab"
    (package / "envs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "envs" / "__init__.py").write_text("from mylab.envs.mine import Mine")
    (package / "envs" / "mine.py").write_text(
        "from scorepath.envs import GymnasiumEnvironment\nclass Mine(GymnasiumEnvironment):\n    pass\n"
    )
    changed(run, {"env._target_": "mylab.envs.Mine"})
    try:
        for allowed in ("my", "mylab.env", "mylab.envs.Min", "mylab.envs.mine", "lab", "envs"):
            assert "'trust=[mylab.envs]'" in refusal(run, allowed)
            assert "mylab" not in sys.modules
        for allowed in (("mylab",), ("mylab.envs",)):
            assert read_config(run / ".hydra" / "config.yaml", allowed)["env"]["_target_"] == "mylab.envs.Mine"
        outcome = play(run, "trust=[other,mylab]")
        assert outcome.code == 0, outcome.err
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
            del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    ["stranger.Path.touch", "stranger.gym.make", "stranger.Environment.__class__", "stranger.Environment.mro"],
)
def test_a_trusted_module_gives_nothing_that_it_has_from_elsewhere(run, target):
    changed(run, {"env": {"_target_": target, "_args_": ["harm"]}})
    assert re.search(f"{target} .*is not defined in stranger", refusal(run, "stranger"))
    assert not (run.parent / "harm").exists()


@pytest.mark.parametrize(
    "target",
    ["builtins.eval", "os.system", "scorepath.build.construct", "scorepath.run.directory.os.system"],
)
def test_python_and_this_project_are_never_trusted_as_a_whole(run, target):
    changed(run, {"env": {"_target_": target, "_args_": ["open('ran', 'w')"]}})
    sentence = refusal(run, target.split(".")[0], target.rpartition(".")[0])
    assert re.findall(r"'(trust=\S*)'", sentence) == [f"trust=[{target}]"]
    assert is_untouched(run)


NESTED = """
from scorepath.envs import TorchEnvironment
def outer(inner, num_episodes, device, note):
    return TorchEnvironment(inner(), num_episodes=num_episodes, device=device)
"""


def test_what_the_user_trusts_may_stand_anywhere_and_be_built_in_any_way(run):
    (run.parent / "mylab.py").write_text(NESTED)
    dynamics = "scorepath.envs.dynamics.CartPole"
    inner = {"_target_": dynamics, "_partial_": True}
    changed(run, {"env": {"_target_": "mylab.outer", "_convert_": "all", "inner": inner, "note": {"a": [1]}}})
    try:
        assert f"'trust=[{dynamics}]'" in refusal(run, "mylab")  # this project's own, not at its place
        assert "mylab" not in sys.modules
        outcome = play(run, f"trust=[mylab,{dynamics}]")
        assert outcome.code == 0, outcome.err
    finally:
        sys.modules.pop("mylab", None)


def test_a_trusted_module_that_is_not_there(run):
    changed(run, {"env._target_": "nowhere.Environment"})
    assert "nowhere.Environment (at env._target_), which cannot be imported" in refusal(run, "nowhere")


def test_a_module_is_trusted_with_the_environments_of_those_in_it(run):
    changed(run, {"env.id": "stranger.sub:Strange-v0"})
    assert "'trust=[stranger.sub]'" in refusal(run, "strange")
    assert "trust=" not in play(run, "trust=[stranger]").sentence  # but that there is no such module


def test_all_targets_of_strangers_are_told_at_once(run):
    changed(run, {"env._target_": "a.B", "logger.mine": {"_target_": "c.D"}})
    assert "'trust=[a.B,c.D]', or all that is defined there with 'trust=[a,c]'" in refusal(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"env.id": "stranger:Strange-v0"},
        {"env.id": "scorepath/CartPole-v1", "env.kwargs": {"dynamics": "stranger:Environment", "arguments": {}}},
        {"env.kwargs.ids": ["stranger:Strange-v0"]},
        {"env.kwargs": {"stranger:Strange-v0": 1}},
        {"policy.torso.activation": "stranger:Strange-v0"},
        {"policy.init": "stranger:Strange-v0"},
        {"dist.std": {"a": "stranger:Strange-v0"}},
    ],
    ids=str,
)
def test_module_of_an_environment_is_refused(run, changes):
    changed(run, changes)
    assert "'trust=[stranger]'" in refusal(run)
    assert is_untouched(run)


def test_modules_of_python_are_never_trusted_with_their_members(run):
    changed(
        run, {"env.id": "scorepath/CartPole-v1", "env.kwargs": {"dynamics": "os:mkdir", "arguments": {"path": "ran"}}}
    )
    for allowed in (["os"], ["posix", "os.path"]):
        assert "'trust=[\"os:mkdir\"]'" in refusal(run, *allowed)
        assert is_untouched(run)


def test_a_trusted_module_gives_no_member_by_an_id_that_it_has_from_elsewhere(run):
    changed(run, {"env.id": "scorepath/CartPole-v1", "env.kwargs": {"dynamics": "stranger:Path", "arguments": {}}})
    assert re.search("stranger.Path .*is not defined in stranger", refusal(run, "stranger"))


@pytest.mark.parametrize("allowed", ["trust=[stranger]", "trust=['stranger:Strange-v0']"])
def test_module_of_an_environment_is_allowed(run, allowed):
    changed(run, {"env.id": "stranger:Strange-v0"})
    outcome = play(run, allowed)
    assert outcome.code == 0, outcome.err
    assert (run.parent / "ran").exists()


def test_trust_is_a_list(run):
    """Or every part of a word would be trusted."""
    changed(run, {"env._target_": "stranger.Environment"})
    for override in ("trust=my_stranger.Environments", "trust=null", "trust={stranger.Environment: 1}"):
        assert play(run, override).code == 2
    assert is_untouched(run)


PATHS = [
    *("/etc/passwd", "../../secret.xml", "models/../../secret.xml", "~/secret.xml", "~root", "file:///etc/passwd"),
    *("https://example.org/model.xml", r"C:\secret.xml", "C:secret.xml", r"\\host\share", r"..\secret.xml", "//host/a"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["env.kwargs.xml_file", "policy.torso.file", "dist.files"])
def test_path_outside_is_refused(saved, key, path):
    node, *_, last = key.split(".")
    config = {"env": {}, "policy": {}, "dist": {}} | {node: {"a": [{last: path}]}}
    with pytest.raises(ConfigError, match="path outside") as error:
        check_config(config)
    assert f'trust=["{path}"]' in str(error.value)
    check_config(config, [path])


def test_path_inside_is_allowed():
    for path in ("model.xml", "assets/model.xml", "v1..2", "a~b"):
        assert check_config({"env": {"kwargs": {"xml_file": path}}})["env"]["kwargs"]["xml_file"] == path


RESOLVERS = [
    *("${oc.env:SECRET}", "${oc.env:SECRET,none}", "a${oc.env:SECRET}b", "${hydra:runtime.cwd}", "${now:%Y}"),
    *("${eval:'1+1'}", "${oc.decode:${oc.env:SECRET}}", "${a.${oc.env:SECRET}}", "${a.${b}}", "${.a}", "${}", "${a"),
    *("$${b}{oc.env:SECRET}", r"\${oc.env:SECRET}", "${a[0]}", "x${gamma}"),
]


@pytest.mark.parametrize("text", RESOLVERS)
def test_resolver_is_refused(monkeypatch, text):
    monkeypatch.setenv("SECRET", SECRET)
    for config in ({"env": {"a": [text]}}, {"policy": text}, {"dist": {"a": {"b": text}}}):
        with pytest.raises(ConfigError, match="write the value itself") as error:
            check_config({**config, "a": "${b}", "b": "$", "gamma": 0.9})
        assert SECRET not in str(error.value)


@pytest.mark.parametrize("chain", [{"b": "${oc.env:SECRET}"}, {"b": ["${c}"], "c": 1}, {"b": {"c": "${b.c}"}}, {}])
def test_reference_to_anything_but_a_value_is_refused(chain):
    with pytest.raises(ConfigError, match="names no plain value"):
        check_config({"env": {"a": "${b}"}, **chain})


def test_references_do_not_multiply():
    many = {"env": {"a": ["${b}"] * 20_000}, "b": list(range(20_000))}
    with pytest.raises(ConfigError, match="without end"):
        check_config(many)


def test_reference_to_a_value_is_resolved():
    config = {"env": {"a": "${b.c}", "d": ["${seed}"]}, "b": {"c": [1, 2]}, "seed": 3, "x": "${oc.env:SECRET}"}
    assert check_config(config) == {"env": {"a": [1, 2], "d": [3]}, "seed": 3}
    with pytest.raises(ConfigError, match="path outside"):
        check_config({"env": {"a": "${b}"}, "b": "/etc/passwd"})


FILES = {
    "tag": b"env: !!python/object/apply:os.system ['touch ran']",
    "path tag": b"env: !!python/object/apply:pathlib.Path ['ran']",
    "escaped key": rb'env: {"\x5ftarget\x5f": os.system, "_args_": ["touch ran"]}',
    "merged key": b"a: &a {_target_: os.system}\nenv: {<<: *a}",
    "aliases": b"a: &a [1]\nb: &b [*a, *a]\nenv: [*b, *b]",
    "large": b"env: [" + b"1, " * 100_000 + b"1]",
    "deep": b"env: " + b"[" * 20_000 + b"]" * 20_000,
    "date": b"env: {a: 2026-01-01}",
    "bytes": b"env: {a: !!binary aGk=}",
    "key": b"env: {2026-01-01: a}",
    "list": b"- env",
    "not text": b"\xff\xfe\x00",
    "null": b"",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_file_that_no_run_writes_is_refused(run, content):
    (run / ".hydra" / "config.yaml").write_bytes(content)
    assert refusal(run)
    assert is_untouched(run)


@pytest.mark.parametrize(
    "content", [content if name in ("tag", "deep") else slow(content) for name, content in FILES.items()], ids=FILES
)
def test_an_evaluation_refuses_a_file_that_no_run_writes(run, content):
    (run / ".hydra" / "config.yaml").write_bytes(content)
    outcome = play(run)
    assert outcome.code == 2
    assert outcome.sentence
    assert is_untouched(run)


def test_links_are_not_written_through(run):
    victim = run.parent / "victim"
    victim.write_text("mine")
    for name in ("evaluation.json", ".evaluation.json.partial", "episode.mp4", "episode.gif"):
        (run / name).symlink_to(victim)
        outcome = play(run, "video=true")
        assert outcome.code == (0 if name == "evaluation.json" else 2)
        assert victim.read_text() == "mine"
        for path in run.glob("e*"):
            path.unlink()
        (run / name).unlink(missing_ok=True)


def test_nothing_loads_with_code():
    """Neither `weights_only=False`, nor a load that leaves it open, nor another reader that calls what a file names."""
    unsafe = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "weights_only":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is True, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "trainer.fit"):
                assert "weights_only" in [keyword.arg for keyword in node.keywords], path
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
                assert path.name == "archive.py" or not names & unsafe, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in unsafe, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "yaml.load":
                assert [ast.unparse(keyword) for keyword in node.keywords] == ["Loader=SafeLoader"], path
                assert issubclass(SafeLoader, yaml.constructor.SafeConstructor)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("yaml."):
                assert ast.unparse(node.func) in ("yaml.safe_load", "yaml.parse", "yaml.safe_dump"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                raise AssertionError(path)


def holders(folder: Path, secret: str) -> list[str]:
    """The files, by path, that hold a text or are named after it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if secret in str(path) or secret.encode() in path.read_bytes()]


def test_environment_variables_stay_out_of_artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    overrides = [f"env.id={FAULTY}", "+env.kwargs.bad='${oc.env:SECRET}'", "+env.kwargs.under=nothing"]
    options = ["debug=one_update", "record_episode=true"]
    outcome = train(tmp_path, *overrides, *options)
    assert outcome.code == 0, outcome.err
    assert SECRET not in outcome.out + outcome.err
    files = {path.relative_to(outcome.directory).parts[0] for path in outcome.directory.rglob("*") if path.is_file()}
    assert files >= {".hydra", "checkpoints", "tensorboard", "metrics.csv", "summary.json", "train.log"}
    assert holders(tmp_path, "${oc.env:SECRET}")  # the name is there, the value is not
    assert holders(tmp_path, SECRET) == []


def test_environment_variables_stay_out_of_names_of_sweeps(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    overrides = [f"env.id={FAULTY}", "+env.kwargs.bad='${oc.env:SECRET}'", "+env.kwargs.under=nothing", "seed=0,1"]
    outcome = sweep(tmp_path, *overrides, *ONE_UPDATE)
    assert outcome.code == 0, outcome.err
    assert holders(tmp_path, SECRET) == []


def test_environment_variables_stay_out_of_searches(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setenv("SECRET", SECRET)
    overrides = [f"env.id={FAULTY}", "+env.kwargs.bad='${oc.env:SECRET}'", "+env.kwargs.under=nothing"]
    options = ("hparams_search=cartpole", "trials=1", "seeds=1", "final_seeds=1")
    outcome = search(tmp_path, *overrides, *options, *ONE_UPDATE)
    assert outcome.code == 0, outcome.err
    assert holders(tmp_path, "${oc.env:SECRET}")
    assert holders(tmp_path, SECRET) == []


def test_environment_variables_stay_out_of_refusals(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    outcome = train(tmp_path, *ONE_UPDATE, "env.id='${oc.env:SECRET}'")
    assert outcome.code == 2
    assert holders(tmp_path, SECRET) == []


def test_checkpoint_by_address_is_refused(tmp_path):
    for address in ("https://example.org/last.ckpt", "s3://bucket/last.ckpt", "file:///tmp/last.ckpt"):
        outcome = train(tmp_path, *ONE_UPDATE, f"resume='{address}'")
        assert outcome.code == 2
        assert address in outcome.sentence
        assert torch.hub.get_dir() not in outcome.sentence


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The folder of a folder `runs` with one run."""
    folder = tmp_path_factory.mktemp("swept")
    assert train(folder, *SMALL, "logger=csv", directory="runs/a").code == 0
    return folder


@pytest.mark.parametrize("text", ["a=${oc.env:SECRET}", r"a=$\formula$"])
def test_plot_shows_overrides_as_they_were_written(swept, monkeypatch, text):
    monkeypatch.setenv("SECRET", SECRET)
    (swept / "runs" / "a" / ".hydra" / "overrides.yaml").write_text(yaml.dump([text]))
    outcome = plot(swept, "runs=runs")
    assert outcome.code == 0, outcome.err
    assert SECRET not in outcome.out + outcome.err
    assert re.sub(r"[^\w.]+", "-", text).strip("-") in outcome.out  # as a folder would be named


NO_OVERRIDES = [b"a: &a [1]", b"[[a]]", b"[{a: b}]", b"[1]", *(FILES[name] for name in FILES if name != "list")]


@pytest.mark.parametrize("content", NO_OVERRIDES)
def test_overrides_that_no_run_writes_are_refused(tmp_path, content):
    (tmp_path / "overrides.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="overrides"):
        read_overrides(tmp_path / "overrides.yaml")


@pytest.mark.parametrize("content", [NO_OVERRIDES[0], *(slow(content) for content in NO_OVERRIDES[1:])])
def test_a_plot_leaves_out_overrides_that_no_run_writes(swept, content):
    (swept / "runs" / "a" / ".hydra" / "overrides.yaml").write_bytes(content)
    outcome = plot(swept, "runs=runs")
    assert outcome.code == 2
    assert outcome.sentence  # that no run is left
    assert "a is left out" in outcome.out
    assert not (swept / "ran").exists()


def test_plot_does_not_write_through_a_link(swept):
    (swept / "victim").write_text("mine")
    (swept / "runs" / "curves.png").unlink(missing_ok=True)
    (swept / "runs" / "curves.png").symlink_to(swept / "victim")
    assert "remove the link" in plot(swept, "runs=runs").sentence
    assert (swept / "victim").read_text() == "mine"


@pytest.mark.faults
def test_tensorboard_listens_on_this_machine_alone(tmp_path):
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            lines = []
            while "http://" not in "".join(lines):
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            port = int(re.findall(r"http://localhost:(\d+)/", lines[-1])[0])
            sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            sockets += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
            hosts = {words[1].split(":")[0] for words in sockets if words[1].endswith(f":{port:04X}")}
            assert hosts <= {"0100007F", "00000000000000000000000001000000"}, hosts
            assert hosts
        finally:
            process.kill()
    for path in (ROOT / "README.md", ROOT / "Makefile", *ROOT.glob("docs/*.md")):
        assert not re.search(r"--bind_all|--host", path.read_text()), path
