"""The config: every option composes, has a case, and passes its own rules; wrong values are refused by name."""

import importlib
import inspect
from pathlib import Path

import cases
import gymnasium as gym
import hydra
import pytest
from omegaconf import OmegaConf

from scorepath.build import construct
from scorepath.config import RULES, check_config, leaves, nearest
from scorepath.errors import ConfigError

CONF = cases.CONF
# of Hydra itself: its nodes hold Hydra's own targets and resolvers
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
PRIMARY = sorted(path.stem for path in CONF.glob("*.yaml"))
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def compose(*overrides: str, config: str = "train") -> dict:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(config, overrides=list(overrides)), resolve=False)


@pytest.fixture(scope="module")
def composed() -> dict[str, dict]:
    """Every option of every group, on top of the defaults."""
    primary = {"problem": "check_gradient", "comparison": "compare_estimators"}  # groups of other commands
    choices = {f"{group}={option}": primary.get(group, "train") for group, option in OPTIONS}
    given = {choice: compose(choice, config=config) for choice, config in choices.items()}
    return {**{config: compose(config=config) for config in PRIMARY}, **given}


def target(text: str):
    module, _, name = text.rpartition(".")
    return getattr(importlib.import_module(module), name)


def targets(node) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [text for child in node.values() for text in targets(child)]
    return [text for child in node for text in targets(child)] if isinstance(node, list) else []


# ------------------------------------------------------------------ every option has a case


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def name(option: str) -> str:
    """The class that an option of conf names."""
    return OmegaConf.load(CONF / option)["_target_"].rpartition(".")[2]


@pytest.mark.parametrize("option", options("dist"))
def test_every_distribution_has_a_case(option):
    head = name(f"dist/{option}.yaml")
    found = {case.head.__name__ for case in [*cases.HEADS, *cases.OTHER_HEADS] if case.option == option}
    assert found == {head}, f'append to HEADS in tests/cases.py: HeadCase("{option}", {head}, "box", {{}}, None),'


@pytest.mark.parametrize("option", options("estimator"))
def test_every_estimator_has_a_case(option):
    estimator = name(f"estimator/{option}.yaml")
    node = OmegaConf.to_container(OmegaConf.load(CONF / "estimator" / f"{option}.yaml"))
    arguments = {key: value for key, value in node.items() if key not in ("defaults", "_target_")}
    found = {kind.__name__ for known, kind, _ in cases.ESTIMATORS if known == option}
    assert found == {estimator}, f'append to ESTIMATORS in tests/cases.py: ("{option}", {estimator}, {arguments}),'


@pytest.mark.parametrize("option", options("baseline"))
def test_every_baseline_has_a_case(option):
    baseline = name(f"baseline/{option}.yaml")
    found = {kind.__name__ for known, kind, _ in cases.BASELINES if known == option}
    line = f'("{option}", {baseline}, lambda shape: {baseline}()),'
    assert found == {baseline}, f"append to BASELINES in tests/cases.py: {line}"


def test_every_torch_environment_has_a_case(composed):
    for option in options("env"):
        dynamics = composed[f"env={option}"]["env"].get("dynamics", {}).get("_target_")
        kinds = set() if dynamics is None else {dynamics.rpartition(".")[2]}
        found = {case.dynamics.__name__ for case in cases.DYNAMICS if case.option == option}
        line = f'DynamicsCase("{option}", {", ".join(kinds)}),'
        assert found == kinds, f"append to DYNAMICS in tests/cases.py, or take away: {line}"


def test_no_case_is_left_of_an_option_that_is_gone():
    for group, listed in (
        ("dist", {case.option for case in cases.HEADS}),
        ("env", {case.option for case in cases.DYNAMICS}),
        ("estimator", {option for option, *_ in cases.ESTIMATORS}),
        ("baseline", {option for option, *_ in cases.BASELINES}),
    ):
        assert listed <= set(options(group))


# ------------------------------------------------------------------ every option composes


def test_every_target_can_be_imported_and_takes_the_keys_of_its_node(composed):
    """By the constructor's signature; what starts with an underscore is Hydra's."""

    def check(node, where):
        if isinstance(node, dict):
            if "_target_" in node:
                parameters = inspect.signature(target(node["_target_"])).parameters
                open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
                unknown = {key for key in node if not key.startswith("_")} - set(parameters)
                assert open_ended or not unknown, f"{where}: {node['_target_']} does not take {unknown}"
            for key, child in node.items():
                check(child, f"{where}.{key}")

    for choice, config in composed.items():
        check(config, choice)


