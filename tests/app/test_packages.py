"""Environments of other packages, trained on and evaluated alike: Atari (ale-py), Gymnasium-Robotics and EnvPool.

And torch environments, as evaluation draws them.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch
from counting import UNLIMITED
from gymnasium.vector import AutoresetMode
from hydra import compose, initialize_config_dir

from scorepath.build import make_environment, make_judge
from scorepath.distributions import Categorical
from scorepath.envs import GymnasiumEnvironment
from scorepath.envs.envpool import EnvPoolLanes
from scorepath.errors import ConfigError
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout
from scorepath.run.recording import record_episode
from scorepath.sources import CONF

PONG = "ale_py:ALE/Pong-v5"
FETCH = "gymnasium_robotics:FetchReach-v4"


def train_config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def both(*overrides, render=False):
    """The environments of training and of evaluation, whose spaces a policy cannot tell apart."""
    cfg = train_config("env=gym", "dist=categorical", *overrides)
    trained = make_environment(cfg.env, 2)
    judge = make_judge(cfg.env, trained)
    judged = judge.drawable() if render else judge.environment(2)
    assert trained.observation_space.shape == judged.observation_space.shape
    assert trained.action_space.shape == judged.action_space.shape
    assert trained.max_episode_steps == judged.max_episode_steps
    return trained, judged


def close(*envs):
    for env in envs:
        env.close()


def random_policy(env):
    """Of Discrete actions."""
    size = int(np.prod(env.observation_space.shape))
    return Policy(MLP(size, []), Categorical(env.action_space, size), len(env.observation_space.shape))


# ------------------------------------------------------------------ evaluation


@pytest.mark.parametrize(
    ("vectorization", "batch"), [("auto", True), ("vector_entry_point", True), ("sync", False), ("async", False)]
)
def test_evaluation_is_vectorised_as_training_is(vectorization, batch):
    """For another implementation of an id may be another task: here, only single ones show one-hot steps."""
    options = f"env.id={UNLIMITED}", f"env.vectorization={vectorization}", "env.max_episode_steps=4"
    trained, judged = both(*options)
    assert judged.is_batch_implementation == batch
    assert judged.observation_space.shape == ((3,) if batch else (10,))
    close(trained, judged)


def test_an_environment_that_cannot_be_drawn_as_it_is_played_gives_no_picture():
    """And the policy still meets the observations that it knows."""
    trained, judged = both(f"env.id={UNLIMITED}", "env.max_episode_steps=4", render=True)
    assert record_episode(judged, random_policy(trained), 0) == ([], 3.0)  # steps 1 and 2, paid 1 and 2
    close(trained, judged)


# ------------------------------------------------------------------ EnvPool


@pytest.mark.parametrize(
    ("overrides", "shape", "judge"),
    [
        (("env.id=FrozenLake-v1",), (16,), True),  # one-hot, as Gymnasium's
        (("env.id=FrozenLake-v1", "env.max_episode_steps=7"), (16,), True),
        (("env.id=Hopper-v5", "+env.kwargs={exclude_current_positions_from_observation:false}"), (12,), False),
        (("env.id=Blackjack-v1",), (3,), False),  # numbers, where Gymnasium's are one-hot
        (("env.id=Pong-v5",), (4, 84, 84), False),  # no such id of Gymnasium's
        (("env.id=FetchReach-v4",), (16,), False),
        (("env.id=Hopper-v5",), (11,), True),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value else None,
)
def test_envpool_shows_in_training_what_it_shows_in_evaluation(overrides, shape, judge):
    pytest.importorskip("envpool")
    if "Hopper" in overrides[0]:
        pytest.importorskip("mujoco")
    trained, judged = both("env.vectorization=envpool", *overrides)
    assert trained.observation_space.shape == shape
    assert isinstance(judged.lanes, EnvPoolLanes) != judge
    for env in (trained, judged):
        assert env.reset(0).shape == (2, *shape)
    close(trained, judged)


def test_envpool_flattens_as_gymnasium_does():
    """Walking along the cliff, by the same actions to the same places."""
    pytest.importorskip("envpool")
    envs = [GymnasiumEnvironment("CliffWalking-v1", 2, name, max_episode_steps=9) for name in ("envpool", "sync")]
    walks = []
    for env in envs:
        walk = [env.reset(0), *(env.step(torch.tensor([move, 0])).observations for move in (0, 1, 1, 2))]
        walks.append(torch.stack(walk))
        env.close()
    assert walks[0][:, 0].argmax(1).tolist() == [36, 24, 25, 26, 36]
    assert torch.equal(*walks)


@pytest.mark.filterwarnings("ignore:.*precision lowered:UserWarning")  # of its bounds
def test_envpool_begins_the_next_episode_by_next_step_autoreset():
    """As its metadata say, and as `Lanes` counts on: a reset that is paid nothing, and then the first step."""
    envpool = pytest.importorskip("envpool")
    pool = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=1, seed=0, max_episode_steps=3)
    assert pool.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    pool.reset()
    answers = [pool.step(np.array([1])) for _ in range(5)]
    assert [float(answer[1][0]) for answer in answers] == [1, 1, 1, 0, 1]
    assert [bool(answer[3][0]) for answer in answers] == [False, False, True, False, False]
    # pushed to the right for three steps, at rest after the reset, and pushed again
    assert [bool(abs(answer[0][0, 1]) <= 0.05) for answer in answers] == [False, False, False, True, False]
    pool.close()


def test_envpool_keeps_to_a_time_limit_that_the_environment_does_not_know():
    pytest.importorskip("envpool")
    env = GymnasiumEnvironment("LaneKeeping-v0", 2, "envpool", max_episode_steps=4)
    env.reset(0)
    ends = [env.step(torch.zeros(2, *env.action_space.shape)).truncated.tolist() for _ in range(4)]
    assert ends == [[False, False]] * 3 + [[True, True]]
    env.close()


def test_envpool_refuses_games_of_several_players():
    pytest.importorskip("envpool")
    with pytest.raises(ConfigError, match="Go9x9-v1 is a game of several players"):
        GymnasiumEnvironment("Go9x9-v1", 2, "envpool")


# ------------------------------------------------------------------ Atari


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_atari_is_played_and_evaluated(vectorization):
    pytest.importorskip("ale_py", reason="needs ale-py")
    options = f"env.id={PONG}", f"env.vectorization={vectorization}", "env.max_episode_steps=6"
    for render in (False, True):
        trained, judged = both(*options, render=render)
        shape = (4, 84, 84) if vectorization == "auto" else (210, 160, 3)
        assert trained.observation_space.shape == shape
        for env in (trained, judged):
            episodes = rollout(env, random_policy(env), 0)
            assert episodes.lengths.tolist() == [6] * env.num_episodes
            assert episodes.truncated.all()
        assert (judged.render() is not None) == (render and vectorization == "sync")
        close(trained, judged)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_atari_s_last_observation_is_the_episode_s_own(mode):
    """Equal to that of an environment whose episode goes on; the limit of 40 frames is the game's, after 10 steps."""
    pytest.importorskip("ale_py", reason="needs ale-py")
    kwargs = {"repeat_action_probability": 0.0, "noop_max": 0, "use_fire_reset": False}
    short, long = (
        GymnasiumEnvironment(PONG, 1, max_episode_steps=30, kwargs={**kwargs, **more})
        for more in ({"max_num_frames_per_episode": 40, "autoreset_mode": mode}, {})
    )
    policy = random_policy(short)
    episodes = rollout(short, policy, 3, deterministic=True)
    length = int(episodes.lengths)
    assert length < 30
    assert episodes.truncated.all()
    assert torch.equal(episodes.last_observations, rollout(long, policy, 3, deterministic=True).observations[length])
    close(short, long)


