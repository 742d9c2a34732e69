"""The neural statistician: its evidence lower bound where the exact one is known, and what sets promise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.neural_statistician import NeuralStatistician, in_sets, lower_bound
from baselines.shared.gaussian import Gaussian, divergence
from baselines.shared.pictures import coarser
from baselines.shared.pictures import drawn as drawn_ink
from benchmarks.api import Episodes, LabelledSet, MetabenchError, Parameters
from benchmarks.models import BACKBONES, Network, Statistics
from benchmarks.registry import build_method, build_task, incompatible, mismatch

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SMALL = NeuralStatistician(backbone="statistician-reduced", context=5, latent=3, hidden=8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def parameters() -> Parameters:
    """For pictures of 8 x 8 that are their own embedding."""
    found = SMALL.extra(Network(BACKBONES["identity"], (1, 8, 8), 3), torch.Generator().manual_seed(0))
    return {name: value.double() for name, value in found.items()}


# The bound: c ~ N(0, 1), z ~ N(c, 1), x ~ N(z, 1/4)

POINTS = torch.tensor([0.5, -0.3, 1.2, 0.8], dtype=torch.double)
#: 1 over the variance of c given the points: each is N(c, 5/4)
PRECISION = 1 + 4 / 1.25
POSTERIOR = (float(POINTS.sum()) / 1.25 / PRECISION, 1 / PRECISION)


def nodes(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights of a quadrature that is exact for the cubic polynomials of a normal number."""
    at, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(2))
    return mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * at, weights / weights.sum()


def bound(c_mean: float, c_variance: float, z_shift: float = 0.0, z_variance: float = 0.2) -> float:
    """The expectation of `lower_bound` under q(c) and q(z | x, c), without sampling."""
    context = Gaussian(torch.tensor([c_mean], dtype=torch.double), torch.tensor([c_variance], dtype=torch.double).log())
    c, weights = nodes(context.mean, context.log_variance.exp())
    c = c.view(-1, 1, 1)
    mean = (c + 4 * POINTS.view(1, -1, 1)) / 5 + z_shift
    latent = Gaussian(mean, torch.full_like(mean, z_variance).log())
    z, of_z = nodes(mean[..., 0], latent.log_variance[..., 0].exp())
    noise = torch.distributions.Normal(z, torch.tensor(0.5, dtype=torch.double))
    log_likelihood = (noise.log_prob(POINTS.view(1, -1, 1)) * of_z).sum(-1)
    each = lower_bound(log_likelihood, latent, Gaussian(c, torch.zeros_like(c)), context)
    return float((each * weights).sum())


def test_with_the_exact_posterior_the_bound_is_the_log_likelihood() -> None:
    covariance = torch.ones(4, 4, dtype=torch.double) + 1.25 * torch.eye(4, dtype=torch.double)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.double), covariance).log_prob(POINTS)
    assert bound(*POSTERIOR) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        {"c_mean": POSTERIOR[0] + 0.1},
        {"c_variance": 2 * POSTERIOR[1]},
        {"c_variance": POSTERIOR[1] / 2},
        {"z_shift": 0.1},
        {"z_variance": 0.3},
        {"z_variance": 0.1},
    ],
)
def test_with_any_other_the_bound_is_below(other: dict[str, float]) -> None:
    exact = {"c_mean": POSTERIOR[0], "c_variance": POSTERIOR[1]}
    assert bound(**exact | other) < bound(**exact) - 1e-3


def test_the_divergence_is_that_of_torch_and_0_for_equal_distributions() -> None:
    first, second = Gaussian(drawn(2, 5), drawn(2, 5, seed=1)), Gaussian(drawn(2, 5, seed=2), drawn(2, 5, seed=3))
    theirs = [torch.distributions.Normal(each.mean, (0.5 * each.log_variance).exp()) for each in (first, second)]
    expected = torch.distributions.kl_divergence(*theirs).sum(-1)
    torch.testing.assert_close(divergence(first, second), expected, **EXACT)
    assert torch.equal(divergence(first, first), torch.zeros(2, dtype=torch.double))


def test_samples_have_the_mean_and_the_variance() -> None:
    wanted = Gaussian(torch.full((100_000, 1), 3.0), torch.full((100_000, 1), 0.25).log())
    found = wanted.sample(torch.Generator().manual_seed(0))
    assert float(found.mean()) == pytest.approx(3.0, abs=0.01)
    assert float(found.var()) == pytest.approx(0.25, rel=0.02)


# Sets


