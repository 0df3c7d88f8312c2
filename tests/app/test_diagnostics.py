"""Diagnostics of the gradient: against closed forms, against many updates, and that they leave training as it is."""

import cases
import pytest
import torch
from helpers import Outcome, train

from scorepath.baselines import NoBaseline
from scorepath.callbacks import GradientDiagnostics
from scorepath.callbacks.gradient_diagnostics import flat_gradient, signal_and_variance
from scorepath.callbacks.histograms import parameters_of
from scorepath.distributions import Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR
from scorepath.estimators import ScoreFunction
from scorepath.module import PolicyGradient
from scorepath.policy import MLP, Policy
from scorepath.seeding import Stream, derive_seed, seed_torch
from scorepath.update import Weighed, surrogate_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

GRADIENTS = {"gradient/variance", "gradient/norm", "gradient/snr", "gradient/effective_batch_size"}
GRADIENTS |= {"gradient/baseline_explained_variance"}


@pytest.mark.parametrize("case", [*cases.HEADS, *cases.OTHER_HEADS], ids=lambda case: case.name)
def test_histograms_have_the_parameters_of_every_distribution(case):
    head = case.make()
    found = parameters_of(head(torch.randn(3, head.in_features)))
    assert found
    assert all(value.shape[0] == 3 and value.isfinite().all() for value in found.values())
    if case.option == "product":
        assert {name.split("/")[0] for name in found} == {str(number) for number in range(len(head.heads))}


def test_signal_and_variance_by_hand():
    """Two gradients (3, 0) and (1, 2): mean (2, 1), covariance of the mean (1 + 1 + 1 + 1) / (2 - 1) / 2 = 2."""
    signal, variance = signal_and_variance(torch.tensor([[3.0, 0.0], [1.0, 2.0]]))
    assert variance == 2.0
    assert signal == 5.0 - 2.0


