"""Environments in processes of their own, waited for with a deadline, so that none is waited for in vain."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, NoReturn, final

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from scorepath.envs.player import Player, short
from scorepath.errors import ScorepathError

_START = 60.0  # seconds at least that a constructor may take: it may have to import a simulator
_FAREWELL = 5.0  # seconds that closing may take, all together
_LOOK = 1.0  # seconds between two looks at processes that say nothing
_END = 1.0  # seconds that the system may take to report how a process ended whose pipe is closed

_CORRECT = "correct the environment (HYDRA_FULL_ERROR=1 shows its traceback, where it has one)"
_SLOW = "correct the environment, or give it more time by env.step_timeout"
_KILLED = "if it was for want of memory, use fewer env.workers"


class Fault(NamedTuple):
    """What became of a worker, in plain words: exceptions of an environment need not be picklable."""

    words: str
    remedy: str
    traceback: str = ""


class WorkerError(Exception):
    """A worker cannot continue. All of them have been ended.

    Args:
        index: of the first worker found.
        fault: what became of it.
    """

    def __init__(self, index: int, fault: Fault) -> None:
        super().__init__(f"worker {index} {fault.words}\n{fault.traceback}".rstrip())
        self.index, self.fault = index, fault


@final
class Workers:
    """W processes with an environment each, by Gymnasium's next-step autoreset.

    Every question is answered by all workers before the next is asked, and after a failure they are all gone: no
    answer can be taken for that of another question.

    Args:
        make: the environment.
        space: Box of its observations, after flattening.
        spaces: those of observations and actions that every environment must have.
        number: W.
        timeout: seconds for one answer.

    Raises:
        WorkerError: if an environment cannot be made, or its spaces are others.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env],
        space: gym.spaces.Box,
        spaces: tuple[gym.Space, gym.Space],
        number: int,
        timeout: float,
    ) -> None:
        self.timeout = timeout
        context = multiprocessing.get_context()
        shape = (number, *space.shape)
        buffer: Any = context.RawArray(ctypes.c_byte, max(1, int(np.prod(shape)) * space.dtype.itemsize))
        self.observations = np.ndarray(shape, space.dtype, buffer)  # (W, *O), written by the workers
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        work = CloudpickleWrapper(make)
        for index in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(index, work, space, spaces, theirs, ours, buffer, number),
                name=f"environment {index}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect(range(number), max(timeout, _START))

    def ask(self, rows: Sequence[int], questions: Sequence[Any]) -> list[Any]:
        """Sends some workers their seed (int) or their action (in a tuple), and waits for all answers.

        Args:
            rows: of the workers that are asked; the others stand still.
            questions: one for each of them.

        Returns:
            (reward, terminated, truncated) of each; observations are in `observations`.

        Raises:
            WorkerError: if a worker cannot answer, or not in time.
        """
        for row, question in zip(rows, questions, strict=True):
            with contextlib.suppress(OSError):  # of one that is gone, as will be seen below
                self._pipes[row].send(question)
        return self._collect(rows, self.timeout)

    def close(self) -> None:
        """Lets the environments close, and ends the processes that do not."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        deadline = time.monotonic() + _FAREWELL
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self._end()

    def _collect(self, rows: Sequence[int], seconds: float) -> list[Any]:
        deadline = time.monotonic() + seconds
        answers: dict[int, Any] = dict.fromkeys(rows)
        waiting = {self._pipes[row]: row for row in rows}
        while waiting:
            left = deadline - time.monotonic()
            ready: list[Any] = wait(list(waiting), max(0.0, min(_LOOK, left)))
            if not ready:
                # a pipe ends with its process, but for a child of the environment that has inherited it
                dead = [index for index in waiting.values() if self._processes[index].exitcode is not None]
                if dead:
                    self._give_up(dead[0], self._ending(dead[0]))
                if left <= 0:
                    self._give_up(min(waiting.values()), Fault(f"did not answer in {seconds:g} s", _SLOW))
                continue
            for pipe in ready:
                index = waiting.pop(pipe)
                try:
                    answers[index] = pipe.recv()
                except (EOFError, OSError):
                    self._give_up(index, self._ending(index))
                if isinstance(answers[index], Fault):
                    self._give_up(index, answers[index])
        return list(answers.values())

    def _ending(self, index: int) -> Fault:
        """How a process ended whose pipe is closed."""
        process = self._processes[index]
        process.join(_END)
        if process.exitcode is None:
            return Fault("closed its pipe", _CORRECT)
        if process.exitcode < 0:
            names = {known.value: known.name for known in signal.Signals}
            return Fault(f"was killed by {names.get(-process.exitcode, -process.exitcode)}", _KILLED)
        return Fault(f"exited with code {process.exitcode}", _CORRECT)

    def _give_up(self, index: int, fault: Fault) -> NoReturn:
        self._end()
        raise WorkerError(index, fault)

    def _end(self) -> None:
        for process in self._processes:
            _kill_group(process.pid)
            process.kill()  # one that has no group yet, or no system that knows groups
        for process in self._processes:
            process.join(_FAREWELL)
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._processes = [], []


def _kill_group(leader: int) -> None:
    """Ends a worker and all that its environment has started, by SIGKILL: a handler of SIGTERM may be anybody's."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # nobody is left of it
            os.killpg(leader, signal.SIGKILL)


