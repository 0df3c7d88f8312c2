"""The run directory and its files: claimed, written whole, read back; checkpoints, metrics, summary, pictures."""

import csv
import hashlib
import io
import json
import math
import random
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium import spaces
from helpers import train
from PIL import Image, ImageSequence
from torch import nn

from scorepath.distributions import Bernoulli, Normal
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR
from scorepath.errors import ConfigError, InterruptedRunError, OutputError
from scorepath.intervals import mean_ci95, t95
from scorepath.module import CHECKPOINT_FORMAT
from scorepath.policy import MLP, Policy
from scorepath.run.checkpoints import SealedCheckpointIO, load_checkpoint, read_newest
from scorepath.run.csv_logger import CSVLogger, read_metrics
from scorepath.run.digest import weights_sha256
from scorepath.run.directory import check_writable, claim, holds_run, write_json
from scorepath.run.recording import GIF_FRAMES, GIF_WIDTH, encode_gif, record_episode, write_video
from scorepath.run.summary import seconds_since_process_start, versions
from scorepath.sweeps.records import read_sweep
from scorepath.sweeps.table import format_sweep, format_table

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

# ------------------------------------------------------------------ directory


def test_claim_counts_up(tmp_path):
    base = str(tmp_path / "date" / "time")
    assert [claim(base) for _ in range(3)] == [base, f"{base}_2", f"{base}_3"]
    assert all(Path(path).is_dir() for path in (base, f"{base}_2", f"{base}_3"))


def test_claim_takes_no_file_for_a_folder(tmp_path):
    (tmp_path / "time").touch()
    assert claim(str(tmp_path / "time")) == str(tmp_path / "time_2")


def test_claim_of_a_parent_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written to .*: set hydra\.run\.dir"):
        claim(str(tmp_path / "file" / "time"))


