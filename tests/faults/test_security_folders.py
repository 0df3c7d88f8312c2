"""Folders of strangers: nothing is written through what lies in them, and nothing waits for it or is filled by it."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
from helpers import Outcome, evaluate, finish, plot, start, sweep, train
from tiers import slow

from scorepath.errors import ConfigError
from scorepath.run.checkpoints import load_checkpoint, seal
from scorepath.run.csv_logger import read_metrics
from scorepath.run.printing import escape
from scorepath.run.reading import check_links, check_run_folder, open_regular, read_json
from scorepath.run.trust import read_config, read_overrides
from scorepath.sweeps.records import read_sweep
from scorepath.sweeps.table import format_table

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

SMALL = ("episodes_per_update=2", "eval.episodes=2", "record_episode=false", "max_env_steps=1")
MINE = "mine"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a whole run in `run`: all loggers, and checkpoints of two evaluations."""
    folder = tmp_path_factory.mktemp("saved")
    outcome = train(folder, *SMALL, "max_env_steps=200", "eval.every_env_steps=50")
    assert outcome.code == 0, outcome.err
    assert (outcome.directory / "checkpoints" / "previous.ckpt").exists()
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    shutil.copytree(saved / "run", tmp_path / "run")
    return tmp_path


def resume(folder: Path, *overrides: str) -> Outcome:
    return train(folder, *SMALL, "max_env_steps=400", "eval.every_env_steps=50", "resume=auto", *overrides)


def written(folder: Path) -> list[str]:
    """All that a run has written, and what it writes and is gone by now."""
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert {".hydra", "checkpoints", "tensorboard", ".lock", "train.log", "metrics.csv", "summary.json"} <= set(there)
    partial = [".summary.json.partial", ".metrics.csv.partial", "checkpoints/.last.ckpt.partial"]
    return [*there, *partial, ".hydra/.config.yaml.partial", "tensorboard/new", ".hydra/new"]


