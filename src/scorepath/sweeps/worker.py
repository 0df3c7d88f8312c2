"""What our launchers share: how a job runs in a worker's process."""

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from scorepath.errors import ScorepathError
from scorepath.sweeps.plan import Job


@dataclass(frozen=True)
class Worker:
    """Runs jobs as Hydra's own launcher does, in whatever process it is sent to.

    Args:
        context: Hydra's, with the loader that composes jobs.
        task: what a job is.
        config: of the sweep.
        directory: the working directory.
        singletons: the state of Hydra's.
    """

    context: HydraContext
    task: TaskFunction
    config: DictConfig
    directory: str = field(default_factory=os.getcwd)
    singletons: Any = field(default_factory=Singleton.get_state)

    def enter(self) -> None:
        """Goes to the working directory, which relative paths are meant from.

        Raises:
            ScorepathError: if this machine does not have it.
        """
        try:
            os.chdir(self.directory)
        except OSError as error:
            raise ScorepathError(
                f"{self.directory} is not on {platform.node()} ({error.strerror}): every machine needs the folder "
                "that the sweep was started in."
            ) from error

    def run(self, job: Job, number: int) -> JobReturn:
        """Runs one job; how it ended, without its configs, for these would fill the memory of a process that waits.

        Raises:
            SweepInterruptedError: if a signal ended it.
        """
        self.enter()
        setup_globals()
        Singleton.set_state(self.singletons)
        config = self.context.config_loader.load_sweep_config(self.config, sweep_overrides(job))
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
        HydraConfig.instance().set_config(config)
        done = run_job(self.task, config, "hydra.sweep.dir", "hydra.sweep.subdir", self.context)
        return JobReturn(status=done.status, _return_value=done._return_value)  # noqa: SLF001 (the property raises it)


def sweep_overrides(job: Job) -> list[str]:
    """What a job is launched with: its overrides and its folder."""
    return [*job.overrides, f"hydra.sweep.subdir='{job.name}'"]


def failure(sentence: str) -> JobReturn:
    """How a job has ended that has no result, in words."""
    return JobReturn(status=JobStatus.FAILED, _return_value=ScorepathError(sentence))