def _serve(
    index: int,
    make: Callable[[], gym.Env],
    space: gym.spaces.Box,
    spaces: tuple[gym.Space, gym.Space],
    pipe: Connection,
    parent: Connection,
    buffer: Any,
    number: int,
) -> None:
    """A worker's whole life."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # what the environment starts, a simulator say, is of this group and ends with it
    # Signals to the whole group are the main process's to answer; a fork has its handlers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in ("SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent.close()
    threading.Thread(target=_follow, daemon=True).start()
    env = None
    try:
        env = make()
        if (env.observation_space, env.action_space) != spaces:
            raise ScorepathError(
                f"has other spaces than the first: {env.observation_space} and {env.action_space} instead of "
                f"{spaces[0]} and {spaces[1]}"
            )
        _play(Player(env, space), pipe, np.ndarray((number, *space.shape), space.dtype, buffer)[index])
    except BaseException as error:  # sys.exit too
        with contextlib.suppress(OSError):
            pipe.send(_fault(error))
    finally:
        if env is not None:
            env.close()


def _play(player: Player, pipe: Connection, row: np.ndarray) -> None:
    over = False
    pipe.send(None)
    while True:
        try:
            question = pipe.recv()
        except EOFError:  # the main process is gone
            return
        if question is None:
            return
        if over or isinstance(question, int):
            observation = player.reset(question if isinstance(question, int) else None)
            reward, terminated, truncated = 0.0, False, False
        else:
            observation, reward, terminated, truncated = player.step(question[0])
        with np.errstate(over="ignore"):  # infinite values are refused where they are read
            row[...] = observation
        over = terminated or truncated
        pipe.send((reward, terminated, truncated))


def _fault(error: BaseException) -> Fault:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, ScorepathError):
        return Fault(f"stopped ({str(error).rstrip('.')})", _CORRECT, text)
    last = traceback.extract_tb(error.__traceback__)[-1]
    # formatted by the traceback module, for str() of an exception may raise too
    words = short("".join(traceback.format_exception_only(type(error), error)))
    return Fault(f"raised {words} ({os.path.basename(last.filename)}, line {last.lineno})", _CORRECT, text)


def _follow() -> None:
    """Ends this process with the main one, however that ended, also while the environment hangs."""
    main = multiprocessing.parent_process()
    if main is not None:
        wait([main.sentinel])
        _kill_group(os.getpid())
        os._exit(1)