def test_atari_without_its_package_s_name_is_refused_with_it():
    pytest.importorskip("ale_py", reason="needs ale-py")
    known = {id: gym.registry.pop(id) for id in list(gym.registry) if id.startswith("ALE/")}
    try:
        with pytest.raises(ConfigError, match=rf"use env\.id={PONG}\.$"):
            GymnasiumEnvironment("ALE/Pong-v5", 1)
    finally:
        gym.registry.update(known)


# ------------------------------------------------------------------ Gymnasium-Robotics


@pytest.mark.parametrize("vectorization", ["auto", "async"])
def test_fetch_reach_is_played_or_refused_with_a_place(vectorization):
    """Its release for MuJoCo 3 fails under MuJoCo 4 by an assertion without words."""
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    pytest.importorskip("mujoco")
    try:
        gym.make("FetchReach-v4").close()
    except AssertionError:
        with pytest.raises(ConfigError, match=r"AssertionError in \w+\.py, line \d+\. Check"):
            GymnasiumEnvironment(FETCH, 2, vectorization)
        return
    trained, judged = both(f"env.id={FETCH}", f"env.vectorization={vectorization}")
    for env in (trained, judged):
        assert env.reset(0).shape == (2, 16)
        assert env.step(torch.zeros(2, 4)).observations.shape == (2, 16)
    close(trained, judged)


def drawable(override):
    node = train_config(override).env
    return make_judge(node, make_environment(node, 1)).drawable()


def test_training_environments_draw():
    """The swing-up by CartPole's renderer: the pole hangs at first; an LQR has no picture."""
    drawn = drawable("env=cartpole_swingup_torch")
    drawn.reset(0)
    hanging = drawn.render()
    drawn._state = torch.zeros(1, 4)
    assert hanging.shape == (400, 600, 3) and not np.array_equal(hanging, drawn.render())
    assert drawn.render_fps == 50
    drawn.close()
    plain = drawable("env=lqr")
    plain.reset(0)
    assert plain.render() is None
