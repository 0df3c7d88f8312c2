"""Config -> objects: the composition root. All other modules are handed what they need."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from scorepath.baselines import AbstractBaseline
from scorepath.compatibility import check_baseline, check_batch, check_estimator, check_head
from scorepath.distributions import AbstractHead
from scorepath.envs import AbstractEnvironment, GymnasiumEnvironment
from scorepath.errors import ConfigError, ScorepathError
from scorepath.estimators import AbstractEstimator, gradient_bias
from scorepath.policy import ObservationNormalizer, Policy, initialize
from scorepath.run.recording import draw_without_display
from scorepath.seeding import Stream, seed_torch

CONF = Path(__file__).resolve().parents[2] / "conf"
_EVAL_ENVS = 100  # at most, stepped together; a batch implementation takes them in one sweep
_EVAL_ENVS_SYNC = 20  # at most, where each environment is a Python object of its own


def construct(node: Any, what: str, **arguments: Any) -> Any:
    """Instantiates a config node; what its constructor refuses reaches the user as one sentence.

    Raises:
        ConfigError: with the constructor's words and the group it belongs to.
    """
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ScorepathError):
            raise cause from None
        reason = " ".join(str(cause or error).split("\nfull_key", 1)[0].split())
        raise ConfigError(f"{what} was refused: {reason}") from error


def make_environment(
    node: DictConfig, num_envs: int, device: torch.device | str = "cpu", **arguments: Any
) -> AbstractEnvironment:
    """The training environment of `conf/env`."""
    return construct(node, "env", num_envs=num_envs, device=device, **arguments)


def make_evaluation_environment(
    node: DictConfig, episodes: int, device: torch.device | str = "cpu", render: bool = False
) -> AbstractEnvironment:
    """What the policy is judged on: Gymnasium's original of a twin, and the environment itself of others.

    Args:
        episodes: wanted in all; decides how many environments play side by side.
        render: one environment that can be drawn, instead.
    """
    probe = make_environment(node, 1)
    original = getattr(getattr(probe, "dynamics", None), "original", None)
    kwargs: dict[str, Any] = {}
    id, limit, threshold, reward_range = original, None, None, probe.reward_range
    if isinstance(probe, GymnasiumEnvironment):
        kwargs = dict(node.kwargs or {})
        id, limit, threshold = node.id, node.max_episode_steps, node.reward_threshold
        if node.vectorization == "envpool":
            kwargs = {}  # EnvPool's own
            id = node.id if node.id in gym.registry else None
    probe.close()
    if render:
        draw_without_display()
    if id is None:
        return make_environment(node, 1 if render else min(episodes, _EVAL_ENVS), device)
    if render:
        kwargs = {**kwargs, "render_mode": "rgb_array"}
    make = partial(
        GymnasiumEnvironment,
        id,
        kwargs=kwargs,
        max_episode_steps=limit,
        reward_threshold=threshold,
        reward_range=reward_range,
        device=device,
    )
    if render:
        return make(num_envs=1, vectorization="sync")
    whole_batch = make(num_envs=1)
    number = min(episodes, _EVAL_ENVS if whole_batch.is_batch_implementation else _EVAL_ENVS_SYNC)
    whole_batch.close()
    return make(num_envs=number)


def make_policy(cfg: DictConfig, env: AbstractEnvironment, dist_name: str) -> Policy:
    """Torso and head, sized by the environment's spaces and initialised from the seed.

    Raises:
        ConfigError: if the distribution cannot act in the action space.
    """
    head_class = get_class(cfg.dist._target_)
    check_head(dist_name, head_class, env, dist_options())
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
    check_baseline(names["baseline"], baseline, cfg.episodes_per_update)
    check_batch(names["estimator"], estimator, cfg.episodes_per_update)
    check_estimator(names, env, policy.head, estimator, baseline)
    return policy, estimator, baseline


class Labels(NamedTuple):
    """What a run says of itself at its start and in its summary."""

    gradient_bias: list[str]  # why the expected gradient is not exact
    irreproducible: list[str]  # why the same command, or a resumed run, may end with other weights


def make_module(cfg: DictConfig, names: Mapping[str, str]) -> tuple[Any, Labels]:
    """The LightningModule, with every combination checked.

    Args:
        cfg: the composed config.
        names: group -> chosen option, for messages.

    Raises:
        ConfigError: for a combination that cannot work.
    """
    probe = make_environment(cfg.env, 1)
    policy, estimator, baseline = make_slots(cfg, probe, names)
    make_optimizer = construct(cfg.optimizer, "optimizer")
    _try_optimizer(make_optimizer, policy)
    on_gpu = cfg.trainer.accelerator == "gpu" or (cfg.trainer.accelerator == "auto" and torch.cuda.is_available())
    if cfg.compile:
        _try_compiler("cuda" if on_gpu else "cpu")
        policy.torso.compile(dynamic=True)  # whose batches are of lanes and of chunks
    reasons = [probe.irreproducible, "a GPU adds up in no fixed order" if on_gpu else None]
    labels = Labels(
        gradient_bias(probe, estimator, baseline, cfg.gamma, policy.head),
        [reason for reason in reasons if reason is not None],
    )
    probe.close()

    from scorepath.module import PolicyGradient  # noqa: PLC0415 (Lightning takes seconds to import; refusals do not)

    module = PolicyGradient(
        make_env=partial(_make_training_environment, cfg),
        make_eval_env=lambda device: make_evaluation_environment(cfg.env, cfg.eval.episodes, device),
        policy=policy,
        estimator=estimator,
        baseline=baseline,
        make_optimizer=make_optimizer,
        lr_schedule=construct(cfg.lr_schedule, "lr_schedule"),
        max_env_steps=cfg.max_env_steps,
        gamma=cfg.gamma,
        chunk=cfg.chunk,
        max_grad_norm=cfg.max_grad_norm,
        log_every_n_updates=cfg.trainer.log_every_n_steps,
        seed=cfg.seed,
        eval_episodes=cfg.eval.episodes,
        eval_deterministic=cfg.eval.deterministic,
        # unresolved: what an environment variable holds is nobody's business who gets the file
        config={group: OmegaConf.to_container(cfg[group], resolve=False) for group in ("env", "dist", "policy")},
    )
    return module, labels


def _try_optimizer(make_optimizer: Callable[..., Any], policy: Policy) -> None:
    """A partial's arguments are only read when it is called: call it once, before any work."""
    try:
        make_optimizer(policy.parameters())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer was refused: {error}") from error


def _make_training_environment(cfg: DictConfig, device: torch.device) -> AbstractEnvironment:
    env = make_environment(cfg.env, cfg.episodes_per_update, device)
    if cfg.compile:
        env.compile()
    return env


def _try_compiler(device: str) -> None:
    """Torch says only after the first rollout has begun that there is no compiler, and says it on many lines."""
    import torch._functorch.config as compiled_backward  # noqa: PLC0415 (of the compiler, a second to import)

    compiled_backward.donated_buffer = False  # or a graph could not be gone back through twice, as diagnostics do
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:
        reason = " ".join(str(error).split("\n", 1)[0].split())
        raise ConfigError(
            f"compile=true found no working compiler ({reason}): install g++ (on a GPU: triton), or leave it false."
        ) from error


def dist_options() -> dict[str, type[AbstractHead]]:
    """Every option of `conf/dist` and the head it names."""
    return {path.stem: get_class(OmegaConf.load(path)._target_) for path in sorted((CONF / "dist").glob("*.yaml"))}
