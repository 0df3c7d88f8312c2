"""scripts/check_gradient.py: its report, its exit codes, and a user's own problem, estimator and distribution.

In-process but for one; each check's false-alarm rate is 1e-6, of the slow ones 1e-7, with fixed seeds.
"""

import sys
import textwrap

import pytest
from helpers import CONF, check_gradient, finish, start
from tiers import slow

FEW = ("max_batches=200", "warm_up_updates=2")
UNBIASED = ("estimator.normalize_returns=none", "estimator.discount_steps=true")
PROBLEMS = sorted(path.stem for path in (CONF / "problem").glob("*.yaml"))


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def test_an_unbiased_estimator_passes(tmp_path):
    outcome = check_gradient(tmp_path, *UNBIASED, *FEW)
    assert outcome.code == 0, outcome.err
    assert "label      unbiased" in outcome.out
    assert "verdict    no bias found at alpha = 1e-06" in outcome.out
    for words in ("std. error", " z", "T2 = ", "p = ", "variance", "SNR", "cosine", "is flagged with probability 0.99"):
        assert words in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_a_declared_bias_is_printed_and_passes(tmp_path):
    outcome = check_gradient(tmp_path, "estimator.normalize_returns=batch", *FEW)
    assert outcome.code == 0, outcome.err
    assert (
        "label      biased: advantages are whitened by the mean and the standard deviation of the same samples"
        in outcome.out
    )
    assert "verdict    biased, as its label says" in outcome.out


def test_the_clipped_gradient_is_checked(tmp_path):
    outcome = check_gradient(tmp_path, *UNBIASED, "max_grad_norm=0.1", *FEW)
    assert outcome.code == 0, outcome.err
    assert "label      biased: gradients are clipped at a norm of 0.1" in outcome.out
    assert "verdict    biased, as its label says" in outcome.out


OWN = """
    import gymnasium as gym
    import numpy as np
    import torch

    from scorepath.envs.dynamics import AbstractOneStep
    from scorepath.estimators import AbstractEstimator
    from scorepath.returns import reward_to_go
    from scorepath.verify import AbstractProblem


    class Cubic(AbstractOneStep):
        name = "cubic"

        def payoff(self, x):
            return x**3


    class CubicProblem(AbstractProblem):
        '''E x^3 = m^3 + 3 m s^2 for a Normal.'''

        def __init__(self, factor):
            self.dynamics = Cubic()
            self.factor = factor

        def objective(self, policy, gamma, last_value=None):
            dist = policy(torch.ones(1, 1, dtype=torch.float64))
            mean, variance = dist.mean.squeeze(), dist.variance.squeeze()
            return self.factor * (mean**3 + 3 * mean * variance)


    class Half(AbstractEstimator):
        '''Forgets a factor of 2, and knows it or not.'''

        needs_graph = False

        def __init__(self, admits):
            super().__init__()
            self.admits = admits

        def bias(self, gamma):
            return ("half is missing",) if self.admits else ()

        def returns(self, episodes, gamma, last_values):
            return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

        def forward(self, policy, episodes, advantages, gamma):
            log_prob = policy(episodes.observations[episodes.valid]).log_prob(episodes.actions[episodes.valid])
            return -0.5 * (log_prob * advantages.detach()[episodes.valid]).sum() / episodes.valid.shape[1], {}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with one module and one YAML for each slot, as a user would have them."""
    (tmp_path / "my_own_slots.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    for name, lines in {
        "problem/cubic": "_target_: my_own_slots.CubicProblem\nfactor: 1.0\n",
        "estimator/half": "_target_: my_own_slots.Half\nadmits: false\n",
    }.items():
        path = tmp_path / "my_conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    yield tmp_path
    sys.modules.pop("my_own_slots", None)


OWN_CUBIC = ("--config-dir", "my_conf", "problem=cubic", "dist=normal", *FEW)


def test_a_problem_of_one_s_own_is_one_class_and_one_yaml(own):
    outcome = check_gradient(own, *OWN_CUBIC, *UNBIASED)
    assert outcome.code == 0, outcome.err
    assert "on cubic" in outcome.out
    assert "no bias found" in outcome.out


@pytest.mark.slow
def test_a_wrong_exact_gradient_is_found_too(own):
    outcome = check_gradient(own, *OWN_CUBIC, *UNBIASED, "problem.factor=2.0")
    assert outcome.code == 1
    assert "calls itself unbiased, but its mean gradient is not the exact one" in outcome.sentence


def test_an_estimator_of_one_s_own_that_is_wrong_ends_with_1(own):
    outcome = check_gradient(own, "--config-dir", "my_conf", "estimator=half", *FEW)
    assert outcome.code == 1
    combination = "estimator=half dist=categorical baseline=none"
    assert outcome.sentence == f"{combination} calls itself unbiased, but its mean gradient is not the exact one."
    assert "verdict    biased, against its label" in outcome.out


def test_and_with_0_if_it_says_so(own):
    outcome = check_gradient(own, "--config-dir", "my_conf", "estimator=half", "estimator.admits=true", *FEW)
    assert outcome.code == 0, outcome.err
    assert "label      biased: half is missing" in outcome.out


