"""A saved run's policy, rebuilt and judged on the original environment."""

import logging
import math
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from scorepath import garbage
from scorepath.build import make_environment, make_judge, make_policy
from scorepath.errors import ConfigError, ScorepathError
from scorepath.intervals import return_ci95
from scorepath.rollout import evaluate
from scorepath.run.checkpoints import load_checkpoint
from scorepath.run.directory import strict_json, write_json
from scorepath.run.printing import escape
from scorepath.run.recording import record_episode, write_video
from scorepath.run.restore import check_policy
from scorepath.seeding import Stream, derive_seed, seed_torch

log = logging.getLogger("scorepath")


def judge(cfg: DictConfig, run: Path, checkpoint_path: Path, nodes: dict[str, Any]) -> None:
    """Plays fresh episodes, prints JSON and writes `evaluation.json`, and a video on request.

    Args:
        cfg: of the evaluation.
        run: the saved run's folder.
        checkpoint_path: in it.
        nodes: what is rebuilt of the saved config, found harmless.

    Raises:
        ConfigError: for a config that cannot be rebuilt, or a checkpoint that is not of it.
    """
    garbage.resume()

    checkpoint = load_checkpoint(checkpoint_path)
    config = run / ".hydra" / "config.yaml"
    try:
        trained: Any = OmegaConf.create(nodes)
        probe = make_environment(trained.env, 1)
        policy = make_policy(trained, probe, "of the saved run")
        original = make_judge(trained.env, probe)
        env = original.environment(cfg.episodes)
    except ScorepathError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{config} cannot be rebuilt ({reason}): is it a run's config?") from error
    state = {k.removeprefix("policy."): v for k, v in checkpoint["state_dict"].items() if k.startswith("policy.")}
    try:
        policy.load_state_dict(state)
        policy.eval()
        check_policy(policy, probe, checkpoint_path)
    except RuntimeError as error:
        raise ConfigError(
            f"{checkpoint_path} and {config} do not belong together: {' '.join(str(error).split())}"
        ) from error
    finally:
        probe.close()
    seeds = (derive_seed(cfg.seed, Stream.FINAL_ENVIRONMENT, index=number) for number in range(cfg.episodes))
    seed_torch(cfg.seed, Stream.FINAL_ACTION)
    with torch.no_grad():
        result = evaluate(env, policy, seeds, cfg.episodes, deterministic=cfg.deterministic)
    mean, interval = return_ci95(result)
    report: dict[str, Any] = {
        "run_dir": str(run),
        "checkpoint": cfg.checkpoint,
        "env": env.name,
        "episodes": len(result.returns),
        "seed": cfg.seed,
        "deterministic": cfg.deterministic,
        "return_mean": mean,
        "return_std": float(result.returns.std()) if len(result.returns) > 1 else math.nan,
        "return_ci95": interval,
        "return_min": float(result.returns.min()),
        "return_max": float(result.returns.max()),
        "episode_length_mean": float(result.lengths.float().mean()),
        "env_steps_trained": checkpoint["scorepath"]["env_steps"],
    }
    env.close()
    frames: list[Any] = []
    if cfg.video:
        env = original.drawable()
        frames, _ = record_episode(
            env,
            policy,
            derive_seed(cfg.seed, Stream.FINAL_ENVIRONMENT),
            deterministic=cfg.deterministic,
        )
        env.close()
        if not frames:
            log.warning("%s cannot be drawn, so there is no video.", env.name)
    try:
        if frames:
            report["video"] = str(write_video(frames, env.render_fps, run / "episode"))
        write_json(run / "evaluation.json", report)
    except OSError as error:  # a run that may only be read can be evaluated all the same
        sentence = (
            f"scorepath: the evaluation could not be saved in {run} ({error.strerror or error}): send what is printed "
            "to a file of your own with > FILE, or evaluate a copy of the folder."
        )
        print(escape(sentence), file=sys.stderr)
    print(strict_json(report))