def state(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_link_of_a_name_that_a_run_writes_is_found(folder):
    check_run_folder(folder / "run")
    for name in written(folder / "run"):
        kept = folder / "run" / name
        if kept.exists():
            kept.rename(folder / "kept")
        kept.symlink_to(folder / "absent")
        with pytest.raises(ConfigError, match=f"{name} is a link to"):
            check_run_folder(folder / "run")
        kept.unlink()
        if (folder / "kept").exists():
            (folder / "kept").rename(kept)


FEW = [".hydra", "metrics.csv"]
MORE = [".hydra/config.yaml", "train.log", "checkpoints", "summary.json"]


@pytest.mark.parametrize(
    "names", [FEW, slow(MORE), pytest.param(None, marks=pytest.mark.faults)], ids=["few", "more", "all"]
)
def test_nothing_is_written_through_links(folder, names):
    """A file, a folder, one that is not there yet, one that points nowhere."""
    assert resume(folder).code == 0  # where nothing is linked
    outside = folder / "outside"
    for name in names or written(folder / "run"):
        outside.mkdir()
        (outside / "file").write_text(MINE)
        kept = folder / "run" / name
        if kept.exists():
            kept.rename(folder / "kept")
        targets = [outside] if (folder / "kept").is_dir() else [outside / "file", outside / "absent"]
        for target in targets:
            kept.symlink_to(target)
            before = state(folder)
            outcome = resume(folder)
            assert outcome.code == 2, name
            assert f"{name} is a link to" in outcome.sentence, name
            assert state(folder) == before, name
            assert [path.name for path in outside.iterdir()] == ["file"], name
            kept.unlink()
        if (folder / "kept").exists():
            (folder / "kept").rename(kept)
        shutil.rmtree(outside)


def test_links_beside_a_run_are_nobody_elses_business(folder):
    (folder / "data").mkdir()
    (folder / "run" / "data").symlink_to(folder / "data")
    (folder / "run").rename(folder / "elsewhere")
    (folder / "run").symlink_to(folder / "elsewhere")  # which the user names
    assert resume(folder).code == 0


@pytest.mark.parametrize(
    "names",
    [("seed-1", "multirun.yaml"), slow(("seed-1/.hydra", "seed-1/train.log", "seed-1/.summary.json.partial"))],
    ids=" ".join,
)
def test_a_sweep_writes_through_no_links(tmp_path, names):
    jobs = (*SMALL, "logger=csv", "seed=0,1")
    outcome = sweep(tmp_path, *jobs)
    assert outcome.code == 0, outcome.err
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in names:
        kept = outcome.directory / name
        if kept.exists():
            kept.rename(tmp_path / "kept")
        kept.symlink_to(outside if (tmp_path / "kept").is_dir() else outside / "file")
        linked = sweep(tmp_path, *jobs, "resume=auto")
        assert linked.code == 2, name
        assert f"{name} is a link to" in linked.err, name
        assert list(outside.iterdir()) == [], name
        kept.unlink()
        if (tmp_path / "kept").exists():
            (tmp_path / "kept").rename(kept)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # for their paths are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


ODD = {
    "pipe": pipe,
    "socket": unix_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_not_read(tmp_path, kind):
    path = tmp_path / "odd"
    ODD[kind](path)
    for read in (read_config, read_overrides, read_metrics, load_checkpoint):
        with pytest.raises(ConfigError, match="odd"):
            read(path)
    with pytest.raises(ValueError, match="no file"):
        read_json(path)
    with pytest.raises(OSError, match="no file"):
        open_regular(path, 10)
    if kind not in ("device", "terminal"):  # which are links here
        with pytest.raises(ConfigError, match="odd is no file, and a run writes one there"):
            check_links(tmp_path, "odd")


@pytest.mark.parametrize("tail", [b"", seal(b""), b"whole"], ids=["hole", "sealed", "archive at the end"])
@pytest.mark.parametrize("gigabytes", [3, 40])
def test_a_hole_is_not_read(saved, tmp_path, gigabytes, tail):
    path = tmp_path / "last.ckpt"
    if tail == b"whole":
        tail = (saved / "run" / "checkpoints" / "last.ckpt").read_bytes()
    with path.open("wb") as file:
        file.truncate(gigabytes << 30)
        file.seek(0, os.SEEK_END)
        file.write(tail)
    with pytest.raises(ConfigError, match=r"last\.ckpt (cannot be read|is cut off|is damaged)"):
        load_checkpoint(path)
    for read in (read_config, read_overrides):
        with pytest.raises(ConfigError, match=r"at most 262,144 are read"):
            read(path)
    with pytest.raises(ValueError, match="at most"):
        read_json(path)


EVAL, PLOT = ("eval", "run_dir=run", "episodes=2"), ("plot", "runs=run")
TRAIN = ("train", *SMALL, "max_env_steps=400", "eval.every_env_steps=50", "resume=auto", "hydra.run.dir=run")
READERS = {  # a file of a run -> the commands that read it or write to it
    ".hydra/config.yaml": [EVAL, TRAIN],
    ".hydra/overrides.yaml": [PLOT],
    "summary.json": [PLOT, TRAIN],
    "metrics.csv": [PLOT, TRAIN],
    "train.log": [TRAIN],
    ".lock": [TRAIN],
    "checkpoints/best.ckpt": [EVAL],
    "checkpoints/last.ckpt": [TRAIN, (*EVAL, "checkpoint=last")],
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["pipe", "socket", "hole"])
@pytest.mark.parametrize("name", READERS)
def test_a_folder_of_what_is_no_file_ends_in_a_sentence(folder, name, kind):
    """In processes of their own, which would wait or be ended for want of memory."""
    path = folder / "run" / name
    path.unlink()
    if kind == "hole":
        with path.open("wb") as file:
            file.truncate(40 << 30)
    else:
        ODD[kind](path)
    for script, *overrides in READERS[name]:
        outcome = finish(start(script, folder, *overrides), folder)
        assert outcome.code in (0, 2), (script, outcome.err)
        assert "Traceback" not in outcome.err, (script, outcome.err)
        if outcome.code:
            assert outcome.sentence


DAMAGED = {
    "huge mean": '{"status": "completed", "eval_return_mean": 1' + "0" * 400 + "}",
    "huge steps": '{"status": "completed", "eval_return_mean": 1.0, "env_steps": 1' + "0" * 400 + "}",
    "huger": '{"status": "completed", "eval_return_mean": 1' + "0" * 5000 + "}",
    "huge interval": '{"status": "completed", "eval_return_mean": 1, "eval_return_ci95": [1' + "0" * 400 + ", 2]}",
    "infinite": '{"status": "completed", "eval_return_mean": 1e999}',
    "NaN": '{"status": "completed", "eval_return_mean": NaN}',
    "no number": '{"status": "completed", "eval_return_mean": 1, "eval_return_ci95": [null, null]}',
    "nested": "[" * 200_000,
    "nested dicts": '{"a":' * 100_000,
    "long": '{"status": "completed", "a": "' + "b" * (1 << 20) + '"}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_summary_has_one_status(folder, text):
    (folder / "run" / "summary.json").write_text(text)
    (row,) = read_sweep(folder)
    assert row == {"job": "run", "status": "summary damaged"}


@pytest.mark.parametrize(
    "text", [text if name in ("huge mean", "nested") else slow(text) for name, text in DAMAGED.items()], ids=DAMAGED
)
def test_a_plot_shows_a_damaged_summary_as_one(folder, text):
    (folder / "run" / "summary.json").write_text(text)
    outcome = plot(folder, "runs=.")
    assert outcome.code == 0, outcome.err
    assert "1 summary damaged" in outcome.out
    assert "Traceback" not in outcome.err


# ------------------------------------------------------------------ what is printed

RED, TITLE, RIGHT_TO_LEFT = "\x1b[31m", "\x1b]0;owned\x07", "\u202e"
STEERING = [RED, TITLE, RIGHT_TO_LEFT, "\n", "\r", "\x9b31m", "\u2028", "\x7f", "\u2066", "\ufeff", "\udc80"]
ORDINARY = ["plain", "größer = 3", "学習率", "π(a|o) ≥ ½ → ∞", "👩\u200d🔬", "می\u200cخواهم", "a\u00a0b", r"C:\new"]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text):
    assert escape(text) == text


@pytest.mark.parametrize("text", STEERING, ids=ascii)
def test_what_steers_a_terminal_is_escaped(text):
    escaped = escape(f"a{text}b")
    assert escaped.isprintable()
    assert escaped.encode().decode("unicode_escape") == f"a{text}b"
    assert escape(escaped) == escaped
    assert all(line.isprintable() for line in format_table(("x",), [(text,)]).split("\n"))


def shown(*outcomes: Outcome) -> None:
    for outcome in outcomes:
        text = outcome.out + outcome.err
        assert "\\x1b[31m" in text, text
        assert all(line.isprintable() for line in text.split("\n") if "env steps" not in line), ascii(text)


def test_texts_of_files_and_overrides_are_shown_escaped(folder):
    steering = f"{RED}x{RIGHT_TO_LEFT}\nscorepath: completed"
    run = folder / "run"
    refused = train(folder, *SMALL, f'policy.init="{steering}"', directory="other")
    (run / ".hydra" / "overrides.yaml").write_text(json.dumps([f"+a={steering}", "seed=0"]))
    curves = plot(folder, "runs=run")
    (run / "summary.json").write_text(json.dumps({"status": steering}))
    table = plot(folder, "runs=run")
    (run / ".hydra" / "config.yaml").write_text(json.dumps({"env": {"_target_": steering}}))
    evaluated = evaluate(folder, "run_dir=run")
    named = folder / f"{RED}y"
    named.mkdir()
    unknown = evaluate(folder, f'run_dir="{named}"')
    assert "a-31mx-scorepath-completed" in curves.out  # a name has nothing to escape
    for outcome in (refused, table, evaluated, unknown):
        shown(outcome)
    assert {refused.code, evaluated.code, unknown.code} == {2}


def test_logs_are_escaped_too(folder):
    name = f"{RED}run"
    (folder / "run").rename(folder / name)
    longer = (*SMALL, "max_env_steps=400", "eval.every_env_steps=50", "resume=auto")
    outcome = train(folder, *longer, directory=f'"{name}"')
    shown(outcome)
    log = (folder / name / "train.log").read_text()
    assert "Resuming from" in log
    assert "\x1b" not in log
