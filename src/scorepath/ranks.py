"""Several processes that learn together (torch.distributed): P processes of N episodes each are one of P N episodes.

What compares episodes with each other sees those of all processes, so that a baseline or a normalisation need not know
that there are several. Alone, everything here hands back what it is given.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from scorepath.types import Episodes


def world_size() -> int:
    """How many processes learn together, P."""
    return torch.distributed.get_world_size() if _is_one_of_several() else 1


def gather(x: Tensor) -> Tensor:
    """(N, ...) of each process -> those of all, (P N, ...), by rank; the own part keeps its graph."""
    if not _is_one_of_several():
        return x
    plain = x.detach().contiguous()
    plain = plain.to(torch.uint8) if x.dtype == torch.bool else plain  # which no backend sends
    parts = [torch.empty_like(plain) for _ in range(world_size())]
    torch.distributed.all_gather(parts, plain)
    parts = [part.to(x.dtype) for part in parts]
    parts[torch.distributed.get_rank()] = x
    return torch.cat(parts)


def gather_columns(x: Tensor) -> Tensor:
    """(T, N, ...) of each process -> (T', P N, ...), T' the largest T; filled up with zeros, later dims too."""
    if not _is_one_of_several():
        return x
    sizes = torch.tensor(x.shape, device=x.device)
    torch.distributed.all_reduce(sizes, torch.distributed.ReduceOp.MAX)
    missing = [most - own for own, most in zip(x.shape, sizes.tolist(), strict=True)]
    filled = nn.functional.pad(x, [part for amount in reversed(missing) for part in (0, amount)])
    return gather(filled.transpose(0, 1)).transpose(0, 1)


def gather_episodes(episodes: Episodes) -> tuple[Episodes, slice]:
    """The episodes of all processes, and which of the columns are the own ones.

    Batches of fewer steps are filled up with steps that are not valid. The own columns keep their graph; `log_probs`,
    which is of use in its own process alone, is left out.
    """
    if not _is_one_of_several():
        return episodes, slice(None)
    number = episodes.rewards.shape[1]
    start = torch.distributed.get_rank() * number
    everyone = replace(episodes, log_probs=None).map(gather_columns, gather)
    return everyone, slice(start, start + number)


def mean(values: Tensor) -> Tensor:
    """The mean over all processes of values that each of them has, of the same shape."""
    if not _is_one_of_several():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / world_size()


def mean_metrics(windows: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Of the metrics () of an update's windows, means over those that have them, and over all processes."""
    keys = dict.fromkeys(key for metrics in windows for key in metrics)
    means = {key: torch.stack([metrics[key] for metrics in windows if key in metrics]).mean() for key in keys}
    return {key: mean(value.to(device)) for key, value in means.items()}


@contextmanager
def same_random_numbers(make_seed: Callable[[], int]) -> Iterator[None]:
    """In all processes, for what each of them does with the episodes of all. One process alone uses torch's generator
    as it is, and makes no seed.
    """
    if not _is_one_of_several():
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(make_seed())
        yield


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients of each process by their mean over all."""
    if not _is_one_of_several():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _is_one_of_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
