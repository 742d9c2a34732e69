"""What a trust-region step promises, and its parts; `test_maml_control.py` has the products against double backward."""

import pytest
import torch
from torch.autograd.functional import hessian

from benchmarks.environments import Categorical, Gaussian
from maml.control.trust_region import conjugate_gradient, trust_region_step


def positive(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T + torch.eye(size), torch.randn(size, generator=generator, dtype=torch.float64)


def test_a_step_lowers_the_loss_within_the_radius_and_is_refused_otherwise():
    matrix, slope = positive(5)
    start = torch.zeros(5, dtype=torch.float64)

    def evaluate(point):
        return float(slope @ point + 50 * point @ point), float(0.5 * point @ matrix @ point)

    given = start, 0.0, slope, lambda vector: matrix @ vector
    step = trust_region_step(*given, evaluate, radius=0.01)
    assert step.accepted
    assert step.loss < 0
    assert 0 < step.divergence <= 0.01
    assert (step.loss, step.divergence) == evaluate(step.parameters)
    free = trust_region_step(*given, lambda point: (float(slope @ point), evaluate(point)[1]), radius=0.01)
    expected = -0.1 * torch.linalg.solve(matrix, slope) * (2 / (slope @ torch.linalg.solve(matrix, slope))).sqrt()
    torch.testing.assert_close(free.parameters, expected, rtol=1e-3, atol=0)
    for never in ((1e9, 0.0), (float("nan"), float("nan")), (-1.0, 1.0)):
        refused = trust_region_step(*given, lambda point, never=never: never, radius=0.01)
        assert not refused.accepted
        assert torch.equal(refused.parameters, start)


def test_conjugate_gradient_solves():
    matrix, target = positive(8)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, iterations=20, tolerance=1e-24)
    assert torch.allclose(found, torch.linalg.solve(matrix, target), atol=1e-9)


@pytest.mark.parametrize("space", [Categorical(4), Gaussian(2)])
def test_the_metric_is_the_hessian_of_the_divergence(space):
    generator = torch.Generator().manual_seed(1)
    old, new, change = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    exact = hessian(lambda parameters: space.divergence(old, parameters), old) @ change
    assert torch.allclose(space.metric(old, change), exact, atol=1e-12)
    if isinstance(space, Categorical):
        one, other = (torch.distributions.Categorical(logits=each) for each in (old, new))
        reference = torch.distributions.kl_divergence(one, other)
    else:
        one, other = (torch.distributions.Normal(each[:2], each[2:].exp()) for each in (old, new))
        reference = torch.distributions.kl_divergence(one, other).sum()
    assert torch.allclose(space.divergence(old, new), reference)
