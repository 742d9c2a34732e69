"""Networks with a task axis and the batch-norm regimes, against one task, one layer and one example at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters
from benchmarks.models import BACKBONES, Network, NetworkPredictor, Statistics
from benchmarks.models.backbones import MLP, Backbone, Conv4
from benchmarks.models.normalisation import EPSILON, MOMENTUM

TASKS, QUERIES, SUPPORT, OUTPUTS = 3, 5, 4, 3
SMALL: dict[str, tuple[Backbone, tuple[int, ...]]] = {
    "mlp": (MLP((6, 5)), (4,)),
    "mlp-normalised": (MLP((6, 5), normalised=True), (2, 3, 3)),
    "conv4-strided": (Conv4(3, strided=True), (2, 9, 9)),
    "conv4": (Conv4(3), (2, 16, 33)),
    "conv4-maps": (Conv4(3, pools=2), (2, 9, 6)),
}
NORMALISED = [name for name in SMALL if name != "mlp"]

#: what stands in for batch-norm in the reference: (features ``[n, channels, ...]``, scale, shift, layer) -> features
Normalise = Callable[[Tensor, Tensor, Tensor, str], Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(name: str) -> Network:
    backbone, input_shape = SMALL[name]
    return Network(backbone, input_shape, OUTPUTS)


def weights(net: Network, copies: int) -> Parameters:
    """Parameters ``[copies, ...]``, all of them away from where they are initialised."""
    initial = net.initialise(0)
    return {
        name: value.double() + 0.3 * normal(copies, *value.shape, seed=10 + number)
        for number, (name, value) in enumerate(initial.items())
    }


def examples(net: Network, n: int, tasks: int = TASKS, seed: int = 1) -> Tensor:
    return normal(tasks, n, *net.input_shape, seed=seed)


def running(net: Network) -> Parameters:
    return {
        name: 0.5 * normal(*value.shape, seed=40) + value.double() if "mean" in name else value.double() + 0.7
        for name, value in net.running_statistics().items()
    }


def of_batch(x: Tensor, scale: Tensor, shift: Tensor, layer: str) -> Tensor:
    return F.batch_norm(x, None, None, scale, shift, training=True)


def one_task(net: Network, parameters: Parameters, x: Tensor, normalise: Normalise = of_batch) -> Tensor:
    """Outputs ``[n, outputs]`` of inputs ``[n, ...]`` by the ordinary functions of torch; parameters of one task."""
    backbone = net.backbone
    if isinstance(backbone, MLP):
        x = x.flatten(1)
        for layer in (f"layer{number}" for number in range(len(backbone.widths))):
            x = F.linear(x, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])
            if backbone.normalised:
                x = normalise(x, parameters[f"{layer}.scale"], parameters[f"{layer}.shift"], layer)
            x = x.relu()
    else:
        assert isinstance(backbone, Conv4)
        for number, layer in enumerate(f"layer{number}" for number in range(4)):
            stride = 2 if backbone.strided else 1
            x = F.conv2d(x, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"], stride=stride, padding=1)
            x = normalise(x, parameters[f"{layer}.scale"], parameters[f"{layer}.shift"], layer).relu()
            x = x if backbone.strided or number >= backbone.pools else F.max_pool2d(x, 2)
        x = x.mean((2, 3)) if backbone.strided else x.flatten(1)
    return F.linear(x, parameters["head.weight"], parameters["head.bias"])


def of_first(count: int) -> Normalise:
    """Batch-norm by its formula with the mean and the variance of the first ``count`` examples."""

    def normalise(x: Tensor, scale: Tensor, shift: Tensor, layer: str) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        first = x[:count].transpose(0, 1).flatten(1)
        mean = first.mean(1)
        variance = (first - mean[:, None]).square().mean(1)
        return (x - mean.view(shape)) / (variance + EPSILON).sqrt().view(shape) * scale.view(shape) + shift.view(shape)

    return normalise


def of_training(statistics: Parameters) -> Normalise:
    def normalise(x: Tensor, scale: Tensor, shift: Tensor, layer: str) -> Tensor:
        mean, variance = statistics[f"{layer}.mean"], statistics[f"{layer}.variance"]
        return F.batch_norm(x, mean, variance, scale, shift, training=False)

    return normalise


def reference(net: Network, parameters: Parameters, support: Tensor, query: Tensor, regime: str) -> Tensor:
    """What a predictor should answer, ``[n, outputs]``, for one task."""
    if regime == "support":
        return one_task(net, parameters, torch.cat((support, query)), of_first(len(support)))[len(support) :]
    if regime == "single":
        return torch.cat([one_task(net, parameters, torch.cat((support, each[None])))[-1:] for each in query])
    if regime == "running":
        return one_task(net, parameters, query, of_training(running(net)))
    return one_task(net, parameters, query)


def predictor(net: Network, parameters: Parameters, regime: str, support: Tensor | None = None) -> NetworkPredictor:
    support = examples(net, SUPPORT, seed=2) if support is None else support
    return NetworkPredictor(net, parameters, regime, support, running(net))


@pytest.mark.parametrize("copies", [1, TASKS], ids=["shared", "per task"])
@pytest.mark.parametrize("regime", ["query", "support", "single", "running"])
@pytest.mark.parametrize("name", SMALL)
def test_every_regime_is_its_definition(name: str, regime: str, copies: int) -> None:
    """One task, and with some regimes one query, at a time: so neither influences another."""
    net = network(name)
    parameters, query, support = weights(net, copies), examples(net, QUERIES), examples(net, SUPPORT, seed=2)
    found, memory = predictor(net, parameters, regime)(query)
    assert memory is None
    assert found.shape == (TASKS, QUERIES, OUTPUTS)
    for task in range(TASKS):
        own = {part: value[task % copies] for part, value in parameters.items()}
        expected = reference(net, own, support[task], query[task], regime)
        torch.testing.assert_close(found[task], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("copies", [1, TASKS], ids=["shared", "per task"])
@pytest.mark.parametrize("regime", ["query", "support", "single"])
@pytest.mark.parametrize("name", NORMALISED)
def test_gradients_pass_through_the_statistics(name: str, regime: str, copies: int) -> None:
    net = network(name)
    leaves = {part: value.requires_grad_() for part, value in weights(net, copies).items()}
    query, support = examples(net, QUERIES), examples(net, SUPPORT, seed=2)
    found = predictor(net, leaves, regime)(query)[0].square().sum()
    expected = sum(
        reference(net, {part: v[task % copies] for part, v in leaves.items()}, support[task], query[task], regime)
        .square()
        .sum()
        for task in range(TASKS)
    )
    gradients = [torch.autograd.grad(loss, list(leaves.values())) for loss in (found, expected)]
    for part, first, second in zip(leaves, *gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8, msg=lambda text, part=part: f"{part}: {text}")


@pytest.mark.parametrize("name", NORMALISED)
def test_running_statistics_follow_the_batches(name: str) -> None:
    net = network(name)
    parameters, x = weights(net, 1), examples(net, 7, tasks=1)
    own = {part: value[0] for part, value in parameters.items()}
    statistics, expected = running(net), running(net)
    seen: list[str] = []

    def follow(features: Tensor, scale: Tensor, shift: Tensor, layer: str) -> Tensor:
        values = features.transpose(0, 1).flatten(1)
        for kind, value in (("mean", values.mean(1)), ("variance", values.var(1))):
            name = f"{layer}.{kind}"
            expected[name] = (1 - MOMENTUM) * expected[name] + MOMENTUM * value
            seen.append(name)
        return of_batch(features, scale, shift, layer)

    outputs = one_task(net, own, x[0], follow)
    found = net(parameters, x, Statistics(running=statistics, update=True))
    torch.testing.assert_close(found[0], outputs, rtol=1e-10, atol=1e-10)
    assert set(seen) == set(statistics)
    torch.testing.assert_close(statistics, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["support", "single", "running"])
def test_a_regime_says_what_it_lacks(name: str) -> None:
    net = network("conv4-strided")
    with pytest.raises(ValueError, match=name):
        NetworkPredictor(net, weights(net, 1), name)(examples(net, QUERIES))


@pytest.mark.parametrize("regime", ["query", "support", "single", "running"])
def test_outputs_are_the_head_of_the_embedding(regime: str) -> None:
    net = network("conv4-strided")
    parameters, query = weights(net, TASKS), examples(net, QUERIES)
    support = examples(net, SUPPORT, seed=2)
    embedded, _ = NetworkPredictor(net, parameters, regime, support, running(net), embed=True)(query)
    assert embedded.shape == (TASKS, QUERIES, net.embedding_size)
    head = torch.einsum("tnd,tod->tno", embedded, parameters["head.weight"].expand(TASKS, -1, -1))
    expected = predictor(net, parameters, regime)(query)[0] - parameters["head.bias"].unsqueeze(1)
    torch.testing.assert_close(head, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "input_shape", "embedding_size", "count"),
    [
        ("mlp-40-40", (1,), 40, 1_761),
        ("mlp-256-128-64-64", (1, 28, 28), 64, 247_621),
        ("conv4-64-strided", (1, 28, 28), 64, 112_261),
        ("conv4-32", (3, 84, 84), 800, 32_901),
        ("conv4-64", (3, 84, 84), 1_600, 121_093),
    ],
)
def test_the_papers_networks_have_their_sizes(
    name: str, input_shape: tuple[int, ...], embedding_size: int, count: int
) -> None:
    outputs = 1 if name == "mlp-40-40" else 5
    net = Network(BACKBONES[name], input_shape, outputs)
    parameters = net.initialise(0)
    assert net.embedding_size == embedding_size
    assert sum(value.numel() for value in parameters.values()) == count
    one = {part: value.unsqueeze(0) for part, value in parameters.items()}
    with torch.no_grad():
        assert net(one, torch.zeros(1, 2, *input_shape)).shape == (1, 2, outputs)


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_parameters(name: str) -> None:
    net = network(name)
    before = torch.get_rng_state()
    first, again, other = net.initialise(3), net.initialise(3), net.initialise(4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[part], again[part]) for part in first)
    drawn = [part for part in first if part.endswith("weight")]
    assert not any(torch.equal(first[part], other[part]) for part in drawn)
    scales = [value for part, value in first.items() if part.endswith("scale")]
    shifts = [value for part, value in first.items() if part.endswith("shift")]
    assert all((value == 1).all() for value in scales)
    assert all((value == 0).all() for value in shifts)
    assert bool(scales) == net.normalised
