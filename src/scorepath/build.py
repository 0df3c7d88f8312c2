"""Config -> objects: the composition root. All other modules are handed what they need."""

import contextlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
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
from scorepath.sources import CONF as CONF
from scorepath.sources import Sources

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
        words = str(cause or error) or repr(cause)  # an AssertionError has none
        reason = " ".join(words.split("\nfull_key", 1)[0].split())
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
    if render:
        draw_without_display()
    probe = make_environment(node, 1)
    probe.close()
    original = getattr(getattr(probe, "dynamics", None), "original", None)
    kwargs: dict[str, Any] = {}
    if original is not None:
        make = partial(GymnasiumEnvironment, original, reward_range=probe.reward_range, device=device)
    elif isinstance(probe, GymnasiumEnvironment):
        kwargs = dict(node.kwargs or {})
        make = partial(
            GymnasiumEnvironment,
            node.id,
            vectorization=_evaluated_by(node, probe),
            kwargs=kwargs,
            max_episode_steps=probe.max_episode_steps,
            reward_threshold=node.reward_threshold,
            reward_range=probe.reward_range,
            device=device,
        )
    else:
        return make_environment(node, 1 if render else min(episodes, _EVAL_ENVS), device)
    single = make(num_envs=1)
    if render:
        return _drawable(make, kwargs, single)
    single.close()
    return make(num_envs=min(episodes, _EVAL_ENVS if single.is_batch_implementation else _EVAL_ENVS_SYNC))


def _evaluated_by(node: DictConfig, probe: GymnasiumEnvironment) -> Any:
    """The vectorization: training's own, for another may be another task (Atari's has other observations)."""
    if node.vectorization == "async":
        return "sync"  # the same environments, without their processes
    if node.vectorization == "envpool" and not node.kwargs and node.id in gym.registry:
        # Gymnasium's can be seeded again, where it is the same environment; EnvPool's arguments are its own
        with contextlib.suppress(ConfigError):  # a package may be missing
            other = GymnasiumEnvironment(node.id, 1, max_episode_steps=probe.max_episode_steps)
            other.close()
            if _alike(probe, other):
                return "auto"
    return node.vectorization


def _alike(one: AbstractEnvironment, other: AbstractEnvironment) -> bool:
    """Whether a policy for one can act in the other, whatever the types and the bounds of observations."""
    actions, others = one.action_space, other.action_space
    if isinstance(actions, gym.spaces.Box) and isinstance(others, gym.spaces.Box):
        same = actions.shape == others.shape and np.allclose((actions.low, actions.high), (others.low, others.high))
    else:
        same = actions == others
    return same and one.observation_space.shape == other.observation_space.shape


def _drawable(
    make: Callable[..., GymnasiumEnvironment], kwargs: dict[str, Any], single: GymnasiumEnvironment
) -> GymnasiumEnvironment:
    """One environment that can be drawn, or `single` as it is where the policy could not act in that one."""
    try:
        drawn = make(num_envs=1, vectorization="sync", kwargs={**kwargs, "render_mode": "rgb_array"})
    except ConfigError:
        if not single.is_batch_implementation:
            raise
        return single  # its arguments are not those of a single environment
    kept, other = (drawn, single) if _alike(drawn, single) else (single, drawn)
    other.close()
    return kept


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
    check_baseline(names["baseline"], baseline, env, cfg.episodes_per_update)
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
    check_devices(cfg.trainer.accelerator, cfg.trainer.get("devices", "auto"))
    probe = make_environment(cfg.env, 1)
    policy, estimator, baseline = make_slots(cfg, probe, names)
    make_optimizer = construct(cfg.optimizer, "optimizer")
    _try_optimizer(make_optimizer, policy)
    on_gpu = cfg.trainer.accelerator in ("gpu", "cuda") or (
        cfg.trainer.accelerator == "auto" and torch.cuda.is_available()
    )
    if cfg.compile:
        _try_compiler("cuda" if on_gpu else "cpu")
        policy.torso.compile(dynamic=True)  # whose batches are of lanes and of chunks
    reasons = [probe.irreproducible, "a GPU adds up in no fixed order" if on_gpu else None]
    labels = Labels(
        gradient_bias(probe, estimator, baseline, cfg.gamma, policy.head, cfg.max_grad_norm),
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
        # unresolved: what an environment variable holds is no business of whoever gets the file
        config=OmegaConf.to_container(cfg, resolve=False),  # type: ignore[arg-type]
    )
    return module, labels


def check_devices(accelerator: str, devices: str | int | Sequence[int]) -> None:
    """Refuses an accelerator that is not there, or more of its devices than there are.

    Raises:
        ConfigError: with what this machine has.
    """
    if accelerator == "cpu":
        return  # which has any number of processes; Lightning takes seconds to import
    from lightning.pytorch.accelerators import AcceleratorRegistry  # noqa: PLC0415

    families = {"gpu": ("cuda", "mps"), "auto": tuple(AcceleratorRegistry)}
    if accelerator not in {*families, *AcceleratorRegistry}:
        return  # Lightning's own refusal lists the names
    kinds = [AcceleratorRegistry[name]["accelerator"] for name in families.get(accelerator, (accelerator,))]
    there = [kind for kind in kinds if kind.is_available() and kind.name() != "cpu"]
    if not there and accelerator == "auto":
        return
    if not there:
        raise ConfigError(
            f"trainer.accelerator={accelerator} is not there: torch finds none on this machine. Use "
            "trainer.accelerator=cpu, or install the build of torch that is made for it."
        )
    wanted = devices if isinstance(devices, int) else 1 if isinstance(devices, str) else max(devices, default=0) + 1
    count = there[0].auto_device_count()
    if wanted > count:
        raise ConfigError(
            f"trainer.devices={devices} needs {wanted} devices of trainer.accelerator={accelerator}, and torch finds "
            f"{count} on this machine: use trainer.devices={count}."
        )


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
    """Every option of `dist`, ours and the user's, and the head it names; those that cannot be built are left out."""
    sources, heads = Sources.of_job(), {}
    for option in sources.options("dist"):
        with contextlib.suppress(Exception):  # somebody's broken file, whose run is another
            heads[option] = pkgutil.resolve_name(sources.target("dist", option))
    return heads


def problem_environments() -> dict[str, AbstractEnvironment]:
    """Every option of `problem`, ours and the user's, as an override, and its environment; without those that cannot be
    built.
    """
    sources, found = Sources.of_job(), {}
    for option in sources.options("problem"):
        with contextlib.suppress(Exception):
            override = f"problem={option}"
            found[override] = construct(sources.compose([override])["problem"], override).env(1)
    return found
