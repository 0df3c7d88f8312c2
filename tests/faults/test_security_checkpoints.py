"""Checkpoints of strangers are data: real pickles that run code are refused without running it, and so are bombs."""

import contextlib
import copy
import functools
import importlib
import io
import marshal
import operator
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import webbrowser
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import evaluate, train
from tiers import slow

from scorepath.errors import ConfigError
from scorepath.run.archive import check_archive, check_content
from scorepath.run.checkpoints import load_checkpoint, seal

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

SMALL = ("episodes_per_update=2", "eval.episodes=2", "record_episode=false", "logger=none", "max_env_steps=1")
TERA = 2**40
STATE = """
from pathlib import Path
class State:
    def __setstate__(self, state):
        Path(state["file"]).touch()
"""


class Call:
    """Pickled as a call of a function, whose parts may be calls themselves; `state` and `setter` as of __reduce__."""

    def __init__(self, function, *arguments, state=None, setter=None):
        self.form = (function, arguments) if setter is None else (function, arguments, state, None, None, setter)

    def __reduce__(self):
        return self.form

    def __call__(self):
        raise AssertionError("pickle only asks whether it could be called")


def method(name: str, *arguments: object) -> Call:
    return Call(operator.methodcaller(name, *arguments[1:]), arguments[0])


def state(file: str) -> object:
    made = importlib.import_module("gadgets").State()
    made.file = file
    return made


def bomb(file: str) -> str:
    """The path of a checkpoint that touches the file."""
    torch.save(Call(os.system, f"touch {file}"), f"{file}.inner")
    return f"{file}.inner"


def function_type() -> Call:
    """Pickle finds it only by this way."""
    return Call(getattr, Call(importlib.import_module, "types"), "FunctionType")


def code(file: str) -> bytes:
    return marshal.dumps(compile(f"open({file!r}, 'w').close()", "gadget", "exec"))


# Each touches a file when it is unpickled
GADGETS = {
    "os.system": lambda file: Call(os.system, f"touch {file}"),
    "builtins.eval": lambda file: Call(eval, f"open({file!r}, 'w').close()"),
    "builtins.exec": lambda file: Call(exec, f"open({file!r}, 'w').close()"),
    "builtins.open": lambda file: method("close", Call(open, file, "w")),
    "subprocess.Popen": lambda file: method("wait", Call(subprocess.Popen, ["touch", file])),
    "importlib": lambda file: Call(Call(getattr, Call(importlib.import_module, "os"), "system"), f"touch {file}"),
    "__import__": lambda file: Call(Call(operator.attrgetter("system"), Call(__import__, "os")), f"touch {file}"),
    "torch.load": lambda file: Call(functools.partial(torch.load, weights_only=False), bomb(file)),
    "numpy.savetxt": lambda file: Call(np.savetxt, file, [1.0]),
    "functools.partial": lambda file: Call(functools.partial(os.system, f"touch {file}")),
    "map": lambda file: Call(list, Call(map, os.system, [f"touch {file}"])),
    "Path.write_text": lambda file: Call(Path.write_text, Path(file), "x"),
    "__setstate__": state,
    "setter of a state": lambda file: Call(Path, file, state="x", setter=Path.write_text),
    "webbrowser": lambda file: method("open", Call(webbrowser.GenericBrowser, "touch"), file),
    "types.FunctionType": lambda file: Call(Call(function_type(), Call(marshal.loads, code(file)), {})),
    "torch's wrapper": lambda file: Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (f"touch {file}",), {}
    ),
}
# the same calls by operations that torch.save does not write
STREAMS = {
    "INST": lambda file: b"(S'touch %s'\nios\nsystem\n." % file.encode(),
    "OBJ": lambda file: b"(cos\nsystem\nS'touch %s'\no." % file.encode(),
    "STACK_GLOBAL": lambda file: pickle.dumps(Call(os.system, f"touch {file}"), 4),
    "EXT1": lambda file: b"\x80\x02\x82\x01(X\x01\x00\x00\x00atR.",
}


