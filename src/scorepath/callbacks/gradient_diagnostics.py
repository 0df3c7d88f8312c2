"""How good the gradient of an update is: its variance, its signal, and what the estimators say of each other."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import lightning.pytorch as pl
import torch
from torch import Tensor

from scorepath.baselines import NoBaseline, TimeMean
from scorepath.distributions.box import is_floating_box
from scorepath.envs import AbstractEnvironment
from scorepath.estimators import Pathwise, ScoreFunction
from scorepath.estimators.gradients import per_episode_gradients
from scorepath.module import AbstractObserver, PolicyGradient
from scorepath.ranks import gather, gather_columns
from scorepath.returns import explained_variance
from scorepath.rollout import rollout_windows
from scorepath.seeding import Stream, derive_seed, seed_torch
from scorepath.types import Episodes
from scorepath.update import Weighed, surrogate_loss


class GradientDiagnostics(AbstractObserver):
    """Logs `gradient/*` of every K-th update, from its own batch, without touching what is learned.

    The batch is cut into groups of episodes; from the gradients of the groups follow the variance of the whole batch's
    gradient and an unbiased estimate of the squared length of the true one:

    - `gradient/variance`: tr Σ / N, the expected squared error of the update's gradient;
    - `gradient/norm`: |g| of the whole batch;
    - `gradient/snr`: |G|² / (tr Σ / N), the signal-to-noise ratio, G the expected gradient;
    - `gradient/noise_scale`: tr Σ / |G|² in episodes, the batch size at which noise equals signal (McCandlish et al.
      2018, arXiv:1812.06162, equation 2.8, both parts averaged over updates as their appendix A asks for); absent while
      the signal cannot be distinguished from zero;
    - `gradient/effective_batch_size`: (Σ |w|)² / Σ w² in steps, w the weights of log_prob: as many steps of equal
      weight would spread as much;
    - `gradient/clipped_actions`: share of the entries of actions that the environment's bounds change;
    - `gradient/baseline_explained_variance`: 1 - Var(A) / Var(G), of whatever baseline;
    - `gradient/score_pathwise_cosine`: of the two estimates of the first window's gradient, from a rollout of its own,
      where both are legal.

    Pathwise updates are looked at in their first window.

    Args:
        every_updates: K.
        groups: of equal size, at least 2; as many as divide the batch, at most this many.
        cosine_window: env steps of the rollout for the cosine.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, every_updates: int = 25, groups: int = 4, cosine_window: int = 20) -> None:
        if every_updates < 1 or groups < 2 or cosine_window < 1:
            raise ValueError(f"{every_updates=}, {groups=}, {cosine_window=}: at least 1, 2 and 1.")
        self.every_updates = every_updates
        self.groups = groups
        self.cosine_window = cosine_window
        self._signal = 0.0  # averages for the noise scale
        self._noise = 0.0
        self._env: AbstractEnvironment | None = None

    def is_due(self, update_index: int) -> bool:
        return update_index % self.every_updates == 0

    def teardown(self, trainer: pl.Trainer, module: PolicyGradient, stage: str) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def state_dict(self) -> dict[str, Any]:
        return {"signal": self._signal, "noise": self._noise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._signal, self._noise = float(state_dict["signal"]), float(state_dict["noise"])

    def observe(self, module: PolicyGradient, episodes: Episodes, weighed: Weighed, window: int) -> dict[str, Tensor]:
        if window:
            return {}
        with torch.random.fork_rng():  # whatever is sampled here, the update must not see it
            gradients = self._group_gradients(module, episodes, weighed.weights)
            cosine = self._score_pathwise_cosine(module)
        metrics = {} if gradients is None else self._noise_metrics(gradients, weighed.all_returns.shape[1])
        valid, everyone_valid = episodes.valid, weighed.everyone.valid
        weights = gather_columns(weighed.weights.detach())[everyone_valid]
        advantages = gather_columns(weighed.advantages.detach())[everyone_valid]
        returns = weighed.all_returns.detach()[everyone_valid]
        effective = weights.abs().sum().square() / weights.square().sum().clamp(min=1e-30)
        metrics["gradient/effective_batch_size"] = effective
        metrics["gradient/baseline_explained_variance"] = explained_variance(returns - advantages, returns)
        space = module.policy.head.action_space
        if is_floating_box(space):  # of others, samples are counts or numbers of choices
            actions = episodes.actions.detach()[valid]
            metrics["gradient/clipped_actions"] = (module.policy.head.to_env(actions) != actions).float().mean()
        if cosine is not None:
            metrics["gradient/score_pathwise_cosine"] = cosine
        return metrics

    def _group_gradients(self, module: PolicyGradient, episodes: Episodes, weights: Tensor) -> Tensor | None:
        """Gradients (M, P) of M equal groups of episodes, of all processes; None for batches that cannot be cut into
        two.
        """
        number = weights.shape[1]
        groups = max(count for count in range(1, self.groups + 1) if number % count == 0)
        if groups < 2:
            return None
        size = number // groups
        if not module.estimator.needs_graph:
            episodes = replace(episodes, log_probs=None)  # their graph is the whole batch's, and walked but once
        losses = []
        for start in range(0, number, size):
            columns = slice(start, start + size)
            loss, _ = module.estimator(module.policy, episodes.select(columns), weights[:, columns], module.gamma)
            losses.append(loss)
        if module.estimator.needs_graph:
            # one graph through all of the rollout: walking it once for all groups costs least
            return gather(per_episode_gradients(torch.stack(losses), module.policy.parameters()))
        parameters = list(module.policy.parameters())
        return gather(torch.stack([flat_gradient(loss, parameters) for loss in losses]))

    def _score_pathwise_cosine(self, module: PolicyGradient) -> Tensor | None:
        """Of the two estimates of ∇E[Σ_{t<window} γ^t r_t], from one rollout; None where one of them is not legal."""
        if self._env is None:
            self._env = module.make_env(module.device)
        env, policy, rank, k = self._env, module.policy, module.global_rank, module.update_index
        if not (env.differentiable and policy.head.has_rsample) or isinstance(env.action_space, gym.spaces.Discrete):
            return None
        seed_torch(module.seed, Stream.DIAGNOSTICS, rank, k)
        seed = derive_seed(module.seed, Stream.DIAGNOSTICS, rank, k)
        episodes = next(rollout_windows(env, policy, seed, window=self.cosine_window, graph=True))
        parameters, gamma = list(policy.parameters()), module.gamma
        pathwise = surrogate_loss(Pathwise(window=None), NoBaseline(), policy, episodes, gamma).loss
        reinforce = ScoreFunction("reward_to_go", "none", discount_steps=True)
        score = surrogate_loss(reinforce, TimeMean(), policy, episodes.detach(), gamma).loss
        return torch.nn.functional.cosine_similarity(
            flat_gradient(pathwise, parameters), flat_gradient(score, parameters), dim=0
        )

    def _noise_metrics(self, gradients: Tensor, episodes: int) -> dict[str, Tensor]:
        signal, variance = signal_and_variance(gradients)
        weight = 0.1 if self._noise else 1.0
        self._signal += weight * (float(signal) - self._signal)
        self._noise += weight * (float(variance) * episodes - self._noise)
        metrics = {
            "gradient/variance": variance,
            "gradient/norm": gradients.mean(dim=0).norm(),
            "gradient/snr": signal.clamp(min=0.0) / variance.clamp(min=1e-30),
        }
        if self._signal > 0.0:
            metrics["gradient/noise_scale"] = torch.tensor(self._noise / self._signal)
        return metrics


def signal_and_variance(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """What M independent gradients (M, P) of equal groups say about their mean.

    Returns:
        |G|² without bias, |mean|² - tr Cov(mean), which may come out negative; and tr Cov(mean), both ().
    """
    mean = gradients.mean(dim=0)
    variance = (gradients - mean).square().sum() / (len(gradients) - 1) / len(gradients)
    return mean.square().sum() - variance, variance


def flat_gradient(loss: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    """∇ loss with respect to all parameters in one row (P,), the graph kept; zero for those it does not reach."""
    parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])
