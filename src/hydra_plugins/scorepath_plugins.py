"""What Hydra finds of scorepath: its sweeper and its launchers. Hydra imports this at every start, so it imports
nothing heavy.
"""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ScorepathSweeper(Sweeper):
    """Goes through all combinations of values. The same command continues where it was stopped.

    Args:
        params: override -> values, as those of the command line; for YAMLs of hparams_search.
        attempts: how often a job may be lost with its process, without a step forward, before it counts as failed.
        space: of an hparams_search for scripts/search.py, which has no values to go through.
    """

    def __init__(
        self, params: dict[str, str] | None = None, attempts: int = 3, space: dict[str, Any] | None = None
    ) -> None:
        self._params, self._attempts, self._space = params or {}, attempts, space

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins  # noqa: PLC0415 (Hydra imports this from there)

        from scorepath.sweeps.loader import CachingLoader  # noqa: PLC0415

        self._config = config
        self._loader = CachingLoader(hydra_context.config_loader)
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=replace(hydra_context, config_loader=self._loader), task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from scorepath.dashboards.view import show_means  # noqa: PLC0415
        from scorepath.errors import ConfigError  # noqa: PLC0415
        from scorepath.sweeps.sweeper import run_sweep  # noqa: PLC0415

        if self._space:
            raise ConfigError(
                "hparams_search has a space to search in, and no grid to go through: use scripts/search.py, without -m."
            )
        given = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        # with the loader, which knows what a glob(*) of options is
        parsed = OverridesParser.create(config_loader=self._loader).parse_overrides(given)
        run_sweep(self._config, parsed, self._compose, self._launch, self._attempts, show_means)

    def _compose(self, overrides: list[str]) -> dict[str, Any]:
        return self._loader.plain(self._config, overrides)

    def _launch(self, jobs: Sequence[Any], first: int) -> Sequence[JobReturn]:
        """Has the chosen launcher run jobs in the folders that they have."""
        if isinstance(self._launcher, AbstractJobLauncher):
            return self._launcher.launch_jobs(jobs, first, self._attempts)
        from scorepath.sweeps.worker import sweep_overrides  # noqa: PLC0415

        return self._launcher.launch([sweep_overrides(job) for job in jobs], initial_job_idx=first)


class AbstractJobLauncher(Launcher):
    """A launcher that is given jobs with their folders, and has those that are lost with a process run again."""

    needs: ClassVar[str]  # the package that it drives, which is an extra of the same name

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from scorepath.errors import ConfigError  # noqa: PLC0415

        if find_spec(self.needs) is None:
            raise ConfigError(
                f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']} needs the package {self.needs}, "
                f"which is not installed: pip install -e '.[{self.needs}]'"
            )
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from scorepath.errors import ConfigError  # noqa: PLC0415

        raise ConfigError(
            f"hydra/launcher={self._config.hydra.runtime.choices['hydra/launcher']} has lost jobs continue in their "
            "folders, which is what hydra/sweeper=scorepath gives them: use that, or hydra/launcher=joblib."
        )

    @abstractmethod
    def launch_jobs(self, jobs: Sequence[Any], first: int, attempts: int) -> Sequence[JobReturn]:
        """Runs jobs of our sweeper.

        Args:
            jobs: of a sweep.
            first: number of the first.
            attempts: how often one may be lost, without a step forward, before it is given up.
        """

    def _worker(self) -> Any:
        from scorepath.sweeps.worker import Worker  # noqa: PLC0415

        return Worker(self._context, self._task, self._config)


class RayLauncher(AbstractJobLauncher):
    """Jobs as tasks of Ray; the options are described in conf/hydra/launcher/ray.yaml."""

    needs = "ray"

    def __init__(self, address: str, cluster: DictConfig, task: DictConfig) -> None:
        self._options = {"address": address, "cluster": _plain(cluster), "task": _plain(task)}

    def launch_jobs(self, jobs: Sequence[Any], first: int, attempts: int) -> Sequence[JobReturn]:
        from scorepath.sweeps.ray_launcher import launch  # noqa: PLC0415

        return launch(self._worker(), jobs, first, attempts, **self._options)


class SubmititLauncher(AbstractJobLauncher):
    """Jobs in a few workers of submitit, each of which takes what is free, on this machine or by SLURM.

    Args:
        cluster: submitit's name of it: local or slurm.
        workers: how many.
        folder: of what submitit writes.
        executor: what it is to ask the cluster for, as conf/hydra/launcher/submitit_slurm.yaml has it.
    """

    needs = "submitit"

    def __init__(self, cluster: str, workers: int, folder: str, executor: DictConfig) -> None:
        self._options = {"cluster": cluster, "workers": workers, "folder": folder, "executor": _plain(executor)}

    def launch_jobs(self, jobs: Sequence[Any], first: int, attempts: int) -> Sequence[JobReturn]:
        # by which a run saves and has SLURM put it back; submitit reads this when it is imported
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
        from scorepath.sweeps.submitit_launcher import launch  # noqa: PLC0415

        return launch(self._worker(), jobs, first, attempts, **self._options)


def _plain(options: DictConfig) -> Any:
    return OmegaConf.to_container(options, resolve=True)
