"""What every episodic learner promises, in double precision; a learner joins by being registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from baselines.episodic import Episodic
from benchmarks import registry
from benchmarks.api import LabelledSet, State, TaskDistribution
from benchmarks.models import network_for

LEARNERS = [
    (name, kind)
    for name, entry in sorted(registry.methods().items())
    for kind in sorted(entry.cls.kinds)
    if issubclass(entry.cls, Episodic)
]
#: learners that read the support set in its order
ORDERED = {"matching-nets-fce", "memory-module", "snail"}
#: learners that read labels as inputs
LABELLED = {"conditional-neural-process", "snail"}
#: learners with tests of their own: another objective in the first step, noise, or values stored without a gradient
OTHERWISE = {"meta-baseline", "memory-module", "neural-statistician", "neural-statistician-reduced"}
each_learner = pytest.mark.parametrize(("name", "kind"), LEARNERS)


def tasks_of(given, kind: str) -> TaskDistribution:  # type: ignore[no-untyped-def]
    return given.images() if kind == "classification" else given.waves()  # type: ignore[no-any-return]


def built(name: str, tasks: TaskDistribution) -> tuple[Episodic, State]:
    """The learner, and a state in which batch-norm and all extra parameters do something."""
    learner = registry.build_method(name, tasks).replace(training_way=0, meta_batch=2)
    assert isinstance(learner, Episodic)
    network, generator = network_for(tasks, learner.backbone), torch.Generator().manual_seed(3)

    def moved(value: Tensor) -> Tensor:
        return value.double() + 0.1 * torch.rand(value.shape, generator=generator, dtype=torch.double)

    parameters = {key: moved(value) for key, value in learner.initial(network, 0, "cpu").items()}
    buffers = {key: moved(value) for key, value in learner.initial_statistics(network, "cpu").items()}
    return learner, State(parameters=parameters, buffers=buffers)


def answers(name: str, tasks: TaskDistribution) -> Callable[[LabelledSet, Tensor], Tensor]:
    learner, state = built(name, tasks)
    return lambda support, x: next(learner.adapt(state, support, tasks))(x)[0]


@each_learner
def test_the_order_of_support_and_queries_does_not_matter(given, name: str, kind: str) -> None:  # type: ignore[no-untyped-def]
    tasks = tasks_of(given, kind)
    cut, answer = tasks.episodes("test", range(3)), answers(name, tasks)
    found = answer(cut.support, cut.query.x)
    order = torch.randperm(cut.support.x.shape[1], generator=torch.Generator().manual_seed(1))
    turned = LabelledSet(cut.support.x[:, order], cut.support.y[:, order])
    assert torch.allclose(answer(turned, cut.query.x), found, rtol=1e-9, atol=1e-12) == (name not in ORDERED)
    torch.testing.assert_close(answer(cut.support, cut.query.x.flip(1)).flip(1), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, kind in LEARNERS if kind == "classification" and n not in LABELLED])
def test_other_labels_only_move_the_columns(given, name: str) -> None:  # type: ignore[no-untyped-def]
    tasks = tasks_of(given, "classification")
    cut, answer = tasks.episodes("test", range(3)), answers(name, tasks)
    new = torch.tensor([2, 0, 1])
    relabelled = dataclasses.replace(cut.support, y=new[cut.support.y])
    found, other = answer(cut.support, cut.query.x), answer(relabelled, cut.query.x)
    torch.testing.assert_close(other[..., new], found, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(other, found)


@pytest.mark.parametrize(("name", "kind"), [one for one in LEARNERS if one[0] not in OTHERWISE])
def test_the_first_gradient_is_that_of_finite_differences(given, name: str, kind: str) -> None:  # type: ignore[no-untyped-def]
    tasks = tasks_of(given, kind)
    learner, start = built(name, tasks)

    def step(moved: float) -> State:
        parameters = {key: value + moved * direction[key] for key, value in start.parameters.items()}
        return next(learner.fit(tasks, 0, State(parameters=parameters, buffers=start.buffers)))

    generator = torch.Generator().manual_seed(4)
    direction = {
        key: torch.randn(value.shape, generator=generator, dtype=torch.double)
        for key, value in start.parameters.items()
    }
    size = 1e-6
    up, down = (float(step(sign * size).loss or 0.0) for sign in (1, -1))
    state = step(0.0)
    # Adam's first moment is a tenth of the gradient
    slope = sum(float((10 * state.moments[f"{key}/exp_avg"] * along).sum()) for key, along in direction.items())
    assert slope == pytest.approx((up - down) / (2 * size), rel=1e-5)
    assert abs(slope) > 1e-6