def test_examples_are_gathered_by_label() -> None:
    y = torch.tensor([[1, 0, 2, 0, 1, 2], [2, 2, 1, 1, 0, 0]])
    values = torch.stack((y, torch.arange(6).expand(2, 6)), -1)
    found = in_sets(values, y, 3)
    assert found.shape == (6, 2, 2)
    assert found[..., 0].tolist() == [[0, 0], [1, 1], [2, 2]] * 2
    assert found[0, :, 1].tolist() == [1, 3]


def test_neither_order_nor_copies_of_a_support_set_matter_and_labels_permute_columns() -> None:
    own, support, query, y = parameters(), drawn(2, 6, 64), drawn(2, 4, 64, seed=1), torch.arange(6).expand(2, 6) % 3
    given, order = SMALL.answer(own, support, query, y, 3), torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(SMALL.answer(own, support[:, order], query, y[:, order], 3), given, **EXACT)
    twice = SMALL.answer(own, torch.cat((support, support), 1), query, torch.cat((y, y), 1), 3)
    torch.testing.assert_close(twice, given, **EXACT)
    torch.testing.assert_close(SMALL.answer(own, support, query, (y + 1) % 3, 3), given.roll(1, -1), **EXACT)


def test_a_picture_of_a_support_set_of_one_is_of_its_own_class() -> None:
    support, y = 3 * drawn(2, 3, 64), torch.tensor([[2, 0, 1], [0, 1, 2]])
    scores = SMALL.answer(parameters(), support, support, y, 3)
    own = scores.gather(2, y.unsqueeze(2))
    torch.testing.assert_close(own, torch.zeros_like(own), **EXACT)
    assert torch.equal(scores.argmax(-1), y)


def episodes(queries: int = 4) -> tuple[Tensor, Episodes]:
    """Two training episodes of 3 classes: pictures as embeddings, and as labelled sets."""
    pictures, y = drawn(2, 3 + 3 * queries, 64).sigmoid(), torch.arange(3 + 3 * queries).expand(2, -1) % 3
    x = pictures.unflatten(2, (1, 8, 8))
    return pictures, Episodes(LabelledSet(x[:, :3], y[:, :3]), LabelledSet(x[:, 3:], y[:, 3:]))


def test_a_training_step_draws_from_its_generator_alone_and_has_the_gradient_of_finite_differences() -> None:
    own, (embedded, cut) = parameters(), episodes()

    def objective(weight: Tensor, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return SMALL.objective(
            SimpleNamespace(outputs=3), Statistics(), own | {"context.2.bias": weight}, embedded, cut, generator
        )

    at = own["context.2.bias"].clone().requires_grad_()
    assert torch.equal(objective(at), objective(at))
    assert not torch.equal(objective(at), objective(at, seed=1))
    assert torch.autograd.gradcheck(objective, at)


def test_every_parameter_takes_part_in_training() -> None:
    own, (embedded, cut) = {name: value.requires_grad_() for name, value in parameters().items()}, episodes()
    value = SMALL.objective(
        SimpleNamespace(outputs=3), Statistics(), own, embedded, cut, torch.Generator().manual_seed(0)
    )
    gradients = torch.autograd.grad(value, list(own.values()))
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)


@pytest.mark.parametrize("side", [8, 20, 28])
def test_the_decoder_undoes_the_strides_of_the_encoder(side: int) -> None:
    backbone = BACKBONES["statistician-reduced"].for_inputs((1, side, side))[0]
    assert backbone.embedding_size((1, side, side)) == 128 * coarser((side, side), 3)[0] ** 2
    network = Network(BACKBONES["identity"], (1, side, side), 3)
    own = SMALL.extra(network, torch.Generator().manual_seed(0))
    coarsest = torch.zeros(2, 128, *coarser((side, side), 3))
    assert drawn_ink(own, coarsest, (side, side)).shape == (2, side, side)


def test_what_does_not_fit_is_refused() -> None:
    name = "neural-statistician"
    assert str(incompatible(name, "sinusoid")).startswith("neural-statistician is for classification")
    pictures = build_task("miniimagenet")
    said = mismatch(build_method(name, pictures), name, pictures)
    assert said == "it draws black and white pictures, but inputs of miniimagenet are (3, 84, 84)"
    with pytest.raises(MetabenchError, match="backbone = 'conv4-64'; known: statistician, statistician-reduced"):
        build_method(name, backbone="conv4-64")
    with pytest.raises(MetabenchError, match="context = 0 is not at least 1"):
        build_method("neural-statistician-reduced", context=0)
