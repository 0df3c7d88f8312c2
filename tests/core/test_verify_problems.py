"""The exact side: against brute force, closed forms and finite differences. Nothing here is random but the weights."""

import itertools
import math

import cases
import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium import spaces
from making import close, make_policy

from scorepath.distributions import Bernoulli, Categorical, Normal
from scorepath.envs.dynamics import (
    LQR,
    BallWithWall,
    Bell,
    Choice,
    Cosine,
    Heaviside,
    Mixed,
    Quadratic,
    Tabular,
    bandit,
    random_mdp,
    time_limit,
)
from scorepath.errors import ScorepathError
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout
from scorepath.verify import LQRProblem, MixedProblem, OneStepProblem, TabularProblem, action_grid
from scorepath.verify.problem import flatten, parameters_of


def at(mean, std, head):
    """A head without weights: N(mean, std²)."""
    with torch.no_grad():
        head.mean.weight.zero_()
        head.mean.bias.fill_(mean)
        head.log_std.fill_(math.log(std))


def exact(problem, policy, gamma=1.0, last_value=None):
    return float(problem.objective(policy, gamma, last_value).detach())


PROBLEMS = {
    "bandit": TabularProblem(bandit((1.0, 3.0, -0.5))),
    "random_mdp": TabularProblem(random_mdp(4, 3, 5, terminal_states=1, seed=3)),
    "no_terminal": TabularProblem(random_mdp(3, 2, 4, terminal_states=0, seed=4)),
    "time_limit": TabularProblem(time_limit(7)),
    "quadratic": OneStepProblem(Quadratic(3.0)),
    "bell": OneStepProblem(Bell(1.0)),
    "cosine_bounded": OneStepProblem(Cosine(2.0, bound=1.5)),
    "heaviside": OneStepProblem(Heaviside(0.1)),
    "ball_with_wall": OneStepProblem(BallWithWall()),
    "choice": OneStepProblem(Choice()),
    "lqr": LQRProblem(LQR(dim=2, horizon=5, dt=0.3)),
    "mixed": MixedProblem(),
}


# ------------------------------------------------------------------ every problem


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_gradient_is_that_of_finite_differences(name):
    problem, gamma = PROBLEMS[name], 0.9
    policy = make_policy(problem)
    gradient, entries = problem.exact_gradient(policy, gamma), []
    for parameter in parameters_of(policy):
        for index in range(parameter.numel()):
            values = []
            for step in (1e-5, -1e-5):
                parameter.data.view(-1)[index] += step
                values.append(exact(problem, policy, gamma))
                parameter.data.view(-1)[index] -= step
            entries.append((values[0] - values[1]) / 2e-5)
    assert gradient.abs().max() > 1e-3
    close(gradient, torch.tensor(entries, dtype=torch.float64), 1e-6)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_objective_is_the_mean_return_of_real_episodes(name):
    """z-test over 20,000 episodes, |z| < 4.9 (two-sided 1e-6); the reward of the environment that is stepped."""
    problem, gamma = PROBLEMS[name], 0.9
    policy = make_policy(problem)
    torch.manual_seed(0)
    episodes = rollout(problem.env(20_000), policy, 0)
    discounts = gamma ** torch.arange(len(episodes.rewards), dtype=torch.float64)
    returns = discounts @ episodes.rewards
    z = (returns.mean() - exact(problem, policy, gamma)) / (returns.std() / len(returns) ** 0.5)
    assert returns.dtype == torch.float64
    assert abs(float(z)) < 4.9


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_hidden_layer_is_no_hindrance(name):
    problem = PROBLEMS[name]
    policy = make_policy(problem, hidden=(5,))
    if name == "lqr":
        with pytest.raises(ScorepathError, match="mean linear in the state"):
            problem.exact_gradient(policy, 0.9)
    else:
        assert problem.exact_gradient(policy, 0.9).isfinite().all()


def test_parameters_that_nothing_depends_on_have_gradient_zero():
    one, two = torch.zeros(2, requires_grad=True), torch.ones(3, requires_grad=True)
    close(flatten((None, torch.full((3,), 2.0)), [one, two]), torch.tensor([0.0, 0, 2, 2, 2]).double())


