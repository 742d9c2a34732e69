"""Prototypical networks: the equation, and the ways they are trained with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import benchmarks as mb
from baselines.nearest_neighbour import nearest
from baselines.prototypical_nets import PrototypicalNets
from benchmarks.errors import MetabenchError
from benchmarks.registry import build_method, build_task, incompatible

LEARNER = PrototypicalNets()
WAY = 3
Y = torch.tensor([[0, 1, 2, 2, 0, 1], [2, 2, 1, 1, 0, 0]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def scores(support: Tensor, query: Tensor, y: Tensor = Y) -> Tensor:
    return LEARNER.answer({}, support, query, y, WAY)


def test_scores_are_those_of_a_linear_classifier() -> None:
    support, query = drawn(2, 6, 4), drawn(2, 5, 4, seed=1)
    for task in range(2):
        means = torch.stack([support[task, Y[task] == label].mean(0) for label in range(WAY)])
        linear = query[task] @ (2 * means).T - means.square().sum(1)
        of_query = query[task].square().sum(1, keepdim=True)
        torch.testing.assert_close(scores(support, query)[task], linear - of_query)


def test_one_shot_is_the_nearest_neighbour() -> None:
    support, query, y = drawn(2, 3, 4), drawn(2, 50, 4, seed=1), torch.tensor([[1, 0, 2], [2, 1, 0]])
    torch.testing.assert_close(scores(support, query, y), -nearest(support, query, y, "l2", WAY).square())


def test_translated_embeddings_and_examples_twice_change_nothing() -> None:
    support, query, moved = drawn(2, 6, 4), drawn(2, 5, 4, seed=1), drawn(1, 1, 4, seed=2)
    found = scores(support, query)
    torch.testing.assert_close(scores(support + moved, query + moved), found)
    torch.testing.assert_close(scores(support.repeat(1, 2, 1), query, Y.repeat(1, 2)), found)


@pytest.mark.parametrize(
    ("task", "ways"),
    [
        ("omniglot/5w1s", (60, 5)),
        ("omniglot/20w5s-lake", (60, 5)),
        ("miniimagenet/5w1s", (30, 5)),
        ("miniimagenet/5w5s", (20, 5)),
        ("glyphs/20w1s", (0, 5)),  # no paper's: as in the test
    ],
)
def test_the_training_way_is_the_papers_where_there_is_one(task: str, ways: tuple[int, int]) -> None:
    tasks = build_task(task)
    found = [build_method(name, tasks) for name in ("prototypical-nets", "prototypical-nets-5way")]
    assert tuple(learner.config()["training_way"] for learner in found) == ways
    assert {learner.config()["halve_every"] for learner in found} == {0 if tasks.name == "glyphs" else 2000}


def test_more_training_classes_than_there_are_is_one_line_before_anything_is_written(tmp_path: Path) -> None:
    settings = {"prototypical-nets.training_way": 5000}
    with pytest.raises(MetabenchError) as error:
        mb.run(methods="prototypical-nets,chance", tasks="glyphs/5w1s", settings=settings, store=tmp_path / "new")
    assert str(error.value).startswith("prototypical-nets can't be trained: glyphs-v1/5w1s: way = 5000, but the train ")
    assert "(prototypical-nets.training_way = 5000, prototypical-nets.training_queries = 5)" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_regression_is_refused() -> None:
    said = "prototypical-nets is for classification, sinusoid is regression"
    assert incompatible("prototypical-nets", "sinusoid") == said
