"""The transforms of SimpleShot, and the mean embedding that `finetune` keeps for it."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.finetune import FineTune
from baselines.nearest_neighbour import EmbeddedNearestNeighbour
from baselines.simple_shot import SimpleShot, transformed
from benchmarks.api import MetabenchError, in_regime, regimes_of
from benchmarks.models import Statistics, network_for
from benchmarks.registry import build_method, incompatible
from maml.inner_loop import per_task

TRANSFORMS = ("UN", "L2N", "CL2N")
LABELS = torch.tensor([[0, 1, 2, 2, 0, 1]]).expand(2, 6)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


MEAN = drawn(5, seed=9)


def answer(transform: str, support: Tensor, query: Tensor, mean: Tensor = MEAN) -> Tensor:
    return SimpleShot(transform=transform).answer({"mean": mean}, support, query, LABELS, 3)


@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_centred_and_normalised_embeddings_have_no_scale_around_the_mean(factor: float) -> None:
    x = drawn(2, 6, 5)
    scaled = transformed(factor * (x - MEAN) + MEAN, "CL2N", MEAN)
    torch.testing.assert_close(scaled, transformed(x, "CL2N", MEAN), rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_constant_added_to_all_embeddings_changes_only_those_normalised_without_centring(transform: str) -> None:
    support, query, constant = drawn(2, 6, 5), drawn(2, 4, 5, seed=1), 3 * drawn(5, seed=2)
    there = answer(transform, support, query)
    moved = answer(transform, support + constant, query + constant, MEAN + constant)
    assert torch.allclose(there, moved, rtol=0, atol=1e-12) == (transform != "L2N")


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_scores_are_distances_to_the_means_of_transformed_examples(transform: str) -> None:
    support, query = drawn(2, 6, 5), drawn(2, 4, 5, seed=1)
    scores = answer(transform, support, query)
    changes = {"UN": lambda x: x, "L2N": lambda x: x / x.norm(), "CL2N": lambda x: (x - MEAN) / (x - MEAN).norm()}
    for task, asked, label in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        examples = [changes[transform](x) for x in support[task][LABELS[task] == label]]
        expected = -(changes[transform](query[task, asked]) - sum(examples) / len(examples)).norm()
        torch.testing.assert_close(scores[task, asked, label], expected)


def test_of_one_shot_and_unchanged_it_is_the_nearest_neighbour(given) -> None:
    tasks = given.images(shot=1)
    state = given.fitted(FineTune(batch_size=6), tasks)
    ours, theirs = (
        next(learner.adapt(state, tasks.data.support, tasks))
        for learner in (build_method("simple-shot-un"), EmbeddedNearestNeighbour(metric="l2"))
    )
    assert regimes_of(ours) == ("running", "query", "support", "single")
    for regime in regimes_of(ours):
        found, expected = (in_regime(each, regime)(tasks.data.query.x)[0] for each in (ours, theirs))
        assert torch.equal(found, expected)


def test_the_mean_is_that_of_all_training_embeddings_so_far(given) -> None:
    tasks = given.images()
    learner = FineTune(batch_size=6, meta_lr=0.0)
    state = given.fitted(learner, tasks)
    parameters, network = per_task(state.parameters, 1), network_for(tasks)
    batches = [network.features(parameters, tasks.pooled("train", range(i, i + 6)).x, Statistics()) for i in (0, 6, 12)]
    found = next(islice(learner.fit(tasks, 0, state), 2, None)).buffers["extra.mean"]
    torch.testing.assert_close(found, torch.cat(batches, 1).mean((0, 1)))
    answers = [
        next(build_method(name).adapt(state, tasks.data.support, tasks))(tasks.data.query.x)[0]
        for name in ("simple-shot", "simple-shot-l2n")
    ]
    assert not torch.allclose(*answers)


def test_one_training_serves_finetune_and_all_transforms(given) -> None:
    tasks = given.single(given.images())
    ours, theirs = (next(islice(each.fit(tasks, 1), 2, None)) for each in (SimpleShot(), FineTune()))
    for name in ("simple-shot", "simple-shot-l2n", "simple-shot-un"):
        assert build_method(name).fit_method() == "finetune"
    assert ours.parameters.keys() == theirs.parameters.keys()
    assert all(torch.equal(value, theirs.parameters[name]) for name, value in ours.parameters.items())


def test_blank_embeddings_break_nothing() -> None:
    blank = torch.zeros(2, 6, 5).double()
    for transform in TRANSFORMS:
        assert bool(answer(transform, blank, blank, MEAN * 0).isfinite().all())
        assert F.one_hot(LABELS, 3).shape == answer(transform, blank, blank).shape


def test_an_unknown_transform_is_one_line() -> None:
    with pytest.raises(MetabenchError) as error:
        build_method("simple-shot", transform="ZN")
    assert str(error.value) == "simple-shot.transform = 'ZN'; known: UN, L2N, CL2N"


@pytest.mark.parametrize("task", ["sinusoid", "navigation-2d"])
@pytest.mark.parametrize("name", ["simple-shot", "simple-shot-l2n", "simple-shot-un"])
def test_other_kinds_are_refused_with_a_reason(name: str, task: str) -> None:
    assert str(incompatible(name, task)).startswith(f"{name} is for classification, ")
