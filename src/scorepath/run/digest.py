"""The digest of a policy, by which two runs are compared."""

import hashlib

import torch
from torch import nn


def weights_sha256(policy: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a policy's parameters and buffers: equal if it acts equally."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(torch.uint8).numpy().tobytes() if array.dim() else array.numpy().tobytes())
    return digest.hexdigest()