def test_signal_and_variance_are_unbiased():
    """10,000 batches of 4 draws of N((1, 2), diag(4, 9)): |G|² = 5, tr Cov(mean) = 13 / 4; 6 standard errors."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([2.0, 3.0])
    draws = torch.tensor([1.0, 2.0]) + scale * torch.randn(10_000, 4, 2, generator=generator)
    both = torch.stack([torch.stack(signal_and_variance(batch)) for batch in draws])
    error = both.std(dim=0) / 100.0
    assert ((both.mean(dim=0) - torch.tensor([5.0, 3.25])).abs() < 6 * error).all()


def test_noise_scale_by_hand():
    """Of the averages of |G|² = 3 and tr Σ = 2 · 8, each new one at a tenth."""
    callback = GradientDiagnostics()
    metrics = callback._noise_metrics(torch.tensor([[3.0, 0.0], [1.0, 2.0]]), episodes=8)
    assert metrics["gradient/noise_scale"] == pytest.approx(16 / 3)
    assert metrics["gradient/snr"] == 1.5
    metrics = callback._noise_metrics(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), episodes=8)
    assert metrics["gradient/noise_scale"] == pytest.approx(0.9 * 16 / (0.9 * 3 + 0.1 * 1))


def test_no_noise_scale_without_a_signal():
    assert "gradient/noise_scale" not in GradientDiagnostics()._noise_metrics(torch.tensor([[1.0], [-1.0]]), episodes=8)


@pytest.fixture
def module() -> PolicyGradient:
    """Regulates two masses by noisy forces, for the score function and pathwise alike."""
    dynamics = LQR(horizon=5)
    seed_torch(0, Stream.INITIALISATION)
    policy = Policy(MLP(2, []), Normal(dynamics.action_space, 2))

    def environment(device):
        return TorchEnvironment(dynamics, 16, device)

    return PolicyGradient(
        make_env=environment,
        make_eval_env=environment,
        policy=policy,
        estimator=ScoreFunction(normalize_returns="none", discount_steps=True),
        baseline=NoBaseline(),
        make_optimizer=torch.optim.Adam,
        lr_schedule=lambda progress: 1.0,
        max_env_steps=1000,
        gamma=0.9,
        chunk=None,
        max_grad_norm=None,
        log_every_n_updates=1,
        seed=0,
        eval_episodes=1,
        eval_deterministic=False,
        config={},
    )


@pytest.mark.slow
def test_what_is_logged_is_true_of_the_updates(module):
    """1,000 updates of one policy: `variance` averages to their variance, and signal and norm fit to it (5 %)."""
    callback = GradientDiagnostics(every_updates=1, groups=4)
    env = module.make_env("cpu")
    parameters = list(module.policy.parameters())
    gradients, logged = [], []
    for k in range(1000):
        module.update_index = k
        seed_torch(0, Stream.ACTION, index=k)
        (episodes,) = module.estimator.collect(env, module.policy, derive_seed(0, Stream.ENVIRONMENT, index=k))
        surrogate = surrogate_loss(module.estimator, module.baseline, module.policy, episodes, module.gamma)
        state = torch.get_rng_state()
        logged.append(callback.observe(module, episodes, surrogate, 0))
        assert torch.equal(torch.get_rng_state(), state)
        gradients.append(flat_gradient(surrogate.loss, parameters))
        torch.testing.assert_close(logged[-1]["gradient/norm"], gradients[-1].norm(), rtol=1e-4, atol=1e-4)
    gradients = torch.stack(gradients)
    mean = {key: torch.stack([metrics[key] for metrics in logged if key in metrics]).mean() for key in logged[-1]}
    variance = gradients.var(dim=0).sum()
    torch.testing.assert_close(mean["gradient/variance"], variance, rtol=0.05, atol=0.0)
    signal = torch.stack([metrics["gradient/norm"] ** 2 - metrics["gradient/variance"] for metrics in logged])
    error = 5 * signal.std() / len(signal) ** 0.5
    assert (signal.mean() - gradients.mean(dim=0).square().sum()).abs() < error
    assert mean["gradient/clipped_actions"] == 0.0  # an unbounded Box


def test_score_function_and_pathwise_agree_in_a_large_batch(module):
    """Both are unbiased for the same gradient, so their cosine tends to 1; 20,000 episodes leave less than 0.02."""
    callback = GradientDiagnostics(cosine_window=5)
    callback._env = TorchEnvironment(LQR(horizon=5), 20_000)
    assert 0.98 < callback._score_pathwise_cosine(module) <= 1.0


def test_a_batch_that_cannot_be_cut_has_no_variance(module):
    callback = GradientDiagnostics(groups=2)
    env = TorchEnvironment(LQR(horizon=5), 1)
    (episodes,) = module.estimator.collect(env, module.policy, 0)
    surrogate = surrogate_loss(module.estimator, module.baseline, module.policy, episodes, 0.9)
    metrics = callback.observe(module, episodes, surrogate, 0)
    assert "gradient/variance" not in metrics
    assert metrics["gradient/effective_batch_size"] > 0


def test_weights_of_one_size_are_all_effective_whatever_their_signs(module):
    """(Σ|w|)² / Σ w² of 80 weights of ±3 is 80; where only ten are not 0, 10."""
    callback = GradientDiagnostics()
    (episodes,) = module.estimator.collect(module.make_env("cpu"), module.policy, 0)
    signs = torch.tensor([3.0, -3.0]).repeat(5, 8)
    few = signs * (torch.arange(16) < 2)
    found = []
    for weights in (signs, few):
        weighed = Weighed(signs, weights, episodes.rewards, episodes, episodes.rewards)
        metrics = callback.observe(module, episodes, weighed, 0)
        found.append(float(metrics["gradient/effective_batch_size"]))
    assert found == pytest.approx([80.0, 10.0])


@pytest.mark.parametrize("numbers", [{"every_updates": 0}, {"groups": 1}, {"cosine_window": 0}])
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ValueError, match="at least 1, 2 and 1"):
        GradientDiagnostics(**numbers)


# ------------------------------------------------------------------ in a run

RUNS = {
    "score function": ("episodes_per_update=8", "max_env_steps=3000"),
    "value network": ("env=pendulum", "baseline=value", "episodes_per_update=4", "max_env_steps=4000"),
    "pathwise": ("env=pendulum_torch", "episodes_per_update=4", "max_env_steps=4000"),
}


def run(folder, name, *options: str) -> Outcome:
    small = ("eval.episodes=2", "record_episode=false", "logger=csv")
    outcome = train(folder, *small, *RUNS[name], *options, directory="watched" if options else "plain")
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.parametrize(
    "name", ["value network", *(pytest.param(name, marks=pytest.mark.slow) for name in ("score function", "pathwise"))]
)
def test_diagnostics_leave_training_as_it_is(tmp_path, name):
    plain = run(tmp_path, name)
    watched = run(tmp_path, name, "callbacks=gradient_diagnostics", "callbacks.gradient_diagnostics.every_updates=2")
    assert watched.summary["weights_sha256"] == plain.summary["weights_sha256"]
    updates = [row for row in watched.rows if row["rollout/episode_return_mean"]]
    assert [bool(row["gradient/variance"]) for row in updates] == [k % 2 == 0 for k in range(len(updates))]
    assert set(updates[0]) >= GRADIENTS
    assert ("gradient/score_pathwise_cosine" in updates[0]) == (name == "pathwise")
    assert ("gradient/clipped_actions" in updates[0]) == (name != "score function")


@pytest.mark.slow
def test_diagnostics_go_on_after_a_resume(tmp_path):
    """The averages of the noise scale are saved."""
    options = (
        "callbacks=gradient_diagnostics",
        "callbacks.gradient_diagnostics.every_updates=1",
        "lr_schedule=constant",
    )
    whole = run(tmp_path, "score function", *options, "eval.every_env_steps=500")
    small = ("eval.episodes=2", "record_episode=false", "logger=csv", *options, "eval.every_env_steps=500")
    train(tmp_path, *small, "episodes_per_update=8", "max_env_steps=1000", directory="part")
    resumed = train(tmp_path, *small, *RUNS["score function"], "resume=auto", directory="part")
    column = "gradient/noise_scale"
    assert [row.get(column) for row in resumed.rows] == [row.get(column) for row in whole.rows]
