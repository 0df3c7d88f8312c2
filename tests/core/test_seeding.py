"""Streams: pure, without collisions, and neighbours share nothing."""

import itertools

import numpy as np
import pytest
import torch

from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR, Pendulum
from scorepath.seeding import Stream, derive_seed, seed_torch, split_seed

pytestmark = pytest.mark.core

# limits of a statistical test that fails by chance once in a million times: of |z|, and of √n times the largest
# distance between two distribution functions, by Kolmogorov's 2 exp(-2 x²)
Z, DISTANCE = 4.89, 2.69


def distance(sample):
    """√n max |F_n(u) - u| of a sample that should be uniform on (0, 1)."""
    u, n = np.sort(np.ravel(sample)), np.size(sample)
    above, below = np.arange(1, n + 1) / n - u, u - np.arange(n) / n
    return n**0.5 * max(above.max(), below.max())


def test_stream_numbers_and_one_seed_are_pinned_for_old_runs():
    assert {stream.name: int(stream) for stream in Stream} == {
        "INITIALISATION": 0,
        "ENVIRONMENT": 1,
        "ACTION": 2,
        "EVALUATION_ENVIRONMENT": 3,
        "EVALUATION_ACTION": 4,
        "FINAL_ENVIRONMENT": 5,
        "FINAL_ACTION": 6,
        "DIAGNOSTICS": 7,
        "BASELINE": 8,
        "FIT": 9,
    }
    assert derive_seed(0, Stream.ENVIRONMENT, 0, 0) == 2333092236187763913
    assert split_seed(0, 2) == [7896617691693857887, 6195319269190327588]


def test_a_seed_depends_on_its_arguments_alone():
    first = [derive_seed(3, Stream.ACTION, 1, k) for k in range(5)]
    np.random.seed(0)
    torch.manual_seed(0)
    assert [derive_seed(3, Stream.ACTION, 1, k) for k in reversed(range(5))] == first[::-1]


def test_deriving_a_seed_moves_no_global_generator():
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)
    derive_seed(0, Stream.ACTION)
    split_seed(0, 4)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_no_two_of_a_big_grid_collide():
    """10 seeds x all streams x 3 ranks x 100 updates; by chance 63 bits collide once in 10^10 such grids."""
    grid = list(itertools.product(range(10), Stream, range(3), range(100)))
    seeds = {derive_seed(*point) for point in grid}
    assert len(seeds) == len(grid)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_large_seeds_are_not_cut_off():
    assert derive_seed(2**63 - 1, Stream.ACTION) != derive_seed(2**31 - 1, Stream.ACTION)
    assert derive_seed(2**32, Stream.ACTION) != derive_seed(0, Stream.ACTION)


@pytest.mark.parametrize("axis", ["seed", "rank", "index"])
def test_neighbours_differ_in_half_their_bits(axis):
    seeds = np.array([derive_seed(**{"seed": 0, "stream": Stream.ACTION, axis: i}) for i in range(2001)], np.uint64)
    flipped = sum(int(a ^ b).bit_count() for a, b in itertools.pairwise(seeds.tolist()))
    number = 63 * 2000
    assert abs(flipped - number / 2) / (number / 4) ** 0.5 < Z
    assert distance(seeds / 2.0**63) < DISTANCE


@pytest.mark.parametrize("axis", ["seed", "rank", "index"])
def test_torch_draws_of_neighbours_are_uncorrelated(axis):
    draws = []
    for i in range(400):
        seed_torch(**{"seed": 0, "stream": Stream.ACTION, axis: i})
        draws.append(torch.randn(50, dtype=torch.float64))
    table = torch.stack(draws)
    correlation = np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]
    assert abs(correlation) * table[1:].numel() ** 0.5 < Z
    assert distance(torch.special.ndtr(table).numpy()) < DISTANCE


def test_seed_torch_seeds_the_default_generator_by_derive_seed():
    seed_torch(5, Stream.ACTION, 1, 9)
    drawn = torch.rand(4)
    torch.manual_seed(derive_seed(5, Stream.ACTION, 1, 9))
    assert torch.equal(torch.rand(4), drawn)


def test_split_seed_gives_distinct_63_bit_seeds():
    seeds = [seed for root in range(50) for seed in split_seed(root, 100)]
    assert len(set(seeds)) == len(seeds) == 5000
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GymnasiumEnvironment("CartPole-v1", 64),
        lambda: GymnasiumEnvironment("CartPole-v1", 64, "sync"),
        lambda: TorchEnvironment(Pendulum(), 64),
        lambda: TorchEnvironment(LQR(), 64),
    ],
    ids=["cartpole", "cartpole_sync", "pendulum_torch", "lqr"],
)
def test_runs_of_seeds_0_and_1_share_no_start_state(make):
    env = make()
    starts = [
        tuple(row.tolist())
        for seed, update in itertools.product((0, 1), range(3))
        for row in env.reset(derive_seed(seed, Stream.ENVIRONMENT, 0, update))
    ]
    env.close()
    assert len(set(starts)) == len(starts) == 2 * 3 * 64
