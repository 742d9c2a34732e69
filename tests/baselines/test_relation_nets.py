"""Relation networks: the relation module against a plain one, and what a relation may depend on."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.relation_nets import RelationNets, relations, size_after
from benchmarks.api import LabelledSet, Parameters, in_regime, regimes_of
from benchmarks.models import BACKBONES, Network, Statistics
from benchmarks.registry import build_method, build_task

LEARNER = RelationNets(filters=3, hidden=4)
#: a vector, and maps that are padded and not
NETWORKS = {
    "vector": Network(BACKBONES["mlp-40-40"], (7,), 4),
    "padded": Network(BACKBONES["conv4-64-maps"], (1, 20, 16), 4),
    "unpadded": Network(BACKBONES["conv4-64-maps"], (1, 44, 40), 4),
}
each_form = pytest.mark.parametrize("form", NETWORKS)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def module(form: str) -> tuple[Parameters, Parameters, Tensor, Tensor]:
    """Parameters and running statistics that do something, 4 classes ``[2, 4, ...]`` and 5 queries ``[2, 5, ...]``."""
    network = NETWORKS[form]
    parameters = LEARNER.extra(network, torch.Generator().manual_seed(1))
    parameters = {name: value.double() + 0.2 * drawn(*value.shape, seed=2) for name, value in parameters.items()}
    running = {
        f"extra.layer{layer}.{part}": drawn(3, seed=layer).abs() + 0.5
        for layer in (0, 1)
        for part in ("mean", "variance")
    }
    shape = network.map_shape
    return parameters, running, drawn(2, 4, *shape, seed=3), drawn(2, 5, *shape, seed=4)


def by_hand(parameters: Parameters, pairs: Tensor, padding: int, pooled: bool) -> Tensor:
    """The log-odds of concatenated pairs ``[n, 2 * channels, height, width]`` of one task, normalised together."""
    x = pairs
    for name in ("layer0", "layer1"):
        x = F.conv2d(x, parameters[f"{name}.weight"], padding=padding)
        x = F.batch_norm(x, None, None, parameters[f"{name}.scale"], parameters[f"{name}.shift"], training=True).relu()
        x = F.max_pool2d(x, 2) if pooled else x
    x = F.linear(x.flatten(1), parameters["hidden.weight"], parameters["hidden.bias"]).relu()
    return F.linear(x, parameters["score.weight"], parameters["score.bias"])[:, 0]


@each_form
def test_the_split_convolution_is_that_of_concatenated_pairs(form: str) -> None:
    parameters, _, classes, queries = module(form)
    found = relations(parameters, classes, queries, Statistics())
    for task in range(2):
        pairs = [torch.cat((one, query)) for query in queries[task] for one in classes[task]]
        expected = by_hand(parameters, torch.stack(pairs), int(form == "padded"), form != "vector")
        torch.testing.assert_close(found[task], expected.view(5, 4))


@each_form
def test_a_relation_depends_on_no_other_class_or_query_under_running_statistics(form: str) -> None:
    parameters, running, classes, queries = module(form)
    together = relations(parameters, classes, queries, Statistics(running=running))
    alone = relations(parameters, classes[:, 1:3], queries[:, 2:3], Statistics(running=running))
    torch.testing.assert_close(together[:, 2:3, 1:3], alone)
    batch = relations(parameters, classes, queries, Statistics())
    assert not torch.allclose(batch[:, 2:3, 1:3], relations(parameters, classes[:, 1:3], queries[:, 2:3], Statistics()))


def test_a_class_is_the_sum_of_its_support() -> None:
    network = NETWORKS["vector"]
    parameters, running, classes, queries = module("vector")
    support, query = classes.flatten(2), queries.flatten(2)
    y = torch.tensor([[0, 1, 2, 3], [3, 1, 2, 0]])
    one = LEARNER.answer_with(network, Statistics(running=running), parameters, support, query, y)
    halves = LEARNER.answer_with(
        network, Statistics(running=running), parameters, 0.5 * support.repeat(1, 2, 1), query, y.repeat(1, 2)
    )
    torch.testing.assert_close(one, halves)
    torch.testing.assert_close(one[0], relations(parameters, classes, queries, Statistics(running=running))[0])


@pytest.mark.parametrize(("side", "after"), [(5, 1), (7, 1), (19, 3), (21, 3), (1, 1)])
def test_maps_shrink_as_in_the_papers_code(side: int, after: int) -> None:
    """28 pixels a side become 5 and 64 features in all, 84 become 19 and 576; with padding before, 7 and 21."""
    assert size_after([side, side]) == [after, after]


def test_the_loss_is_the_squared_error_of_the_scores() -> None:
    odds, y = drawn(1, 2, 3), torch.tensor([[2, 0]])
    scores = odds.sigmoid()[0]
    errors = [float(scores[query, label]) - (label == (2, 0)[query]) for query in range(2) for label in range(3)]
    expected = math.fsum(error**2 for error in errors) / 6
    assert float(LEARNER.loss(odds, LabelledSet(odds, y))) == pytest.approx(expected)


def test_training_moves_the_statistics_of_the_relation_module_and_regimes_use_them() -> None:
    tasks = build_task("glyphs/5w1s")
    tasks.prepare()
    learner = build_method("relation-nets", tasks, meta_batch=1, training_queries=2)
    state = next(learner.fit(tasks, 0)).copy()
    assert float(state.buffers["extra.layer0.mean"].abs().sum()) > 0
    cut = tasks.episodes("test", range(2), queries=2)
    predictor = next(learner.adapt(state, cut.support, tasks))
    assert regimes_of(predictor) == ("running", "query")
    moved = dict(state.buffers, **{"extra.layer1.mean": state.buffers["extra.layer1.mean"] + 1})
    state.buffers = moved
    other = next(learner.adapt(state, cut.support, tasks))
    for regime, same in (("running", False), ("query", True)):
        pair = [in_regime(one, regime)(cut.query.x)[0] for one in (predictor, other)]
        assert torch.equal(*pair) == same
