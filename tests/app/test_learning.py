"""Learning results, on seeds other than those of the README's table. Minutes: pytest -m slow."""

import pytest
import torch
from helpers import train

from scorepath.envs.dynamics import LQR

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]


@pytest.mark.parametrize("seed", [100, 101])
@pytest.mark.parametrize("dist", ["bernoulli", "categorical"])
def test_cartpole_is_solved_within_200_000_steps(dist, seed, tmp_path):
    """10 of 10 seeds of either did (README)."""
    outcome = train(tmp_path, f"dist={dist}", f"seed={seed}", "record_episode=false")
    assert outcome.summary["solved_at_env_steps"] <= 205_000, outcome.err


@pytest.mark.parametrize("seed", [100, 101])
def test_the_lqr_is_optimal_within_1_percent(seed, tmp_path):
    """By the exact cost of the gain that was learned; 10 of 10 seeds were within 0.001 % (README)."""
    outcome = train(tmp_path, "experiment=lqr_pathwise", f"seed={seed}", "logger=csv")
    assert outcome.code == 0, outcome.err
    state = torch.load(outcome.directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    dynamics = LQR()
    optimum = dynamics.riccati()[1].trace() / 3  # start states have second moment I / 3
    gain = -state["policy.head.mean.weight"].double()
    std = state["policy.head.log_std"].double().exp()
    assert dynamics.policy_cost(gain, std) < 1.01 * optimum


def test_pathwise_swings_the_pendulum_up(tmp_path):
    """On Gymnasium's own Pendulum-v1, 10 of 10 seeds did within 1,000,000 steps (README)."""
    outcome = train(tmp_path, "experiment=pendulum_pathwise", "seed=100", "record_episode=false")
    assert outcome.summary["eval_return_mean"] >= -200, outcome.err


def test_acrobot_is_solved_within_500_000_steps(tmp_path):
    """10 of 10 seeds did (README)."""
    outcome = train(tmp_path, "experiment=acrobot_categorical", "seed=100", "record_episode=false")
    assert outcome.summary["solved_at_env_steps"] <= 500_000, outcome.err
