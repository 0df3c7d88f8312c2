"""What single continuous heads claim: their parameters, their bounds, their derivatives where rounding saturates."""

import cases
import gymnasium as gym
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import nn

from scorepath.distributions import (
    Beta,
    Kumaraswamy,
    Laplace,
    LowRankNormal,
    MixtureNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    TanhNormal,
    TruncatedNormal,
    VonMises,
)
from scorepath.distributions.beta import BetaDensity, KumaraswamyDensity
from scorepath.distributions.tanh_normal import TanhNormalDensity, log_normal_cdf
from scorepath.distributions.truncated_normal import TruncatedNormalDensity
from scorepath.distributions.von_mises import VonMisesDensity

ALPHA = 1e-6  # false-alarm rate of each statistical test here
BOUNDED = [TanhNormal, TruncatedNormal, Beta, Kumaraswamy]
LOCATION_SCALE = [Normal, Laplace, StudentT, MultivariateNormal, LowRankNormal, MixtureNormal]
UNEVEN = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def zero(layer: nn.Linear, bias=0.0) -> None:
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.as_tensor(bias).expand_as(layer.bias))


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("head", [Normal, Laplace, StudentT])
def test_initial_std_is_the_standard_deviation(head, std):
    """In units of half the range, whatever the family: 0.5 of 2 and of 5."""
    dist = head(UNEVEN, 3, std=std, initial_std=0.5)(torch.randn(4, 3))
    torch.testing.assert_close(dist.variance.sqrt(), torch.tensor([1.0, 2.5]).expand(4, 2))


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("head", [MultivariateNormal, LowRankNormal])
def test_std_is_each_entry_s_own_whatever_the_correlations(head, std):
    """The diagonal of the correlations is 1, with any weights."""
    made = cases.HeadCase("", head, "box_uneven", {"std": std}).make().double()
    correlations = made(torch.randn(5, 3, dtype=torch.float64)).vectors.covariance_matrix
    torch.testing.assert_close(correlations.diagonal(dim1=-2, dim2=-1), torch.ones(5, 3, dtype=torch.float64))
    assert correlations.tril(-1).abs().max() > 0.1
    dist = head(UNEVEN, 3, std=std, initial_std=0.5)(torch.randn(4, 3))
    torch.testing.assert_close(dist.scale, torch.tensor([1.0, 2.5]).expand(4, 2))


@pytest.mark.parametrize("head", [MultivariateNormal, LowRankNormal])
def test_correlations_can_be_learned_from_the_start(head):
    made = head(UNEVEN, 3, std="state_dependent")
    made(torch.ones(3)).log_prob(torch.tensor([1.0, 9.0])).backward()
    assert (made.loadings.grad != 0).all()
    assert (made.loadings_slope.weight.grad != 0).all()


