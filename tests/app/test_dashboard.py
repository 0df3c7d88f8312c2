"""A real TensorBoard on the loopback interface, asked over HTTP for what its tabs would show of two runs."""

import io
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from helpers import PATIENCE, environment, sweep
from PIL import Image

pytestmark = [
    # Lightning 2.6 calls what torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the loopback needs no proxy


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A sweep of two seeds."""
    folder = tmp_path_factory.mktemp("dashboard")
    small = ("max_env_steps=600", "episodes_per_update=4", "eval.episodes=3", "eval.every_env_steps=300")
    outcome = sweep(folder, *small, "seed=0,1", "gamma=0.9")
    assert outcome.code == 0, outcome.err
    return outcome.directory


@pytest.fixture(scope="module")
def ask(runs):
    """Path and query -> answer; TensorBoard chooses the port and prints it."""
    log = runs.parents[2] / "tensorboard.txt"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    deadline = time.monotonic() + PATIENCE

    def get(path: str, body: dict | None = None, **query: str) -> bytes:
        query_text = f"?{urllib.parse.urlencode(query)}" if query else ""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(f"{address}data/{path}{query_text}", data, headers)
        with OPENER.open(request, timeout=PATIENCE) as answer:
            return answer.read()

    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        address = found.group()
        # it answers before it has read the runs
        while len(json.loads(get("plugin/images/tags"))) < 2 or len(json.loads(get("plugin/scalars/tags"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield get
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)


def names(runs) -> set[str]:
    """Of the runs, as TensorBoard has them."""
    return {f"{path.name}/tensorboard" for path in runs.iterdir() if path.is_dir()}


def test_curves(ask, runs):
    tags = json.loads(ask("plugin/scalars/tags"))
    assert set(tags) == names(runs)
    for run, of_run in tags.items():
        assert set(of_run) >= {
            *("rollout/episode_return_mean", "rollout/episode_length_mean", "train/surrogate_loss", "train/entropy"),
            *("train/grad_norm", "train/learning_rate", "eval/return_mean", "time/env_steps_per_second"),
        }
        curve = json.loads(ask("plugin/scalars/scalars", run=run, tag="eval/return_mean"))
        summary = json.loads((runs / run).parent.joinpath("summary.json").read_text())
        assert [step for _, step, _ in curve][-1] == summary["env_steps"]


def test_config_as_text(ask, runs):
    tags = json.loads(ask("plugin/text/tags"))
    assert tags == {run: ["config/text_summary"] for run in names(runs)}
    for run in tags:
        (text,) = json.loads(ask("plugin/text/text", run=run, tag="config/text_summary"))
        assert "CartPole-v1" in text["text"]
        assert "gamma: 0.9" in text["text"]


def test_moving_picture(ask, runs):
    tags = json.loads(ask("plugin/images/tags"))
    for run in names(runs):
        assert set(tags[run]) == {"eval/episode"}
        (entry,) = json.loads(ask("plugin/images/images", run=run, tag="eval/episode", sample="0"))
        summary = json.loads((runs / run).parent.joinpath("summary.json").read_text())
        assert entry["step"] == summary["env_steps"]
        content = ask("plugin/images/individualImage", **dict(urllib.parse.parse_qsl(entry["query"])))
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "GIF"
            assert picture.n_frames > 1
            assert min(picture.size) > 100


def test_one_row_of_hparams_for_each_run(ask, runs):
    experiment = json.loads(ask("plugin/hparams/experiment", {"hparamsLimit": 100, "includeMetrics": True}))
    hparams = {info["name"] for info in experiment["hparamInfos"]}
    columns = {"env", "dist", "estimator", "baseline", "policy", "optimizer", "lr_schedule", "seed", "gamma", "lr"}
    assert hparams >= columns
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"hparam": name} for name in sorted(hparams)],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = json.loads(ask("plugin/hparams/session_groups", request))
    assert groups["totalSize"] == 2
    rows = [group["hparams"] for group in groups["sessionGroups"]]
    assert sorted(row["seed"] for row in rows) == [0, 1]
    for row in rows:
        assert row["gamma"] == pytest.approx(0.9)
        assert (row["env"], row["dist"], row["optimizer"]) == ("cartpole", "bernoulli", "adam")
    finals = {value["name"]["tag"]: value["value"] for value in groups["sessionGroups"][0]["metricValues"]}
    assert "final/return_mean" in finals
