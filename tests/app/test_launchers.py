"""What launchers are without the packages that they drive, and what they do about lost jobs."""

import copy
import os
import subprocess
import sys

import hydra
import pytest
from helpers import CONF, ROOT, environment, sweep
from hydra.core.config_store import ConfigStore

from scorepath.sweeps.losses import Losses
from scorepath.sweeps.plan import Job
from scorepath.sweeps.worker import Worker

LAUNCHERS = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))


def test_what_hydra_imports_at_each_start_is_light():
    code = "import sys, hydra.core.plugins as p; p.Plugins.instance(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "hydra_plugins.scorepath_plugins" in modules
    assert not {"ray", "submitit", "torch", "scorepath.sweeps", "scorepath.errors"} & modules


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_without_its_package_names_the_extra(tmp_path, monkeypatch, name):
    package = name.partition("_")[0]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    outcome = sweep(tmp_path, f"hydra/launcher={name}", "seed=0,1")
    assert outcome.code == 2
    assert outcome.sentence == (
        f"hydra/launcher={name} needs the package {package}, which is not installed: pip install -e '.[{package}]'"
    )
    assert not outcome.directory.exists()
    assert f"\n{package} = [" in (ROOT / "pyproject.toml").read_text()


def test_another_sweeper_is_refused(tmp_path, monkeypatch):
    """Its folders are not ours to continue."""
    (tmp_path / "ray.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    outcome = sweep(tmp_path, "hydra/launcher=ray", "hydra/sweeper=basic", "seed=0,1")
    assert outcome.code == 2
    assert "use that, or hydra/launcher=joblib" in outcome.sentence


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ours_win_over_a_plugin_that_has_the_same_names(tmp_path, monkeypatch, name):
    """As hydra-submitit-launcher and hydra-ray-launcher have them; else Hydra merges theirs into ours."""
    other = {"_target_": "hydra_plugins.other.Launcher", "queue": None}
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(ConfigStore.instance().repo))
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=other)
    monkeypatch.setitem(sys.modules, name.partition("_")[0], None)
    assert f"hydra/launcher={name} needs the package" in sweep(tmp_path, f"hydra/launcher={name}", "seed=0,1").sentence


@pytest.mark.parametrize("name", LAUNCHERS)
def test_options_are_those_of_the_launcher(name):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", [f"hydra/launcher={name}", "sweep=it"], return_hydra_config=True)
        launcher = hydra.utils.instantiate(config.hydra.launcher)
    assert type(launcher).__module__ == "hydra_plugins.scorepath_plugins"


def test_a_job_is_given_up_when_it_was_lost_too_often_without_a_step_forward(tmp_path):
    job = Job("seed-0", ["seed=0"], tmp_path)
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    losses = Losses(attempts=2)
    losses.begin([job])
    assert losses.again(job)
    assert losses.is_last(job)
    checkpoint.touch()
    assert losses.again(job)  # it had gone forward
    os.utime(checkpoint, ns=(1, 1))
    assert losses.again(job)
    assert losses.again(job)
    assert not losses.again(job)
    assert losses.cause("killed") == "its process was lost 2 times without a step forward (killed)"


def test_a_machine_without_the_folder_says_so(tmp_path):
    with pytest.raises(Exception, match="every machine needs the folder that the sweep was started in"):
        Worker(None, None, None, directory=str(tmp_path / "nowhere")).enter()
