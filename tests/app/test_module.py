"""Single updates and evaluations: what they play and draw."""

import lightning.pytorch as pl
import pytest
import torch

from scorepath.baselines import NoBaseline
from scorepath.distributions import Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR
from scorepath.estimators import ScoreFunction
from scorepath.module import PolicyGradient
from scorepath.policy import MLP, Policy
from scorepath.seeding import Stream, seed_torch

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

NUMBER = 8


class Observed(ScoreFunction):
    """Keeps what it was given to learn from."""

    def __init__(self):
        super().__init__(normalize_returns="none")
        self.batches = []

    def observe(self, episodes, returns):
        self.batches.append(episodes)


def regulator(**options):
    """Regulates a mass; its weights stay as they are."""
    dynamics = LQR(horizon=3)
    seed_torch(0, Stream.INITIALISATION)

    def environment(device):
        return TorchEnvironment(dynamics, NUMBER, device)

    settings = {
        "make_env": environment,
        "make_eval_env": environment,
        "policy": Policy(MLP(2, []), Normal(dynamics.action_space, 2)),
        "estimator": Observed(),
        "baseline": NoBaseline(),
        "make_optimizer": lambda parameters: torch.optim.SGD(parameters, 0.0),
        "lr_schedule": lambda progress: 1.0,
        "max_env_steps": 1000,
        "gamma": 0.9,
        "chunk": None,
        "max_grad_norm": None,
        "log_every_n_updates": 1,
        "seed": 0,
        "eval_episodes": 1,
        "eval_deterministic": False,
        "config": {},
    }
    return PolicyGradient(**{**settings, **options})


def update(module, number):
    """As many updates, by a real Trainer."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        limit_train_batches=number,
        max_epochs=1,
        limit_val_batches=0,
        enable_model_summary=False,
        **quiet,
    )
    trainer.fit(module)
    return module.estimator.batches


def test_no_two_updates_start_alike_or_draw_the_same_noise():
    module = regulator()
    first, second = update(module, 2)
    policy = module.policy
    with torch.no_grad():
        noises = [
            (batch.actions - policy(batch.observations).mean) / policy.head.log_std.exp() for batch in (first, second)
        ]
    for one, other in ((first.observations[0], second.observations[0]), noises):
        assert not torch.isclose(one, other, rtol=1e-4, atol=1e-4).any()
    assert (module.update_index, module.episodes, module.env_steps) == (2, 2 * NUMBER, 2 * NUMBER * 3)


def test_an_update_is_that_of_its_index():
    """Whatever was played before: update 1 of a run is update 1 of a module that begins there."""
    _, second = update(regulator(), 2)
    late = regulator()
    late.update_index = 1
    (alone,) = update(late, 1)
    assert torch.equal(alone.observations, second.observations)
    assert torch.equal(alone.actions, second.actions)


def test_no_two_rounds_of_an_evaluation_start_alike():
    """Without noise, so that a return tells the start."""
    module = regulator(eval_deterministic=True)
    returns = module.evaluate(Stream.EVALUATION_ENVIRONMENT, Stream.EVALUATION_ACTION, 3 * NUMBER).returns
    assert len(set(returns.tolist())) == 3 * NUMBER


def test_an_evaluation_plays_other_episodes_than_training_and_than_another_evaluation():
    module = regulator(eval_deterministic=True)
    streams = (Stream.ENVIRONMENT, Stream.EVALUATION_ENVIRONMENT, Stream.FINAL_ENVIRONMENT)
    returns = [module.evaluate(stream, Stream.ACTION, NUMBER).returns.tolist() for stream in streams]
    module.update_index = 1
    returns.append(module.evaluate(Stream.EVALUATION_ENVIRONMENT, Stream.ACTION, NUMBER).returns.tolist())
    assert len({value for some in returns for value in some}) == 4 * NUMBER
