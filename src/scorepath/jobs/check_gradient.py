"""One check of one combination's gradient against the exact one."""

import importlib.util

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig

from scorepath import garbage
from scorepath.errors import ConfigError, ScorepathError


def check_gradient(cfg: DictConfig) -> None:
    """Prints bias, variance and the label of an estimator, head and baseline on a problem.

    Raises:
        ConfigError: for a combination that cannot work, or without scipy.
        ScorepathError: if the combination calls itself unbiased and is not.
    """
    if importlib.util.find_spec("scipy") is None:
        raise ConfigError('check_gradient.py needs scipy: pip install -e ".[verify]".')

    from scorepath.build import construct, dist_options, make_slots, problem_environments  # noqa: PLC0415
    from scorepath.compatibility import check_head  # noqa: PLC0415
    from scorepath.verify import check  # noqa: PLC0415

    garbage.resume()

    names = {group: str(option) for group, option in HydraConfig.get().runtime.choices.items()}
    problem = construct(cfg.problem, f"problem={names['problem']}")
    env = problem.env(1)
    check_head(names["dist"], get_class(cfg.dist._target_), env, dist_options, problem_environments)
    policy, estimator, baseline = make_slots(cfg, env, names)
    report = check(
        problem,
        policy.double(),
        estimator.double(),
        baseline.double(),
        gamma=cfg.gamma,
        max_grad_norm=cfg.max_grad_norm,
        episodes=cfg.episodes_per_update,
        batches=cfg.batches,
        bias=cfg.bias,
        power=cfg.power,
        alpha=cfg.alpha,
        max_batches=cfg.max_batches,
        max_env_steps=cfg.max_env_steps,
        warm_up_updates=cfg.warm_up_updates,
        seed=cfg.seed,
    )
    combination = f"estimator={names['estimator']} dist={names['dist']} baseline={names['baseline']}"
    print(f"{combination} on {env.name}, gamma={cfg.gamma:g}\n{report}")
    if not report.passed:
        raise ScorepathError(f"{combination} calls itself unbiased, but its mean gradient is not the exact one.")
