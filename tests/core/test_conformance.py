"""What is registered against Gymnasium's originals and against the checkers of those who would use it."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.utils.env_match import check_environments_match
from tiers import slow

import scorepath  # noqa: F401
from scorepath.registration import ENVIRONMENTS

TWINS = [name for name in ENVIRONMENTS if name in gym.registry]
AUTORESET_MODES = [mode.value for mode in gym.vector.AutoresetMode]
PEERS = 'of the extra peers: pip install -e ".[peers]"'

every = pytest.mark.parametrize("name", ENVIRONMENTS)
twins = pytest.mark.parametrize("name", TWINS)


def told(check, env):
    """The warnings of a checker, up to their first words that name an environment or a number."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(env)
    env.close()
    return {str(warning.message).replace("scorepath/", "").split(":")[0][:60] for warning in caught}


def at_most_as_the_original(name, check, make=gym.make):
    """Ours without an original are told what CartPole and Pendulum are: no bounds of observations, actions beyond 1."""
    allowed = set()
    for original in [name] if name in TWINS else ["CartPole-v1", "Pendulum-v1"]:
        allowed |= told(check, make(original))
    return told(check, make(f"scorepath/{name}")) <= allowed


@every
def test_gymnasiums_checker_passes(name):
    assert at_most_as_the_original(name, lambda env: check_env(env.unwrapped))


@twins
@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_it_matches_the_original_through_an_end_and_a_reset(name, seed):
    """Observations, rewards to the bit and in their type, ends and infos."""
    original = gym.make(name)
    check_environments_match(original, gym.make(f"scorepath/{name}"), original.spec.max_episode_steps + 60, seed)


@twins
def test_pictures_match_the_original_after_steps(name):
    original, ours = (gym.make(id, render_mode="rgb_array") for id in (name, f"scorepath/{name}"))
    check_environments_match(original, ours, 25, seed=3)
    for env in (original, ours):
        env.close()


@twins
@pytest.mark.parametrize("mode", AUTORESET_MODES)
def test_every_autoreset_mode_is_that_of_gymnasiums_vector_environment(name, mode):
    """One lane each, whose random numbers are the same; with the infos, the last observations among them."""
    ours = gym.make_vec(f"scorepath/{name}", num_envs=1, dtype="float64", autoreset_mode=mode, max_episode_steps=20)
    theirs = gym.make_vec(
        name, num_envs=1, vectorization_mode="sync", max_episode_steps=20, vector_kwargs={"autoreset_mode": mode}
    )
    assert ours.autoreset_mode is theirs.autoreset_mode is ours.metadata["autoreset_mode"]
    assert data_equivalence(ours.reset(seed=5), theirs.reset(seed=5))
    theirs.action_space.seed(0)
    ended = 0
    for _ in range(70):
        actions = theirs.action_space.sample()
        mine, given = ours.step(actions), theirs.step(actions)
        for one, other in zip(mine, given, strict=True):
            assert data_equivalence(one, other)
        over = mine[2] | mine[3]
        ended += over.sum()
        if mode == "Disabled" and over:
            with pytest.raises(gym.error.ResetNeeded, match="reset_mask"):
                ours.step(actions)
            mine, given = (env.reset(options={"reset_mask": over}) for env in (ours, theirs))
            assert data_equivalence(mine, given)
    assert ended >= 3


@every
def test_stable_baselines_checker_passes(name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason=PEERS)
    assert at_most_as_the_original(name, checker.check_env)


@every
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["by its id", "single", "SameStep", "Disabled"])
def test_torchrls_checker_passes(name, form):
    """A batch in the modes that TorchRL takes: it refuses NEXT_STEP of any environment."""
    pytest.importorskip("torchrl", reason=PEERS)
    from torchrl.envs import GymEnv, GymWrapper
    from torchrl.envs.utils import check_env_specs

    id = f"scorepath/{name}"
    if form == "by its id":
        env = GymEnv(id)
    elif form == "single":
        env = GymWrapper(gym.make(id))
    else:
        env = GymWrapper(gym.make_vec(id, num_envs=3, autoreset_mode=form, max_episode_steps=10))
    check_env_specs(env, seed=0)
    played = env.rollout(40, break_when_any_done=False)
    assert played["next", "done"].any() or form in ("by its id", "single")
    assert np.isfinite(played["observation"].numpy()).all()
    env.close()