def test_every_option_passes_its_own_rules(composed):
    for choice, config in composed.items():
        try:
            check_config(config, config)
        except ConfigError as error:
            raise AssertionError(f"{choice}: {error}") from error


def test_every_rule_is_of_a_key_that_exists(composed):
    """A rule of a renamed key would check nothing."""
    known = {key for config in composed.values() for key in leaves(config)}
    assert not set(RULES) - known


def test_every_key_that_is_null_by_default_has_a_rule(composed):
    """Or any value passes: null declares no type."""
    null = {key for config in composed.values() for key, value in leaves(config).items() if value is None}
    assert not null - set(RULES)


def test_a_distribution_chooses_its_estimator_and_the_command_line_has_the_last_word():
    def estimator(*overrides):
        return compose(*overrides)["estimator"]["_target_"].rpartition(".")[2]

    assert estimator("dist=normal") == "ScoreFunction"
    assert estimator("dist=normal_rsample") == "Pathwise"
    assert estimator("dist=normal_rsample", "estimator=score_function") == "ScoreFunction"
    assert estimator("env=pendulum_torch") == "Pathwise"
    assert estimator("env=pendulum_torch", "dist=normal") == "ScoreFunction"


# Box2D's SWIG types warn at import, where an error would crash the interpreter
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
# CartPole-v0 is in conf for comparison with old papers
@pytest.mark.filterwarnings("ignore:.*The environment CartPole-v0 is out of date:DeprecationWarning")
def test_an_environment_s_usual_distribution_can_act_in_it(composed, tmp_path, monkeypatch):
    """By its action space where the environment can be made here; extras may be missing."""
    monkeypatch.chdir(tmp_path)  # MuJoCo logs into the working directory
    tried = 0
    for option in options("env"):
        config = composed[f"env={option}"]
        node = config["env"]
        if node.get("id") == "???":
            continue
        if "dynamics" in node:
            arguments = {key: value for key, value in node["dynamics"].items() if key != "_target_"}
            space = target(node["dynamics"]["_target_"])(**arguments).action_space
        else:
            try:
                env = gym.make_vec(node["id"], 1)
            except gym.error.DependencyNotInstalled:
                continue
            space = env.single_action_space
            env.close()
        assert target(config["dist"]["_target_"]).accepts(space), option
        tried += 1
    assert tried >= 12  # with no extra installed


# ------------------------------------------------------------------ check_config

EXAMPLE = {
    "flag": True,
    "count": 3,
    "rate": 0.5,
    "text": "abc",
    "sizes": [1, 2],
    "free": None,
    "options": {},
    "nested": {"deep": {"count": 7}},
}


def with_value(key: str, value):
    config = {**EXAMPLE, "nested": {"deep": {"count": 7}}}
    node, *rest = key.split(".")
    if rest:
        config["nested"]["deep"]["count"] = value
    else:
        config[node] = value
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flag", False),
        ("count", -4),
        ("rate", 2),  # a whole number is a number
        ("rate", -1e-3),
        ("text", ""),
        ("sizes", []),
        ("free", 3),
        ("free", "anything"),
        ("options", {"render_mode": "rgb_array"}),
        ("nested.deep.count", 8),
    ],
)
def test_a_value_of_the_example_s_type_passes(key, value):
    check_config(with_value(key, value), EXAMPLE)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("flag", 1, "true or false, such as True"),
        ("flag", "true", "true or false, such as True"),
        ("count", 2.5, "a whole number, such as 3"),
        ("count", 2.0, "a whole number, such as 3"),
        ("count", True, "a whole number, such as 3"),
        ("count", "3", "a whole number, such as 3"),
        ("count", None, "a whole number, such as 3"),
        ("rate", "high", "a number, such as 0.5"),
        ("rate", True, "a number, such as 0.5"),
        ("rate", float("nan"), "a number, such as 0.5"),
        ("rate", float("inf"), "a number, such as 0.5"),
        ("rate", [0.5], "a number, such as 0.5"),
        ("text", 3, "text, such as abc"),
        ("text", None, "text, such as abc"),
        ("sizes", 64, r"a list, such as \[1, 2\]"),
        ("sizes", "64,64", r"a list, such as \[1, 2\]"),
        ("options", 3, "a mapping"),
        ("nested.deep.count", "x", "a whole number, such as 7"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_dotted_key(key, value, wanted):
    with pytest.raises(ConfigError, match=rf"^{key}=.* has the wrong type: it must be {wanted}"):
        check_config(with_value(key, value), EXAMPLE)


@pytest.mark.parametrize("key", ["node.added", "node.kwargs.added", "callbacks.mine.steps"])
def test_an_added_key_passes_where_a_constructor_reads_it(key):
    """With Hydra's +key=value; there is no example to compare with."""
    example = {**EXAMPLE, "node": {"_target_": "some.Class", "kwargs": {}}, "callbacks": {}}
    config = {**example, "node": {"_target_": "some.Class", "kwargs": {"added": 1}, "added": object()}}
    check_config({**config, "callbacks": {"mine": {"_target_": "x", "steps": 1}}}, example)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("coumt", "did you mean count"),
        ("nested.deep.coumt", "did you mean nested.deep.count"),
        ("zzzzz", "leave it out"),
    ],
)
def test_an_added_key_that_nothing_reads_is_refused(key, hint):
    with pytest.raises(ConfigError, match=f"{key} was added, but nothing reads it: {hint}"):
        check_config(
            {**EXAMPLE, "nested": {"deep": {"count": 7, "coumt": 1}}} if "." in key else {**EXAMPLE, key: 1}, EXAMPLE
        )


