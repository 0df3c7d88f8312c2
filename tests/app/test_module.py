"""Single updates and evaluations: what they play and draw."""

import lightning.pytorch as pl
import pytest
import torch
from gymnasium import spaces

from scorepath.baselines import NoBaseline, SelfCritical
from scorepath.distributions import Bernoulli, Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, AbstractDynamics
from scorepath.estimators import ScoreFunction
from scorepath.module import AbstractObserver, PolicyGradient
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout
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


# ------------------------------------------------------------------ greedy episodes beside the sampled ones


class NoisyBandit(AbstractDynamics):
    """One step, whose reward is drawn from torch's generator, whatever the action."""

    name = "NoisyBandit"
    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(2)
    max_episode_steps = 1
    terminates = False

    def initial(self, generator, number):
        return generator.uniform(size=(number, 1))

    def transition(self, state, action):
        return torch.bernoulli(torch.full_like(state, 0.5))

    def reward(self, state, action, next_state):
        return next_state[:, 0]

    def observation(self, state):
        return state


def noisy_module(number=10_000):
    def environment(device):
        return TorchEnvironment(NoisyBandit(), number, device)

    return PolicyGradient(
        make_env=environment,
        make_eval_env=environment,
        policy=Policy(MLP(1, []), Bernoulli(spaces.Discrete(2), 1)),
        estimator=ScoreFunction(normalize_returns="none"),
        baseline=SelfCritical(),
        make_optimizer=torch.optim.Adam,
        lr_schedule=lambda progress: 1.0,
        max_env_steps=number,
        gamma=1.0,
        chunk=None,
        max_grad_norm=None,
        log_every_n_updates=1,
        seed=0,
        eval_episodes=1,
        eval_deterministic=False,
        config={},
    )


class Seen(AbstractObserver):
    """Keeps what was learned from."""

    def __init__(self):
        self.batches = []

    def is_due(self, update_index):
        return True

    def observe(self, module, episodes, weighed, window):
        self.batches.append(episodes)
        return {}


def correlation(one, other):
    return float(torch.corrcoef(torch.stack((one, other)))[0, 1])


def test_the_greedy_episode_shares_no_noise_with_the_sampled_actions():
    """In training; where torch is seeded alike for both, the environment's noise is the actions': a hidden bias.

    Alpha 1e-6 for a correlation of 10,000 pairs.
    """
    module, seen = noisy_module(), Seen()
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=-1, max_steps=1, limit_val_batches=0, accelerator="cpu", callbacks=[seen], **silent)
    trainer.fit(module)
    (batch,) = seen.batches
    greedy = batch.extras["greedy_returns"]
    assert greedy.shape == (1, 10_000)
    assert abs(correlation(greedy[0], batch.actions[0])) < 4.9 / 10_000**0.5
    assert 0.4 < float(greedy.mean()) < 0.6

    env, policy = module.make_env("cpu"), module.policy
    torch.manual_seed(0)
    greedy = module.baseline.play(env, policy, 0, 1.0)["greedy_returns"]
    torch.manual_seed(0)
    assert abs(correlation(greedy[0], rollout(env, policy, 0).actions[0])) > 0.3
