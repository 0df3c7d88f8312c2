"""The check of one combination: are its gradients, as training computes them, the exact one on average?"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorepath.baselines import AbstractBaseline
from scorepath.estimators import AbstractEstimator, gradient_bias
from scorepath.policy import Policy
from scorepath.seeding import Stream, derive_seed
from scorepath.verify.problem import AbstractProblem
from scorepath.verify.samples import gradient_samples, last_value, warm_up
from scorepath.verify.statistics import Hotelling, batches_needed, cosine, detectable_bias, hotelling, z_scores

_PILOT = 100  # batches that tell how many are needed


@dataclass(frozen=True)
class Report:
    """What a check found; P parameters, K batches of N episodes."""

    names: tuple[str, ...]  # of the entries of a gradient, (P,)
    objective: float  # exact J
    bootstraps: bool  # J is that of episodes whose truncation is worth the baseline's V(o), held fixed
    exact: Tensor  # (P,)
    mean: Tensor  # (P,)
    covariance: Tensor  # (P, P), of the gradient of one batch
    batches: int  # K
    episodes: int  # N
    test: Hotelling
    alpha: float  # false-alarm rate of the test
    detectable: float  # the relative bias that this many batches flag with probability `power`
    power: float
    labels: tuple[str, ...]  # why the combination calls itself biased; empty if it does not

    @property
    def is_flagged(self) -> bool:
        """Whether the mean gradient is not the exact one."""
        return self.test.p_value < self.alpha

    @property
    def passed(self) -> bool:
        """Whether the label holds: what calls itself unbiased is not flagged."""
        return bool(self.labels) or not self.is_flagged

    @property
    def standard_error(self) -> Tensor:
        """Of each entry of the mean, (P,)."""
        return (self.covariance.diagonal() / self.batches).sqrt()

    @property
    def z_scores(self) -> Tensor:
        """Bias of each entry in standard errors, (P,); infinite for a difference without variance."""
        return z_scores(self.mean, self.exact, self.covariance.diagonal().sqrt(), self.batches)

    @property
    def relative_bias(self) -> float:
        """|mean - exact| / |exact|."""
        return float((self.mean - self.exact).norm() / self.exact.norm())

    @property
    def variance(self) -> float:
        """Trace of the covariance of one batch's gradient; times N, that of one episode's where none are coupled."""
        return float(self.covariance.trace())

    @property
    def snr(self) -> float:
        """|exact|² / trace of the covariance of one batch's gradient."""
        return float(self.exact.square().sum()) / self.variance if self.variance > 0 else math.inf

    @property
    def cosine(self) -> float:
        """Of the angle between mean and exact gradient."""
        return cosine(self.mean, self.exact)

    @property
    def verdict(self) -> str:
        """In one sentence."""
        if not self.is_flagged:
            return f"no bias found at alpha = {self.alpha:g}"
        label = "as its label says" if self.labels else "against its label"
        return f"biased, {label}, at alpha = {self.alpha:g}"

    def __str__(self) -> str:
        """A table of the entries (at most 20) and of the figures."""
        width = max(len("parameter"), *map(len, self.names))
        columns = (self.exact, self.mean, self.standard_error, self.z_scores)
        lines = [f"{'parameter':<{width}} {'exact':>12} {'mean':>12} {'std. error':>12} {'z':>8}"]
        lines += [
            f"{name:<{width}} {exact:12.6g} {mean:12.6g} {error:12.3g} {z:8.2f}"
            for name, exact, mean, error, z in zip(self.names, *(c.tolist() for c in columns), strict=True)
        ][:20]
        if len(self.names) > 20:
            lines.append(f"... and {len(self.names) - 20} more; largest |z| {float(self.z_scores.abs().max()):.2f}")
        test = self.test
        bootstrap = ", V(o) standing for what a time limit cuts" if self.bootstraps else ""
        figures = {
            "objective": f"{self.objective:.6g} (exact{bootstrap})",
            "batches": f"{self.batches:,} of {self.episodes:,} episodes",
            "bias": f"{100 * self.relative_bias:.3g} % of |gradient|",
            "test": f"T2 = {test.t2:.4g} in {test.dimensions} dimensions, p = {test.p_value:.3g}",
            "power": f"a bias of {100 * self.detectable:.2g} % is flagged with probability {self.power:g}",
            "variance": f"{self.variance:.4g} of a batch, {self.variance * self.episodes:.4g} times its episodes",
            "SNR": f"{self.snr:.4g} of a batch",
            "cosine": f"{self.cosine:.6f}",
            "label": "biased: " + "; ".join(self.labels) if self.labels else "unbiased",
            "verdict": self.verdict,
        }
        return "\n".join([*lines, *(f"{key:<10} {text}" for key, text in figures.items())])


