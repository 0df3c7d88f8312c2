"""What is written whole, and who may write: kills, full disks, folders without locks, folders that may only be read."""

import ast
import contextlib
import csv
import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PATIENCE, ROOT, environment, machine, train
from lightning.pytorch.utilities import rank_zero_only
from tiers import slow

from scorepath.errors import ConfigError, OutputError
from scorepath.run import lock
from scorepath.run.checkpoints import SealedCheckpointIO
from scorepath.run.csv_logger import CSVLogger, read_metrics
from scorepath.run.directory import RUN_FILES, write_json
from scorepath.run.files import partial_of, replacing, write_bytes, write_shared, write_text
from scorepath.run.lock import locked
from scorepath.run.recording import write_video

SOURCES = sorted((ROOT / "src" / "scorepath").rglob("*.py"))

# ------------------------------------------------------------------ written whole


def test_a_file_is_the_old_or_the_new_one_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        assert partial_of(path).exists()
    assert path.read_text() == "new"
    with pytest.raises(FileNotFoundError, match=r"'.*/nowhere/file'"):
        write_text(tmp_path / "nowhere" / "file", "new")
    with pytest.raises(KeyError), replacing(path, text=True) as file:
        file.write("half")
        raise KeyError
    assert path.read_text() == "new"
    with replacing(path, keep=tmp_path / "before") as file:
        file.write(b"newest")
    assert (path.read_text(), (tmp_path / "before").read_text()) == ("newest", "new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["before", "file"]


def test_what_a_killed_process_left_is_in_no_ones_way_and_links_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "file"
    for place in (path, partial_of(path)):
        place.symlink_to(victim)
    write_text(path, "new")
    assert (path.read_text(), path.is_symlink()) == ("new", False)
    partial_of(path).write_text("x" * 100)
    write_text(path, "newer")
    assert (path.read_text(), victim.read_text()) == ("newer", "mine")


def test_what_is_no_file_is_not_put_away(tmp_path):
    """With the rights for it a device can be replaced by a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(FileExistsError, match="is no file"):
            write_bytes(tmp_path / name, b"new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "pipe"]


@contextmanager
def room(number: int):
    """This process may write no file longer than that, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def widen(path: Path) -> None:
    CSVLogger(path, flush_every=1).log_metrics({"new": 1.0}, 10**6)


def purge(path: Path) -> None:
    CSVLogger(path, purge_step=4000).save()


def checkpoint(path: Path) -> None:
    SealedCheckpointIO().save_checkpoint({"a": torch.zeros(1000)}, path)


def draw(path: Path) -> None:
    from matplotlib.figure import Figure

    from scorepath.jobs.plot import write_figure

    write_figure(Figure(), path)


def film(path: Path) -> None:
    write_video([np.full((40, 60, 3), number, np.uint8) for number in range(9)], 25.0, path.with_suffix(""))


WRITERS = {
    "summary.json": lambda path: write_json(path, {"a": "x" * 1000}),
    "last.ckpt": checkpoint,
    "best.ckpt": checkpoint,
    "metrics.csv": widen,
    "curves.png": draw,
    "episode.gif": film,
    "episode.mp4": film,
}


@pytest.mark.parametrize(("name", "write"), [*WRITERS.items(), ("metrics.csv", purge)])
def test_a_full_disk_costs_nothing_that_was_there(tmp_path, monkeypatch, name, write):
    if name == "episode.gif":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    elif name == "episode.mp4":
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / name
    before = b"old"
    if name == "metrics.csv":
        before = b"env_steps,a\r\n" + b"".join(b"%d,0.5\r\n" % steps for steps in range(5000))
    path.write_bytes(before)
    words = rf"too large.*{name}|{name}.*too large|ffmpeg has not finished.*{name}"
    with pytest.raises((OSError, OutputError), match=words), room(64):
        write(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    write(path)
    assert path.read_bytes() != before


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from scorepath.run.files import write_bytes
write_bytes(Path(sys.argv[1]), b"a" * 3_000_000)
print("begun", flush=True)
while True:
    for letter in (b"b", b"a"):
        write_bytes(Path(sys.argv[1]), letter * 3_000_000)
"""


def test_killed_while_writing(tmp_path):
    path = tmp_path / "file"
    for number in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdout.readline() == b"begun\n"
            time.sleep(0.013 * number)
            process.kill()
        assert path.read_bytes() in (b"a" * 3_000_000, b"b" * 3_000_000)


def writes_in_place(call: ast.Call) -> bool:
    """Whether a call looks like one that empties a file before it writes to it."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return (
        (name in ("write_text", "write_bytes") and isinstance(function, ast.Attribute))
        or (name == "open" and any(str(value).startswith("w") for value in values))
        or (name == "save" and isinstance(function, ast.Attribute) and ast.unparse(function.value) == "OmegaConf")
    )


def test_nothing_is_written_over_in_its_place():
    """But by `replacing`. A lock's file holds nothing to lose, and a console's is no file."""
    own = {"run/files.py", "run/lock.py", "run/console.py"}
    names = {path.relative_to(ROOT / "src" / "scorepath").as_posix(): path for path in SOURCES}
    found = [
        f"{name}: {ast.unparse(node)}"
        for name, path in names.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if name not in own and isinstance(node, ast.Call) and writes_in_place(node)
    ]
    assert not found


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_file_systems_that_cannot_sync_are_written_to(tmp_path, number):
    """Some of the network's answer so for folders, some for files too."""
    code = (
        "import json, sys; from pathlib import Path; from scorepath.run.directory import *;"
        "check_writable(Path(sys.argv[1])); write_json(Path(sys.argv[1], 'a.json'), {'a': 1})"
    )
    done = child(tmp_path, code, fsync=number)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_disk_that_fails_to_sync_is_told(tmp_path):
    code = "import sys; from pathlib import Path; from scorepath.run.files import write_text;"
    code += "write_text(Path(sys.argv[1], 'a'), '')"
    done = child(tmp_path, code, fsync=errno.EIO)
    assert "Input/output error" in done.stderr
    assert not (tmp_path / "a").exists()


# ------------------------------------------------------------------ metrics.csv


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_half_a_line_is_dropped_before_more_is_appended(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"env_steps,a\r\n10,1.0\r\n20,2.")
    CSVLogger(path, flush_every=1).log_metrics({"a": 3.0}, 30)
    assert rows_of(path) == [["env_steps", "a"], ["10", "1.0"], ["30", "3.0"]]
    path.write_bytes(b"env_ste")
    CSVLogger(path, flush_every=1).log_metrics({"a": 3.0}, 30)
    assert rows_of(path) == [["env_steps", "a"], ["30", "3.0"]]


def test_a_rewrite_holds_no_rows(tmp_path):
    """By the memory that Python takes for it: less than the file is long."""
    import tracemalloc

    path, number = tmp_path / "metrics.csv", 20_000
    path.write_text("env_steps,a,b\r\n" + "".join(f"{steps},{steps / 7},\r\n" for steps in range(number)))
    logger = CSVLogger(path, flush_every=1, purge_step=number - 10)
    tracemalloc.start()
    try:
        logger.log_metrics({"a": 1.0, "c": 1.0}, number)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size
    rows = read_metrics(path)
    assert len(rows) == number - 10 + 1
    assert rows[5] == {"env_steps": "5", "a": str(5 / 7), "b": "", "c": ""}
    assert rows[-1] == {"env_steps": str(number), "a": "1.0", "b": "", "c": "1.0"}


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "env_steps,a\n1\n", "env_steps\nx\n", "env_steps\n" + "1" * 2**20 + "\n1"]
)
def test_a_damaged_file_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match="is damaged"):
        CSVLogger(path, flush_every=1, purge_step=5).log_metrics({"a": 1.0}, 9)
    assert path.read_text() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.csv"]