def test_holds_run(tmp_path):
    assert not holds_run(tmp_path / "nothing")
    assert not holds_run(tmp_path)
    (tmp_path / "train.log").touch()
    (tmp_path / "checkpoints").mkdir()
    assert not holds_run(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert holds_run(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").touch()
    assert holds_run(tmp_path / "other")


def test_check_writable_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_check_writable_of_a_full_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ConfigError, match="1,000 bytes free"):
        check_writable(tmp_path)


def test_check_writable_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_writable(tmp_path / "file" / "run")


def test_json_is_strict(tmp_path):
    """NaN and infinities, which JSON does not have, become null, however deep."""
    path = tmp_path / "summary.json"
    write_json(path, {"a": math.nan, "b": [1.5, math.inf], "c": {"d": -math.inf}, "e": "NaN"})

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content == {"a": None, "b": [1.5, None], "c": {"d": None}, "e": "NaN"}


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_a_reader_never_sees_half_of_the_json(tmp_path):
    path, done = tmp_path / "summary.json", threading.Event()
    contents = [{"key": "x" * 50_000}, {"key": "y" * 20_000}]
    write_json(path, contents[0])

    def write():
        for number in range(200):
            write_json(path, contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert json.loads(path.read_text()) in contents
    writer.join()


# ------------------------------------------------------------------ checkpoints


def save(content: dict, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    counters = dict.fromkeys(("seed", "update_index", "env_steps", "episodes"), 0)
    own = {"format": CHECKPOINT_FORMAT, "config": {}, **counters}
    SealedCheckpointIO().save_checkpoint({"scorepath": own, "state_dict": {}, "callbacks": {}, **content}, path)
    return path


def test_checkpoint_is_written_whole_or_not_at_all(tmp_path):
    path = save({"a": torch.ones(2)}, tmp_path / "new" / "best.ckpt")
    before = path.read_bytes()

    class Unpicklable:
        def __reduce__(self):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save({"a": torch.ones(1000), "b": Unpicklable()}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["best.ckpt"]


def test_the_last_but_one_checkpoint_is_kept(tmp_path):
    for number in range(3):
        path = save({"number": number}, tmp_path / "last.ckpt")
    assert load_checkpoint(path)["number"] == 2
    assert load_checkpoint(path.with_name("previous.ckpt"))["number"] == 1


def test_only_the_last_checkpoint_becomes_the_one_before(tmp_path):
    """`resume=auto` goes back to it, and the best one is an older run's state."""
    for number in range(2):
        save({"number": number}, tmp_path / "last.ckpt")
        save({"number": 10 + number}, tmp_path / "best.ckpt")
    assert load_checkpoint(tmp_path / "previous.ckpt")["number"] == 0
    assert load_checkpoint(tmp_path / "best.ckpt")["number"] == 11


def test_a_checkpoint_that_cannot_be_written_says_how_long_it_is(tmp_path):
    with pytest.raises(OutputError, match=r"gone/last.ckpt, of [\d,]+ bytes, could not be written: its folder is gone"):
        SealedCheckpointIO().save_checkpoint({"a": torch.ones(2)}, tmp_path / "run" / "gone" / "last.ckpt")


def test_newest_checkpoint_is_found(tmp_path):
    assert read_newest(None, tmp_path) is None
    assert read_newest("auto", tmp_path) is None
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        read_newest(str(tmp_path), tmp_path)
    last = save({}, tmp_path / "checkpoints" / "last.ckpt")
    assert read_newest("auto", tmp_path)[0] == last
    assert read_newest(str(tmp_path), tmp_path / "other")[0] == last
    assert read_newest(str(last), tmp_path / "other")[0] == last
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        read_newest(str(last.with_name("best.ckpt")), tmp_path)
    with pytest.raises(ConfigError, match="is an address"):
        read_newest("https://example.com/last.ckpt", tmp_path)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path, caplog):
    for number in range(2):
        last = save({"number": number}, tmp_path / "checkpoints" / "last.ckpt")
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    path, content = read_newest("auto", tmp_path)
    assert (path.name, content["number"]) == ("previous.ckpt", 0)
    assert "last.ckpt is damaged" in caplog.text and "Going back to" in caplog.text
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="No checkpoint of this run is sound"):
        read_newest("auto", tmp_path)


def test_any_flipped_bit_is_noticed(tmp_path):
    """1,000 of them, anywhere in the file."""
    path = save({"a": torch.arange(100)}, tmp_path / "last.ckpt")
    content = path.read_bytes()
    generator = random.Random(0)
    for _ in range(1000):
        bit = generator.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(ConfigError, match=r"damaged|its seal is missing"):
            load_checkpoint(path)


def test_load_checkpoint(tmp_path):
    """Also by torch.load, which does not mind the seal."""
    path = save({"a": torch.ones(2)}, tmp_path / "last.ckpt")
    assert load_checkpoint(path)["a"].tolist() == [1, 1]
    assert torch.load(path, weights_only=True)["a"].tolist() == [1, 1]


def test_checkpoint_of_a_newer_version_is_refused(tmp_path):
    path = save({"scorepath": {"format": CHECKPOINT_FORMAT + 1}}, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="newer than this version"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    trace = tmp_path / "trace"

    class Malicious:
        def __reduce__(self):
            return (Path.touch, (trace,))

    path = save({"a": Malicious()}, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="cannot be read as a scorepath checkpoint"):
        load_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100])
def test_damaged_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------ metrics.csv


def test_rows_wait_until_they_are_flushed(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv", flush_every=3)
    for step in (10, 20):
        logger.log_metrics({"a": step / 2}, step)
    assert read_metrics(logger.path) == []
    logger.log_metrics({"a": 15.0}, 30)
    assert read_metrics(logger.path) == [
        {"env_steps": "10", "a": "5.0"},
        {"env_steps": "20", "a": "10.0"},
        {"env_steps": "30", "a": "15.0"},
    ]


def test_header_widens_with_a_new_metric(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv", flush_every=1)
    logger.log_metrics({"a": 1.0}, 10)
    logger.log_metrics({"b": 2.0}, 20)
    logger.log_metrics({"b": 3.0, "a": 4.0}, 30)
    with logger.path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["env_steps", "a", "b"],
            ["10", "1.0", ""],
            ["20", "", "2.0"],
            ["30", "4.0", "3.0"],
        ]


def test_csv_keeps_every_digit(tmp_path):
    logger, value = CSVLogger(tmp_path / "metrics.csv"), 0.1 + 0.2
    logger.log_metrics({"a": value}, 1)
    logger.finalize("success")
    assert float(read_metrics(logger.path)[0]["a"]) == value


@pytest.mark.parametrize("purge_step", [21, 30])
def test_purge_drops_what_follows_a_checkpoint_and_goes_on(tmp_path, purge_step):
    first = CSVLogger(tmp_path / "metrics.csv", flush_every=1)
    for step in (10, 20, 30):
        first.log_metrics({"a": float(step)}, step)
    second = CSVLogger(tmp_path / "metrics.csv", flush_every=1, purge_step=purge_step)
    assert len(read_metrics(second.path)) == 3  # untouched before the first write
    second.log_metrics({"a": -30.0, "b": 1.0}, 30)
    assert [(row["env_steps"], row["a"], row["b"]) for row in read_metrics(second.path)] == [
        ("10", "10.0", ""),
        ("20", "20.0", ""),
        ("30", "-30.0", "1.0"),
    ]


def test_purge_of_no_file(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv", flush_every=1, purge_step=20)
    logger.log_metrics({"a": 1.0}, 30)
    assert read_metrics(logger.path) == [{"env_steps": "30", "a": "1.0"}]


def test_a_second_logger_goes_on_with_the_file(tmp_path):
    for step in (10, 20):
        logger = CSVLogger(tmp_path / "metrics.csv")
        logger.log_metrics({"a": 1.0}, step)
        logger.finalize("success")
    assert [row["env_steps"] for row in read_metrics(logger.path)] == ["10", "20"]


# ------------------------------------------------------------------ summary


def test_digest_is_of_names_dtypes_shapes_and_bytes():
    def digest(**tensors):
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_sha256(module)

    zeros = torch.zeros(2, 3)
    expected = hashlib.sha256(b"a torch.float32 (2, 3)" + bytes(24)).hexdigest()
    assert digest(a=zeros) == digest(a=zeros.clone()) == expected
    others = [
        digest(b=zeros),
        digest(a=zeros.T.contiguous()),
        digest(a=zeros.int()),
        digest(a=-zeros),  # negative zero acts otherwise in a quotient
        digest(a=zeros, b=zeros),
        digest(a=torch.zeros(())),
        digest(a=torch.ones(())),
    ]
    assert len({expected, *others}) == 8


def test_digest_does_not_depend_on_the_memory_layout():
    layer = nn.Linear(3, 2)
    other = nn.Linear(3, 2)
    other.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
    other.bias = layer.bias
    assert not other.weight.is_contiguous()
    assert weights_sha256(other) == weights_sha256(layer)


@pytest.mark.parametrize("degrees", [*range(1, 31), 31, 40, 60, 99, 1000])
def test_t_quantiles(degrees):
    assert t95(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), abs=4e-3)


def test_interval_by_hand():
    """1, 2, 3: mean 2, standard deviation 1, t quantile of 2 degrees of freedom 4.303."""
    mean, interval = mean_ci95(torch.tensor([1.0, 2.0, 3.0]))
    assert mean == 2
    assert interval == pytest.approx([2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)])


def test_interval_is_scipys():
    values = torch.randn(50, dtype=torch.float64)
    expected = scipy.stats.t.interval(0.95, 49, loc=values.mean(), scale=scipy.stats.sem(values))
    assert mean_ci95(values)[1] == pytest.approx(expected, abs=1e-3)


def test_one_value_has_no_interval():
    assert mean_ci95(torch.tensor([3.0])) == (3.0, None)


def test_a_wrong_range_of_rewards_is_told_and_no_run_is_lost(tmp_path):
    outcome = train(tmp_path, "debug=one_update", "env.reward_range=[0,0.5]", "env.max_episode_steps=20")
    assert outcome.code == 0, outcome.err
    assert "outside of 0 to 10" in outcome.out + outcome.err
    assert "Set env.reward_range" in outcome.out + outcome.err
    assert outcome.summary["status"] == "completed"


def test_versions_and_age_of_the_process():
    assert versions()["torch"] == torch.__version__
    assert set(versions()) >= {"python", "scorepath", "lightning", "hydra-core", "gymnasium", "numpy"}
    first = seconds_since_process_start()
    assert 0 < first <= seconds_since_process_start()


def test_interruption_tells_how_to_go_on(tmp_path):
    error = InterruptedRunError(15, tmp_path)
    assert error.exit_code == 143
    assert "SIGTERM" in str(error)
    assert f"resume={tmp_path}" in str(error)


# ------------------------------------------------------------------ sweeps


def test_read_sweep_takes_the_folder_of_every_job(tmp_path):
    """Begun or ended; others' folders beside them are none."""
    for name, content in {"b": '{"status": "solved", "seed": 1}', "a": None, "c": "{"}.items():
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "summary.json").write_text(content)
    (tmp_path / "a" / ".hydra").mkdir()
    (tmp_path / ".submitit").mkdir()
    (tmp_path / "multirun.yaml").touch()
    assert read_sweep(tmp_path) == [
        {"job": "a", "status": "waiting"},
        {"job": "b", "status": "solved", "seed": 1},
        {"job": "c", "status": "summary damaged"},
    ]


