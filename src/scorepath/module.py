"""The LightningModule: one training step is one update, a batch of whole episodes and the steps learned from it."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from scorepath.baselines import AbstractBaseline, MakeOptimizer
from scorepath.compatibility import check_windows
from scorepath.envs import AbstractEnvironment
from scorepath.errors import NonFiniteError
from scorepath.estimators import AbstractEstimator
from scorepath.estimators.gradients import finish_gradients
from scorepath.intervals import evaluation_metrics
from scorepath.policy import Policy
from scorepath.ranks import gather, mean_metrics, same_random_numbers
from scorepath.rollout import Evaluation, evaluate
from scorepath.seeding import Stream, Streams, derive_seed
from scorepath.types import Episodes
from scorepath.update import Weighed, losses, play, weigh

CHECKPOINT_FORMAT = 3
_COUNTERS = ("update_index", "env_steps", "episodes")
_CHUNK = 8192  # env steps whose activations stay in a processor's cache


class UpdateIndices(Iterable[int]):
    """An endless train dataloader: an update needs no data but its index, and `PolicyGradient` counts that itself."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class AbstractObserver(pl.Callback, ABC):
    """A callback that is shown what an update learns from, and leaves all as it is."""

    @abstractmethod
    def is_due(self, update_index: int) -> bool:
        """Whether to look at this update, which is logged then."""

    @abstractmethod
    def observe(self, module: "PolicyGradient", episodes: Episodes, weighed: Weighed, window: int) -> dict[str, Tensor]:
        """Metrics () of a window of it, before its optimizer step."""