def packed(stream: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save lays it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/version", "3\n")
        for key, content in (records or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return buffer.getvalue()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def sealed(path: Path, data: bytes) -> Path:
    """A checkpoint file whose checksum is right: a stranger can compute it too."""
    path.write_bytes(data + seal(data))
    return path


@pytest.fixture
def gadgets(tmp_path, monkeypatch):
    """A module with a class that touches a file in __setstate__."""
    (tmp_path / "gadgets.py").write_text(STATE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("gadgets", None)


@pytest.mark.parametrize("name", GADGETS)
def test_pickle_of_a_stranger_runs_nothing(gadgets, name):
    file = gadgets / "ran"
    content = {"state_dict": {}, "scorepath": {"format": 1, "extra": GADGETS[name](str(file))}}
    data = saved(content)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        stream = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    with contextlib.suppress(AttributeError):  # of torch's wrapper, after it has called
        pickle.loads(stream)
    assert file.exists(), "the gadget does not work, so that the test would show nothing"
    file.unlink()
    with pytest.raises(ValueError, match="which plain data does not need"):
        check_archive(data)
    with pytest.raises(ConfigError):
        load_checkpoint(sealed(gadgets / "last.ckpt", data))
    assert not file.exists()


@pytest.mark.parametrize("name", STREAMS)
def test_operations_that_plain_data_does_not_need(gadgets, name):
    file = gadgets / "ran"
    data = packed(STREAMS[name](str(file)))
    with pytest.raises(ValueError, match="which plain data does not need"):
        check_archive(data)
    with pytest.raises(ConfigError):
        load_checkpoint(sealed(gadgets / "last.ckpt", data))
    assert not file.exists()


@pytest.mark.faults
def test_evaluation_of_a_stranger_runs_nothing(gadgets):
    run = train(gadgets, *SMALL).directory
    file = gadgets / "ran"
    for make in GADGETS.values():
        sealed(run / "checkpoints" / "best.ckpt", saved({"state_dict": make(str(file)), "scorepath": {"format": 1}}))
        file.unlink(missing_ok=True)  # the one that holds another bomb has been saved only
        outcome = evaluate(gadgets, "run_dir=run", "episodes=1")
        assert outcome.code == 2, outcome.err
        assert "best.ckpt" in outcome.sentence
        resumed = train(gadgets, *SMALL, "resume=run/checkpoints/best.ckpt", directory="resumed")
        assert resumed.code == 2, resumed.err
        assert not file.exists()


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def number(value: int) -> bytes:
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(entries: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + name_of("torch", kind) + text(key) + text("cpu") + number(entries) + b"tQ"


def tensor(entries: int, size: tuple, stride: tuple, offset: int = 0, hooks: bytes = b"}", **where: str) -> bytes:
    """The operations of one, as torch.save writes them."""
    parts = storage(entries, **where) + number(offset) + numbers(*size) + numbers(*stride) + b"\x89" + hooks
    return name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + parts + b"tR"


def stream(operations: bytes) -> bytes:
    return b"\x80\x02" + operations + b"."


def legacy(entries: int) -> bytes:
    """torch's format before zip archives, with a tensor of so many entries."""
    body = tensor(entries, (entries,), (1,)).replace(b"tQ", b"NtQ")
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join(parts) + stream(body) + pickle.dumps(["0"], 2) + struct.pack("<q", entries) + bytes(64)


def oldest() -> bytes:
    """torch's format before that one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(stream(b"}")))
    return buffer.getvalue()


def doubled() -> bytes:
    buffer = io.BytesIO(packed(stream(b"}")))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", stream(name_of("os", "system")))
    return buffer.getvalue()


def lengthened() -> bytes:
    """An archive whose directory declares a terabyte of data.pkl, by the extension for large members."""
    data = packed(stream(b"}"))
    at = data.index(b"PK\x01\x02")
    extra = struct.pack("<HHQQ", 1, 16, TERA, TERA)
    header = bytearray(data[at:])
    header[20:28] = b"\xff" * 8
    header[30:32] = struct.pack("<H", len(extra))
    name_end = 46 + len("archive/data.pkl")
    header[name_end:name_end] = extra
    end = header.index(b"PK\x05\x06")
    header[end + 12 : end + 16] = struct.pack("<I", struct.unpack("<I", header[end + 12 : end + 16])[0] + len(extra))
    return data[:at] + bytes(header)


RECORD = {"0": bytes(64)}  # 16 entries
BOMBS = {
    "storage of 1 TB": packed(stream(tensor(TERA // 4, (TERA // 4,), (1,))), RECORD),
    "storage that is not there": packed(stream(tensor(16, (16,), (1,), key="1")), RECORD),
    "negative storage": packed(stream(tensor(-16, (16,), (1,))), RECORD),
    "part of a storage": packed(stream(tensor(4, (4,), (1,))), RECORD),
    "kind of no storage": packed(stream(tensor(16, (16,), (1,), kind="QInt8Storage")), RECORD),
    "expanded to 1 TB": packed(stream(tensor(16, (TERA,), (0,))), RECORD),
    "entries that overlap": packed(stream(tensor(16, (5, 5), (1, 1))), RECORD),
    "beyond its storage": packed(stream(tensor(16, (4,), (8,))), RECORD),
    "offset beyond": packed(stream(tensor(16, (4,), (1,), offset=13)), RECORD),
    "negative offset": packed(stream(tensor(16, (4,), (1,), offset=-1)), RECORD),
    "negative size": packed(stream(tensor(16, (-4, -4), (1, 1))), RECORD),
    "negative stride": packed(stream(tensor(16, (4,), (-1,))), RECORD),
    "a million dimensions": packed(stream(tensor(16, (1,) * 10**6, (1,) * 10**6)), RECORD),
    "bytearray": packed(stream(name_of("builtins", "bytearray") + number(TERA) + b"\x85R")),
    "FloatTensor": packed(stream(name_of("torch", "FloatTensor") + number(TERA) + b"\x85R")),
    "Tensor": packed(stream(name_of("torch", "Tensor") + number(TERA) + b"\x85R")),
    "called storage": packed(stream(name_of("torch", "FloatStorage") + number(TERA) + b"\x85R")),
    "meta tensor": packed(stream(name_of("torch._utils", "_rebuild_meta_tensor_no_storage") + b")R")),
    "text beyond the file": packed(stream(b"X\xff\xff\xff\x7fabc")),
    "memo of 32 GB": packed(stream(b"}r\xff\xff\xff\x7f")),
    "nested beyond the stack": packed(stream(b"})" + b"\x85" * 10**6 + b"K\x01s")),  # torch.load dies by SIGSEGV
    "no end": packed(b"\x80\x02}"),
    "compressed pickle": packed(stream(text("a" * 10**7)), compression=zipfile.ZIP_DEFLATED),
    "compressed record": packed(stream(tensor(10**7, (10**7,), (1,))), {"0": bytes(4 * 10**7)}, zipfile.ZIP_DEFLATED),
    "two pickles": doubled(),
    "TorchScript": packed(stream(b"}"), {"../constants.pkl": stream(b")")}),
    "member of 1 TB": lengthened(),
    "legacy": legacy(16),
    "legacy of 1 TB": legacy(TERA // 4),
    "tar": oldest(),
    "nothing": b"",
    "text": b"no checkpoint",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_in_a_moment(name):
    started = time.process_time()
    with pytest.raises((ValueError, TypeError, zipfile.BadZipFile)):
        check_archive(BOMBS[name])
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_with_a_right_checksum_is_refused_in_a_sentence(tmp_path, name):
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        load_checkpoint(sealed(tmp_path / "last.ckpt", BOMBS[name]))
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"a": [1, -1, 2**40, 1.5, None, True, "text", (1, (2, (3,))), 2**100, ()]},
        {"a": torch.zeros(3, 4), "b": torch.arange(12).reshape(3, 4).T, "c": torch.zeros(0), "d": torch.tensor(1.0)},
        {"a": torch.zeros(4, dtype=torch.float64)[1:3], "b": torch.zeros(2, dtype=torch.bool)},
        {"a": (shared := torch.zeros(5)), "b": shared, "c": shared[2:]},
        torch.nn.Linear(2, 3).state_dict(),
        torch.optim.Adam(torch.nn.Linear(2, 3).parameters()).state_dict(),
        {"rng": torch.get_rng_state()},
    ],
    ids=range(8),
)
def test_plain_data_passes(content):
    check_archive(saved(content))


def wrong_contents(good: dict) -> dict[str, object]:
    """A checkpoint's content with one thing missing or of another kind."""
    wrong = {f"{value!r}": value for value in (None, 3, "text", [], {})}
    for key in ("scorepath", "state_dict", "callbacks"):
        wrong |= {f"{key}={value!r}": {**good, key: value} for value in (None, 3, "text", [], [torch.zeros(3)])}
        wrong |= {f"no {key}": {name: value for name, value in good.items() if name != key}}
    for key, own in good["scorepath"].items():
        kinds = (None, "text", [], {1: 2}) if isinstance(own, int) else (None, "text", [])
        kinds += (10**30,) if key == "format" else (-1,)
        wrong |= {f"{key}={value!r}": {**good, "scorepath": {**good["scorepath"], key: value}} for value in kinds}
    name = next(iter(good["state_dict"]))
    for value in (None, 3, "text"):
        wrong[f"{name}={value!r}"] = {**good, "state_dict": {**good["state_dict"], name: value}}
    return wrong


def test_content_of_another_kind_is_refused(tmp_path):
    path = train(tmp_path, *SMALL).directory / "checkpoints" / "best.ckpt"
    good = load_checkpoint(path)
    check_content(good, path)
    for content in wrong_contents(good).values():
        with pytest.raises(ConfigError, match=r"best\.ckpt"):
            check_content(load_checkpoint(sealed(path, saved(content))), path)


@pytest.mark.faults
def test_content_of_another_kind_ends_in_a_sentence(tmp_path):
    path = train(tmp_path, *SMALL).directory / "checkpoints" / "best.ckpt"
    for what, content in wrong_contents(load_checkpoint(path)).items():
        sealed(path, saved(content))
        resume = train(tmp_path, *SMALL, "resume=run/checkpoints/best.ckpt", directory="resumed")
        for outcome in (resume, evaluate(tmp_path, "run_dir=run", "episodes=1")):
            assert outcome.code == 2, (what, outcome)
            assert "best.ckpt" in outcome.sentence, what


# dist, env and what else decides over a checkpoint's content: every dist, kind of environment and optimizer
OWN = [
    ("bernoulli", "cartpole", "optimizer=adam"),
    ("categorical", "mountain_car_torch", "optimizer=sgd optimizer.momentum=0.9"),
    ("categorical", "cartpole", "optimizer=adamw env.vectorization=async env.workers=2"),
    ("normal", "pendulum", "optimizer=rmsprop policy.normalize_observations=true"),
    ("normal", "pendulum_torch", "estimator=pathwise"),
    ("normal", "lqr", "optimizer=rmsprop optimizer.momentum=0.5"),
    ("tanh_normal", "pendulum_torch", "optimizer=adamw"),
    ("truncated_normal", "pendulum", "baseline=value"),
    ("beta", "pendulum", "baseline=gae"),
    ("kumaraswamy", "pendulum_torch", "baseline=moving_average"),
    ("laplace", "mountain_car_continuous_torch", "baseline=none"),
    ("student_t", "pendulum", "estimator.normalize_returns=running"),
    ("mixture_normal", "pendulum", "policy=linear"),
    ("multivariate_normal", "lqr", "estimator=score_function"),
    ("low_rank_normal", "lqr", "estimator=score_function"),
    ("von_mises", "pendulum", "trainer.precision=bf16-mixed"),
]


@pytest.mark.faults
@pytest.mark.parametrize(("dist", "env", "options"), OWN, ids=str)
def test_own_checkpoints_pass(tmp_path, dist, env, options):
    outcome = train(tmp_path, *SMALL, f"env={env}", f"dist={dist}", *options.split())
    assert outcome.code == 0, outcome.err
    for name in ("best", "last"):
        data = (outcome.directory / "checkpoints" / f"{name}.ckpt").read_bytes()
        check_archive(data[: -len(seal(b""))])
        assert evaluate(tmp_path, "run_dir=run", "episodes=2", f"checkpoint={name}").code == 0


def crafted(good: dict) -> dict[str, dict]:
    """Contents that a stranger can seal: each with one thing that a run, its callbacks or Lightning stumble over."""

    def with_(*keys: object, value: object) -> dict:
        """The content with another value at a place; of REMOVED, without it."""
        made = copy.deepcopy(good)
        node = made
        for key in keys[:-1]:
            node = node[key]
        if value is REMOVED:
            del node[keys[-1]]
        else:
            node[keys[-1]] = value
        return made

    weights = good["state_dict"]
    weight = next(name for name in weights if name.startswith("policy."))
    normalizer = "policy.normalizer."
    nan = {key: torch.full_like(value, torch.nan) for key, value in weights.items()}
    infinite = {key: torch.full_like(value, torch.inf) for key, value in weights.items()}
    optimizer = ("optimizer_states", 0)
    progress = ("loops", "fit_loop", "epoch_loop.batch_progress")
    deep: list = []
    for _ in range(200):
        deep = [deep]
    wide: list = [0]
    for _ in range(60):
        wide = [wide, wide]
    circle: dict = {}
    circle["a"] = circle
    made = {
        # what both read
        "NaN weights": {**good, "state_dict": nan},
        "infinite weights": {**good, "state_dict": infinite},
        "one NaN": with_("state_dict", weight, value=nan[weight]),
        "NaN statistics": with_("state_dict", f"{normalizer}mean", value=nan[f"{normalizer}mean"]),
        "negative squares": with_("state_dict", f"{normalizer}squares", value=-torch.ones(4, dtype=torch.float64)),
        "integer key of a weight": with_("state_dict", 3, value=weights[weight]),
        "weight missing": with_("state_dict", weight, value=REMOVED),
        "weight too many": with_("state_dict", "policy.more", value=weights[weight]),
        "weight of another shape": with_("state_dict", weight, value=torch.zeros(3)),
        "integer key of a callback": with_("callbacks", 3, value={}),
        "true as a counter": with_("scorepath", "env_steps", value=True),
        "counter beyond": with_("scorepath", "update_index", value=10**30),
        "format that is no number": with_("scorepath", "format", value="3"),
        "tensor in the config": with_("scorepath", "config", "seed", value=torch.zeros(2)),
        "nested": with_("callbacks", "a", value=deep),
        "doubled": with_("callbacks", "a", value=wide),
        "doubled config": with_("scorepath", "config", "a", value=wide),
        "circle": with_("scorepath", "config", "a", value=circle),
    }
    resumed = {
        "no loops": with_("loops", value=REMOVED),
        "loops of text": with_("loops", value="text"),
        "no fit loop": with_("loops", "fit_loop", value=REMOVED),
        "fit loop of a list": with_("loops", "fit_loop", value=[1]),
        "progress of text": with_(*progress, value="text"),
        "progress without total": with_(*progress, "total", value=REMOVED),
        "progress without its end": with_(*progress, "is_last_batch", value=REMOVED),
        "counter of text": with_(*progress, "total", "ready", value="text"),
        "negative counter": with_(*progress, "total", "ready", value=-1),
        "huge counter": with_(*progress, "current", "ready", value=10**40),
        "member in a counter": with_(*progress, "total", "increment_ready", value=1),
        "state of a loop": with_("loops", "fit_loop", "state_dict", value={"combined_loader": [{"a": 1}]}),
        "steps of text": with_("loops", "fit_loop", "epoch_loop.state_dict", "_batches_that_stepped", value="1"),
        "no optimizers": with_("optimizer_states", value=REMOVED),
        "optimizers of text": with_("optimizer_states", value="text"),
        "empty optimizers": with_("optimizer_states", value=[]),
        "too many optimizers": with_("optimizer_states", value=good["optimizer_states"] * 2),
        "optimizer of text": with_(*optimizer, value="text"),
        "no groups": with_(*optimizer, "param_groups", value=[]),
        "group without parameters": with_(*optimizer, "param_groups", 0, "params", value=[]),
        "group without betas": with_(*optimizer, "param_groups", 0, "betas", value=REMOVED),
        "betas of text": with_(*optimizer, "param_groups", 0, "betas", value="text"),
        "eps of text": with_(*optimizer, "param_groups", 0, "eps", value="text"),
        "decay of NaN": with_(*optimizer, "param_groups", 0, "weight_decay", value=float("nan")),
        "state of a list": with_(*optimizer, "state", value=[1]),
        "state of text": with_(*optimizer, "state", 0, value="text"),
        "moment missing": with_(*optimizer, "state", 0, "exp_avg", value=REMOVED),
        "moment of text": with_(*optimizer, "state", 0, "exp_avg", value="text"),
        "moment of another shape": with_(*optimizer, "state", 0, "exp_avg", value=torch.zeros(7)),
        "moment of NaN": with_(*optimizer, "state", 0, "exp_avg", value=torch.full((8, 4), torch.nan)),
        "negative second moment": with_(*optimizer, "state", 0, "exp_avg_sq", value=torch.full((8, 4), -1e9)),
        "step of text": with_(*optimizer, "state", 0, "step", value="text"),
        "no schedules": with_("lr_schedulers", value=REMOVED),
        "a schedule": with_("lr_schedulers", value=[{"last_epoch": 1}]),
        "no version": with_("pytorch-lightning_version", value=REMOVED),
        "version of text": with_("pytorch-lightning_version", value="newest"),
        "old version": with_("pytorch-lightning_version", value="0.9.0"),
        "best of text": with_("callbacks", "Checkpoints", value={"best": "text"}),
        "best of NaN": with_("callbacks", "Checkpoints", value={"best": float("nan")}),
        "no best": with_("callbacks", "Checkpoints", value={"other": 1}),
        "state that is text": with_("callbacks", "Checkpoints", value="text"),
        "solved at text": with_("callbacks", "Stopping", value={"solved_at_env_steps": "text"}),
        "not solved": with_("callbacks", "Stopping", value={"other": 1}),
        "list of callbacks": with_("callbacks", value=[1]),
        "config of a list": with_("scorepath", "config", value=[1]),
        "tuple as a key": with_("scorepath", "config", ((1,), 2), value=3),
        "another seed": with_("scorepath", "config", "seed", value=[1, {"a": 2}]),
    }
    return {**made, **{f"resume: {name}": content for name, content in resumed.items()}}


REMOVED = object()
NORMALIZED = (*SMALL, "policy.normalize_observations=true", "policy.torso.hidden_sizes=[8]", "max_env_steps=20")


SOME = ("NaN weights", "resume: moment of another shape", "resume: best of text")
MORE = ("doubled", "resume: counter of text")


@pytest.mark.parametrize(
    "names", [SOME, slow(MORE), pytest.param(None, marks=pytest.mark.faults)], ids=["some", "more", "all"]
)
def test_crafted_checkpoints_end_in_a_sentence(tmp_path, names):
    """With a right seal, for evaluation and resuming alike; nothing in the folder is touched."""
    run = train(tmp_path, *NORMALIZED).directory
    for path in run.glob("checkpoints/*.ckpt"):
        good = load_checkpoint(path)
    (run / "checkpoints" / "best.ckpt").unlink()
    (run / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)
    path = run / "checkpoints" / "last.ckpt"
    contents = crafted(good)
    assert len(contents) > 60
    for name in names or contents:
        sealed(path, saved(contents[name]))
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        outcomes = [train(tmp_path, *NORMALIZED[:-1], "max_env_steps=400", "resume=auto")]
        if not name.startswith("resume"):
            outcomes.append(evaluate(tmp_path, "run_dir=run", "checkpoint=last", "episodes=2"))
        for outcome in outcomes:
            assert outcome.code == 2, (name, outcome)
            assert "last.ckpt" in outcome.sentence, name
            assert len(outcome.sentence) < 1000, name
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before, name
    sealed(path, saved(good))
    assert train(tmp_path, *NORMALIZED[:-1], "max_env_steps=400", "resume=auto").code == 0
