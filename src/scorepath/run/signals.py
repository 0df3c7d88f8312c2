"""SIGINT, SIGTERM and SIGHUP end a run after the update in progress, with everything saved; SIGUSR1 saves."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch

from scorepath.callbacks import NEVER
from scorepath.errors import InterruptedRunError
from scorepath.module import PolicyGradient
from scorepath.run.checkpoints import Checkpoints

log = logging.getLogger("scorepath")
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
_SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none
_HANG_UP = getattr(signal, "SIGHUP", None)  # nor this
_LOOK = 0.5  # seconds between two looks at a run that is to stop


class GracefulStop(pl.Callback):
    """While it is entered, the first SIGINT, SIGTERM or SIGHUP is noted; a second SIGINT leaves at once.

    SIGHUP comes when a terminal is closed; a run that `nohup` has told to ignore it goes on.

    Training stops after the update in progress and the evaluation that is due after it, for an evaluation that was
    skipped might have been the one that solves. To be the last callback, which hears what the others decided.
    Lightning's own handling exits 0 on SIGTERM and saves nothing, and ends a whole multirun on SIGINT.

    SIGUSR1 has a checkpoint saved after the update in progress. Where SLURM sends it before it takes the machine away
    (`--signal=SIGUSR1@90`), the job is put back in its queue, and the run stops; with resume=auto and a hydra.run.dir
    of its own it goes on when SLURM starts it again.

    Args:
        directory: of the run, to be named in the error.
        patience: seconds without an env step after which a run that is to stop is taken for hung, and is ended.
    """

    def __init__(self, directory: Path, patience: float) -> None:
        self.directory = directory
        self.patience = patience
        self.received: int | None = None
        self.at_once = False  # raise in the handler: there is nothing to be saved
        self._save = False
        self._module: PolicyGradient | None = None
        self._left = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "GracefulStop":
        self._previous = self._install()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises InterruptedRunError if a signal came."""
        if self.received is not None:
            raise InterruptedRunError(self.received, self.directory)

    def on_train_start(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        self._module = module
        self._install()  # Lightning has put its own in our place by now; it puts ours back when training ends

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: PolicyGradient, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stops, saves = self._agree(trainer, module)
        if saves:
            self._save = False
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, Checkpoints):
                    callback.save_last(trainer, module)
                    log.info("Saved at %s env steps.", f"{module.env_steps:,}")
            if "SLURM_JOB_ID" in os.environ and trainer.is_global_zero and requeue():
                self.received = _SAVE
            stops, _ = self._agree(trainer, module)
        if stops:
            # Lightning evaluates whenever it is told to stop
            module.skip_evaluation = not trainer.should_stop and trainer.val_check_batch == NEVER
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, module: PolicyGradient) -> None:
        stops, _ = self._agree(trainer, module)
        trainer.should_stop = trainer.should_stop or stops

    def _agree(self, trainer: pl.Trainer, module: PolicyGradient) -> tuple[bool, bool]:
        """Whether to stop and to save: processes that learn together do it after the same update, whichever of them
        the signal has reached, for they wait for each other in each.
        """
        heard = (self.received or 0, int(self._save))
        if trainer.world_size > 1:
            numbers = torch.tensor(heard, device=module.device)
            heard = tuple(trainer.strategy.reduce(numbers, reduce_op="max").tolist())
            self.received = heard[0] or self.received
        return bool(heard[0]), bool(heard[1])

    def _install(self) -> dict[int, Any]:
        ignored = _HANG_UP is not None and signal.getsignal(_HANG_UP) == signal.SIG_IGN
        heard = [number for number in _SIGNALS if not (ignored and number == _HANG_UP)]
        return {number: signal.signal(number, self._handle) for number in heard}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == _SAVE:
            self._save = True
            return
        if self.received is not None and number == signal.SIGINT:
            os._exit(128 + number)
        if self.received is None:
            threading.Thread(target=self._watch, args=(number,), daemon=True).start()
        self.received = number
        if self.at_once:
            self.check()

    def _watch(self, number: int) -> None:
        """Ends the process if the environment has hung: no update will be done then, and no handler be heard."""
        seen, since = None, time.monotonic()
        while time.monotonic() - since < self.patience:
            if self._left.wait(_LOOK):
                return
            progress = None if self._module is None else self._module.progress()
            if progress != seen:
                seen, since = progress, time.monotonic()
        sentence = f"scorepath: no env step in {self.patience:g} s: the environment hangs, the run is ended.\n"
        with contextlib.suppress(OSError):  # a terminal that is gone
            os.write(2, sentence.encode())
        os._exit(128 + number)


def requeue() -> bool:
    """Asks SLURM to start this job again; an array's task has a name of its own."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        log.warning("scontrol was not found, so that SLURM's job %s is not put back in the queue.", job)
        return False
    done = subprocess.run([scontrol, "requeue", job], check=False)
    if done.returncode:
        log.warning("scontrol requeue %s failed with %d: the run goes on.", job, done.returncode)
    return done.returncode == 0
