"""What a run asks of the machine, looked for before any work: devices, other machines and a compiler."""

import os
from collections.abc import Sequence

import torch

from scorepath.errors import ConfigError


def check_devices(accelerator: str, devices: str | int | Sequence[int]) -> None:
    """Refuses an accelerator that is not there, or more of its devices than there are.

    Raises:
        ConfigError: with what this machine has.
    """
    if accelerator == "cpu":
        return  # which has any number of processes; Lightning takes seconds to import
    from lightning.pytorch.accelerators import AcceleratorRegistry  # noqa: PLC0415

    families = {"gpu": ("cuda", "mps"), "auto": tuple(AcceleratorRegistry)}
    if accelerator not in {*families, *AcceleratorRegistry}:
        return  # Lightning's own refusal lists the names
    kinds = [AcceleratorRegistry[name]["accelerator"] for name in families.get(accelerator, (accelerator,))]
    there = [kind for kind in kinds if kind.is_available() and kind.name() != "cpu"]
    if not there and accelerator == "auto":
        return
    if not there:
        raise ConfigError(
            f"trainer.accelerator={accelerator} is not there: torch finds none on this machine. Use "
            "trainer.accelerator=cpu, or install the build of torch that is made for it."
        )
    wanted = devices if isinstance(devices, int) else 1 if isinstance(devices, str) else max(devices, default=0) + 1
    count = there[0].auto_device_count()
    if wanted > count:
        raise ConfigError(
            f"trainer.devices={devices} needs {wanted} devices of trainer.accelerator={accelerator}, and torch finds "
            f"{count} on this machine: use trainer.devices={count}."
        )


def check_nodes(number: int) -> None:
    """Refuses several machines where nothing says which of them this one is: each would wait for the others for ever.

    Raises:
        ConfigError: with who starts a run on several machines.
    """
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"trainer.num_nodes={number} is out of range: it must be a whole number of at least 1.")
    if number == 1 or {"NODE_RANK", "GROUP_RANK"} & set(os.environ):
        return
    from lightning.fabric.plugins import environments  # noqa: PLC0415 (seconds to import)

    kinds = (environments.TorchElasticEnvironment, environments.SLURMEnvironment)
    if not any(kind.detect() for kind in (*kinds, environments.LSFEnvironment, environments.MPIEnvironment)):
        raise ConfigError(
            f"trainer.num_nodes={number} needs somebody who starts the run on each of {number} machines and tells them "
            "of each other: torchrun (--nnodes) or srun, or set NODE_RANK, MASTER_ADDR and MASTER_PORT on each "
            "machine; on this one alone, leave trainer.num_nodes out."
        )


def check_compiler(device: str) -> None:
    """Refuses compile=true without a compiler, which torch reports only after the first rollout, on many lines.

    Raises:
        ConfigError: with what is missing.
    """
    import torch._functorch.config as compiled_backward  # noqa: PLC0415 (of the compiler, a second to import)

    compiled_backward.donated_buffer = False  # or a graph could not be gone back through twice, as diagnostics do
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:
        reason = " ".join(str(error).split("\n", 1)[0].split())
        raise ConfigError(
            f"compile=true found no working compiler ({reason}): install g++ (on a GPU: triton), or leave it false."
        ) from error
