"""What Hydra finds of scorepath: its sweeper. Hydra imports this at every start, so it imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


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
        from scorepath.errors import ConfigError  # noqa: PLC0415
        from scorepath.sweeps.sweeper import run_sweep  # noqa: PLC0415

        if self._space:
            raise ConfigError(
                "hparams_search has a space to search in, and no grid to go through: use scripts/search.py, without -m."
            )
        given = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        run_sweep(self._config, given, self._compose, self._launch, self._attempts)

    def _compose(self, overrides: list[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._config, overrides)

    def _launch(self, jobs: Sequence[Any], first: int) -> Sequence[JobReturn]:
        """Has the chosen launcher run jobs in the folders that they have."""
        overrides = [[*job.overrides, f"hydra.sweep.subdir='{job.name}'"] for job in jobs]
        return self._launcher.launch(overrides, initial_job_idx=first)
