"""The policy: normaliser against numpy, torso, initialisation."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from scorepath.distributions import Bernoulli, Beta, Binomial, Normal
from scorepath.policy import MLP, ObservationNormalizer, Policy, initialize

BOX = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def normal_policy(hidden_sizes=(), in_features=3, observation_dims=1, normalizer=None):
    torso = MLP(in_features, hidden_sizes)
    return Policy(torso, Normal(BOX, torso.out_features), observation_dims, normalizer)


# ------------------------------------------------------------------ normaliser


def test_the_normaliser_equals_numpy_after_batches_of_any_size():
    """Mean and std of everything seen so far, also far from the origin where squares would cancel."""
    generator = np.random.default_rng(0)
    sizes = [1, 1, 50, 7, 1000, 3]
    batches = [generator.normal([0.0, 1e4, -3.0], [1.0, 0.01, 50.0], size=(size, 3)) for size in sizes]
    normalizer = ObservationNormalizer(3)
    for seen in range(1, len(batches) + 1):
        normalizer.update(torch.from_numpy(batches[seen - 1]))
        everything = np.concatenate(batches[:seen])
        assert float(normalizer.count) == len(everything)
        np.testing.assert_allclose(normalizer.mean.numpy(), everything.mean(axis=0), rtol=1e-12)
        if len(everything) > 1:
            deviation = (normalizer.squares / normalizer.count).sqrt().numpy()
            np.testing.assert_allclose(deviation, everything.std(axis=0), rtol=1e-8)
    inputs = torch.from_numpy(generator.normal([0.0, 1e4, -3.0], [1.0, 0.01, 50.0], size=(20, 3)))
    expected = (inputs.numpy() - everything.mean(axis=0)) / everything.std(axis=0)
    np.testing.assert_allclose(normalizer(inputs).numpy(), expected, rtol=1e-7, atol=1e-7)


def test_before_any_data_the_normaliser_passes_observations_through():
    observations = torch.linspace(-10.0, 10.0, 21).reshape(7, 3)
    assert torch.equal(ObservationNormalizer(3)(observations), observations)
    plain = normal_policy((4,))
    normalised = Policy(plain.torso, plain.head, 1, ObservationNormalizer(3))
    assert torch.equal(plain(observations).mean, normalised(observations).mean)


def test_normalised_observations_are_clipped_at_10_and_constants_do_not_blow_up():
    normalizer = ObservationNormalizer(2)
    normalizer.update(torch.tensor([[5.0, 0.0], [5.0, 2.0]]))
    assert normalizer(torch.tensor([[5.0, 1.0], [5.0, 100.0], [1e9, -100.0]])).tolist() == [
        [0.0, 0.0],
        [0.0, 10.0],
        [10.0, -10.0],
    ]


def test_the_normaliser_keeps_the_dtype_and_learns_without_a_graph():
    normalizer = ObservationNormalizer(2)
    normalizer.update(torch.randn(5, 2, requires_grad=True))
    assert normalizer(torch.randn(4, 2)).dtype == torch.float32
    assert not normalizer.mean.requires_grad
    assert not list(normalizer.parameters())


def test_the_normaliser_s_statistics_travel_in_the_state_dict():
    first, second = (
        normal_policy(normalizer=ObservationNormalizer(3)),
        normal_policy(normalizer=ObservationNormalizer(3)),
    )
    first.normalizer.update(torch.randn(100, 3) * 4 + 2)
    second.load_state_dict(first.state_dict())
    observations = torch.randn(6, 3)
    assert torch.equal(first(observations).mean, second(observations).mean)


# ------------------------------------------------------------------ torso and policy


def test_no_hidden_layers_is_the_identity():
    torso = MLP(3, [])
    inputs = torch.randn(5, 3)
    assert torso.out_features == 3
    assert torch.equal(torso(inputs), inputs)


def test_a_linear_policy_s_mean_is_linear_in_the_observation():
    policy = normal_policy()
    inputs = torch.randn(6, 3)
    mean = policy.head.mean
    torch.testing.assert_close(policy(inputs).mean, inputs @ mean.weight.T + mean.bias)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("tanh", torch.tanh),
        ("relu", torch.relu),
        ("elu", nn.functional.elu),
        ("gelu", nn.functional.gelu),
        ("silu", nn.functional.silu),
    ],
)
def test_mlp_by_hand(activation, function):
    torso = MLP(3, [4, 5], activation).double()
    first, second = (layer for layer in torso.layers if isinstance(layer, nn.Linear))
    inputs = torch.randn(2, 7, 3, dtype=torch.float64)
    hidden = function(inputs @ first.weight.T + first.bias)
    torch.testing.assert_close(torso(inputs), function(hidden @ second.weight.T + second.bias), rtol=1e-12, atol=1e-12)
    assert torso.out_features == 5


def test_mlp_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"activation=softmax is unknown: use one of tanh, relu"):
        MLP(3, [4], "softmax")
    with pytest.raises(ValueError, match=r"hidden_sizes=\[4, 0\] must be whole numbers from 1 to 65,536"):
        MLP(3, [4, 0])
    for wrong in ([65_537], [1.5], ["a"], [None]):
        with pytest.raises(ValueError, match="must be whole numbers"):
            MLP(3, wrong)


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)], ids=str)
def test_observations_of_any_rank_are_flattened_behind_the_batch(shape, batch):
    size = int(np.prod(shape))
    policy = normal_policy((4,), size, len(shape))
    observations = torch.randn((*batch, *shape))
    dist = policy(observations)
    assert dist.batch_shape == batch
    flat = normal_policy((4,), size, 1)
    flat.load_state_dict(policy.state_dict())
    assert torch.equal(dist.mean, flat(observations.reshape(*batch, size)).mean)


# ------------------------------------------------------------------ initialisation


def weights(policy):
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


@pytest.mark.parametrize("factor", [0.0, 0.01, 1.0, 2.0])
def test_output_scale_multiplies_the_head_s_layers_alone(factor):
    policy = normal_policy((8,))
    before = weights(policy)
    initialize(policy, "torch", factor)
    for name, value in weights(policy).items():
        expected = factor * before[name] if name.startswith("head.mean") else before[name]
        assert torch.equal(value, expected), name


def test_output_scale_zero_starts_a_bernoulli_uniform():
    torso = MLP(3, [8])
    policy = Policy(torso, Bernoulli(gym.spaces.Discrete(2), 8))
    initialize(policy, "torch", 0.0)
    assert (policy(torch.randn(9, 3)).probs == 0.5).all()


def test_orthogonal_weights_have_gain_sqrt_2_and_zero_biases():
    policy = normal_policy((5, 2), in_features=8)
    initialize(policy, "orthogonal")
    for layer in policy.torso.layers:
        if isinstance(layer, nn.Linear):
            torch.testing.assert_close(layer.weight @ layer.weight.T, 2.0 * torch.eye(layer.out_features))
            assert (layer.bias == 0).all()
    assert (policy.head.mean.bias != 0).any()  # the head keeps torch's


def test_initialisation_is_reproducible_from_the_generator():
    policies = []
    for _ in range(2):
        torch.manual_seed(3)
        policies.append(normal_policy((5,)))
        initialize(policies[-1], "orthogonal")
    first, second = (weights(policy) for policy in policies)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", [Beta, Binomial])
def test_mixed_precision_ends_before_the_head(kind):
    """Samplers of several distributions know no half precision."""
    space = gym.spaces.Box(0, 9, (2,), np.int64) if kind is Binomial else gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    policy = Policy(MLP(3, [8]), kind(space, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dist = policy(torch.randn(5, 3))
        assert dist.log_prob(dist.sample()).dtype == torch.float32


# ------------------------------------------------------------------ speed that changes nothing


@pytest.mark.parametrize("rows", [1, 7, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tanh_of_a_torso_is_tanh(rows, dtype):
    """Forward and backward, in the range where it matters and far beyond."""
    torso = MLP(3, [8, 8]).to(dtype)
    layers = [layer for layer in torso.layers if isinstance(layer, nn.Linear)]
    inputs = (
        torch.randn(rows, 3, dtype=dtype) * torch.logspace(-4, 3, rows, dtype=dtype).unsqueeze(1)
    ).requires_grad_()
    expected = inputs
    for layer in layers:
        expected = torch.tanh(layer(expected))
    upstream = torch.randn(rows, 8, dtype=dtype)
    wanted = torch.autograd.grad(expected, [inputs, *torso.parameters()], upstream)
    actual = torso(inputs)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(torso(inputs), expected, rtol=0, atol=tolerance)
    for one, other in zip(torch.autograd.grad(actual, [inputs, *torso.parameters()], upstream), wanted, strict=True):
        scale = other.abs().max().clamp(min=1.0)
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=20 * tolerance)


def test_gradients_of_many_outputs_at_once_go_through_the_tanh():
    torso = MLP(3, [64])
    inputs = torch.randn(100, 3)
    sums = torso(inputs).sum(dim=1)[:2]
    weight = torso.layers[0].weight
    together = torch.autograd.grad(sums, weight, torch.eye(2), is_grads_batched=True, retain_graph=True)[0]
    for index in range(2):
        torch.testing.assert_close(together[index], torch.autograd.grad(sums[index], weight, retain_graph=True)[0])


def test_widening_layers_store_columns_and_load_what_was_saved():
    torso = MLP(4, [64, 64])
    assert torso.layers[0].weight.stride() == (1, 64)
    assert torso.layers[2].weight.stride() == (64, 1)
    torso(torch.randn(5, 4)).sum().backward()
    assert torso.layers[0].weight.grad.stride() == (1, 64)
    other = MLP(4, [64, 64])
    other.load_state_dict(torso.state_dict())
    assert other.layers[0].weight.stride() == (1, 64)
    assert torch.equal(other.layers[0].weight, torso.layers[0].weight)
