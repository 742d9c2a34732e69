"""Nearest neighbour against a plain loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from baselines.nearest_neighbour import NearestNeighbour, chosen_metric
from baselines.shared.similarity import highest_of_class
from benchmarks.api import LabelledSet, State
from benchmarks.registry import build_task

#: for their facts alone; no data are read
IMAGES, WAVES = build_task("omniglot/5w1s"), build_task("sinusoid/k5")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_label_is_that_of_the_brute_force_search(metric: str) -> None:
    support = LabelledSet(drawn(6, 10, 1, 4, 4), torch.arange(60).view(6, 10) % 5)
    x = drawn(6, 15, 1, 4, 4, seed=1)
    scores = next(NearestNeighbour(metric=metric).adapt(State(), support, IMAGES))(x)[0]
    assert scores.shape == (6, 15, 5)
    known, asked = support.x.flatten(2).double().numpy(), x.flatten(2).double().numpy()
    for task, query in itertools.product(range(6), range(15)):
        a = asked[task, query]
        far = [
            np.linalg.norm(a - b) if metric == "l2" else -a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            for b in known[task]
        ]
        assert int(scores[task, query].argmax()) == int(support.y[task, int(np.argmin(far))])


def test_regression_takes_the_target_of_the_nearest_point() -> None:
    cut = WAVES.episodes("test", range(6))
    values = next(NearestNeighbour().adapt(State(), cut.support, WAVES))(cut.query.x)[0]
    for task, query in itertools.product(range(6), range(cut.query.x.shape[1])):
        nearest = int((cut.support.x[task, :, 0] - cut.query.x[task, query, 0]).abs().argmin())
        assert float(values[task, query, 0]) == float(cut.support.y[task, nearest, 0])


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_tie_goes_to_the_lowest_label_and_in_regression_to_the_first(metric: str) -> None:
    x = torch.ones(1, 5, 3)
    labelled = LabelledSet(x, torch.tensor([[3, 1, 4, 2, 0]]))
    scores = next(NearestNeighbour(metric=metric).adapt(State(), labelled, IMAGES))(x)[0]
    assert scores.argmax(-1).tolist() == [[0] * 5]
    valued = LabelledSet(x, torch.arange(5.0).view(1, 5, 1))
    assert not next(NearestNeighbour(metric=metric).adapt(State(), valued, WAVES))(x)[0].any()


def test_an_example_is_its_own_nearest_neighbour_and_a_blank_one_breaks_nothing() -> None:
    support = LabelledSet(drawn(2, 5, 3), torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]))
    for metric in ("cosine", "l2"):
        predictor = next(NearestNeighbour(metric=metric).adapt(State(), support, IMAGES))
        assert torch.equal(predictor(support.x)[0].argmax(-1), support.y)
        assert bool(predictor(torch.zeros(2, 1, 3))[0].isfinite().all())


def test_a_class_without_examples_is_never_the_answer() -> None:
    scores = highest_of_class(-drawn(1, 3, 2).abs(), torch.tensor([[1, 1]]), 3)
    assert scores.argmax(-1).tolist() == [[1, 1, 1]]


def test_the_metric_follows_from_the_kind_of_task_unless_named() -> None:
    assert [chosen_metric("", regression) for regression in (False, True)] == ["cosine", "l2"]
    assert NearestNeighbour(metric="l2").describe(IMAGES) == {"metric": "l2"}