def test_table_of_a_sweep():
    done = {
        **{"job": "x", "status": "solved", "eval_return_mean": 480.123, "eval_return_ci95": [470.0, 490.5]},
        **{"env_steps": 81234, "solved_at_env_steps": 80000, "train_seconds": 2.25},
    }
    header, rule, first, second = format_sweep([done, {"job": "long_name", "status": "failed"}]).splitlines()
    assert header.split("  ")[0].strip() == "job"
    assert len(rule) == len(rule.strip()) >= len(header)
    for cell in ("x", "solved", "480.12", "470.00 .. 490.50", "81,234", "80,000", "2.2"):
        assert cell in first
    assert second.startswith("long_name  failed  -")


def test_table_without_rows():
    assert format_table(("a", "bb"), []) == "a  bb\n-  --"


# ------------------------------------------------------------------ pictures


def frames(number: int, height: int = 40, width: int = 60) -> list[np.ndarray]:
    """A bright column that moves from left to right."""
    pictures = np.zeros((number, height, width, 3), np.uint8)
    for index in range(number):
        pictures[index, :, index * width // number] = (255, 200, 0)
    return list(pictures)


def test_gif_moves():
    content, size = encode_gif(frames(10), fps=25)
    assert size == (GIF_WIDTH, 200)  # in proportion
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "GIF"
        assert picture.size == size
        assert picture.n_frames == 10
        assert picture.info["duration"] == 40  # ms
        assert picture.info["loop"] == 0  # for ever
        columns = [np.array(frame.convert("L")).mean(axis=0).argmax() for frame in ImageSequence.Iterator(picture)]
    assert columns == sorted(columns)
    assert columns[-1] - columns[0] > GIF_WIDTH / 2


@pytest.mark.parametrize("number", [GIF_FRAMES, GIF_FRAMES + 1, 500])
def test_gif_of_a_long_episode_is_thinned_and_lasts_as_long(number):
    content, _ = encode_gif(frames(number, width=number), fps=50)
    with Image.open(io.BytesIO(content)) as picture:
        stride = -(-number // GIF_FRAMES)
        assert GIF_FRAMES / 2 < picture.n_frames <= GIF_FRAMES
        assert picture.n_frames * picture.info["duration"] == pytest.approx(number * 1000 / 50, abs=stride * 20)


def test_gif_of_one_frame():
    content, _ = encode_gif(frames(1), fps=30)
    assert content.startswith(b"GIF8")


def test_video_is_an_mp4_with_every_frame_or_a_gif(tmp_path, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_video(frames(30, 64, 64), 30.0, tmp_path / "episode")
    assert path == tmp_path / "episode.mp4"
    assert imageio_ffmpeg.count_frames_and_secs(path)[0] == 30
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    path = write_video(frames(30), 30.0, tmp_path / "episode")
    assert path == tmp_path / "episode.gif"
    with Image.open(path) as picture:
        assert picture.n_frames == 30


def test_video_of_odd_size(tmp_path):
    """Most codecs want even numbers of pixels."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_video(frames(5, 41, 63), 30.0, tmp_path / "episode")
    assert imageio_ffmpeg.count_frames_and_secs(path)[0] == 5


def test_recorded_episode_is_the_episode_of_its_seed():
    env = GymnasiumEnvironment("CartPole-v1", 1, kwargs={"render_mode": "rgb_array"}, vectorization="sync")
    policy = Policy(MLP(4, [8]), Bernoulli(spaces.Discrete(2), 8))
    torch.manual_seed(0)
    pictures, total = record_episode(env, policy, seed=3)
    torch.manual_seed(0)
    again, same = record_episode(env, policy, seed=3)
    env.close()
    assert len(pictures) == total == same  # CartPole pays 1 a step
    assert len(pictures) > 5
    assert all((one == other).all() for one, other in zip(pictures, again, strict=True))
    assert pictures[0].dtype == np.uint8
    assert (pictures[0] != pictures[-1]).any()


def test_environment_without_a_picture_gives_no_frames():
    env = TorchEnvironment(LQR(), 1)
    policy = Policy(MLP(2, []), Normal(env.action_space, 2))
    pictures, total = record_episode(env, policy, seed=3)
    assert pictures == []
    assert total < 0


def test_a_run_is_not_lost_for_a_picture(tmp_path, monkeypatch):
    """A machine without OpenGL cannot draw; the run must not care."""

    def fail(*args, **kwargs):
        raise RuntimeError("no OpenGL\nat all")

    monkeypatch.setattr("scorepath.run.recording.record_episode", fail)
    outcome = train(tmp_path, "debug=one_update", "record_episode=true")
    assert outcome.code == 0, outcome.err
    assert "No picture of an episode: no OpenGL" in outcome.out
    assert outcome.summary["status"] == "completed"