# ------------------------------------------------------------------ expectations over a head


def one_line(space):
    return isinstance(space, spaces.Box) and space.shape in ((), (1,)) and np.issubdtype(space.dtype, np.floating)


GRIDS = [
    case
    for case in cases.HEADS
    if isinstance(cases.SPACES[case.space], spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete)
    or one_line(cases.SPACES[case.space])
]


@pytest.mark.parametrize("case", GRIDS, ids=lambda case: case.name)
def test_probabilities_of_a_grid_sum_to_1_and_their_gradients_to_0(case):
    """For every head of conf/dist on discrete spaces and on a line; the sum of gradients is E[∇ log π]."""
    policy = Policy(MLP(3, []), case.make()).double()
    probabilities = action_grid(policy, torch.randn(4, 3, dtype=torch.float64)).probabilities
    mass = probabilities.sum(dim=0)
    close(mass.detach(), torch.ones(4).double(), 1e-7)
    for gradient in torch.autograd.grad(mass.sum(), parameters_of(policy), allow_unused=True):
        if gradient is not None:
            close(gradient, torch.zeros_like(gradient), 1e-6)


def test_a_line_without_a_density_is_refused():
    policy = Policy(MLP(3, []), Normal(spaces.Box(-1.0, 1.0, (2,)), 3)).double()
    with pytest.raises(
        ScorepathError, match=r"no exact gradient for Normal in Box.*neither be enumerated nor integrated"
    ):
        action_grid(policy, torch.zeros(1, 3).double())


def test_a_grid_leaves_the_random_numbers_alone():
    policy = make_policy(PROBLEMS["bell"])
    before = torch.get_rng_state()
    action_grid(policy, torch.ones(1, 1).double())
    assert torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------------ finite decision processes


def brute_force(problem, policy, gamma, last_value=None):
    """E[Σ γ^t r_t + γ^L V(o_L)] over every trajectory, one by one."""
    mdp, chance = problem.dynamics, problem.action_probabilities(policy).detach()
    states, actions = mdp.P.shape[:2]
    values = torch.zeros(states) if last_value is None else last_value(torch.eye(states).double())

    def follow(state, time):
        if mdp.is_terminal[state]:
            return 0.0
        if time == mdp.max_episode_steps:
            return float(values[state])
        total = 0.0
        for action, following in itertools.product(range(actions), range(states)):
            probability = float(chance[state, action] * mdp.P[state, action, following])
            if probability > 0.0:
                reward = float(mdp.R[state, action, following])
                total += probability * (reward + gamma * follow(following, time + 1))
        return total

    return sum(float(mdp.start[state]) * follow(state, 0) for state in range(states))


@pytest.mark.parametrize(
    "name", ["bandit", pytest.param("random_mdp", marks=pytest.mark.slow), "no_terminal", "time_limit"]
)
@pytest.mark.parametrize("bootstrap", [False, True])
def test_dynamic_programming_is_the_sum_over_all_trajectories(name, bootstrap):
    problem = PROBLEMS[name]
    policy = make_policy(problem)
    value = (
        (lambda observations: observations @ torch.arange(1.0, 1 + observations.shape[1]).double())
        if bootstrap
        else None
    )
    assert exact(problem, policy, 0.9, value) == pytest.approx(brute_force(problem, policy, 0.9, value), rel=1e-12)


def test_random_mdps_have_what_is_asked_for():
    mdp = random_mdp(states=5, actions=3, horizon=6, terminal_states=2, zero_rewards=0.4, seed=1)
    rewards = mdp.R[..., 0]
    assert (rewards == 0).any()
    assert (rewards < 0).any()
    assert (rewards > 0).any()
    assert mdp.is_terminal.tolist() == [False] * 3 + [True] * 2
    assert mdp.max_episode_steps == 6
    assert torch.equal(mdp.P, random_mdp(5, 3, 6, 2, 0.4, seed=1).P)
    assert not torch.equal(mdp.P, random_mdp(5, 3, 6, 2, 0.4, seed=2).P)


