"""Parameters as coordinates, and what a learned optimiser sees of a gradient."""

from __future__ import annotations

import math

import pytest
import torch

from maml.coordinates import flattened, preprocessed, unflattened

P = 10


def by_the_paper(v: float) -> tuple[float, float]:
    """Andrychowicz et al. 2016, appendix A, in the words of its formula."""
    if abs(v) >= math.exp(-P):
        return math.log(abs(v)) / P, math.copysign(1, v)
    return -1, math.exp(P) * v


def test_preprocessing_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    magnitudes = torch.exp(60 * torch.rand(500, generator=generator, dtype=torch.float64) - 30)
    signs = torch.randint(2, (500,), generator=generator) * 2 - 1
    numbers = [0.0, -0.0, 1.0, -1.0, 1e300, -1e300, 1e-300, *(magnitudes * signs).tolist()]
    found = preprocessed(torch.tensor(numbers, dtype=torch.float64)).tolist()
    assert found == [pytest.approx(by_the_paper(v), rel=1e-12, abs=1e-12) for v in numbers]


def test_preprocessing_is_continuous_where_its_parts_meet_and_odd_in_the_sign() -> None:
    edge = math.exp(-P)
    at = torch.tensor([edge * (1 - 1e-9), edge, edge * (1 + 1e-9)], dtype=torch.float64)
    inside, here, outside = preprocessed(at)
    torch.testing.assert_close(inside, outside, rtol=0, atol=1e-8)
    torch.testing.assert_close(here, torch.tensor([-1.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(preprocessed(-at), preprocessed(at) * torch.tensor([1, -1]))
    assert preprocessed(torch.zeros(())).tolist() == [-1, 0]


def test_coordinates_go_back_to_their_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (2, 4, 3), "a.bias": (2, 4), "scalar": (2,), "c": (2, 1, 2, 2)}
    values = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    coordinates = flattened(values)
    assert coordinates.shape == (2, 12 + 4 + 1 + 4)
    back = unflattened(coordinates, values)
    assert list(back) == list(values)
    assert all(torch.equal(back[name], value) for name, value in values.items())
