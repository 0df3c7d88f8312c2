"""The runs of a search: each an ordinary one of train.py in a folder of its own, all in this process."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, configure_log, run_job
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scorepath.config import check_config
from scorepath.errors import ConfigError, InterruptedRunError, InUseError, OutputError
from scorepath.explain import explain
from scorepath.run.reading import check_run_folder
from scorepath.sweeps.loader import CachingLoader, without_hydra
from scorepath.sweeps.plan import check_one_process

log = logging.getLogger("scorepath")

_CONFIG = "train"
_NOT_THE_SETTINGS_FAULT = (InterruptedRunError, InUseError, OutputError, OSError)


class Runs:
    """Composes and runs jobs of train.py.

    Args:
        loader: of the command's own config.
        overrides: of every run.
        hydra_overrides: of Hydra itself, for where options are looked for.
        task: config -> what a run does.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        overrides: Sequence[str],
        hydra_overrides: Sequence[str],
        task: Callable[[DictConfig], Any],
    ) -> None:
        self.overrides = list(overrides)
        self._loader = CachingLoader(loader)
        self._task = task
        self._logging: Any = HydraConfig.get().job_logging  # of the command
        self._hydra = list(hydra_overrides)

    def compose(self, overrides: Sequence[str], alone: bool = False) -> DictConfig:
        """The config of a run, Hydra's own part in it.

        Args:
            overrides: of this run.
            alone: without those of every run.

        Raises:
            ConfigError: in one sentence.
        """
        master = OmegaConf.create(
            {"hydra": {"job": {"config_name": _CONFIG}, "overrides": {"hydra": [*self._hydra, "hydra.mode=MULTIRUN"]}}}
        )
        given = list(overrides) if alone else [*self.overrides, *overrides]
        try:
            return self._loader.load_sweep_config(master, given)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, _CONFIG, [*self._hydra, *given])) from error

    def check(self, overrides: Sequence[str]) -> None:
        """Refuses what a run would refuse of its config: types and ranges, and several processes.

        Raises:
            ConfigError: in one sentence.
        """
        plain: Any = OmegaConf.to_container(without_hydra(self.compose(overrides)), resolve=True)
        check_one_process(plain)
        defaults, alone = self._loader.defaults(_CONFIG, [*self._hydra, *self.overrides, *overrides])
        check_config(plain, plain if alone else defaults)

    def run(self, folder: Path, overrides: Sequence[str]) -> str | None:
        """Begins a run or continues it, to its end.

        Returns:
            Why it has failed, if it has.

        Raises:
            InterruptedRunError: if a signal ended it.
            InUseError: if another process is at it.
            OSError, OutputError: if its folder cannot be written to; it can be continued once it can.
        """
        check_run_folder(folder, of_sweep=True)
        place = (f"hydra.sweep.dir='{folder.parent}'", f"hydra.sweep.subdir='{folder.name}'")
        quiet = "hydra.job_logging.root.handlers=[file]"  # its train.log has it
        config = self.compose([*overrides, "retry_failed=true", *place, quiet])
        context = HydraContext(self._loader, Callbacks())
        try:
            result = run_job(
                self._task,
                config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=context,
            )
        finally:
            configure_log(self._logging)
        if result.status == JobStatus.COMPLETED:
            return None
        error = result._return_value  # noqa: SLF001 (the property raises it, and prints)
        if isinstance(error, _NOT_THE_SETTINGS_FAULT):
            raise error
        return " ".join(str(error).split()) or type(error).__name__