class PolicyGradient(pl.LightningModule):
    """Trains a policy by stochastic gradients of its expected return.

    Optimization is manual, for an update may take several optimizer steps (one a pathwise window, several of a value
    network). Everything random in update k derives from (seed, rank, k), so that neither logging nor evaluation nor a
    stop in between changes what follows.

    Args:
        make_env, make_eval_env: device -> environment; episodes per update and per evaluation round are their N.
        policy, estimator, baseline: the three slots of a policy gradient.
        make_optimizer: the policy's parameters -> optimizer.
        lr_schedule: progress in [0, 1] of the env-step budget -> factor on the learning rate.
        max_env_steps: the budget that progress is counted by; stopping is left to a callback.
        gamma: discount in [0, 1].
        chunk: env steps that one forward and backward pass takes, which bounds memory; None is what fits the caches of
            a CPU, and 64 times that on other devices.
        max_grad_norm: clips the norm of the policy's gradient; None does not.
        log_every_n_updates: updates between two rows of metrics.
        seed: of every stream.
        eval_episodes: per evaluation.
        eval_deterministic: evaluate the head's deterministic action instead of sampling.
        config: of the run, kept in checkpoints, so that a resume can recognise another run's.
    """

    def __init__(
        self,
        *,
        make_env: Callable[[torch.device], AbstractEnvironment],
        make_eval_env: Callable[[torch.device], AbstractEnvironment],
        policy: Policy,
        estimator: AbstractEstimator,
        baseline: AbstractBaseline,
        make_optimizer: MakeOptimizer,
        lr_schedule: Callable[[float], float],
        max_env_steps: int,
        gamma: float,
        chunk: int | None,
        max_grad_norm: float | None,
        log_every_n_updates: int,
        seed: int,
        eval_episodes: int,
        eval_deterministic: bool,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.baseline = baseline
        self.estimator = estimator
        self.max_env_steps = max_env_steps
        self.gamma = gamma
        self.chunk = chunk
        self.max_grad_norm = max_grad_norm
        self.log_every_n_updates = log_every_n_updates
        self.seed = seed
        self.eval_episodes = eval_episodes
        self.eval_deterministic = eval_deterministic
        self.config = dict(config)
        self.make_env = make_env
        self._make_eval_env = make_eval_env
        self._make_optimizer = make_optimizer
        self._lr_schedule = lr_schedule
        self.env: AbstractEnvironment | None = None
        self._eval_env: AbstractEnvironment | None = None
        self.update_index = 0  # updates done, k; Lightning's global_step counts optimizer steps instead
        self.env_steps = 0  # valid steps of all ranks
        self.episodes = 0
        self.evaluation: Evaluation | None = None  # the last one
        self.rollout_return = 0.0  # mean episode return of the last update
        self._learning_rates: list[list[float]] = []  # of each optimizer's parameter groups

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        made = (self._make_optimizer(self.policy.parameters()), self.baseline.make_optimizer())
        optimizers = [optimizer for optimizer in made if optimizer is not None]
        self._learning_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        return optimizers

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        # DDP averages the gradients of one backward pass a training step, and an update may take many; Lightning sets
        # this again after each step
        if isinstance(self.trainer.model, DistributedDataParallel):
            self.trainer.model.require_backward_grad_sync = False

    def train_dataloader(self) -> UpdateIndices:
        return UpdateIndices()

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """One update: rolls out whole episodes and learns from their surrogate loss, which for REINFORCE is
        -dist.log_prob(a) * G. Returns it (the mean over windows), detached: the steps are already taken.
        """
        started = time.perf_counter()
        env = self._training_environment()
        self._set_learning_rates()
        streams = Streams(self.seed, self.global_rank, self.update_index)
        returns, lengths = torch.zeros(2, env.num_episodes, device=self.device)
        learned = []
        for window, episodes in enumerate(play(env, self.policy, self.estimator, self.baseline, self.gamma, streams)):
            learned.append(self.learn(episodes, window))
            returns += episodes.episode_returns
            lengths += episodes.lengths
        metrics = mean_metrics(learned, self.device)
        self._finish_update(gather(returns), gather(lengths), metrics, started)
        return metrics["train/surrogate_loss"]

    def learn(self, episodes: Episodes, window: int = 0) -> dict[str, Tensor]:
        """One optimizer step from one window, which is the update's window-th, then the baseline's fit."""
        optimizer = self._optimizers()[0]
        weighed = weigh(self.estimator, self.baseline, self.policy, episodes, self.gamma)
        observed: dict[str, Tensor] = {}
        for observer in self._observers():
            observed |= observer.observe(self, episodes, weighed, window)
        optimizer.zero_grad()
        chunk = self.chunk or (_CHUNK if self.device.type == "cpu" else 64 * _CHUNK)
        parts = losses(self.estimator, self.policy, episodes, weighed.weights, self.gamma, chunk)
        metrics = self._backward(parts)
        norm = finish_gradients(self.policy.parameters(), self.max_grad_norm)
        self._refuse_non_finite(norm, metrics)
        optimizer.step()
        fitted = self._fit(weighed, window)
        return {**metrics, "train/grad_norm": norm, **observed, **fitted}

    def _training_environment(self) -> AbstractEnvironment:
        if self.env is None:
            self.env = self.make_env(self.device)
            check_windows(self.estimator, self.env, self.trainer.world_size)
        return self.env

    def _observers(self) -> list[AbstractObserver]:
        """The callbacks that look at this update."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return [one for one in callbacks if isinstance(one, AbstractObserver) and one.is_due(self.update_index)]

    def _backward(self, parts: Iterable[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Adds up the gradients of the parts of a loss, and their metrics."""
        done = []
        for loss, metrics in parts:
            self.manual_backward(loss)
            done.append({"train/surrogate_loss": loss.detach(), **metrics})
        return {key: torch.stack([part[key] for part in done]).sum() for key in done[0]}

    def _refuse_non_finite(self, norm: Tensor, metrics: Mapping[str, Tensor]) -> None:
        if not torch.isfinite(norm):
            raise NonFiniteError(
                f"The gradient of update {self.update_index} is not finite (surrogate loss "
                f"{float(metrics['train/surrogate_loss'])}): the optimizer step was not taken; a lower optimizer.lr or "
                "max_grad_norm may help."
            )

    def _fit(self, weighed: Weighed, window: int) -> dict[str, Tensor]:
        """What is learned beside the policy, from the episodes of all processes; only after its step, or acting and
        learning would see other statistics, and log_prob be that of another policy.
        """
        everyone, returns = weighed.everyone, weighed.all_returns
        self.estimator.observe(everyone, returns)
        streams = Streams(self.seed, update=self.update_index)
        with same_random_numbers(lambda: derive_seed(streams.seed_of(Stream.FIT), Stream.FIT, index=window)):
            metrics = self.baseline.fit(everyone, returns, (*self._optimizers(), None)[1])
        if self.policy.normalizer is not None:
            self.policy.normalizer.update(everyone.observations.detach()[everyone.valid].flatten(1))
        return metrics

    def _finish_update(self, returns: Tensor, lengths: Tensor, metrics: Mapping[str, Tensor], started: float) -> None:
        """Counts an update, and logs it if it is due; returns and lengths (P N,) of all processes' episodes."""
        due = self.update_index % self.log_every_n_updates == 0 or bool(self._observers())
        steps = int(lengths.sum())
        self.update_index += 1
        self.env_steps += steps
        self.episodes += len(returns)
        if due:
            self.log_metrics(
                {
                    "rollout/episode_return_mean": returns.mean(),
                    "rollout/episode_length_mean": lengths.mean(),
                    **metrics,
                    "train/learning_rate": self._optimizers()[0].param_groups[0]["lr"],
                    "time/env_steps_per_second": steps / (time.perf_counter() - started),
                }
            )
        self.rollout_return = float(returns.mean())

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _set_learning_rates(self) -> None:
        """The config's, whatever a checkpoint has brought; the policy's by a schedule of env steps, without a state."""
        factor = self._lr_schedule(min(1.0, self.env_steps / self.max_env_steps))
        for optimizer, rates in zip(self._optimizers(), self._learning_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            factor = 1.0  # of the baseline's

    def val_dataloader(self) -> range:
        return range(1)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Evaluates on episodes of their own seeds; Lightning calls it when an evaluation is due."""
        self.evaluation = self.evaluate(Stream.EVALUATION_ENVIRONMENT, Stream.EVALUATION_ACTION, self.eval_episodes)
        metrics = evaluation_metrics(self.evaluation)
        self.log_metrics(metrics)
        self.log("eval/return_mean", metrics["eval/return_mean"], logger=False, sync_dist=True, batch_size=1)

    def evaluate(self, env_stream: Stream, action_stream: Stream, episodes: int) -> Evaluation:
        """Fresh episodes on the evaluation environment, with the policy as it is.

        All processes that learn together play the same ones, so that they agree on what follows from them.
        """
        if self._eval_env is None:
            self._eval_env = self._make_eval_env(self.device)
        streams = Streams(self.seed, update=self.update_index)
        streams.seed_torch(action_stream)
        seeds = (derive_seed(streams.seed_of(env_stream), env_stream, index=number) for number in itertools.count())
        return evaluate(self._eval_env, self.policy, seeds, episodes, deterministic=self.eval_deterministic)

    def log_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes one row to every logger on the env-steps axis; `self.log` costs 20 times as much a key."""
        if self.trainer.is_global_zero:
            plain = {key: float(value) for key, value in metrics.items()}
            for logger in self.loggers:
                logger.log_metrics(plain, step=self.env_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["scorepath"] = {
            "format": CHECKPOINT_FORMAT,
            "seed": self.seed,
            "config": self.config,
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in _COUNTERS:
            setattr(self, name, checkpoint["scorepath"][name])

    def progress(self) -> tuple[int, ...]:
        """What grows while anything is done: updates, and the steps of the environments since their resets."""
        return (self.update_index, *(0 if env is None else env.steps for env in (self.env, self._eval_env)))

    def close(self) -> None:
        """Closes the environments."""
        for env in (self.env, self._eval_env):
            if env is not None:
                env.close()
        self.env = self._eval_env = None
