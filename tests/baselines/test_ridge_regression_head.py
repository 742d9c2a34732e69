"""The ridge regression head: its closed form in double precision, and what it learns."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from baselines.ridge_regression_head import RidgeRegressionHead, ridge_regression, with_ones
from benchmarks.api import MetabenchError
from benchmarks.models import network_for
from benchmarks.registry import build_method, build_task, incompatible

EXACT = {"rtol": 1e-12, "atol": 1e-12}
#: support examples and features: fewer examples than features, as many, and more
SHAPES = [(3, 7), (5, 5), (9, 4)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.double)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_dual_and_primal_solve_the_normal_equations(k: int, d: int) -> None:
    x, y, regularisation = drawn(2, k, d), drawn(2, k, 3, seed=1), number(0.7)
    found = ridge_regression(x, y, regularisation)
    eye = torch.eye
    dual = x.mT @ torch.linalg.inv(x @ x.mT + regularisation * eye(k, dtype=x.dtype)) @ y
    primal = torch.linalg.inv(x.mT @ x + regularisation * eye(d, dtype=x.dtype)) @ x.mT @ y
    torch.testing.assert_close(found, dual, **EXACT)
    torch.testing.assert_close(found, primal, **EXACT)
    torch.testing.assert_close(x.mT @ (y - x @ found), regularisation * found, **EXACT)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_the_derivative_by_lambda_passes_through_the_solve(k: int, d: int) -> None:
    x, y, query = drawn(2, k, d), drawn(2, k, 3, seed=1), drawn(2, 4, d, seed=2)

    def loss(log_lambda: Tensor) -> Tensor:
        return (query @ ridge_regression(x, y, log_lambda.exp())).square().sum()

    at = number(-0.3).requires_grad_()
    (slope,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        central = (loss(at + 1e-5) - loss(at - 1e-5)) / 2e-5
    assert float(slope) != 0.0
    torch.testing.assert_close(slope, central, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_the_weights_of_a_huge_lambda_are_sums_of_examples(k: int, d: int) -> None:
    x, y = drawn(2, k, d), drawn(2, k, 3, seed=1)
    torch.testing.assert_close(1e12 * ridge_regression(x, y, number(1e12)), x.mT @ y, rtol=1e-9, atol=1e-9)


def test_a_vanishing_lambda_interpolates_the_support_set_or_fits_it_best() -> None:
    for (k, d), interpolates in zip(SHAPES, (True, True, False), strict=True):
        x, y = drawn(2, k, d), drawn(2, k, 3, seed=1)
        found = ridge_regression(x, y, number(1e-12))
        torch.testing.assert_close(found, torch.linalg.pinv(x) @ y, rtol=1e-6, atol=1e-6)
        assert torch.allclose(x @ found, y, atol=1e-6) == interpolates


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_twice_the_support_set_and_twice_lambda_are_the_same(k: int, d: int) -> None:
    x, y = drawn(2, k, d), drawn(2, k, 3, seed=1)
    twice = ridge_regression(torch.cat((x, x), 1), torch.cat((y, y), 1), number(1.4))
    torch.testing.assert_close(twice, ridge_regression(x, y, number(0.7)), **EXACT)
    assert not torch.allclose(twice, ridge_regression(x, y, number(1.4)))


def test_the_order_of_the_support_set_does_not_matter_and_labels_permute_columns() -> None:
    support, query, y = drawn(2, 10, 6), drawn(2, 4, 6, seed=1), torch.arange(10).expand(2, 10) % 5
    parameters = {"log_lambda": number(0.5), "scale": number(3.0)}

    def answer(support: Tensor, y: Tensor) -> Tensor:
        return RidgeRegressionHead().answer(parameters, support, query, y, 5)

    given, order = answer(support, y), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(answer(support[:, order], y[:, order]), given, **EXACT)
    torch.testing.assert_close(answer(support, (y + 2) % 5), given.roll(2, -1), **EXACT)


def test_a_constant_target_is_found_through_the_column_of_ones() -> None:
    support, query = drawn(1, 8, 3), drawn(1, 4, 3, seed=1)
    weights = ridge_regression(with_ones(support), torch.full((1, 8, 1), 2.5, dtype=torch.double), number(1e-10))
    torch.testing.assert_close(with_ones(query) @ weights, torch.full((1, 4, 1), 2.5, dtype=torch.double))


def test_training_moves_lambda_at_the_rate_of_its_logarithm() -> None:
    """A first step of Adam is the rate: lambda could not pass 0 even where it is smaller than the rate."""
    waves = build_task("sinusoid/k5")
    learner = build_method("ridge-regression-head", waves, meta_lr=0.5, initial_lambda=1e-3)
    start = learner.extra(network_for(waves), torch.Generator())["log_lambda"]
    log_lambda = next(learner.fit(waves, 0)).parameters["extra.log_lambda"].detach()
    assert float((log_lambda - start).abs()) == pytest.approx(0.5, rel=1e-3)


def test_it_learns_waves() -> None:
    waves = build_task("sinusoid/k10")
    learner = build_method("ridge-regression-head", waves)
    state = next(itertools.islice(learner.fit(waves, 0), 249, None)).copy()
    cut = waves.episodes("validation", range(200))
    assert float(waves.score(next(learner.adapt(state, cut.support, waves)), cut.query).mean()) < 1.0


@pytest.mark.parametrize(
    ("field", "value"), [("initial_lambda", 0.0), ("initial_lambda", -1.0), ("initial_scale", 0.0)]
)
def test_numbers_that_must_be_above_0_are_refused(field: str, value: float) -> None:
    with pytest.raises(MetabenchError, match=f"ridge-regression-head: {field} = {value} is not above 0"):
        build_method("ridge-regression-head", **{field: value})


def test_control_is_refused_and_a_training_way_needs_classes() -> None:
    assert "is for classification and regression" in str(incompatible("ridge-regression-head", "bandit"))
    waves = build_task("sinusoid/k5")
    refused = build_method("ridge-regression-head", waves, training_way=5).refuses(waves)
    assert refused == "training_way = 5: sinusoid has no classes"
