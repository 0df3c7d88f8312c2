"""An episode as moving pictures."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scorepath.envs import AbstractEnvironment
from scorepath.policy import Policy
from scorepath.rollout import act
from scorepath.run.files import write_bytes

GIF_WIDTH = 300  # pixels
GIF_FPS = 25  # frames a second, at most: drawing them takes longer than playing
GIF_FRAMES = 100  # at most, spread over the episode


def draw_without_display() -> None:
    """Has pygame and MuJoCo draw into memory where there is no screen; to be called before the environment is made."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", "egl")


def record_episode(
    env: AbstractEnvironment, policy: Policy, seed: int, *, deterministic: bool = False, stride: int = 1
) -> tuple[list[np.ndarray], float]:
    """Plays one episode and draws it.

    Args:
        env: one environment that renders; the caller seeds torch.
        stride: draw every so many steps.

    Returns:
        Frames (height, width, 3) of uint8, none if the environment cannot be drawn, and the episode's return.
    """
    observation = env.reset(seed)
    frames: list[np.ndarray] = []
    total = 0.0
    with torch.no_grad():
        for number in range(env.max_episode_steps):
            frame = None if number % stride else env.render()
            if frame is not None:
                frames.append(frame)
            dist = policy(observation)
            action = act(policy.head, dist, deterministic=deterministic)
            step = env.step(policy.head.to_env(action))
            observation = step.observations
            total += float(step.rewards[0])
            if bool(step.terminated[0] | step.truncated[0]):
                break
    return frames, total


def encode_gif(frames: Sequence[np.ndarray], fps: float) -> tuple[bytes, tuple[int, int]]:
    """An animated GIF that lasts as long as the episode did, and its (width, height).

    Args:
        frames: (height, width, 3) of uint8 each.
        fps: frames a second of the episode.
    """
    from PIL import Image  # noqa: PLC0415 (an evaluation without video needs no Pillow)

    stride = -(-len(frames) // GIF_FRAMES)
    height, width = frames[0].shape[:2]
    size = (GIF_WIDTH, round(height * GIF_WIDTH / width))
    pictures = [Image.fromarray(frame).resize(size) for frame in frames[::stride]]
    palette = pictures[len(pictures) // 2].quantize(64)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    duration = max(20, round(1000 * stride / fps))  # ms; browsers slow down anything below 20
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=duration,
        loop=0,
        optimize=False,
    )
    return buffer.getvalue(), size


def write_video(frames: Sequence[np.ndarray], fps: float, path: Path) -> Path:
    """Writes an MP4 with every frame where imageio and ffmpeg are installed (extra `video`), else a GIF.

    Args:
        path: without suffix.

    Returns:
        The path written.

    Raises:
        OSError: if it cannot be written; what was there stays.
    """
    try:
        import imageio.v3 as iio  # noqa: PLC0415 (optional)
        import imageio_ffmpeg  # noqa: F401, PLC0415
    except ImportError:
        target = path.with_suffix(".gif")
        write_bytes(target, encode_gif(frames, fps)[0])
        return target
    target = path.with_suffix(".mp4")
    content = iio.imwrite("<bytes>", np.stack(frames), extension=".mp4", fps=fps, macro_block_size=2)
    if b"moov" not in content:  # which comes last; imageio does not ask how ffmpeg has ended
        raise OSError(errno.EIO, "ffmpeg has not finished it: is there room for temporary files?", str(target))
    write_bytes(target, content)
    return target
