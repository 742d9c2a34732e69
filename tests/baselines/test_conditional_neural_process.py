"""Conditional neural processes: what the mean over the support set promises, the likelihood, and what they learn."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from baselines.conditional_neural_process import (
    SMALLEST,
    ClassifyingNeuralProcess,
    ConditionalNeuralProcess,
    deviation,
    negative_log_likelihood,
)
from benchmarks.api import Episodes, LabelledSet, MetabenchError, Parameters
from benchmarks.models import BACKBONES, Network, Statistics
from benchmarks.registry import build_method, build_task, mismatch

EXACT = {"rtol": 1e-12, "atol": 1e-12}
LEARNERS = [
    ConditionalNeuralProcess(encoder=(8, 6), decoder=(7,)),
    ClassifyingNeuralProcess(encoder=(8, 6), decoder=()),
]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def parts(learner: ConditionalNeuralProcess) -> tuple[Parameters, Tensor, Tensor, Tensor]:
    """Parameters for inputs of 3 numbers and 2 outputs or classes, a support set of 6, 4 queries, and y."""
    network = Network(BACKBONES["identity"], (3,), 2)
    parameters = learner.extra(network, torch.Generator().manual_seed(0))
    classes = "classification" in learner.kinds
    y = torch.tensor([0, 1, 1, 0, 1, 1]).expand(2, 6) if classes else drawn(2, 6, 2, seed=2)
    return {name: value.double() for name, value in parameters.items()}, drawn(2, 6, 3), drawn(2, 4, 3, seed=1), y


@pytest.mark.parametrize("learner", LEARNERS)
def test_neither_the_order_nor_the_number_of_copies_of_the_support_set_matters(
    learner: ConditionalNeuralProcess,
) -> None:
    parameters, support, query, y = parts(learner)
    given = learner.answer(parameters, support, query, y, 2)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(learner.answer(parameters, support[:, order], query, y[:, order], 2), given, **EXACT)
    for changed in ((support, support), (support, support, support)):
        many = learner.answer(parameters, torch.cat(changed, 1), query, torch.cat((y,) * len(changed), 1), 2)
        torch.testing.assert_close(many, given, **EXACT)
    once_more = torch.cat((support, support[:, :1]), 1), torch.cat((y, y[:, :1]), 1)
    assert not torch.allclose(learner.answer(parameters, once_more[0], query, once_more[1], 2), given)


@pytest.mark.parametrize("learner", LEARNERS)
def test_an_answer_depends_on_no_other_query_and_on_no_other_task(learner: ConditionalNeuralProcess) -> None:
    parameters, support, query, y = parts(learner)
    given = learner.answer(parameters, support, query, y, 2)
    alone = [learner.answer(parameters, support, one, y, 2) for one in query.split(1, 1)]
    torch.testing.assert_close(torch.cat(alone, 1), given, **EXACT)
    first = learner.answer(parameters, support[:1], query[:1], y[:1], 2)
    torch.testing.assert_close(first, given[:1], **EXACT)


def test_targets_of_the_support_set_matter_in_regression() -> None:
    parameters, support, query, y = parts(LEARNERS[0])
    given, other = (LEARNERS[0].answer(parameters, support, query, targets, 2) for targets in (y, y + 1))
    assert not torch.allclose(given, other)


def test_without_the_weights_of_the_encoder_every_task_has_the_same_answer() -> None:
    parameters, support, query, y = parts(LEARNERS[0])
    blind = {name: 0 * value if name.startswith("encoder.") else value for name, value in parameters.items()}
    same = query[:1].expand_as(query)
    first, second = LEARNERS[0].answer(blind, support, same, y, 2)
    assert torch.equal(first, second)


def test_the_loss_is_that_of_a_normal_distribution_and_bounded_from_below() -> None:
    mean, spread, y = drawn(2, 5, 1), 40 * drawn(2, 5, 1, seed=1), drawn(2, 5, 1, seed=2)
    found = negative_log_likelihood(mean, deviation(spread), y)
    torch.testing.assert_close(found, -torch.distributions.Normal(mean, deviation(spread)).log_prob(y), **EXACT)
    bound = math.log(SMALLEST * math.sqrt(2 * math.pi))
    assert bool((found >= bound).all())
    at_bound = negative_log_likelihood(y, deviation(torch.full_like(y, -1e3)), y)
    torch.testing.assert_close(at_bound, torch.full_like(y, bound), **EXACT)


@pytest.mark.parametrize("learner", LEARNERS)
def test_training_scores_the_support_set_and_the_queries(learner: ConditionalNeuralProcess) -> None:
    parameters, support, query, y = parts(learner)
    labels = y[:, :4]
    episodes = Episodes(LabelledSet(support, y), LabelledSet(query, labels))
    found = learner.objective(
        SimpleNamespace(outputs=2),
        Statistics(),
        parameters,
        torch.cat((support, query), 1),
        episodes,
        torch.Generator(),
    )
    each = [
        learner.loss(learner.decoded(parameters, support, x, y, 2), LabelledSet(x, of))
        for x, of in ((support, y), (query, labels))
    ]
    torch.testing.assert_close(found, (6 * each[0] + 4 * each[1]) / 10, **EXACT)


def test_the_first_gradient_is_that_of_finite_differences() -> None:
    parameters, support, query, y = parts(LEARNERS[0])
    episodes = Episodes(LabelledSet(support, y), LabelledSet(query, y[:, :4]))

    def loss(weight: Tensor) -> Tensor:
        changed = parameters | {"encoder.0.weight": weight}
        return LEARNERS[0].objective(
            SimpleNamespace(outputs=2),
            Statistics(),
            changed,
            torch.cat((support, query), 1),
            episodes,
            torch.Generator(),
        )

    assert torch.autograd.gradcheck(loss, parameters["encoder.0.weight"].clone().requires_grad_())


def test_it_learns_waves() -> None:
    waves = build_task("sinusoid/k10")
    learner = build_method("conditional-neural-process", waves, encoder=(32, 32), decoder=(32,))
    losses = [state.loss for _, state in zip(range(300), learner.fit(waves, 0), strict=False)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_what_does_not_fit_is_refused() -> None:
    tasks = build_task("glyphs/5w1s")
    learner = build_method("conditional-neural-process", tasks, training_way=20)
    assert mismatch(learner, "conditional-neural-process", tasks) == "training_way = 20: the decoder is for 5 classes"
    with pytest.raises(MetabenchError, match="encoder = \\(\\): at least one layer"):
        build_method("conditional-neural-process", build_task("sinusoid"), encoder=())
    with pytest.raises(MetabenchError, match="decoder = \\(0,\\) is not at least 1"):
        build_method("conditional-neural-process", build_task("sinusoid"), decoder=(0,))
