"""The last observation of an episode is its own, whenever a vector environment begins the next one."""

import sys
import types

import counting
import pytest
import torch
from counting import LENGTHS, MODES, UNLIMITED, VECTOR
from gymnasium.vector import AutoresetMode

from scorepath.baselines import SelfCritical, Value
from scorepath.compatibility import check_baseline
from scorepath.distributions import Categorical
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import Pendulum
from scorepath.errors import ConfigError, ScorepathError
from scorepath.policy import MLP, Policy
from scorepath.returns import reward_to_go
from scorepath.rollout import rollout

GAMMA = 0.5
FORMS = ["box", "discrete", "dict", "tuple"]


def coins(env):
    size = env.observation_space.shape[0]
    return Policy(MLP(size, []), Categorical(env.action_space, size))


def batch(id=VECTOR, number=4, seed=7, **kwargs):
    env = GymnasiumEnvironment(id, number, kwargs=kwargs)
    episodes = [rollout(env, coins(env), seed) for _ in range(2)][1]  # after another one, left in the middle of things
    env.close()
    return episodes


@pytest.mark.filterwarnings("ignore:.*:UserWarning:gymnasium")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("id", [VECTOR, "counting:Doubling-v0"])
def test_episodes_are_the_same_by_hand_in_every_mode(id, mode):
    episodes = batch(id, mode=mode)
    paid = 2.0 if "Doubling" in id else 1.0  # a wrapper of the entry point's own is not gone around
    assert episodes.lengths.tolist() == list(LENGTHS)
    assert episodes.terminated.tolist() == [True, False, True, False]
    assert episodes.truncated.tolist() == [False, True, False, True]
    assert episodes.last_observations.tolist() == [[length, 0, lane] for lane, length in enumerate(LENGTHS)]
    for lane, length in enumerate(LENGTHS):
        assert episodes.rewards[:, lane].tolist() == [paid * (t + 1) if t < length else 0.0 for t in range(5)]
        assert episodes.observations[:length, lane].tolist() == [[t, 0, lane] for t in range(length)]


@pytest.mark.parametrize("mode", MODES)
def test_a_time_limit_bootstraps_from_the_last_observation_in_every_mode(mode):
    """V = 10 * step + 100 * episode + 0.5: the next episode's start would be worth 100.5."""
    episodes = batch(mode=mode)
    value = Value((3,), torch.optim.Adam, hidden_sizes=())
    with torch.no_grad():
        value.network[-1].weight.copy_(torch.tensor([[10.0, 100.0, 0.0]]))
        value.network[-1].bias.fill_(0.5)
        last = value.last_values(episodes)
    assert last.tolist() == [0.0, 50.5, 0.0, 40.5]
    returns = reward_to_go(episodes.rewards, episodes.is_last, GAMMA, last)
    for lane, length in enumerate(LENGTHS):
        following = [0.0, 50.5, 0.0, 40.5][lane]
        for t in reversed(range(length)):
            following = (t + 1) + GAMMA * following
            assert float(returns[t, lane]) == following


@pytest.mark.parametrize("observations", FORMS)
@pytest.mark.parametrize(
    ("mode", "last"),
    [
        ("NextStep", "objects"),
        ("Disabled", "objects"),
        *(("SameStep", last) for last in ("objects", "list", "batch", "batch without mask")),
    ],
)
def test_last_observations_that_have_to_be_flattened(observations, mode, last):
    episodes = batch(mode=mode, observations=observations, last=last)
    for lane, length in enumerate(LENGTHS):
        count, one_hot = [float(length), 0.0, float(lane)], [0.0] * 10
        one_hot[length] = 1.0
        expected = {"box": count, "discrete": one_hot, "dict": count + one_hot, "tuple": one_hot + count}
        assert episodes.last_observations[lane].tolist() == expected[observations]


def test_what_an_environment_says_in_words_is_read_too():
    with pytest.warns(UserWarning, match="not an instance"):
        episodes = batch(mode="SameStep", says="SameStep")
    assert episodes.last_observations[:, 0].tolist() == list(LENGTHS)


@pytest.mark.parametrize("says", [None, "AtOnce"])
def test_an_environment_that_does_not_say_its_mode_is_refused(says):
    with (
        pytest.warns(UserWarning, match="autoreset_mode|AutoresetMode"),
        pytest.raises(ConfigError, match=r"CountingVector-v0 .*autoreset_mode.*use env.vectorization=sync\.$"),
    ):
        GymnasiumEnvironment(VECTOR, 2, kwargs={"says": says})


@pytest.mark.parametrize("last", ["none", "masked", "column"])
def test_same_step_without_the_last_observation_is_refused(last):
    with pytest.raises(ScorepathError, match=r"SAME_STEP.*under final_obs: correct the environment"):
        batch(mode="SameStep", last=last)


def test_saying_another_mode_than_its_own_is_found():
    with pytest.raises(ScorepathError, match=r"SAME_STEP.*final_obs"):
        batch(says=AutoresetMode.SAME_STEP)


def test_a_reset_of_all_episodes_instead_of_those_of_the_mask_is_found():
    with pytest.raises(ScorepathError, match=r"DISABLED.*reset_mask.*has changed observations of running episodes"):
        batch(mode="Disabled", resets_all=True)


