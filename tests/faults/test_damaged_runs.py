"""Run directories that were damaged in every which way, read by every command that reads them."""

import random
import shutil
from pathlib import Path

import pytest
from helpers import evaluate, plot, sweep, train

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*All-NaN|Mean of empty|Degrees of freedom|invalid value:RuntimeWarning"),
]

SMALL = ("episodes_per_update=4", "eval.episodes=2", "record_episode=false", "logger=csv")
SMALL += ("max_env_steps=600", "eval.every_env_steps=200")
TEXTS = [
    *(b"", b"\0" * 100, b"[]", b"{}", b"null", b"3", b'"text"', b"a: b: c", b"\xff\xfe", b"status: [", b"{'a': 1}"),
    *(
        b'{"status": 3, "seed": "x", "eval_return_mean": "high", "eval_return_ci95": 1, "env_steps": []}',
        b"a,b\n1\n2,3,4",
    ),
    b"env_steps,eval/return_mean\nx,y\n",
    b"env: 3\npolicy: []\ndist: null\n",
]


def damage(run: Path, choose: random.Random) -> str:
    """One to three files deleted, cut, flipped, replaced or turned into folders. Returns what was done."""
    done = []
    for _ in range(choose.randint(1, 3)):
        files = sorted(path for path in run.rglob("*") if path.is_file())
        if not files:
            break
        path = choose.choice(files)
        how = choose.choice(["delete", "cut", "flip", "replace", "folder", "swap"])
        content = path.read_bytes()
        if how == "delete":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: choose.randint(0, len(content))])
        elif how == "flip" and content:
            flipped = bytearray(content)
            for _ in range(choose.randint(1, 20)):
                flipped[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
            path.write_bytes(flipped)
        elif how == "folder":
            path.unlink()
            path.mkdir()
        elif how == "swap":
            path.write_bytes(choose.choice(files).read_bytes())
        else:
            path.write_bytes(choose.choice(TEXTS))
        done.append(f"{how} {path.relative_to(run)}")
    return ", ".join(done)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    outcome = sweep(folder, *SMALL, "seed=0,1")
    assert outcome.code == 0, outcome.err
    return folder / "outputs" / "sweeps" / "it"


@pytest.mark.parametrize("number", range(200))
def test_a_damaged_run_is_read_or_refused_in_a_sentence(tmp_path, sound, number):
    choose = random.Random(number)
    shutil.copytree(sound, tmp_path / "it")
    first = sorted(path for path in (tmp_path / "it").iterdir() if path.is_dir())[0]
    what = damage(first, choose)
    for outcome in (
        evaluate(tmp_path, f"run_dir='{first}'", "episodes=2"),
        plot(tmp_path, f"runs='{tmp_path / 'it'}'"),
        train(tmp_path, *SMALL, "seed=0", "resume=auto", f"hydra.run.dir='{first}'", directory=None),
    ):
        assert "Traceback" not in outcome.err, (what, outcome.err)
        assert outcome.code in (0, 1, 2), what
        if outcome.code:
            assert outcome.sentence, what