@pytest.mark.parametrize("head", [Bernoulli, Categorical])
def test_transitions_come_as_often_as_the_table_says(head):
    """Chi-square over 10,000 steps of each pair; a false alarm once in 1e6 runs of each."""
    mdp = random_mdp(3, 2, 4, terminal_states=0, seed=5)
    torch.manual_seed(0)
    for state, action in itertools.product(range(3), range(2)):
        states = torch.full((10_000, 1), float(state), dtype=torch.float64)
        following = mdp.transition(states, torch.full((10_000,), action)).long().squeeze(-1)
        counts = torch.bincount(following, minlength=3).numpy()
        assert scipy.stats.chisquare(counts, 10_000 * mdp.P[state, action].numpy()).pvalue > 1e-6
    assert TabularProblem(mdp).exact_gradient(make_policy(TabularProblem(mdp), head), 0.9).isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transitions": [[[0.5, 0.4]], [[0.0, 1.0]]]}, "probabilities that sum to 1"),
        ({"transitions": [[[1.5, -0.5]], [[0.0, 1.0]]]}, "probabilities that sum to 1"),
        ({"rewards": [[1.0, 2.0, 3.0]]}, r"must be \(S, A, S\)"),
        ({"start": [1.0]}, r"must be \(2,\)"),
        ({"terminal": [0]}, "holds a start state"),
        ({"horizon": 0}, "horizon=0 must be at least 1"),
    ],
)
def test_tables_that_are_no_process_are_refused(change, words):
    good = {"transitions": [[[0.5, 0.5]], [[0.0, 1.0]]], "rewards": [[1.0], [0.0]], "start": [1.0, 0.0], "horizon": 3}
    Tabular(**good)
    with pytest.raises(ValueError, match=words):
        Tabular(**{**good, **change})


def test_a_process_of_nothing_but_ends_is_refused():
    with pytest.raises(ValueError, match="a state that is not terminal"):
        random_mdp(states=2, terminal_states=2)


def test_the_bernoulli_bandit():
    """p = .3, rewards 1 and 3: dJ/dlogit = p (1 - p) (3 - 1) = .42."""
    problem = TabularProblem(bandit((1.0, 3.0)))
    policy = make_policy(problem, Bernoulli)
    with torch.no_grad():
        policy.head.logits.weight.zero_()
        policy.head.logits.bias.fill_(math.log(0.3 / 0.7))
    assert exact(problem, policy) == pytest.approx(1.6)
    gradient = problem.exact_gradient(policy, 1.0)
    close(
        gradient, torch.tensor([0.42, 0.0, 0.42], dtype=torch.float64)
    )  # the weight of the start state, that of the end, the bias


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("horizon", [1, 3, 10])
def test_a_time_limit_with_its_bootstrap_is_worth_1_over_1_minus_gamma(gamma, horizon):
    """One state that pays 1 for ever: at any limit, if what is cut off is held to be worth that; less if nothing."""
    problem = TabularProblem(time_limit(horizon, risk=0.0))
    policy, worth = make_policy(problem), 1.0 / (1.0 - gamma)
    assert float(problem.values(policy, gamma)[0].detach()) == pytest.approx(worth)
    bootstrapped = exact(problem, policy, gamma, lambda observations: torch.full((len(observations),), worth).double())
    assert bootstrapped == pytest.approx(worth, rel=1e-12)
    assert exact(problem, policy, gamma) == pytest.approx((1.0 - gamma**horizon) * worth, rel=1e-12)


def test_without_a_time_limit_the_value_is_the_limit_of_long_ones():
    policy = make_policy(PROBLEMS["time_limit"])
    chance = float(PROBLEMS["time_limit"].action_probabilities(policy)[0, 1].detach())
    endless = PROBLEMS["time_limit"].values(policy, 0.9)
    assert float(endless[0].detach()) == pytest.approx(1.0 / (1.0 - 0.9 * (1.0 - 0.5 * chance)))
    assert exact(TabularProblem(time_limit(400)), policy, 0.9) == pytest.approx(float(endless[0].detach()), rel=1e-12)
    long, mdp = TabularProblem(random_mdp(4, 3, 600, seed=3)), PROBLEMS["random_mdp"]
    policy = make_policy(mdp)
    assert exact(long, policy, 0.9) == pytest.approx(
        float((mdp.dynamics.start * mdp.values(policy, 0.9)).sum().detach()), rel=1e-9
    )


