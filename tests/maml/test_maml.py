"""MAML and first-order MAML: exact meta-gradients, tasks that don't touch each other, states that are values.

The meta-gradient is read off Adam's first moment after one meta-step, so that all of `fit` is tested, not a part of it.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.api import Diverged, LabelledSet, Parameters, State, TaskDistribution, in_regime, regimes_of
from benchmarks.execution.plans import Plan
from benchmarks.models import NetworkPredictor, network_for
from benchmarks.registry import build_method, build_task
from maml.inner_loop import GradientDescent, InnerLoop, per_task
from maml.losses import loss_factor, supervised_loss
from maml.maml import MAML


def meta_loss(learner: MAML, tasks: TaskDistribution, parameters: Parameters) -> float:
    """The training loss at these parameters."""
    return next(learner.fit(tasks, 0, State(parameters=parameters))).loss


def unflat(vector: Tensor, like: Parameters) -> Parameters:
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view_as(like[name]) for name, part in zip(like, parts, strict=True)}


def directions(parameters: Parameters) -> Iterator[Tensor]:
    """Four random directions through all parameters, and one random coordinate of each of them."""
    generator = torch.Generator().manual_seed(5)
    size = sum(value.numel() for value in parameters.values())
    for _ in range(4):
        direction = torch.randn(size, generator=generator, dtype=torch.float64)
        yield direction / direction.norm()
    first = 0
    for value in parameters.values():
        coordinate = torch.zeros(size, dtype=torch.float64)
        coordinate[first + int(torch.randint(value.numel(), (), generator=generator))] = 1
        first += value.numel()
        yield coordinate


def assert_is_the_slope(gradient: Tensor, loss: Any, parameters: Parameters) -> None:
    """The gradient against central differences of the loss, along every one of `directions`."""
    center, step = torch.cat([value.flatten() for value in parameters.values()]), 1e-6
    for direction in directions(parameters):
        ahead, behind = (loss(unflat(center + sign * step * direction, parameters)) for sign in (1, -1))
        assert float(gradient @ direction) == pytest.approx(
            (ahead - behind) / (2 * step), rel=1e-5, abs=1e-7 * float(gradient.norm())
        )


@pytest.fixture(params=["waves", "images", "images-pooled", "images-mlp"])
def tasks(request: pytest.FixtureRequest, given: Any) -> TaskDistribution:
    return {
        "waves": lambda: given.waves(),
        "images": lambda: given.images(),
        "images-pooled": lambda: given.images(backbone="tiny-conv4", size=16),
        "images-mlp": lambda: given.images(backbone="tiny-mlp-normalised", size=4),
    }[request.param]()


def test_meta_gradient_is_the_slope_of_the_meta_loss(tasks: TaskDistribution, given: Any) -> None:
    learner, parameters = given.maml(tasks, inner_steps=2), given.state(tasks).parameters
    gradient = given.meta_gradient(learner, tasks, parameters)
    assert_is_the_slope(gradient, lambda theta: meta_loss(learner, tasks, theta), parameters)


@pytest.mark.parametrize(
    "fields",
    [
        {"train_regime": "support", "adapt_normalisation": True},
        {"train_regime": "single"},
        {"loss_scale": "sum/K", "adapt_normalisation": True},
        {"adapted_layers": 1},
        {"adapted_layers": 2, "adapt_normalisation": True},
        {"adapted_layers": -1, "later_rate": 0.5},
    ],
)
def test_meta_gradient_is_the_slope_under_every_setting(given: Any, fields: dict) -> None:
    tasks = given.images()
    learner = given.maml(tasks, inner_steps=2, inner_lr=0.1, **fields)
    parameters = given.state(tasks).parameters
    gradient = given.meta_gradient(learner, tasks, parameters)
    assert_is_the_slope(gradient, lambda theta: meta_loss(learner, tasks, theta), parameters)


def test_first_order_meta_gradient_holds_the_inner_gradients_fixed(tasks: TaskDistribution, given: Any) -> None:
    learner, parameters = given.maml(tasks, inner_steps=2, second_order=False), given.state(tasks).parameters
    network, data = network_for(tasks), tasks.data  # type: ignore[attr-defined]
    start = per_task(parameters, 3)
    inner = InnerLoop(
        lambda theta, step: NetworkPredictor(network, theta),
        supervised_loss,
        GradientDescent(learner.inner_lr),
        second_order=False,
        adapted=lambda name: not name.endswith(("scale", "shift")),
    )
    ended = next(islice(inner.steps(start, data.support), 2, None))
    moved = {name: ended[name] - start[name] for name in start}

    def loss(theta: Parameters) -> float:
        shifted = {name: value + moved[name] for name, value in per_task(theta, 3).items()}
        return float(supervised_loss(NetworkPredictor(network, shifted), data.query).mean())

    gradient = given.meta_gradient(learner, tasks, parameters)
    assert_is_the_slope(gradient, loss, parameters)
    second = given.meta_gradient(learner.replace(second_order=True), tasks, parameters)
    assert (gradient - second).norm() > 1e-2 * second.norm(), "the second derivatives should matter here"


def adapted(learner: MAML, state: State, support: Any, tasks: TaskDistribution, steps: int = 3) -> list[Parameters]:
    predictors: Any = islice(learner.adapt(state, support, tasks), steps + 1)
    return [dict(predictor.parameters) for predictor in predictors]


def test_another_task_beside_changes_nothing(tasks: TaskDistribution, given: Any) -> None:
    learner, state, support = given.maml(tasks), given.state(tasks), tasks.data.support  # type: ignore[attr-defined]
    other = LabelledSet(support.x.clone(), support.y)
    other.x[1] = 5 * other.x[1].flip(0) - 1
    for before, after in zip(*(adapted(learner, state, s, tasks) for s in (support, other)), strict=True):
        for name in before:
            torch.testing.assert_close(after[name][[0, 2]], before[name][[0, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before["head.weight"][1], after["head.weight"][1])


@pytest.mark.parametrize("requires_grad", [False, True])
def test_adapting_keeps_no_graph(given: Any, requires_grad: bool) -> None:
    tasks = given.images()
    learner, state, data = given.maml(tasks), given.state(tasks), tasks.data
    for value in state.parameters.values():
        value.requires_grad_(requires_grad)
    alive = []
    for step, predictor in zip(range(8), learner.adapt(state, data.support, tasks), strict=False):
        assert not any(value.requires_grad or value.grad_fn for value in predictor.parameters.values())
        assert predictor(data.query.x)[0].grad_fn is None
        if step in (2, 7):
            gc.collect()
            alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert alive[1] <= alive[0], f"tensors alive after 2 and 7 steps: {alive}"


def test_one_adaptation_answers_under_every_regime(given: Any) -> None:
    tasks = given.images()
    state, data = given.state(tasks), tasks.data
    *_, predictor = islice(given.maml(tasks).adapt(state, data.support, tasks), 3)
    assert regimes_of(predictor) == ("query", "support", "single")
    for regime in regimes_of(predictor):
        expected = NetworkPredictor(network_for(tasks), predictor.parameters, regime, data.support.x)(data.query.x)[0]
        assert torch.equal(in_regime(predictor, regime)(data.query.x)[0], expected)
    assert torch.equal(predictor(data.query.x)[0], in_regime(predictor, "query")(data.query.x)[0])


@pytest.mark.parametrize("regime", ["query", "support", "single"])
def test_queries_of_training_are_predicted_in_the_training_regime(given: Any, regime: str) -> None:
    tasks = given.images()
    learner, state, data = given.maml(tasks, train_regime=regime, inner_steps=2), given.state(tasks), tasks.data
    theta = adapted(learner, state, data.support, tasks, steps=2)[-1]
    expected = supervised_loss(NetworkPredictor(network_for(tasks), theta, regime, data.support.x), data.query).mean()
    assert meta_loss(learner, tasks, state.parameters) == pytest.approx(float(expected), rel=1e-12)


def test_rate_of_the_released_code_is_five_times_that_of_a_mean_loss(given: Any) -> None:
    tasks = given.images(way=5)
    state, support = given.state(tasks), tasks.data.support
    released, mean = MAML(inner_lr=0.4, meta_batch=3), MAML(inner_lr=2.0, loss_scale="mean", meta_batch=3)
    for one, other in zip(*(adapted(learner, state, support, tasks) for learner in (released, mean)), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert released.describe(tasks)["mean_loss_inner_lr"] == mean.describe(tasks)["mean_loss_inner_lr"] == 2.0
    gradients = [given.meta_gradient(learner, tasks, state.parameters) for learner in (released, mean)]
    torch.testing.assert_close(gradients[0], 5 * gradients[1], rtol=1e-12, atol=1e-12)
    losses = [meta_loss(learner, tasks, state.parameters) for learner in (released, mean)]
    assert losses[0] == pytest.approx(5 * losses[1], rel=1e-12)
    assert loss_factor(given.waves(), "sum/K") == 1, "regression has one scale"


@pytest.mark.parametrize("adapt_normalisation", [False, True])
@pytest.mark.parametrize("backbone", ["tiny-conv4-strided", "tiny-mlp-normalised"])
def test_scale_and_shift_take_steps_only_where_asked(given: Any, backbone: str, adapt_normalisation: bool) -> None:
    tasks = given.images(backbone=backbone)
    learner = given.maml(tasks, adapt_normalisation=adapt_normalisation)
    *_, last = first, *_ = adapted(learner, given.state(tasks), tasks.data.support, tasks)
    for name in first:
        stays = name.endswith(("scale", "shift")) and not adapt_normalisation
        before_batch_norm = name.endswith("bias") and not name.startswith("head")
        assert before_batch_norm or torch.equal(first[name], last[name]) == stays, name


def test_clip_bounds_each_element_of_the_meta_gradient(given: Any) -> None:
    tasks = given.images()
    parameters = given.state(tasks).parameters
    free = given.meta_gradient(given.maml(tasks), tasks, parameters)
    bound = float(free.abs().quantile(0.7))
    clipped = given.meta_gradient(given.maml(tasks, clip=bound), tasks, parameters)
    torch.testing.assert_close(clipped, free.clamp(-bound, bound), rtol=1e-12, atol=1e-15)


def test_examples_seen_are_support_and_query(given: Any) -> None:
    tasks = given.images(tasks=4, way=3, shot=2)
    states = (
        state.examples for state in given.maml(tasks, meta_batch=4, plan=Plan(3)).fit(tasks, 0, given.state(tasks))
    )
    assert list(islice(states, 2)) == [4 * (3 * 2 + 3 * 2), 8 * (3 * 2 + 3 * 2)]


def test_a_loss_that_is_not_finite_is_said(given: Any) -> None:
    tasks, state = given.waves(), given.state(given.waves())
    far = dataclasses.replace(state, parameters={name: value * 1e38 for name, value in state.parameters.items()})
    with pytest.raises(Diverged, match="meta-step 1"):
        next(given.maml(tasks).fit(tasks, 0, far))


def test_maml_learns_to_learn_waves() -> None:
    tasks = build_task("sinusoid/k10")
    learner = build_method("maml", tasks, meta_lr=5e-3)
    trained = next(islice(learner.fit(tasks, 0), 300, None)).copy()
    test = tasks.episodes("test", range(200))
    before, after = (
        float(tasks.score(predictor, test.query).mean())
        for predictor in islice(learner.adapt(trained, test.support, tasks), 0, 6, 5)
    )
    assert before > 2.5, "one initialisation can't know the wave"
    assert after < 1.2
