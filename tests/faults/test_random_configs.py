"""Any combination of options either trains or is refused in one sentence: no traceback, no hang, no weights of NaN."""

import gc
import tempfile
from pathlib import Path

import cases
import pytest
import torch
from helpers import train
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scorepath.run.checkpoints import load_checkpoint

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    # Box2D's SWIG types warn at import, where an error would crash the interpreter
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
]

SLOW = {"mujoco", "gymnasium", "gym", "atari"}  # not options by themselves
ENVS = [
    *("cartpole", "cartpole_v0", "acrobot", "mountain_car", "mountain_car_continuous", "pendulum", "lunar_lander"),
    *("lunar_lander_continuous", "cartpole_torch", "acrobot_torch", "pendulum_torch", "pendulum_discrete_torch", "lqr"),
    *("mountain_car_continuous_torch", "cartpole_swingup_torch", "double_integrator", "hopper", "inverted_pendulum"),
]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (cases.CONF / group).glob("*.yaml"))


def choice(group: str):
    return st.sampled_from([f"{group}={option}" for option in options(group)])


# values that fit, that are out of range, and of the wrong type
VALUES = {
    "gamma": [0.0, 0.9, 1.0, 1.5, "high", "null"],
    "optimizer.lr": [0.0, 0.001, 10.0, -1.0, "nan", "fast"],
    "episodes_per_update": [1, 2, 3, 0, -1, 2.5],
    "max_grad_norm": ["null", 0.5, 0.0, -3, "inf"],
    "chunk": ["null", 1, 100, 0, "many"],
    "seed": [0, 1, 2**32, 2**63 - 1, -1, "null", 1.5],
    "max_env_steps": [1, 300, 0, "inf"],
    "eval.episodes": [1, 2, 0],
    "eval.every_env_steps": [1, 100, -5],
    "eval.deterministic": ["true", "false", 3],
    "policy.normalize_observations": ["true", "false"],
    "policy.init": ["default", "orthogonal", "best"],
    "policy.torso.hidden_sizes": ["[]", "[4]", "[8,8]", "[0]", "[-1]", "7", "[a]"],
    "policy.torso.activation": ["tanh", "relu", "elu", "gelu", "silu", "sin"],
    "estimator.credit": ["reward_to_go", "total_return", "none"],
    "estimator.normalize_returns": ["none", "episode", "batch", "running", "all"],
    "estimator.entropy_coefficient": [0.0, 0.1, -0.1],
    "estimator.log_probs": ["auto", "again", "rollout", "never"],
    "estimator.window": [1, 20, 0, "null"],
    "baseline.gae_lambda": [0.0, 0.95, 1.0, 2.0],
    "env.vectorization": ["auto", "sync", "parallel"],
    "env.max_episode_steps": ["null", 5, 50, 0],
    "threads": ["null", 1, 0],
    "stop_when_solved": ["true", "false"],
    "resume": ["null", "auto", "nowhere"],
    "objective": ["eval_return_mean", "env_steps", "best"],
    "logger": ["default", "csv", "none"],
    "callbacks": ["default", "gradient_diagnostics", "histograms", "none"],
    "lr_schedule": ["constant", "linear", "cosine"],
}
OVERRIDES = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda key: st.sampled_from([f"{key}={value}" for value in VALUES[key]])),
    max_size=3,
    unique_by=lambda text: text.split("=")[0],
)
GROUPS = st.tuples(
    st.sampled_from([f"env={name}" for name in ENVS]),
    st.one_of(st.just(""), choice("dist")),
    st.one_of(st.just(""), choice("estimator")),
    st.one_of(st.just(""), choice("baseline")),
    st.one_of(st.just(""), choice("policy")),
    st.one_of(st.just(""), choice("optimizer")),
)
TINY = ("max_env_steps=1", "episodes_per_update=2", "eval.episodes=1", "record_episode=false", "logger=csv")


@settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(groups=GROUPS, overrides=OVERRIDES)
def test_random_configs_train_or_are_refused(groups, overrides):
    keys = {text.split("=")[0] for text in overrides}
    small = [text for text in TINY if text.split("=")[0] not in keys]
    given = [*(text for text in groups if text), *small, *overrides]
    gc.unfreeze()  # what a command leaves to the end of its process
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(Path(folder), *given)
        assert "Traceback" not in outcome.err, (given, outcome.err)
        if outcome.code:
            assert outcome.code in (1, 2), given
            assert outcome.sentence, given
            return
        for path in (outcome.directory / "checkpoints").glob("last.ckpt"):
            weights = load_checkpoint(path)["state_dict"].values()
            assert all(torch.isfinite(tensor).all() for tensor in weights if tensor.is_floating_point()), given