# ------------------------------------------------------------------ one step


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-4.0, 2.0)])
def test_quadrature_has_the_closed_forms_of_the_normal(mean, std):
    """With x ~ N(m, s²), m = 1 + mean: E (x-k)² = (m-k)² + s²; E exp(-kx²) = exp(-km²/(1+2ks²)) / √(1+2ks²);
    E cos(kx) = cos(km) exp(-k²s²/2)."""
    m, k = 1.0 + mean, 1.3
    closed = {
        Quadratic: ((m - k) ** 2 + std**2, 2 * (m - k)),
        Bell: (
            math.exp(-k * m**2 / (1 + 2 * k * std**2)) / math.sqrt(1 + 2 * k * std**2),
            -2 * k * m / (1 + 2 * k * std**2) ** 1.5 * math.exp(-k * m**2 / (1 + 2 * k * std**2)),
        ),
        Cosine: (
            math.cos(k * m) * math.exp(-((k * std) ** 2) / 2),
            -k * math.sin(k * m) * math.exp(-((k * std) ** 2) / 2),
        ),
    }
    for family, (value, slope) in closed.items():
        problem = OneStepProblem(family(k))
        policy = make_policy(problem, mean="unbounded")
        at(mean, std, policy.head)
        assert exact(problem, policy) == pytest.approx(value, rel=1e-9, abs=1e-12)
        by_log_std, by_weight, by_bias = problem.exact_gradient(policy, 1.0)
        assert float(by_bias) == pytest.approx(slope, rel=1e-8, abs=1e-10)
        assert float(by_weight) == pytest.approx(slope, rel=1e-8, abs=1e-10)  # the observation is 1
        assert by_log_std.isfinite()


def test_clipped_actions_are_integrated_as_they_are_played():
    """x = clip(a, ±b) with a ~ N(0, 1): E x² = closed form of the censored normal."""
    problem, b = OneStepProblem(Quadratic(0.0, offset=0.0, bound=0.8)), 0.8
    policy = make_policy(problem, mean="unbounded")
    at(0.0, 1.0 / 0.8, policy.head)  # in units of half the Box's range
    inside = (1 - 2 * scipy.stats.norm.sf(b)) - 2 * b * scipy.stats.norm.pdf(b)
    assert exact(problem, policy) == pytest.approx(inside + 2 * b**2 * scipy.stats.norm.sf(b), rel=1e-6)


@pytest.mark.parametrize(("theta", "gradient"), [(0.0, 3.989), (0.1, 2.420), (0.2, 0.540)])
def test_heaviside_has_the_gradient_of_suh_et_al(theta, gradient):
    """The density of N(0, .1²) at θ."""
    problem = OneStepProblem(Heaviside(theta))
    policy = make_policy(problem, mean="unbounded")
    at(0.0, 0.1, policy.head)
    by_mean = float(problem.exact_gradient(policy, 1.0)[2])
    assert by_mean == pytest.approx(gradient, abs=5e-4)
    assert by_mean == pytest.approx(scipy.stats.norm.pdf(theta, scale=0.1), rel=1e-9)
    assert exact(problem, policy) == pytest.approx(scipy.stats.norm.cdf(theta / 0.1), rel=1e-9)


def test_the_ball_clears_the_wall_between_two_angles():
    """Flight by small steps, instead of the quadratic's roots."""
    ball = BallWithWall()
    for angle in np.linspace(0.02, 1.55, 60):
        time_at_wall = ball.distance / (ball.speed * math.cos(angle))
        height = ball.distance * math.tan(angle) - ball.gravity * time_at_wall**2 / 2
        reach = ball.speed**2 / ball.gravity * math.sin(2 * angle)
        expected = reach if height > ball.height else min(reach, ball.distance)
        assert float(ball.payoff(torch.tensor(angle))) == pytest.approx(expected, rel=1e-6)
    steep = torch.tensor([-1.0, 0.0, math.pi / 2, 2.0], dtype=torch.float64)
    close(ball.payoff(steep), torch.zeros(4).double())