def test_of_several_processes_one_writes(tmp_path, monkeypatch):
    """Each of a distributed run has its loggers, and saves them; two at once would take the file from each other."""
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"env_steps,a\r\n10,1.0\r\n20,2.0\r\n")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    other = CSVLogger(path, purge_step=15)
    other.finalize("success")
    assert len(read_metrics(path)) == 2


# ------------------------------------------------------------------ what is cleared away


def test_only_the_run_s_own_half_written_files_are_cleared_away(tmp_path):
    """Not a stranger's, nor those of a run in a folder below, which may be saving just now."""
    run = tmp_path / "run"
    own = [partial_of(run / name) for name in RUN_FILES]
    others = [run / "docs/.movie.partial", run / ".notes.txt.partial", run / "checkpoints/.mine.ckpt.partial"]
    others += [partial_of(run / "run_2" / name) for name in RUN_FILES]
    others += [partial_of(run / "evaluation.json"), partial_of(run / "curves.png")]  # of eval.py and plot.py, just now
    for path in (*own, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with locked(run):
        assert not any(path.exists() for path in own)
        assert all(path.exists() for path in others)


def test_what_cannot_be_cleared_away_is_told_and_the_folder_given_back(tmp_path):
    partial_of(tmp_path / "summary.json").mkdir()
    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be written to"), locked(tmp_path):
            pass


def test_what_a_run_writes_whole_is_known(tmp_path, monkeypatch):
    """Or what a killed one has left of another file would stay."""
    replaced = set()
    replace = Path.replace

    def note(path, target):
        replaced.add(Path(target).relative_to(tmp_path / "run").as_posix())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", note)
    for budget in (200, 400):
        outcome = train(
            *(tmp_path, f"max_env_steps={budget}", "eval.episodes=1", "episodes_per_update=2"),
            *("eval.every_env_steps=50", "record_episode=true", "resume=auto"),
        )
        assert outcome.code == 0, outcome.err
    assert replaced == {*RUN_FILES, "checkpoints/previous.ckpt"}


# ------------------------------------------------------------------ file systems without locks

NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


def child(folder: Path, code: str, **answers: int) -> subprocess.CompletedProcess:
    with tempfile.TemporaryDirectory() as place:
        return subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env=machine(Path(place), **answers), capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip


HOLD = """
import sys, time
from pathlib import Path
from scorepath.errors import ConfigError
from scorepath.run.lock import locked
try:
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except ConfigError as error:
    print(error, flush=True)
"""


@contextmanager
def holding(run: Path, variables: dict[str, str]):
    """A process that has been told to lock a folder, and its answer."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        yield process, process.stdout.readline().strip()
        process.kill()


@pytest.mark.parametrize(
    "number", [None, NO_LOCKS[0], *map(slow, NO_LOCKS[1:])], ids=lambda number: errno.errorcode.get(number, "locks")
)
def test_one_process_at_a_time_and_a_killed_one_does_not_count(tmp_path, number):
    variables = environment() if number is None else machine(tmp_path / "machine", flock=number)
    run = tmp_path / "run"
    run.mkdir()
    with holding(run, variables) as (first, answer):
        assert answer == "held"
        for _ in range(2):  # who is refused leaves the lock as it was
            with holding(run, variables) as (_, answer):
                assert f"{run} is in use by another run (process {first.pid}" in answer
        first.send_signal(signal.SIGKILL)
        first.wait()
        with holding(run, variables) as (second, answer):
            assert answer == "held"
            with holding(run, variables) as (_, answer):
                assert f"(process {second.pid}" in answer
            second.communicate("\n")
    assert {path.name for path in run.iterdir()} <= {".lock"}


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_mark_from_where_nobody_can_look_says_what_to_do(tmp_path, without_locks):
    """Of another machine or container, of an older version, or of a process that has just made it."""
    mark = tmp_path / ".lock.owner"
    own = lock.describe_process(os.getpid()).split()
    for content in (" ".join((*own[:2], "elsewhere", own[3])), " ".join((*own[:3], "pid:[1]")), "4711", ""):
        mark.write_text(content)
        words = r"in use by another run .* or remove .*\.lock\.owner if you know that the run was killed"
        with pytest.raises(ConfigError, match=words) as error, locked(tmp_path):
            pass
        assert "\n" not in str(error.value)
        assert mark.read_text() == content
    assert "an unknown process" in str(error.value)
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")):  # as somebody else may give it away
        mark.unlink()
        make(mark)
        with pytest.raises(ConfigError, match=words), locked(tmp_path):
            pass
        if mark.is_dir():
            mark.rmdir()
            mark.touch()
    mark.unlink()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_mark_that_cannot_be_written_is_not_left_behind(tmp_path, without_locks):
    with pytest.raises(ConfigError, match=r"cannot be written to .*too large"), room(4), locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs to know when a process began")
def test_a_number_that_another_process_has_by_now_does_not_count(tmp_path, without_locks):
    number, _, *place = lock.describe_process(os.getppid()).split()
    (tmp_path / ".lock.owner").write_text(" ".join((number, "1", *place)))
    with locked(tmp_path), pytest.raises(ConfigError, match="in use"), locked(tmp_path):
        pass


def test_a_process_that_nobody_has_waited_for_does_not_count(tmp_path, without_locks):
    """In a container nobody may."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        (tmp_path / ".lock.owner").write_text(lock.describe_process(process.pid))
        with pytest.raises(ConfigError, match=f"process {process.pid} on"), locked(tmp_path):
            pass
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with locked(tmp_path):
            pass


def contend(runs: list[Path], barrier, winners) -> None:
    for number, run in enumerate(runs):
        barrier.wait(PATIENCE)
        with contextlib.suppress(ConfigError), locked(run):
            winners.put(number)
            barrier.wait(PATIENCE)
            continue
        barrier.wait(PATIENCE)


def test_of_many_that_find_a_mark_left_behind_one_takes_it_over(tmp_path, without_locks):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    owner = lock.describe_process(gone.pid)
    gone.wait()
    runs = [tmp_path / str(number) for number in range(200)]
    for run in runs:
        run.mkdir()
        (run / ".lock.owner").write_text(owner)
    context = multiprocessing.get_context("fork")
    barrier, winners = context.Barrier(4), context.Queue()
    processes = [context.Process(target=contend, args=(runs, barrier, winners)) for _ in range(4)]
    for process in processes:
        process.start()
    found = sorted(winners.get(timeout=PATIENCE) for _ in runs)
    for process in processes:
        process.join(PATIENCE)
    assert found == list(range(len(runs)))
    assert winners.empty()
    assert not list(tmp_path.rglob(".lock*"))


def test_a_taking_over_that_was_killed_says_what_to_remove(tmp_path, without_locks):
    for name in (".lock.owner", ".lock.owner.next"):
        (tmp_path / name).write_text("1 1 elsewhere -")
    with pytest.raises(ConfigError, match=r"remove .*\.lock\.owner\.next if"), locked(tmp_path):
        pass


def test_several_may_write_what_they_share_at_once(tmp_path):
    """Commands that plan the same sweep hold no lock."""
    texts = [letter * 100_000 for letter in "abcdefgh"]

    def write(text: str) -> None:
        for _ in range(20):
            write_shared(tmp_path / "file", text)
            assert (tmp_path / "file").read_text() in texts

    with ThreadPoolExecutor(len(texts)) as threads:
        list(threads.map(write, texts))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