def test_gymnasium_s_own_list_of_environments_is_stepped_without_its_autoreset():
    """Whatever the mode that `vector_kwargs` ask for."""
    for mode in MODES:
        env = GymnasiumEnvironment(
            "ScorepathTest/Scripted-v0",
            3,
            "sync",
            kwargs={"observations": "dict", "vector_kwargs": {"autoreset_mode": mode}},
        )
        episodes = rollout(env, coins(env), 0)
        assert episodes.last_observations[:, 1:].argmax(1).tolist() == [5, 5, 5]
        env.close()


def test_seeds_are_cut_for_an_implementation_that_takes_32_bits():
    env = GymnasiumEnvironment(VECTOR, 4, kwargs={"seeds": 2**31})
    assert env.reset(2**62 + 1).tolist() == env.reset(2**62 + 1).tolist()
    assert env.reset(2**31 - 1).shape == (4, 3)
    env.close()


def test_more_environments_than_were_asked_for_are_refused():
    with pytest.raises(ConfigError, match="made 3 environments instead of 2"):
        GymnasiumEnvironment("counting:ManyVector-v0", 2)


# ------------------------------------------------------------------ time limits


def test_a_time_limit_that_an_implementation_does_not_take_is_kept_to():
    with pytest.raises(ConfigError, match=r"no time limit.*set env\.max_episode_steps="):
        GymnasiumEnvironment(UNLIMITED, 4)
    for mode in MODES:
        env = GymnasiumEnvironment(UNLIMITED, 4, max_episode_steps=3, kwargs={"mode": mode})
        episodes = rollout(env, coins(env), 0)
        assert episodes.lengths.tolist() == [2, 3, 3, 3]
        assert episodes.terminated.tolist() == [True, False, True, False]
        assert episodes.truncated.tolist() == [False, True, False, True]
        assert episodes.last_observations.tolist() == [[2, 0, 0], [3, 0, 1], [3, 0, 2], [3, 0, 3]]
        env.close()


# ------------------------------------------------------------------ errors without words


def test_an_error_without_words_has_its_place(monkeypatch):
    def fails(**kwargs):
        raise AssertionError

    module = types.ModuleType("wordless")
    monkeypatch.setitem(sys.modules, "wordless", module)
    module.fails = fails
    counting.gym.register("Wordless-v0", fails, max_episode_steps=5)
    try:
        with pytest.raises(ConfigError, match=r"AssertionError in test_autoreset\.py, line \d+\. Check env\.kwargs"):
            GymnasiumEnvironment("Wordless-v0", 1, kwargs={"some": 1})
    finally:
        del counting.gym.registry["Wordless-v0"]


# ------------------------------------------------------------------ starts that can be repeated


@pytest.mark.parametrize(
    ("vectorization", "workers", "starts"),
    [("auto", None, None), ("sync", None, None), ("async", None, None), ("async", 2, 2), ("envpool", None, 0)],
)
def test_repeatable_starts_are_what_is_promised(vectorization, workers, starts):
    """Whatever is done: here once by a policy without noise, once by another with it."""
    if vectorization == "envpool":
        pytest.importorskip("envpool")
    env = GymnasiumEnvironment("CartPole-v1", 5, vectorization, workers=workers, max_episode_steps=20)
    expected = 5 if starts is None else starts
    repeated = []
    for seed in range(3):
        first = rollout(env, coins(env), seed, deterministic=True).observations[0]
        again = rollout(env, coins(env), seed).observations[0]
        repeated.append((first == again).all(dim=1))
        assert repeated[-1][:expected].all()
    # by chance, a worker's second episode may be the same one of the batch on both occasions
    assert torch.stack(repeated).all() == (expected == 5)
    assert min(env.repeatable_starts, 5) == expected
    env.close()


@pytest.mark.parametrize(
    ("vectorization", "workers", "words"),
    [
        ("async", 2, "starts only 2 of episodes_per_update=5 from the seed: use env.workers=null"),
        ("envpool", None, "cannot be set back to a seed: use env.vectorization=auto, sync or async"),
        ("envpool", 8, "cannot be set back to a seed: use env.vectorization=auto, sync or async"),
    ],
)
def test_self_critical_is_refused_where_starts_cannot_be_repeated(vectorization, workers, words):
    """By a probe of one environment, which is all that there is before the first rollout."""
    if vectorization == "envpool":
        pytest.importorskip("envpool")
    probe = GymnasiumEnvironment("CartPole-v1", 1, vectorization, workers=workers)
    with pytest.raises(ConfigError, match=f"baseline=self_critical .*{words}, or baseline=leave_one_out"):
        check_baseline("self_critical", SelfCritical(), probe, 5)
    check_baseline("value", Value((4,), torch.optim.Adam), probe, 5)
    probe.close()


def test_self_critical_is_accepted_where_they_can():
    check_baseline("self_critical", SelfCritical(), TorchEnvironment(Pendulum(), 1), 5)
    for options in ({}, {"vectorization": "sync"}, {"vectorization": "async", "workers": 5}):
        probe = GymnasiumEnvironment("CartPole-v1", 1, **options)
        check_baseline("self_critical", SelfCritical(), probe, 5)
        probe.close()