# at the edge and just beyond it
INSIDE_AND_OUTSIDE = {
    "seed": ([0, 2**63 - 1], [-1, 2**63, 0.0, True, "0"]),
    "max_env_steps": ([1, 10**12], [0, 1e6, None]),
    "episodes_per_update": ([1, 1_000_000], [0, 1_000_001]),
    "gamma": ([0, 1, 0.99], [-0.01, 1.01, float("nan"), "0.9"]),
    "max_grad_norm": ([None, 0.5], [0, -1, float("inf")]),
    "eval.episodes": ([1], [0, 1.0]),
    "resume": ([None, "auto", "outputs/x"], ["", 3, True]),
    "env.max_episode_steps": ([None, 1], [0, 1.5]),
    "env.reward_range": ([None, [-1, 0], [1.0, 1.0]], [[1, 0], [0], [0, float("inf")], "[0,1]", 1]),
    "env.reward_threshold": ([None, 0, -3.5], [float("nan"), "475", True]),
    "env.vectorization": (["auto", "sync", "async", "vector_entry_point"], ["Sync", None]),
    "env.dynamics.dim": ([1, 3], [0, 1.5]),
    "env.dynamics.dt": ([0.1], [0.0, -0.1]),
    "estimator.entropy_coefficient": ([0, 0.01], [-0.01]),
    "estimator.window": ([None, 1], ["all", 2.0]),
    "estimator.tolerance": ([None, 0.5], ["small", True]),
    "policy.init": (["torch", "orthogonal"], ["xavier"]),
    "policy.output_scale": ([0, 0.01], [-1]),
    "optimizer.lr": ([1e-5, 1], [0, -0.1, "0.1"]),
    "optimizer.momentum": ([0.0, 1.0], [1.1]),
    "lr_schedule.final": ([0.0, 1.0], [-0.1, 2]),
    "trainer.log_every_n_steps": ([1], [0]),
    "trainer.profiler": ([None, "simple"], [12, True]),
    "trainer.devices": (["auto", 2, [0, 1]], ["two", 1.5, None]),
    "trainer.precision": (["32-true", "bf16-mixed"], [None, 1.5, "64-true", 16]),
}


def nested(key: str, value) -> dict:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("key", INSIDE_AND_OUTSIDE)
def test_ranges(key):
    inside, outside = INSIDE_AND_OUTSIDE[key]
    for value in inside:
        check_config(nested(key, value), nested(key, value))
    for value in outside:
        with pytest.raises(ConfigError) as error:
            check_config(nested(key, value), nested(key, value))
        assert str(error.value) == f"{key}={value} is out of range: it must be {RULES[key].words}."


