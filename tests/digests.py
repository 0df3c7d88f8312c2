"""Trains the same configurations at another commit and in this checkout, and compares what was learned, to the bit.

    python tests/digests.py COMMIT [NAME ...]

COMMIT is checked out beside this one for as long as it takes. Each configuration (or each NAME of them) is trained in
both, one after the other, in processes of their own; digests are equal on one machine alone, so none is stored. Prints
a table of `weights_sha256`. Exits with 1 if any two differ, or if a run fails. It takes ten minutes on an idle machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ROOT = Path(__file__).resolve().parents[1]

SHORT = "eval.episodes=4 eval.every_env_steps=2000 stop_when_solved=false logger=csv record_episode=false"

# name: overrides of one run; "|" stands between those of a run and those that resume it
CONFIGURATIONS = {
    # environments: one batch of Gymnasium's own, one process, several, torch twins, differentiable ones
    "cartpole": "env=cartpole dist=bernoulli estimator=score_function baseline=time_mean max_env_steps=10000",
    "async": "env=pendulum dist=normal env.vectorization=async episodes_per_update=3 max_env_steps=2400",
    "workers": "env=acrobot dist=categorical env.vectorization=async env.workers=2 episodes_per_update=5"
    " max_env_steps=3000",
    "mujoco": "env=hopper episodes_per_update=4 max_env_steps=600",
    "twin": "env=cartpole_torch max_env_steps=10000",
    "mountain car": "env=mountain_car_torch episodes_per_update=8 max_env_steps=3000",
    "swing-up": "env=cartpole_swingup_torch episodes_per_update=4 max_env_steps=4000",
    "double integrator": "env=double_integrator episodes_per_update=4 max_env_steps=2000",
    # score functions: baselines, normalisations, credit, entropy, second pass and kept graph, chunks
    "none": "env=cartpole baseline=none estimator.normalize_returns=none max_env_steps=5000",
    "constant": "env=cartpole baseline=constant estimator.normalize_returns=episode max_env_steps=5000",
    "batch mean": "env=cartpole baseline=batch_mean estimator.credit=total_return max_env_steps=5000",
    "leave one out": "env=cartpole baseline=leave_one_out optimizer=sgd lr_schedule=constant max_env_steps=5000",
    "running": "env=cartpole baseline=moving_average estimator.normalize_returns=running max_env_steps=5000"
    " policy.normalize_observations=true",
    "optimal constant": "env=cartpole baseline=optimal_constant optimizer=rmsprop max_env_steps=5000",
    "self critical": "env=cartpole baseline=self_critical max_env_steps=5000",
    "value": "env=pendulum dist=normal baseline=value episodes_per_update=4 max_env_steps=4000",
    "gae": "env=cartpole baseline=gae optimizer=adamw policy.normalize_observations=true max_env_steps=5000",
    "unbiased": "env=acrobot estimator=score_function_unbiased max_grad_norm=0.5 episodes_per_update=4"
    " max_env_steps=6000",
    "entropy": "env=cartpole estimator.entropy_coefficient=0.01 callbacks=gradient_diagnostics max_env_steps=5000",
    "entropy in rewards": "env=cartpole estimator.entropy_coefficient=0.01 estimator.entropy_in_rewards=true"
    " max_env_steps=5000",
    "kept graph": "env=cartpole_torch estimator.log_probs=rollout max_env_steps=5000",
    "wide": "env=cartpole_torch episodes_per_update=2048 max_env_steps=100000 threads=1",
    "chunks": "env=cartpole chunk=100 estimator.log_probs=again policy=linear max_env_steps=5000",
    # pathwise and mixed estimators
    "pathwise": "env=pendulum_torch dist=normal_rsample estimator=pathwise policy.normalize_observations=true"
    " episodes_per_update=4 max_env_steps=4000",
    "pathwise episode": "env=lqr estimator=pathwise_episode max_env_steps=6000",
    **{
        estimator: f"env=pendulum_discrete_torch estimator={estimator} episodes_per_update=4 max_env_steps=3000"
        for estimator in ("straight_through", "gumbel_softmax")
    },
    "ivw_h": "env=pendulum_torch estimator=ivw_h episodes_per_update=4 max_env_steps=3000",
    "alpha order": "env=lqr estimator=alpha_order episodes_per_update=4 max_env_steps=3000",
    "ddcg": "env=lqr estimator=ddcg episodes_per_update=4 max_env_steps=3000",
    "measure valued": "env=lqr env.dynamics.horizon=8 estimator=measure_valued dist=normal episodes_per_update=4"
    " max_env_steps=200",
    # the other distributions, each where its space is
    **{
        dist: f"env=pendulum dist={dist} episodes_per_update=3 max_env_steps=1800"
        for dist in ("laplace", "student_t", "multivariate_normal", "low_rank_normal", "mixture_normal")
    },
    **{
        dist: f"env=pendulum dist={dist} episodes_per_update=3 max_env_steps=1800"
        for dist in ("tanh_normal", "truncated_normal", "beta", "kumaraswamy", "von_mises")
    },
    **{
        dist: f"env=acrobot dist={dist} episodes_per_update=2 max_env_steps=3000 estimator.entropy_coefficient=0.01"
        for dist in ("binomial", "poisson")
    },
    **{
        dist: f"env=pendulum_discrete_torch dist={dist} estimator=pathwise episodes_per_update=4 max_env_steps=3000"
        for dist in ("relaxed_categorical", "one_hot_straight_through")
    },
    "relaxed_bernoulli": "env=pendulum_discrete_torch env.dynamics.torques=2 dist=relaxed_bernoulli"
    " estimator=score_function episodes_per_update=4 max_env_steps=2400",
    "dirichlet": "env=gym env.id=digests:EchoShares-v0 dist=dirichlet max_env_steps=1000",
    "product": "env=gym env.id=digests:EchoTree-v0 dist=product max_env_steps=1000",
    # processes and time
    "two processes": "env=cartpole baseline=gae estimator.normalize_returns=running policy.normalize_observations=true"
    " trainer=ddp trainer.accelerator=cpu trainer.devices=2 episodes_per_update=4 max_env_steps=5000",
    "two processes, windows": "env=pendulum_torch trainer=ddp trainer.accelerator=cpu trainer.devices=2"
    " episodes_per_update=2 max_env_steps=3000",
    "resumed": "env=cartpole baseline=value policy.normalize_observations=true max_env_steps=3000"
    " | env=cartpole baseline=value policy.normalize_observations=true resume=auto max_env_steps=6000",
    "resumed windows": "env=pendulum_torch episodes_per_update=4 max_env_steps=2000"
    " | env=pendulum_torch episodes_per_update=4 resume=auto max_env_steps=4000",
}


class Echo(gym.Env):
    """Six steps of an observation that is drawn again at each; pays for the numbers in an action that are near it."""

    def __init__(self, action_space):
        self.action_space = action_space
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        numbers = spaces.flatten(self.action_space, action)
        reward = -float(np.square(numbers - self.observation[0]).mean())
        return self._observe(), reward, self.steps == 6, False, {}

    def _observe(self):
        self.observation = self.np_random.uniform(size=2).astype(np.float32)
        return self.observation


SHARES = spaces.Box(0.0, 1.0, (3,), np.float32)
TREE = spaces.Dict({"a": spaces.MultiBinary(2), "b": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))))})
gym.register("EchoShares-v0", Echo, kwargs={"action_space": SHARES}, max_episode_steps=6)
gym.register("EchoTree-v0", Echo, kwargs={"action_space": TREE}, max_episode_steps=6)


def digest(tree, folder, overrides):
    """`weights_sha256` of a run with the sources of a tree, or what it said when it failed."""
    paths = os.pathsep.join((str(tree / "src"), str(Path(__file__).parent)))
    for part in overrides.split("|"):
        done = subprocess.run(
            [
                sys.executable,
                str(tree / "scripts" / "train.py"),
                f"hydra.run.dir={folder}",
                *SHORT.split(),
                *part.split(),
            ],
            cwd=folder.parent,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"failed: {(done.stderr.strip() or done.stdout).splitlines()[-1]}"
    return json.loads((folder / "summary.json").read_text())["weights_sha256"]


def compare(other, names, folder):
    """Prints a line for each configuration; returns the names of those that differ or fail."""
    unequal = []
    for name in names:
        place = name.replace(" ", "-").replace(",", "")
        before, now = (
            digest(tree, folder / f"{place}-{when}", CONFIGURATIONS[name])
            for tree, when in ((other, "before"), (ROOT, "now"))
        )
        same = before == now and not now.startswith("failed")
        print(f"{name:<24} {before[:16]} {now[:16]} {'equal' if same else 'DIFFERENT'}", flush=True)
        for tree, answer in ((other, before), (ROOT, now)):
            if answer.startswith("failed"):
                print(f"    {tree}: {answer}")
        if not same:
            unequal.append(name)
    return unequal


def main(commit, *names):
    """Compares a commit with this checkout."""
    if unknown := set(names) - set(CONFIGURATIONS):
        sys.exit(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(CONFIGURATIONS)}")
    with tempfile.TemporaryDirectory(prefix="digests-") as folder:
        other = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(other), commit], cwd=ROOT, check=True)
        try:
            unequal = compare(other, names or CONFIGURATIONS, Path(folder))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=ROOT, check=True)
    total = len(names or CONFIGURATIONS)
    print(f"{total - len(unequal)} of {total} equal" + (f"; not: {', '.join(unequal)}" if unequal else ""))
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if sys.argv[1:] else __doc__)
