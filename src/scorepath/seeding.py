"""Random streams: everything random is a pure function of (seed, stream, rank, index).

`numpy.random.SeedSequence` hashes the spawn key, so that neighbouring seeds, ranks and updates share nothing, where
the usual `seed + i` makes runs of seeds 0 and 1 share all but one environment. Because update k derives its generators
from k, resuming needs no generator state.
"""

import enum
from typing import NamedTuple

import numpy as np
import torch


class Stream(enum.IntEnum):
    """What a number is drawn for. Append only: the values are part of what makes old runs reproducible."""

    INITIALISATION = 0
    ENVIRONMENT = 1
    ACTION = 2
    EVALUATION_ENVIRONMENT = 3
    EVALUATION_ACTION = 4
    FINAL_ENVIRONMENT = 5
    FINAL_ACTION = 6
    DIAGNOSTICS = 7
    BASELINE = 8
    FIT = 9


def derive_seed(seed: int, stream: Stream, rank: int = 0, index: int = 0) -> int:
    """A 63-bit seed for one stream of one rank at one index (for training, the update)."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(stream), rank, index))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def split_seed(seed: int, number: int) -> list[int]:
    """`number` independent 63-bit seeds, one for each environment of a batch."""
    states = np.random.SeedSequence(seed).generate_state(number, np.uint64) >> np.uint64(1)
    return [int(state) for state in states]


def seed_torch(seed: int, stream: Stream, rank: int = 0, index: int = 0) -> None:
    """Seeds torch's generators on all devices; `torch.distributions` draws from these and takes no other."""
    torch.manual_seed(derive_seed(seed, stream, rank, index))


class Streams(NamedTuple):
    """The streams of one update of one process."""

    seed: int  # of the run
    rank: int = 0
    update: int = 0  # k

    def seed_of(self, stream: Stream) -> int:
        """As `derive_seed`."""
        return derive_seed(self.seed, stream, self.rank, self.update)

    def seed_torch(self, stream: Stream) -> None:
        """As the function of that name."""
        seed_torch(self.seed, stream, self.rank, self.update)