SIZES = {  # what the spaces tell, which no YAML holds
    "action_space": gym.spaces.Box(-1.0, 1.0, (2,)),
    "in_features": 3,
    "observation_shape": (3,),
    "normalizer": None,
}
# options without a rule, or with one of their type alone, and values that their constructors refuse
REFUSED = [
    ("dist=normal", "dist.initial_std", [0, -0.1, 101]),
    ("dist=normal", "dist.std", ["fixed"]),
    ("dist=laplace", "dist.mean", ["tanh"]),
    ("dist=tanh_normal", "dist.initial_std", [0]),
    ("dist=truncated_normal", "dist.std", ["fixed"]),
    ("dist=student_t", "dist.df", [2, 2e6]),
    ("dist=low_rank_normal", "dist.rank", [0, 1001]),
    ("dist=mixture_normal", "dist.components", [0, 1001]),
    ("dist=von_mises", "dist.concentration", ["fixed"]),
    ("dist=von_mises", "dist.initial_concentration", [0, 101]),
    ("estimator=score_function", "estimator.credit", ["gae"]),
    ("estimator=score_function", "estimator.normalize_returns", ["all"]),
    ("estimator=score_function", "estimator.log_probs", ["never"]),
    ("estimator=pathwise", "estimator.window", [0]),
    ("estimator=gumbel_softmax", "estimator.temperature", [0, 101, None]),
    ("estimator=straight_through", "estimator.temperature", [0, 101]),
    ("estimator=alpha_order", "estimator.tolerance", [-1]),
    ("estimator=alpha_order", "estimator.delta", [0, 1]),
    ("estimator=ddcg", "estimator.c", [-0.1, 1.1]),
    ("baseline=gae", "baseline.gae_lambda", [-0.1, 1.1]),
    ("baseline=moving_average", "baseline.decay", [-0.1, 1]),
    ("baseline=value", "baseline.hidden_sizes", [[0], [1.5], ["a"]]),
    ("baseline=value", "baseline.activation", ["softmax"]),
    ("baseline=value", "baseline.gradient_steps", [0]),
    ("baseline=value", "baseline.minibatch_size", [0]),
    ("policy=mlp", "policy.torso.hidden_sizes", [[65_537], [0], [None]]),
    ("policy=linear", "policy.torso.activation", ["softmax"]),
]


@pytest.mark.parametrize(("choice", "key", "values"), REFUSED, ids=[f"{choice} {key}" for choice, key, _ in REFUSED])
def test_a_range_without_a_rule_is_refused_by_the_constructor(composed, choice, key, values):
    """With a sentence that names the option: the type is known by the YAML, and nothing else is asked before."""
    place, _, option = key.rpartition(".")
    for value in values:
        config = OmegaConf.create(composed[choice])
        OmegaConf.update(config, key, value)
        check_config(OmegaConf.to_container(config, resolve=False), composed[choice])
        node = OmegaConf.select(config, place)
        known = inspect.signature(target(node["_target_"])).parameters
        with pytest.raises(ConfigError, match=rf"^it was refused: .*\b{option}\b"):
            construct(node, "it", **{name: size for name, size in SIZES.items() if name in known})


@pytest.mark.parametrize("option", [*options("dist"), *options("baseline")])
def test_a_default_of_the_yaml_is_the_default_of_the_constructor(composed, option):
    """Both are needed: the one for the command line, which overrides what is there, the other for Python."""
    group = "dist" if option in options("dist") else "baseline"
    node = composed[f"{group}={option}"][group]
    parameters = inspect.signature(target(node["_target_"])).parameters
    for key, value in node.items():
        default = getattr(parameters.get(key), "default", inspect.Parameter.empty)
        if default is not inspect.Parameter.empty and not isinstance(value, dict):
            assert value == (list(default) if isinstance(default, tuple) else default), key


def test_an_option_of_ones_own_may_have_a_name_of_ours(composed):
    """Rules go by keys: one of `dist.std` would refuse another head's std that is a number."""
    own = {**composed["dist=normal"], "dist": {"_target_": "mine.Head", "std": 0.5, "components": 0}}
    check_config(own, own)


def test_leaves_flattens_mappings_and_keeps_lists_and_empty_mappings():
    nest = {"a": 1, "b": {"c": {"d": [1, {"e": 2}]}, "f": {}}, "g": None}
    assert leaves(nest) == {"a": 1, "b.c.d": [1, {"e": 2}], "b.f": {}, "g": None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("epsiodes_per_update", "episodes_per_update"),
        ("optimiser.lr", "optimizer.lr"),
        ("gama", "gamma"),
        ("zzz", None),
    ],
)
def test_nearest_names(composed, given, expected):
    assert nearest(given, leaves(composed["train"])) == expected


def test_the_yaml_s_of_conf_end_in_yaml():
    """Hydra does not see a .yml file."""
    assert not [path for path in CONF.rglob("*") if path.is_file() and path.suffix != ".yaml"]


def test_conf_is_where_the_package_looks_for_it():
    import scorepath.sources

    assert Path(scorepath.sources.CONF).resolve() == CONF
