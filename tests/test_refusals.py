"""Bad input ends with one sentence that names the remedy, exit code 2, and nothing run."""

import pytest
from helpers import CONF, FAULTY, finish, imported_by, start, train

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

# overrides -> a part of the sentence
REFUSED = {
    "optimzer=adam": "did you mean optimizer?",
    "optimizer.lrr=1": "did you mean optimizer.lr?",
    "env=cartpol": "did you mean env=cartpole?",
    "env=gym env.id=CartPol-v1": "did you mean CartPole-v1?",
    "env=gym": "give env.id=",
    "optimizer.lr=abc": "positive number",
    "optimizer.lr=-1": "positive number",
    "gamma=1.5": "from 0 to 1",
    "gamma=nan": "from 0 to 1",
    "seed=-1": "whole number from 0",
    "seed=1.5": "whole number from 0",
    "episodes_per_update=0": "from 1",
    "max_env_steps=-5": "from 1",
    "max_env_steps=true": "from 1",
    "eval.episodes=0": "from 1",
    "stop_when_solved=3": "true or false",
    "max_grad_norm=-1": "positive number, or null",
    "env=pendulum_torch estimator.window=0": "from 1",
    "env=pendulum dist.initial_std=0": "above 0",
    "policy.torso.hidden_sizes=64": "list of widths",
    "policy.torso.hidden_sizes=[0]": "list of widths",
    "policy.torso.activation=sigmoid": "tanh",
    "estimator.credit=all": "reward_to_go",
    "objective=return": "eval_return_mean",
    "resume=nowhere": "no checkpoint at nowhere",
    "episodes_per_update=1": "episodes_per_update=2 or more",
    "env=acrobot dist=bernoulli": "use dist=categorical",
    "dist=normal": "use dist=bernoulli or dist=categorical",
    "env=pendulum dist=categorical": "use dist=normal or dist=normal_rsample",
    "estimator=pathwise": "use estimator=score_function",
    "env=pendulum dist=normal_rsample": "env=pendulum_torch",
    "env=pendulum_torch baseline=batch_mean": "use baseline=value",
    "trainer.precision=64-true": "32-true",
    "foo": "foo",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused_with_the_remedy(line, tmp_path):
    outcome = train(tmp_path, *line.split())
    assert outcome.code == 2
    assert REFUSED[line] in outcome.sentence
    assert not list(outcome.directory.rglob("*.ckpt"))
    assert not (outcome.directory / "metrics.csv").exists()


@pytest.mark.parametrize("env", ["cartpole", "acrobot", "pendulum", "pendulum_torch", "lqr"])
@pytest.mark.parametrize("dist", sorted(path.stem for path in (CONF / "dist").glob("*.yaml")))
def test_no_pair_of_env_and_dist_is_silent(env, dist, tmp_path):
    """Each trains, or is refused by name."""
    outcome = train(tmp_path, f"env={env}", f"dist={dist}", "estimator=score_function", "baseline=none", "logger=none",
                    "callbacks=none", "debug=one_update")  # fmt: skip
    if outcome.code:
        assert outcome.code == 2
        assert outcome.sentence.startswith(f"dist={dist} needs")
    else:
        assert outcome.summary["updates"] == 1


def test_an_output_folder_that_cannot_be_written_to(tmp_path):
    """Below a file: root may write wherever permissions forbid it."""
    (tmp_path / "file").touch()
    outcome = train(tmp_path, directory="file/run")
    assert outcome.code == 2
    assert "cannot be written to" in outcome.sentence
    assert "hydra.run.dir" in outcome.sentence


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_nan_stops_before_the_optimizer_step(what, tmp_path):
    outcome = train(
        tmp_path, "env=gym", f"env.id={FAULTY}", f"+env.kwargs.bad={what}", "+env.kwargs.under=training_step",
        "max_env_steps=5000", "logger=csv", "eval.episodes=2", "record_episode=false",
    )  # fmt: skip
    assert outcome.code == 1
    for part in (f"gave a {what} that is not finite", "step 7", "seed", "after action"):
        assert part in outcome.sentence
    assert outcome.summary["status"] == "failed"


def test_full_error_shows_the_traceback(tmp_path):
    process = start("train", tmp_path, "env=acrobot", "dist=bernoulli", HYDRA_FULL_ERROR="1")
    outcome = finish(process, tmp_path)
    assert outcome.code != 0
    assert "Traceback" in outcome.err
    assert "use dist=categorical" in outcome.err


@pytest.mark.parametrize("overrides", [("--help",), ("--cfg", "job"), ("optimizer.lr=abc",)])
def test_help_and_config_errors_do_not_wait_for_torch(overrides, tmp_path):
    assert not imported_by("train", tmp_path, *overrides)


def test_a_missing_extra_names_its_command(tmp_path):
    """As on a machine without Box2D: a finder that comes first refuses to import it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'Box2D':\n"
        "            raise ModuleNotFoundError(\"No module named 'Box2D'\", name='Box2D')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    outcome = finish(start("train", tmp_path, "env=lunar_lander", PYTHONPATH=str(tmp_path)), tmp_path)
    assert outcome.code == 2
    assert 'pip install "gymnasium[box2d]"' in outcome.sentence
