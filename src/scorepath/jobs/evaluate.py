"""One evaluation of a saved run, on the original environment."""

import logging
import math
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scorepath import garbage
from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.directory import strict_json, write_json
from scorepath.run.printing import escape
from scorepath.run.reading import check_links
from scorepath.run.trust import read_config

log = logging.getLogger("scorepath")


def evaluate(cfg: DictConfig) -> None:
    """Evaluates a saved run on the original environment, prints JSON and writes `evaluation.json` beside it.

    A folder that cannot be written to is evaluated too, and it is said that nothing was saved.

    Raises:
        ConfigError: if the folder does not hold a run, or one that could do more than be evaluated.
    """
    run = Path(cfg.run_dir)
    saved = run / ".hydra" / "config.yaml"
    if not saved.is_file():
        raise ConfigError(f"run_dir={run} does not hold a run (no .hydra/config.yaml): choose one under outputs/.")
    checkpoint_path = run / "checkpoints" / f"{cfg.checkpoint}.ckpt"
    if not checkpoint_path.is_file():
        there = [path.stem for path in sorted(checkpoint_path.parent.glob("*.ckpt"))]
        remedy = f"use checkpoint={' or checkpoint='.join(there)}" if there else "the run ended before it saved one"
        raise ConfigError(f"checkpoint={cfg.checkpoint} is not in {checkpoint_path.parent}: {remedy}.")
    check_links(run, ".evaluation.json.partial", "episode.gif", "episode.mp4")
    nodes = read_config(saved, list(cfg.trust))

    import torch  # noqa: PLC0415

    from scorepath.build import make_environment, make_evaluation_environment, make_policy  # noqa: PLC0415
    from scorepath.rollout import evaluate as play  # noqa: PLC0415
    from scorepath.run.checkpoints import load_checkpoint  # noqa: PLC0415
    from scorepath.run.intervals import return_ci95  # noqa: PLC0415
    from scorepath.run.recording import record_episode, write_video  # noqa: PLC0415
    from scorepath.run.restore import check_policy  # noqa: PLC0415
    from scorepath.seeding import Stream, derive_seed, seed_torch  # noqa: PLC0415

    garbage.resume()

    checkpoint = load_checkpoint(checkpoint_path)
    try:
        trained: Any = OmegaConf.create(nodes)
        probe = make_environment(trained.env, 1)
        policy = make_policy(trained, probe, "of the saved run")
        env = make_evaluation_environment(trained.env, cfg.episodes)
    except ScorepathError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{saved} cannot be rebuilt ({reason}): is it a run's config?") from error
    state = {k.removeprefix("policy."): v for k, v in checkpoint["state_dict"].items() if k.startswith("policy.")}
    try:
        policy.load_state_dict(state)
        policy.eval()
        check_policy(policy, probe, checkpoint_path)
    except RuntimeError as error:
        raise ConfigError(
            f"{checkpoint_path} and {saved} do not belong together: {' '.join(str(error).split())}"
        ) from error
    finally:
        probe.close()
    seeds = (derive_seed(cfg.seed, Stream.FINAL_ENVIRONMENT, index=number) for number in range(cfg.episodes))
    seed_torch(cfg.seed, Stream.FINAL_ACTION)
    with torch.no_grad():
        result = play(env, policy, seeds, cfg.episodes, deterministic=cfg.deterministic)
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
        env = make_evaluation_environment(trained.env, 1, render=True)
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