def test_a_wall_that_no_throw_clears_is_refused():
    with pytest.raises(ValueError, match="no throw of 5 m/s clears a wall 3 m high"):
        BallWithWall(height=3.0)


def test_the_ball_s_objective_against_scipy():
    ball = BallWithWall()
    problem = OneStepProblem(ball)
    policy = make_policy(problem, mean="unbounded")
    at(0.1, 0.2, policy.head)
    edges = [-1.5, *ball.breaks, 3.5]
    total = sum(
        scipy.integrate.quad(
            lambda x: float(ball.payoff(torch.tensor(x))) * scipy.stats.norm.pdf(x, 0.9, 0.2), low, high, epsabs=1e-12
        )[0]
        for low, high in itertools.pairwise(edges)
    )
    assert exact(problem, policy) == pytest.approx(total, rel=1e-7)


def test_choice_takes_choices_and_weights_over_them():
    choice = Choice((-1.0, 0.5, 2.0), k=1.0)
    state = torch.zeros(3, 1, dtype=torch.float64)
    close(choice.reward(state, torch.eye(3).double(), state), torch.tensor([-4.0, -0.25, -1.0]).double())
    half = torch.tensor([[0.5, 0.0, 0.5]] * 3, dtype=torch.float64)
    close(choice.reward(state, half, state), torch.full((3,), -0.25).double())
    problem = OneStepProblem(choice)
    policy = make_policy(problem)
    probabilities = policy(torch.ones(1).double()).probs.detach()
    assert exact(problem, policy) == pytest.approx(float((probabilities * torch.tensor([-4.0, -0.25, -1.0])).sum()))


# ------------------------------------------------------------------ LQR and mixed


@pytest.mark.parametrize("dim", [1, 3])
def test_the_lqr_agrees_with_its_own_closed_form(dim):
    """`LQR.policy_cost` has no bias of the action; there the two are the same."""
    lqr = LQR(dim=dim, horizon=8, dt=0.2)
    policy = make_policy(LQRProblem(lqr))
    with torch.no_grad():
        policy.head.mean.bias.zero_()
    cost = lqr.policy_cost(-policy.head.mean.weight, policy.head.log_std.exp())
    close(LQRProblem(lqr).objective(policy, 1.0), -cost)


def test_the_lqr_has_no_room_for_a_value_network():
    with pytest.raises(ScorepathError, match="use baseline=none"):
        PROBLEMS["lqr"].objective(make_policy(PROBLEMS["lqr"]), 1.0, lambda observations: observations[:, 0])


def test_the_lqr_needs_a_constant_covariance():
    with pytest.raises(ScorepathError, match="state-independent std"):
        PROBLEMS["lqr"].exact_gradient(make_policy(PROBLEMS["lqr"], std="state_dependent"), 1.0)


def test_mixed_in_closed_form_for_sure_actions():
    """With hardly any noise: -x²/10 + γ [(1-p) f_0(y_0) + p f_1(y_1)], p = sigmoid(x)."""
    problem = MixedProblem()
    policy = make_policy(problem, mean="unbounded")
    with torch.no_grad():
        policy.head.log_std.fill_(-9.0)
        policy.head.mean.bias.zero_()
        policy.head.mean.weight.copy_(torch.tensor([[0.4, 0.9, -0.6]]))
    heads = 1.0 / (1.0 + math.exp(-0.4))
    expected = -0.016 + 0.9 * ((1 - heads) * (0.5 - 0.01) + heads * (2.0 - 0.01))
    assert exact(problem, policy, 0.9) == pytest.approx(expected, abs=1e-6)


def test_dynamics_say_where_a_path_derivative_is_blind():
    assert all(kind.discontinuities for kind in (Heaviside, BallWithWall, Mixed))
    assert not any(kind.discontinuities for kind in (Quadratic, Bell, Cosine, LQR))