def check(
    problem: AbstractProblem,
    policy: Policy,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    *,
    gamma: float = 1.0,
    max_grad_norm: float | None = None,
    episodes: int = 64,
    batches: int | None = None,
    bias: float = 0.01,
    power: float = 0.99,
    alpha: float = 1e-6,
    max_batches: int = 10_000,
    max_env_steps: int = 20_000_000,
    warm_up_updates: int = 20,
    seed: int = 0,
) -> Report:
    """Compares the mean of many independent gradients with the exact one by Hotelling's T².

    Args:
        problem, policy, estimator, baseline: the combination; the policy in float64. The baseline is fitted in place.
        gamma: discount.
        max_grad_norm: clips each batch's gradient as training does; None does not.
        episodes: N of each batch.
        batches: K; None takes as many as flag a relative bias of `bias` with probability `power`, as a pilot's
            covariance says, up to the limits.
        bias, power: what the test shall be able to see.
        alpha: false-alarm rate of the test.
        max_batches, max_env_steps: limits of the batches that are counted so; steps as if every episode were longest.
        warm_up_updates: of the baseline, before it is held fixed.
        seed: of all streams.

    Raises:
        ScorepathError: if the problem has no exact gradient for this policy or baseline.
    """
    warm_up(problem, policy, estimator, baseline, gamma=gamma, updates=warm_up_updates, episodes=episodes, seed=seed)
    value = last_value(baseline) if estimator.bootstraps else None
    objective = float(problem.objective(policy, gamma, value).detach())
    exact = problem.exact_gradient(policy, gamma, value)
    if batches is None:
        pilot_seed = derive_seed(seed, Stream.DIAGNOSTICS)
        pilot = gradient_samples(
            problem,
            policy,
            estimator,
            baseline,
            gamma=gamma,
            batches=_PILOT,
            episodes=episodes,
            max_grad_norm=max_grad_norm,
            seed=pilot_seed,
        )
        most = min(max_batches, max_env_steps // (episodes * problem.dynamics.max_episode_steps))
        needed = batches_needed(pilot, exact, bias=bias, wanted=power, alpha=alpha)
        batches = max(_PILOT, min(needed, most))
    samples = gradient_samples(
        problem,
        policy,
        estimator,
        baseline,
        gamma=gamma,
        batches=batches,
        episodes=episodes,
        max_grad_norm=max_grad_norm,
        seed=seed,
    )
    return Report(
        names=_names(policy),
        objective=objective,
        bootstraps=value is not None,
        exact=exact,
        mean=samples.mean(dim=0),
        covariance=torch.cov(samples.T).reshape(len(exact), len(exact)),
        batches=batches,
        episodes=episodes,
        test=hotelling(samples, exact),
        alpha=alpha,
        detectable=detectable_bias(samples, exact, wanted=power, alpha=alpha),
        power=power,
        labels=tuple(gradient_bias(problem.env(1), estimator, baseline, gamma, policy.head, max_grad_norm)),
    )


def _names(policy: Policy) -> tuple[str, ...]:
    names = []
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            indices = itertools.product(*map(range, parameter.shape))
            names += [f"{name}{list(index)}" if index else name for index in indices]
    return tuple(names)
