"""What a run prints: on a terminal, where nobody looks, in a sweep, in a notebook, and when it breaks off."""

import fcntl
import importlib
import io
import itertools
import logging
import os
import pty
import re
import signal
import struct
import sys
import termios
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from helpers import FAULTY, SCRIPTS, Outcome, _job, fork, succeed, sweep, train
from omegaconf import OmegaConf

from scorepath.cli import main
from scorepath.jobs.config_tree import config_tree

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

SECRET = "hunter-22"
FEW = ("episodes_per_update=4", "eval.episodes=5", "record_episode=false", "eval.every_env_steps=300", "logger=csv")
SMALL = (*FEW, "max_env_steps=900", "stop_when_solved=false")
BAR = re.compile(
    r" *\d+%\|.*\| [\d.]+k?/[\d.]+k? \[[\d.?]+k? steps/s, [\d:?]+ left(, return [\d.]+)?(, best [\d.]+)?\]"
)
EVALUATION = re.compile(
    r"([\d,]+) of ([\d,]+) env steps: return ([\d.]+)(?: \(95 % interval ([\d.]+) to ([\d.]+)\))?, best ([\d.]+), "
    r"[\d,]+ steps/s, [\d:]+ left"
)
RESULT = re.compile(r"mean return [\d.]+ \(95 % interval -?[\d.]+ to [\d.]+\) over 5 fresh episodes")


@dataclass(frozen=True)
class Shown:
    """What a command wrote to a terminal."""

    code: int
    text: str
    directory: Path

    @property
    def lines(self) -> list[str]:
        """As they stand on the screen at the end, however often they were written over."""
        lines = []
        for line in self.text.split("\n"):
            letters: list[str] = []
            for piece in line.split("\r"):
                letters[: len(piece)] = piece
            lines.append("".join(letters).rstrip())
        return [line for line in lines if line]


