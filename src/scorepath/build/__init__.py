"""Config -> objects: the composition root. All other modules are handed what they need."""

import contextlib
import copy
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

from scorepath.baselines import AbstractBaseline, MakeOptimizer
from scorepath.build.environments import construct, make_environment, problem_environments
from scorepath.build.judge import Judge, make_judge
from scorepath.build.machine import check_compiler, check_devices, check_nodes
from scorepath.compatibility import check_baseline, check_batch, check_estimator, check_head
from scorepath.distributions import AbstractHead
from scorepath.envs import AbstractEnvironment
from scorepath.errors import ConfigError
from scorepath.estimators import AbstractEstimator, gradient_bias
from scorepath.policy import ObservationNormalizer, Policy, initialize
from scorepath.seeding import Stream, seed_torch
from scorepath.sources import Sources

__all__ = [
    "Judge",
    "Labels",
    "Parts",
    "construct",
    "dist_options",
    "make_baseline",
    "make_environment",
    "make_judge",
    "make_parts",
    "make_policy",
    "make_slots",
    "problem_environments",
]


def make_policy(cfg: DictConfig, env: AbstractEnvironment, dist_name: str) -> Policy:
    """Torso and head, sized by the environment's spaces and initialised from the seed.

    Raises:
        ConfigError: if the distribution cannot act in the action space.
    """
    head_class = get_class(cfg.dist._target_)
    check_head(dist_name, head_class, env, dist_options)
    seed_torch(cfg.seed, Stream.INITIALISATION)
    shape = env.observation_space.shape or ()
    size = torch.Size(shape).numel()
    torso = construct(cfg.policy.torso, "policy", in_features=size)
    head = construct(cfg.dist, f"dist={dist_name}", action_space=env.action_space, in_features=torso.out_features)
    normalizer = ObservationNormalizer(size) if cfg.policy.normalize_observations else None
    policy = Policy(torso, head, len(shape), normalizer)
    initialize(policy, cfg.policy.init, cfg.policy.output_scale)
    return policy


def make_baseline(cfg: DictConfig, env: AbstractEnvironment, policy: Policy) -> AbstractBaseline:
    """The baseline; one that is a network gets the observation's shape and the policy's normaliser."""
    arguments: dict[str, Any] = {}
    baseline_class: type[AbstractBaseline] = get_class(cfg.baseline._target_)
    if baseline_class.predicts_values:
        arguments = {
            "observation_shape": env.observation_space.shape,
            "normalizer": policy.normalizer,
        }
    return construct(cfg.baseline, "baseline", **arguments)


def make_slots(
    cfg: DictConfig, env: AbstractEnvironment, names: Mapping[str, str]
) -> tuple[Policy, AbstractEstimator, AbstractBaseline]:
    """Policy, estimator and baseline for an environment, with every combination checked.

    Raises:
        ConfigError: for a combination that cannot work.
    """
    policy = make_policy(cfg, env, names["dist"])
    estimator: AbstractEstimator = construct(cfg.estimator, f"estimator={names['estimator']}")
    baseline = make_baseline(cfg, env, policy)
    check_baseline(names["baseline"], baseline, env, cfg.episodes_per_update)
    check_batch(names["estimator"], estimator, cfg.episodes_per_update)
    check_estimator(names, env, policy.head, estimator, baseline, dist_options)
    return policy, estimator, baseline


class Labels(NamedTuple):
    """What a run says of itself at its start and in its summary."""

    gradient_bias: list[str]  # why the expected gradient is not exact
    irreproducible: list[str]  # why the same command, or a resumed run, may end with other weights


class Parts(NamedTuple):
    """What a run is made of."""

    judge: Judge
    policy: Policy
    estimator: AbstractEstimator
    baseline: AbstractBaseline
    make_optimizer: MakeOptimizer
    lr_schedule: Callable[[float], float]
    labels: Labels


def make_parts(cfg: DictConfig, names: Mapping[str, str]) -> Parts:
    """All parts of a run, with every combination checked; without Lightning, which takes seconds to import.

    Args:
        cfg: the composed config.
        names: group -> chosen option, for messages.

    Raises:
        ConfigError: for a combination that cannot work.
    """
    check_devices(cfg.trainer.accelerator, cfg.trainer.get("devices", "auto"))
    check_nodes(cfg.trainer.get("num_nodes", 1))
    with contextlib.closing(make_environment(cfg.env, 1)) as env:
        policy, estimator, baseline = make_slots(cfg, env, names)
    make_optimizer = construct(cfg.optimizer, "optimizer")
    _try_optimizer(lambda: make_optimizer(copy.deepcopy(policy).parameters()), "optimizer")
    _try_optimizer(copy.deepcopy(baseline).make_optimizer, "baseline.make_optimizer")
    on_gpu = cfg.trainer.accelerator in ("gpu", "cuda") or (
        cfg.trainer.accelerator == "auto" and torch.cuda.is_available()
    )
    if cfg.compile:
        check_compiler("cuda" if on_gpu else "cpu")
        policy.torso.compile(dynamic=True)  # whose batches are of lanes and of chunks
    reasons = [env.irreproducible, "a GPU adds up in no fixed order" if on_gpu else None]
    labels = Labels(
        gradient_bias(env, estimator, baseline, cfg.gamma, policy.head, cfg.max_grad_norm),
        [reason for reason in reasons if reason is not None],
    )
    lr_schedule = construct(cfg.lr_schedule, "lr_schedule")
    return Parts(make_judge(cfg.env, env), policy, estimator, baseline, make_optimizer, lr_schedule, labels)


def _try_optimizer(make_optimizer: Callable[[], Any], what: str) -> None:
    """A partial's arguments are only read when it is called, and some in the first step: take one, before any work.

    Args:
        make_optimizer: makes one of parameters that are not used for anything else, or None.
        what: the key in the config.
    """
    try:
        optimizer = make_optimizer()
        if optimizer is None:
            return
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    except Exception as error:
        words = str(error) if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{what} was refused: {' '.join(words.split())}") from error


def dist_options() -> dict[str, type[AbstractHead]]:
    """Every option of `dist`, ours and the user's, and the head it names; those that cannot be built are left out."""
    sources, heads = Sources.of_job(), {}
    for option in sources.options("dist"):
        with contextlib.suppress(Exception):  # somebody's broken file, whose run is another
            heads[option] = pkgutil.resolve_name(sources.target("dist", option))
    return heads
