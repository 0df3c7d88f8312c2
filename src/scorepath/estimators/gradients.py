"""What is done to gradients: those of each episode by itself, their mean over processes, their clipping."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scorepath.ranks import average_gradients

_AT_ONCE = 64  # rows of one backward pass, which holds as many copies of every intermediate gradient


def per_episode_gradients(losses: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """∇ of each of N losses, g_n = ∂ losses_n / ∂ parameters, in batched backward passes. The graph is kept.

    One pass over the graph of all N for each: N² in all, since the graph does not show that episodes are independent.

    Args:
        losses: (N,), with a graph.
        parameters: with P entries in all, in the order of the columns.

    Returns:
        (N, P); zero for parameters that the losses do not depend on.
    """
    chosen = list(parameters)
    tables = []
    for rows in torch.eye(len(losses), dtype=losses.dtype, device=losses.device).split(_AT_ONCE):
        gradients: Any
        try:
            gradients = torch.autograd.grad(
                losses, chosen, rows, retain_graph=True, is_grads_batched=True, allow_unused=True
            )
        except RuntimeError:
            # What torch.compile made takes no batch of gradients; whatever else is wrong shows again row by row
            single = [torch.autograd.grad(losses, chosen, row, retain_graph=True, allow_unused=True) for row in rows]
            gradients = [None if some[0] is None else torch.stack(some) for some in zip(*single, strict=True)]
        parts = (
            rows.new_zeros(len(rows), parameter.numel()) if gradient is None else gradient.reshape(len(rows), -1)
            for parameter, gradient in zip(chosen, gradients, strict=True)
        )
        tables.append(torch.cat(list(parts), dim=1))
    return torch.cat(tables)


def clip_gradients(gradients: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scales gradients in place to a joint norm of at most max_norm (Pascanu et al. 2013, algorithm 1).

    Args:
        gradients: of all parameters, of any shapes.
        max_norm: None leaves them as they are.

    Returns:
        the norm before, ().
    """
    norm = nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch's own clip_grad_norm_
        for gradient in gradients:
            gradient.mul_(factor)
    return norm


def finish_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """What an optimizer step is taken with: the mean over all processes that learn together, then clipped.

    Returns:
        the norm before clipping, ().
    """
    chosen = list(parameters)
    average_gradients(chosen)
    return clip_gradients([parameter.grad for parameter in chosen if parameter.grad is not None], max_norm)