@pytest.mark.parametrize("head", LOCATION_SCALE)
@pytest.mark.parametrize("wrong", [{"initial_std": 0.0}, {"initial_std": 101.0}, {"std": "fixed"}, {"mean": "tanh"}])
def test_heads_with_a_std_refuse_other_options(head, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        head(cases.SPACES["box"], 3, **wrong)


@pytest.mark.parametrize(
    ("head", "wrong"),
    [
        (StudentT, {"df": 2.0}),
        (StudentT, {"df": float("nan")}),
        (StudentT, {"df": 2e6}),
        (LowRankNormal, {"rank": 0}),
        (MixtureNormal, {"components": 0}),
        (TanhNormal, {"initial_std": 0.0}),
        (TanhNormal, {"std": "fixed"}),
        (TruncatedNormal, {"initial_std": -1.0}),
        (VonMises, {"initial_concentration": 0.0}),
        (VonMises, {"initial_concentration": 101.0}),
        (VonMises, {"concentration": "fixed"}),
    ],
)
def test_other_options_are_refused(head, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        head(cases.SPACES["box"], 3, **wrong)


@pytest.mark.parametrize(
    "case", [case for case in cases.HEADS if case.kwargs.get("validate_args")], ids=lambda c: c.name
)
def test_validation_is_of_the_instance(case):
    """A NaN is refused by the head that was asked to, and by no other."""
    features = torch.full((3,), float("nan"))
    with pytest.raises(ValueError, match="invalid values"):
        case.make()(features)
    cases.HeadCase(case.option, case.head, case.space).make()(features)


# ------------------------------------------------------------------ bounded Boxes


@pytest.mark.parametrize("head", BOUNDED)
@pytest.mark.parametrize("space", ["box", "box_uneven", "box_2d"])
@torch.no_grad()
def test_bounded_samples_lie_in_the_box_before_any_clipping(head, space):
    """In float32, so that no sample loses its gradient to the clip."""
    made = cases.HeadCase("", head, space).make()
    dist = made(30.0 * torch.randn(5000, 3))
    for action in (dist.sample(), made.deterministic(dist)):
        assert torch.equal(made.to_env(action), action)


@pytest.mark.parametrize("head", [*BOUNDED, VonMises])
def test_validation_refuses_actions_outside_the_box(head):
    dist = head(cases.SPACES["box"], 3, validate_args=True)(torch.ones(3))
    dist.log_prob(torch.tensor([2.0]))
    with pytest.raises(ValueError, match="support"):
        dist.log_prob(torch.tensor([2.1]))


def density(kind, low=5.0, high=6.0, dtype=torch.float32):
    first, second = torch.tensor([0.4], dtype=dtype), torch.tensor([1.5], dtype=dtype)
    if kind in (BetaDensity, KumaraswamyDensity):
        first = first + 1.0
    return kind(first, second, torch.tensor([low], dtype=dtype), torch.tensor([high], dtype=dtype))


@pytest.mark.parametrize("kind", [TanhNormalDensity, TruncatedNormalDensity, BetaDensity, KumaraswamyDensity])
@pytest.mark.parametrize(("low", "high"), [(5.0, 6.0), (-1000.0, -999.0), (0.0, 1e-3), (-1.0, 1e6)])
def test_a_box_far_from_zero_has_finite_densities(kind, low, high):
    """Where float32 knows few numbers between the bounds."""
    dist = density(kind, low, high)
    action = dist.sample((1000,))
    assert ((action >= dist.low) & (action <= dist.high)).all()
    assert dist.log_prob(torch.cat((action, dist.low[None], dist.high[None]))).isfinite().all()


def test_a_unit_of_beta_and_kumaraswamy_is_uniform():
    """α = β = 1, the limit of both."""
    one, low, high = torch.ones(1), torch.zeros(1), torch.full((1,), 4.0)
    for kind in (BetaDensity, KumaraswamyDensity):
        dist = kind(one, one, low, high)
        action = torch.tensor([[0.0], [0.1], [3.0], [4.0]])
        torch.testing.assert_close(dist.log_prob(action), torch.full((4, 1), -np.log(4.0), dtype=torch.float32))
        torch.testing.assert_close(dist.entropy(), torch.tensor([np.log(4.0)], dtype=torch.float32))
    assert KumaraswamyDensity(one, one, low, high).median.item() == pytest.approx(2.0)  # where torch's mode is NaN


def test_kumaraswamy_knows_both_ends_in_float32():
    """Its shares add up to 1 and are each right to 1e-5 of itself, from quantile 1e-7 to 1 - 1e-7; by float64."""
    surprise = -torch.cat((torch.logspace(-7, -0.3, 30, dtype=torch.float64).log(),)).float()
    surprise = torch.cat((surprise, -torch.log1p(-torch.logspace(-7, -0.3, 30, dtype=torch.float64)).float()))
    for alpha, beta in [(1.0, 1.0), (1.5, 30.0), (30.0, 1.5), (1e3, 1e3), (1.001, 1e4)]:
        shares = []
        for dtype in (torch.float32, torch.float64):
            low, high = torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype)
            dist = KumaraswamyDensity(low + alpha, low + beta, low, high)
            shares.append(torch.stack(dist._shares(surprise.to(dtype))))
        torch.testing.assert_close(shares[0].double(), shares[1], rtol=1e-3, atol=0.0)


def test_a_wide_truncated_normal_is_uniform_and_a_narrow_one_a_normal():
    low, high = double(-1.0), double(3.0)
    wide = TruncatedNormalDensity(double(0.3), double(1e3), low, high)
    assert float(wide.log_prob(double(2.9))) == pytest.approx(-np.log(4.0), abs=1e-6)
    assert float(wide.entropy()) == pytest.approx(np.log(4.0), abs=1e-6)
    narrow = TruncatedNormalDensity(double(0.25), double(1e-3), low, high)  # N(0, 0.004²)
    assert float(narrow.log_prob(double(0.002))) == pytest.approx(scipy.stats.norm.logpdf(0.002, 0, 0.004), abs=1e-9)
    assert float(narrow.entropy()) == pytest.approx(scipy.stats.norm.entropy(0, 0.004), abs=1e-9)


@pytest.mark.parametrize("parameters", [(1e-4, 0.05), (0.3, 0.3), (0.9, 100.0), (0.5, 1e-3)])
def test_truncated_samples_have_the_derivative_of_their_quantile(parameters):
    """da/dφ = -∂F(a; φ)/∂φ / p(a) for each sample, with F of scipy: rsample is the quantile function of a uniform."""
    given = double(*parameters).expand(500, 2).clone().requires_grad_()
    dist = TruncatedNormalDensity(given[:, 0], given[:, 1], double(0.0), double(1.0))
    action = dist.rsample()
    (found,) = torch.autograd.grad(action.sum(), given)
    density, drawn = dist.log_prob(action).detach().exp().numpy(), action.detach().numpy()

    def cdf(loc, scale):
        return scipy.stats.truncnorm.cdf(drawn, -loc / scale, (1 - loc) / scale, loc, scale)

    for column, step in enumerate(np.diag(np.array(parameters) * 1e-5)):
        difference = cdf(*(parameters + step)) - cdf(*(parameters - step))
        expected = -difference / (2 * step[column]) / density
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------ tanh_normal


def test_the_log_of_the_normal_cdf_and_its_gradient_in_float32():
    """Against scipy in float64, from -1e8 to 1e8; the gradient is φ / Φ."""
    z = torch.cat((-torch.logspace(8, -3, 200), torch.zeros(1), torch.logspace(-3, 8, 200))).requires_grad_()
    value = log_normal_cdf(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    exact = z.detach().double().numpy()
    expected = scipy.special.log_ndtr(exact)
    ratio = np.sqrt(2 / np.pi) / scipy.special.erfcx(-exact / np.sqrt(2))
    np.testing.assert_allclose(value.detach().double(), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient.double(), ratio, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (0.0, 30.0), (8.0, 2.0), (-40.0, 20.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_score_of_a_saturated_tanh_normal_has_mean_zero(loc, scale, dtype):
    """E[∇ log p] = 0 under the sampler, though most samples are rounded to the bounds; z-tests over 100,000 samples.

    With the atanh of a clamped sample, the mean score of the scale is thousands of standard errors from 0 at scale 30.
    """
    parameters = torch.tensor([loc, scale], dtype=dtype).expand(100_000, 2).clone().requires_grad_()
    one = torch.ones((), dtype=dtype)
    dist = TanhNormalDensity(parameters[:, 0], parameters[:, 1], -one, one)
    (score,) = torch.autograd.grad(dist.log_prob(dist.sample()).sum(), parameters)
    z = score.double().mean(dim=0) / (score.double().std(dim=0) / len(score) ** 0.5)
    assert float(z.abs().max()) < scipy.stats.norm.isf(ALPHA / 4)


@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_cells_at_the_bounds_hold_what_the_inside_lacks(scale, dtype):
    """Their probability is their width times their density: with the inside, 1."""
    one = torch.ones((), dtype=dtype)
    dist = TanhNormalDensity(0.0 * one + 0.3, scale * one, -one, one)
    cells = sum(
        float(dist.log_prob(bound).double().exp() * 2.0 * edge)
        for bound, edge in ((-one, dist.low_edge), (one, dist.high_edge))
    )
    edge = scipy.special.logit(float(dist.low_edge)) / 2.0  # in u
    inside = np.diff(scipy.stats.norm.cdf([edge, -edge], 0.3, scale))[0]
    assert cells + inside == pytest.approx(1.0, abs=1e-5)


# ------------------------------------------------------------------ correlated and mixed


def test_a_full_covariance_by_hand():
    """One loading c = 1: rows (1, 0) and (1, 1) / √2, so a correlation of 1 / √2."""
    head = MultivariateNormal(UNEVEN, 3, initial_std=0.5)
    nn.init.ones_(head.loadings)
    torch.testing.assert_close(head(torch.zeros(3)).vectors.covariance_matrix[0, 1], torch.tensor(0.5).sqrt())


def test_a_covariance_of_rank_1_by_hand():
    """W = (1, 2) before it is scaled: correlation 2 / √(2 · 5)."""
    head = LowRankNormal(UNEVEN, 3)
    with torch.no_grad():
        head.loadings.copy_(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(head(torch.zeros(3)).vectors.covariance_matrix[0, 1], torch.tensor(0.4).sqrt())


@pytest.mark.parametrize("head", [MultivariateNormal, LowRankNormal])
def test_correlated_samples_have_the_derivative_of_the_expectation(head):
    """∇E[aᵀ M a] = ∇(tr(M Σ) + mᵀ M m); z-tests for all parameters over 100 batches of 400 samples."""
    made = cases.HeadCase("", head, "box_uneven", {"std": "state_dependent"}).make().double()
    features, matrix = torch.randn(3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    parameters = list(made.parameters())

    def gradient(value):
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, parameters)])

    dist = made(features)
    covariance = dist.vectors.covariance_matrix * torch.outer(dist.scale, dist.scale)
    expected = gradient((matrix * covariance).sum() + dist.loc @ matrix @ dist.loc)
    rows = features.expand(400, 3)

    def estimate():
        action = made(rows).rsample()
        return gradient(torch.einsum("bi,ij,bj->", action, matrix, action) / 400)

    batches = torch.stack([estimate() for _ in range(100)])
    z = (batches.mean(dim=0) - expected) / (batches.std(dim=0) / 10.0)
    assert float(z.abs().max()) < scipy.stats.t.isf(ALPHA / 2 / len(expected), 99)


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
def test_a_mixture_of_one_is_a_normal(std):
    mixture = cases.HeadCase("", MixtureNormal, "box_uneven", {"components": 1, "std": std}).make()
    normal = Normal(cases.SPACES["box_uneven"], 3, std=std)
    normal.load_state_dict({name: value for name, value in mixture.state_dict().items() if "logits" not in name})
    features = torch.randn(20, 3)
    action = normal(features).sample()
    torch.testing.assert_close(mixture(features).log_prob(action), normal(features).log_prob(action))
    torch.testing.assert_close(mixture.deterministic(mixture(features)), normal.deterministic(normal(features)))


def test_the_deterministic_action_of_a_mixture_is_its_highest_peak():
    """Means -1 and 1, weights 0.6 and 0.4: the first with equal stds, the second if it is half as wide."""
    head = MixtureNormal(gym.spaces.Box(-10.0, 10.0, (1,), np.float32), 3, components=2, mean="unbounded")
    zero(head.mean, torch.tensor([-0.1, 0.1]))
    zero(head.logits, torch.tensor([0.6, 0.4]).log())
    for stds, expected in (((0.01, 0.01), -1.0), ((0.02, 0.01), 1.0)):
        with torch.no_grad():
            head.log_std.copy_(torch.tensor(stds).log())
        torch.testing.assert_close(head.deterministic(head(torch.zeros(4, 3))), torch.full((4, 1), expected))


def test_a_mixture_s_components_start_apart():
    """Equal ones would have equal gradients for ever."""
    means = MixtureNormal(UNEVEN, 3)(torch.zeros(3)).component_distribution.mean
    assert (means[0] - means[1]).abs().min() > 1e-3


# ------------------------------------------------------------------ von_mises


def test_angles_wrap_around_the_box():
    """[-1, 3] is one turn: 3.5 is -0.5 and -2 is 2; within the Box nothing changes."""
    head = VonMises(cases.SPACES["box_scalar"], 3)
    given = torch.tensor([3.5, -2.0, 7.25, -1.0, 3.0, 0.1])
    torch.testing.assert_close(head.to_env(given), torch.tensor([-0.5, 2.0, -0.75, -1.0, 3.0, 0.1]))
    assert torch.equal(head.to_env(given[3:]), given[3:])


def test_low_and_high_are_the_same_angle_and_a_turn_changes_nothing():
    head = cases.HeadCase("", VonMises, "box_uneven", {}).make().double()
    dist = head(torch.randn(20, 3, dtype=torch.float64))
    low, high = (
        torch.as_tensor(bound).double().expand(20, 3) for bound in (head.action_space.low, head.action_space.high)
    )
    torch.testing.assert_close(dist.log_prob(low), dist.log_prob(high))
    action = dist.sample()
    torch.testing.assert_close(dist.log_prob(action + 3 * (high - low)), dist.log_prob(action))
    with torch.no_grad():
        head.mean.bias += 6.0  # 3 turns
    torch.testing.assert_close(head(torch.zeros(3).double()).mean, head(torch.zeros(3).double()).mean)


@pytest.mark.parametrize("kappa", [1e-4, 0.3, 5.0, 500.0, 8000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_von_mises_against_scipy_for_small_and_large_concentrations(kappa, dtype):
    angle = np.linspace(-np.pi, np.pi, 50)
    low, high = torch.tensor([-np.pi], dtype=dtype), torch.tensor([np.pi], dtype=dtype)
    dist = VonMisesDensity(torch.tensor([0.7], dtype=dtype), torch.tensor([kappa], dtype=dtype), low, high)
    found = dist.log_prob(torch.tensor(angle, dtype=dtype).unsqueeze(1)).squeeze(1)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(found, scipy.stats.vonmises.logpdf(angle, kappa, 0.7), **tolerance)
    entropy = scipy.stats.vonmises.entropy(kappa)
    assert float(dist.entropy()) == pytest.approx(float(entropy), abs=1e-3 if dtype == torch.float32 else 1e-8)
