"""Episodes: the shapes are checked once, and the properties follow from `valid`."""

import dataclasses

import pytest
import torch

from scorepath.types import Episodes

pytestmark = pytest.mark.core

TIME, NUMBER = 4, 3


def make(**replaced):
    """Columns of length 4, 2 and 0, with observations of shape (2, 5)."""
    valid = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]], dtype=torch.bool)
    fields = {
        "observations": torch.zeros(TIME, NUMBER, 2, 5),
        "actions": torch.zeros(TIME, NUMBER, 1),
        "rewards": torch.arange(12.0).reshape(TIME, NUMBER) * valid,
        "valid": valid,
        "terminated": torch.tensor([True, False, False]),
        "truncated": torch.tensor([False, True, False]),
        "last_observations": torch.zeros(NUMBER, 2, 5),
    }
    return Episodes(**{**fields, **replaced})


def test_properties_follow_from_valid():
    episodes = make()
    assert episodes.lengths.tolist() == [4, 2, 0]
    assert episodes.lengths.dtype == torch.int64
    assert episodes.env_steps == 6
    assert isinstance(episodes.env_steps, int)
    assert episodes.episode_returns.tolist() == [0 + 3 + 6 + 9, 1 + 4, 0]
    assert episodes.is_last.int().tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_is_last_marks_the_only_row_of_a_one_step_batch():
    single = make(
        observations=torch.zeros(1, 3, 2),
        actions=torch.zeros(1, 3),
        rewards=torch.zeros(1, 3),
        valid=torch.tensor([[True, False, True]]),
        last_observations=torch.zeros(3, 2),
    )
    assert single.is_last.tolist() == [[True, False, True]]


def test_episode_returns_carry_no_graph():
    assert not make(rewards=torch.zeros(TIME, NUMBER, requires_grad=True)).episode_returns.requires_grad


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Episodes) if field.name != "rewards"])
def test_a_field_of_another_shape_is_refused_by_name(field):
    wrong = torch.zeros(TIME + 1, NUMBER + 1, 2, 5)
    if field in ("terminated", "truncated"):
        wrong = torch.zeros(NUMBER + 1, dtype=torch.bool)
    elif field == "last_observations":
        wrong = torch.zeros(NUMBER, 5, 2)
    elif field == "extras":
        wrong = {"good": torch.zeros(2, NUMBER), "own": wrong}
    with pytest.raises(ValueError, match=rf"^Episodes\.{field}(\['own'\])? "):
        make(**{field: wrong})


def test_rewards_must_have_two_dims():
    with pytest.raises(ValueError, match="unpack"):
        make(rewards=torch.zeros(TIME))


def test_episodes_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().rewards = torch.zeros(TIME, NUMBER)


def test_select_takes_columns_of_every_field():
    numbers = torch.arange(TIME * NUMBER).reshape(TIME, NUMBER).float()
    episodes = make(rewards=numbers.clone().requires_grad_(), extras={"own": numbers[:2]})
    some = episodes.select(slice(1, 3))
    assert torch.equal(some.extras["own"], numbers[:2, 1:3])
    for field in dataclasses.fields(Episodes):
        whole, part = getattr(episodes, field.name), getattr(some, field.name)
        if whole is not None and field.name != "extras":
            expected = whole[1:3] if field.name in ("terminated", "truncated", "last_observations") else whole[:, 1:3]
            assert torch.equal(part, expected), field.name
    assert some.rewards.requires_grad


def test_detach_keeps_the_numbers_and_cuts_the_graph():
    values = torch.ones(TIME, NUMBER, requires_grad=True)
    episodes = make(rewards=2 * values, log_probs=3 * values, extras={"own": 4 * values})
    plain = episodes.detach()
    for before, after in (
        (episodes.rewards, plain.rewards),
        (episodes.log_probs, plain.log_probs),
        (episodes.extras["own"], plain.extras["own"]),
    ):
        assert torch.equal(before, after)
        assert not after.requires_grad