@pytest.mark.slow
def test_a_class_by_its_target_alone(own):
    target = ("problem._target_=my_own_slots.CubicProblem", "~problem.dynamics", "+problem.factor=1.0")
    outcome = check_gradient(own, "problem=quadratic", *target, *UNBIASED, *FEW)
    assert outcome.code == 0, outcome.err
    assert "on cubic" in outcome.out


@pytest.mark.slow
def test_a_process_of_its_own(tmp_path):
    process = start("check_gradient", tmp_path, "problem=heaviside", "dist.initial_std=0.1", *UNBIASED, *FEW)
    outcome = finish(process, tmp_path)
    assert outcome.code == 0, outcome.err
    assert "3.98942" in outcome.out


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (("problem=randommdp",), 2, "did you mean problem=random_mdp?"),
        slow(("dist=normal",), 2, "dist=normal needs a Box action space, but random MDP"),
        (("problem=bandit", "estimator=pathwise_episode"), 2, "estimator=score_function"),
        (("baseline=time_mean", "episodes_per_update=1"), 2, "use episodes_per_update=2 or more"),
        (("problem.dynamics.terminal_states=4",), 2, "a state that is not terminal"),
        (("problem=lqr", "policy=mlp"), 1, "use policy=linear"),
        (("alpha=0",), 2, "alpha=0 is out of range: it must be above 0 and below 1"),
        slow(("batches=3",), 2, "batches=3 is out of range"),
        slow(("max_batches=2",), 2, "max_batches=2 is out of range"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(tmp_path, overrides, code, words):
    outcome = check_gradient(tmp_path, *FEW[1:], *overrides)
    assert outcome.code == code
    assert words in outcome.sentence


# ------------------------------------------------------------------ every option


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem(tmp_path, problem):
    outcome = check_gradient(tmp_path, f"problem={problem}", *UNBIASED, "alpha=1e-7", "max_batches=2000")
    assert outcome.code == 0, outcome.err
    assert "no bias found" in outcome.out


# where an estimator that cannot act in a random decision process is checked
WHERE = {
    "straight_through": "choice",
    "gumbel_softmax": "choice",
    "pathwise": "lqr",
    "pathwise_episode": "lqr",
    "alpha_order": "lqr",
    "ddcg": "lqr",
    "ivw_h": "lqr",
}


@pytest.mark.slow
@pytest.mark.parametrize("estimator", options("estimator"))
def test_every_estimator_s_label_holds(tmp_path, estimator):
    where = WHERE.get(estimator, "random_mdp")
    baseline = () if where == "random_mdp" else ("baseline=none",)
    outcome = check_gradient(
        tmp_path, f"estimator={estimator}", f"problem={where}", *baseline, "alpha=1e-7", "max_batches=1000"
    )
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("baseline", options("baseline"))
@pytest.mark.parametrize("problem", ["random_mdp", "time_limit"])
def test_every_baseline_s_label_holds(tmp_path, baseline, problem):
    outcome = check_gradient(
        tmp_path, f"problem={problem}", f"baseline={baseline}", *UNBIASED, "alpha=1e-7", "max_batches=3000"
    )
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("dist", options("dist"))
def test_every_distribution_s_gradient(tmp_path, dist):
    """By the score function, on the first problem whose action space it takes."""
    two_choices = ("problem=choice", "problem.dynamics.points=[-1.0,2.0]")
    interval = ("problem=cosine", "problem.dynamics.bound=1.5")
    for problem in (("problem=bandit",), two_choices, interval, ("problem=cosine",)):
        overrides = (*problem, f"dist={dist}", "estimator=score_function", "baseline=none", "policy.output_scale=1.0")
        outcome = check_gradient(tmp_path, *overrides, *UNBIASED, "alpha=1e-7", "max_batches=2000")
        if outcome.code != 2:
            break
    else:
        pytest.skip(f"no problem has its action space: {outcome.sentence}")
    if "no exact gradient" in outcome.err:
        pytest.skip(outcome.sentence)  # several real numbers at a time: log_prob and sampler are tested elsewhere
    assert outcome.code == 0, outcome.err
    assert "no bias found" in outcome.out


@pytest.mark.parametrize(
    ("given", "places"),
    [
        (("dist=bernoulli",), "use problem=bandit or problem=time_limit, where it can act, or dist=categorical here"),
        *(
            slow(*row)
            for row in (
                (("dist=beta",), "use problem=interval, where it can act, or dist=categorical here"),
                (
                    ("problem=quadratic", "dist=relaxed_categorical"),
                    "use problem=choice, where it can act",
                ),
                (
                    ("problem=quadratic", "dist=categorical"),
                    "problem=bandit or problem=choice or problem=random_mdp",
                ),
            )
        ),
    ],
    ids=str,
)
def test_a_dist_is_kept_where_another_problem_serves_it(tmp_path, given, places):
    outcome = check_gradient(tmp_path, *given)
    assert outcome.code == 2
    assert places in outcome.sentence