def on_terminal(folder: Path, *overrides: str, columns: int = 80) -> Shown:
    """scripts/train.py in a fork of this process whose terminal is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that are held elsewhere: ours hold nothing
        pid, terminal = pty.fork()
    if not pid:
        code = 70
        try:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
            logging.getLogger().handlers.clear()  # pytest's
            os.chdir(folder)
            sys.argv = [str(SCRIPTS / "train.py"), "hydra.run.dir=run", *overrides]
            main("train", _job("train"))
            code = 0
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            os._exit(code)
    written = io.BytesIO()
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # of the other end, which is gone
            break
        written.write(piece)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Shown(code, written.getvalue().decode().replace("\r\n", "\n"), folder / "run")


def logged(directory: Path) -> list[str]:
    """The messages of a train.log, without their times."""
    return [line.partition("] ")[2] if line.startswith("[") else line for line in _lines(directory)]


def _lines(directory: Path) -> list[str]:
    return [line.replace("][", ", ") for line in (directory / "train.log").read_text().splitlines()]


def evaluations(lines: list[str]) -> list[re.Match]:
    return [match for line in lines if (match := EVALUATION.fullmatch(line))]


def number(text: str) -> float:
    return float(text.replace(",", ""))


def bar_of(shown: Shown) -> str:
    (bar,) = (line for line in shown.lines if BAR.fullmatch(line))
    return bar


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Outcome:
    """A run whose output goes to a file."""
    return succeed(train(tmp_path_factory.mktemp("quiet"), *SMALL))


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Shown:
    """The same on a narrow terminal."""
    shown = on_terminal(tmp_path_factory.mktemp("watched"), *SMALL)
    assert shown.code == 0, shown.text
    return shown


def test_without_a_terminal_each_evaluation_is_a_line(quiet):
    assert quiet.err == ""
    assert not any(BAR.match(line) for line in quiet.out.splitlines())
    assert quiet.out.splitlines() == logged(quiet.directory)
    told = evaluations(quiet.out.splitlines())
    rows = [row for row in quiet.rows if row["eval/return_mean"]]
    assert len(told) == len(rows) >= 2
    best = 0.0
    for match, row in zip(told, rows, strict=True):
        mean = float(row["eval/return_mean"])
        best = max(best, mean)
        assert [number(match[1]), number(match[2])] == [int(row["env_steps"]), 900]
        assert [number(match[3]), number(match[6])] == pytest.approx([mean, best], abs=0.006)
        assert number(match[4]) < mean < number(match[5])


def test_a_run_ends_with_a_table(quiet):
    summary = quiet.summary
    table = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in quiet.out.splitlines()[-9:] if line[0] != " ")
    columns = {re.match(r"(\S+ )*\S*\s{2,}|\s+", line).end() for line in quiet.out.splitlines()[-9:]}
    assert len(columns) == 1  # all cells begin below each other
    assert table["status"].startswith(f"completed after {summary['env_steps']:,} env steps in ")
    assert RESULT.fullmatch(table["result"])
    assert number(table["best evaluation"].split()[0]) == max(
        number(match[6]) for match in evaluations(quiet.out.splitlines())
    )
    assert table["updates"] == f"{summary['updates']} of {summary['episodes']} episodes in all"
    assert table["gradient bias"] == summary["gradient_bias"][0]
    assert f"  {summary['gradient_bias'][1]}" in quiet.out
    assert table["folder"] == "run"
    assert table["evaluate"] == f"python {SCRIPTS / 'eval.py'} run_dir=run"


def test_on_a_terminal_lines_stand_above_a_bar(watched, quiet):
    """Each once, whole, and in the log as well."""
    others = [line for line in watched.lines if not BAR.fullmatch(line)]
    assert others == logged(watched.directory)
    assert len(evaluations(others)) == len(evaluations(quiet.out.splitlines()))
    pieces = re.split("[\r\n]", watched.text)
    drawn = [piece.rstrip() for piece in pieces if "%|" in piece]
    assert all(BAR.fullmatch(piece) and len(piece) <= 80 for piece in drawn), drawn
    bar = bar_of(watched)
    assert bar.startswith("100%|")  # also where the last update goes beyond the budget
    last = evaluations(others)[-1]
    assert bar.endswith(f", best {number(last[6]):.4g}]")


def test_a_resumed_run_knows_what_was_best_before(watched, tmp_path):
    """It learns next to nothing more, and its first evaluation is below the best."""
    before = number(evaluations(logged(watched.directory))[-1][6])
    again = (*SMALL, f"resume={watched.directory}", "max_env_steps=1500", "optimizer.lr=1e-9")
    shown = on_terminal(tmp_path, *again, columns=120)
    assert shown.code == 0, shown.text
    told = evaluations(logged(shown.directory))
    assert told
    assert number(told[0][3]) < before
    bests = [*itertools.accumulate((number(match[3]) for match in told), max, initial=before)]
    assert [number(match[6]) for match in told] == bests[1:]
    assert bar_of(shown).endswith(f", best {bests[-1]:.4g}]")
    assert f"best evaluation  {bests[-1]:.2f}" in "\n".join(shown.lines)
    first = next(piece for piece in re.split("[\r\n]", shown.text) if "/1.50k [" in piece)
    assert int(first.partition("%")[0]) >= 60  # it begins where it was


def test_a_run_that_fails_leaves_the_line_of_the_bar(tmp_path):
    faulty = ("env=gym", f"env.id={FAULTY}", "dist=bernoulli", "+env.kwargs.bad=reward")
    shown = on_terminal(tmp_path, *SMALL, *faulty, "+env.kwargs.under=training_step")
    assert shown.code == 1, shown.text
    (sentence,) = (line for line in shown.lines if "not finite" in line)
    assert sentence.startswith("scorepath: ")


def test_in_a_sweep_a_job_has_one_line(tmp_path):
    outcome = succeed(sweep(tmp_path, *SMALL, "max_env_steps=400", "seed=0,1"))
    assert not evaluations(outcome.out.splitlines())
    lines = [line for line in outcome.out.splitlines() if RESULT.search(line)]
    assert len(lines) == 2
    for job, line in zip(("seed-0", "seed-1"), lines, strict=True):
        assert line.endswith(f". outputs/sweeps/it/{job}")
        assert evaluations(logged(outcome.directory / job))
    assert "evaluate" not in outcome.out


# ------------------------------------------------------------------ the config


def test_the_config_is_printed_on_request(tmp_path):
    overrides = ("print_config=true", "objective=env_steps", "logger=none")
    outcome = succeed(train(tmp_path, "debug=one_update", *overrides))
    lines = outcome.out.splitlines()
    told = next(place for place, line in enumerate(lines) if line.startswith("The gradient is biased"))
    assert {"seed: 0", "env=cartpole", "  id: CartPole-v1", "objective: env_steps"} <= set(lines[:told])
    assert lines[:told] == logged(outcome.directory)[:told]


def test_environment_variables_are_named_and_not_shown(monkeypatch):
    monkeypatch.setenv("SCOREPATH_TEST", SECRET)
    monkeypatch.setenv("SCOREPATH_NUMBER", "1e3")
    cfg = OmegaConf.create(
        {
            "seed": 3,
            "twice": "${seed}",
            "logger": {
                "key": "${oc.env:SCOREPATH_TEST}",
                "same": "${.key}",
                "inside": "a ${logger.key} b",
                "many": ["${logger.key}", 1],
                "number": "${oc.decode:${oc.env:SCOREPATH_NUMBER}}",
                "its": "${.number}",
            },
            "env": None,
        }
    )
    assert list(config_tree(cfg, {"logger": "mine", "env": "none"})) == [
        "seed: 3",
        "twice: 3",
        "logger=mine",
        "  key: ${oc.env:SCOREPATH_TEST}",
        "  same: ${oc.env:SCOREPATH_TEST}",
        "  inside: a ${oc.env:SCOREPATH_TEST} b",
        '  many: ["${oc.env:SCOREPATH_TEST}", 1]',
        "  number: ${oc.decode:${oc.env:SCOREPATH_NUMBER}}",
        "  its: ${oc.decode:${oc.env:SCOREPATH_NUMBER}}",
        "env=none: null",
    ]
    computed = OmegaConf.create({"a": "${oc.env:SCOREPATH_NUMBER}", "b": "${oc.decode:${a}}"})
    assert list(config_tree(computed, {})) == ["a: ${oc.env:SCOREPATH_NUMBER}", "b: ${oc.decode:${a}}"]


# ------------------------------------------------------------------ the picture


class Undrawable(CartPoleEnv):
    """CartPole on a machine whose driver crashes when it draws."""

    def render(self):
        os.kill(os.getpid(), signal.SIGKILL)


gym.register("UndrawableCartPole-v0", Undrawable, max_episode_steps=60, disable_env_checker=True)


def test_a_crash_while_the_picture_is_drawn_loses_nothing(tmp_path):
    drawn = ("env=gym", "env.id=UndrawableCartPole-v0", "dist=bernoulli", *SMALL, "max_env_steps=300")
    pid = fork(tmp_path, *drawn, "record_episode=true")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    cut = Outcome(0, "", "", tmp_path / "run")
    assert any(RESULT.search(line) for line in logged(cut.directory))
    assert cut.summary["status"] == "interrupted"
    again = succeed(train(tmp_path, *drawn, "resume=auto"))
    assert again.summary["status"] == "completed"
    times = {"status", "train_seconds", "total_seconds", "env_steps_per_second"}
    assert all(again.summary[key] == value for key, value in cut.summary.items() if key not in times)


# ------------------------------------------------------------------ a notebook


def test_a_notebook_without_widgets_has_no_warning():
    """In a fork: what is imported here is not imported again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if not pid:
        code = 70
        try:
            for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook", "scorepath.callbacks.progress"):
                sys.modules.pop(name, None)
            kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
            ipython = types.ModuleType("IPython")
            ipython.get_ipython = lambda: kernel
            sys.modules["IPython"] = sys.modules["IPython.core.getipython"] = ipython
            sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
            sys.modules["ipywidgets"] = None
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                progress = importlib.import_module("scorepath.callbacks.progress")
                code = 0 if sys.modules["tqdm.notebook"].IProgress is None and progress.Progress else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
