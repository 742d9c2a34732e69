"""ANIL, BOIL and any number of adapted layers: what moves, what stays, and the support set that is embedded once."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from benchmarks import registry
from benchmarks.api import Parameters, TaskDistribution
from benchmarks.execution.plans import Plan
from benchmarks.models import network_for
from benchmarks.models.backbones import Conv4
from maml.anil import ANIL, BOIL
from maml.gradient import QueryLoss, gradient_of
from maml.maml import MAML


def parts_after(learner: MAML, tasks: Any, given: Any, steps: int = 3) -> tuple[Parameters, Parameters]:
    """The parameters before the first step and after the last, ``[T or 1, ...]``."""
    found: Any = list(islice(learner.adapt(given.state(tasks), tasks.data.support, tasks), steps + 1))
    return found[0].parameters, found[-1].parameters


def moved(learner: MAML, tasks: Any, given: Any) -> set[str]:
    before, after = parts_after(learner, tasks, given)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("kind", ["waves", "images"])
def test_anil_moves_the_head_and_boil_the_body(given: Any, kind: str) -> None:
    tasks = getattr(given, kind)()
    fields = vars(given.maml(tasks))
    head = {"head.weight", "head.bias"}
    assert moved(ANIL(**{**fields, "adapted_layers": 1}), tasks, given) == head
    body = moved(BOIL(**{**fields, "adapted_layers": -1}), tasks, given)
    assert body
    assert not body & head


@pytest.mark.parametrize(
    ("adapted_layers", "weights"), [(0, "0123h"), (1, "h"), (2, "3h"), (5, "0123h"), (-1, "0123"), (-3, "01")]
)
def test_as_many_layers_move_as_are_asked_for(given: Any, adapted_layers: int, weights: str) -> None:
    tasks = given.images()
    found = moved(given.maml(tasks, adapted_layers=adapted_layers, adapt_normalisation=True), tasks, given)
    assert {name for name in found if "weight" in name} == {
        "head.weight" if each == "h" else f"layer{each}.weight" for each in weights
    }
    assert {name for name in found if "scale" in name} == {f"layer{each}.scale" for each in weights if each != "h"}


@pytest.mark.parametrize(
    ("backbone", "count"), [("mlp-40-40", 3), ("mlp-256-128-64-64", 5), ("conv4-64", 5), ("resnet12", 17)]
)
def test_every_parameter_belongs_to_one_layer(backbone: str, count: int) -> None:
    network = network_for(registry.build_task("miniimagenet/5w1s"), backbone)
    names = [name for layer in network.layers for name in layer]
    assert len(network.layers) == count
    assert sorted(names) == sorted({*dict(network.backbone.shapes(network.input_shape)), "head.weight", "head.bias"})


class EachStep(QueryLoss):
    """The same loss whose steps embed the support set again."""

    head_only = False


def gradients(cls: type[QueryLoss], learner: MAML, tasks: Any, parameters: Parameters, plan: Plan) -> list[Any]:
    objective = learner._objective(tasks, learner.inner_lr, plan)
    loss, found = gradient_of(cls(**vars(objective)), plan)(parameters, tasks.data.support, tasks.data.query)
    return [loss, *found]


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, checkpointed=True), Plan(3, per_task="loop")], ids=str)
@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("kind", ["waves", "images"])
def test_embedding_once_changes_no_gradient(given: Any, kind: str, second_order: bool, plan: Plan) -> None:
    tasks = getattr(given, kind)()
    learner = given.maml(tasks, adapted_layers=1, inner_steps=3, second_order=second_order, train_regime="support")
    parameters = given.state(tasks).parameters
    once, each = (gradients(cls, learner, tasks, parameters, plan) for cls in (QueryLoss, EachStep))
    for found, expected in zip(once, each, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_steps_of_the_head_pass_the_body_once(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """LibFewShot and torchmeta embed support set and queries in one batch; here each has statistics of its own."""
    tasks, sizes = given.images(), []
    call = Conv4.__call__

    def counted(self: Conv4, parameters: Any, x: Any, statistics: Any) -> Any:
        sizes.append((x.shape[1], parameters["layer0.weight"].shape[0]))
        return call(self, parameters, x, statistics)

    monkeypatch.setattr(Conv4, "__call__", counted)
    learner = given.maml(tasks, adapted_layers=1, inner_steps=5)
    next(learner.fit(tasks, 0, given.state(tasks)))
    assert sizes == [(tasks.data.support.x.shape[1], 1), (tasks.data.query.x.shape[1], 1)]


def test_second_order_matters_for_the_head_too(given: Any) -> None:
    tasks = given.images()
    parameters = given.state(tasks).parameters
    first, second = (
        given.meta_gradient(given.maml(tasks, adapted_layers=1, second_order=order), tasks, parameters)
        for order in (False, True)
    )
    assert (first - second).norm() > 1e-2 * second.norm()


def test_threads_change_nothing(given: Any) -> None:
    tasks = given.images()
    alone, threads = (
        parts_after(given.maml(tasks, adapted_layers=1, plan=Plan(1, threads=threads)), tasks, given)[1]
        for threads in (1, 2)
    )
    assert all(torch.equal(alone[name], threads[name]) for name in alone)


@pytest.mark.parametrize("order", [False, True])
def test_a_later_rate_is_that_of_all_steps_but_the_first(given: Any, order: bool) -> None:
    tasks = given.waves()
    state, support = given.state(tasks), tasks.data.support
    constant, halved = (given.maml(tasks, inner_steps=3, later_rate=rate, second_order=order) for rate in (1.0, 0.5))
    zero, one, two, *_ = (p.parameters for p in islice(halved.adapt(state, support, tasks), 4))  # type: ignore[attr-defined]
    _, same, further, *_ = (p.parameters for p in islice(constant.adapt(state, support, tasks), 4))  # type: ignore[attr-defined]
    for name in zero:
        assert torch.equal(one[name], same[name])
        torch.testing.assert_close(2 * (two[name] - one[name]), further[name] - same[name], rtol=1e-9, atol=1e-12)
    losses = [next(learner.fit(tasks, 0, state)).loss for learner in (constant, halved)]
    assert losses[0] != losses[1], "training takes the same steps"


@pytest.mark.parametrize(
    ("method", "fields", "task", "said"),
    [
        ("maml", {"adapted_layers": 6}, "glyphs/5w1s", "adapted_layers = 6: conv4-64-strided has 5 layers"),
        ("boil", {"adapted_layers": -3}, "sinusoid/k5", "adapted_layers = -3: mlp-40-40 has 3 layers"),
        ("maml-no-conv", {}, "sinusoid/k5", "maml-no-conv is for classification, sinusoid is regression"),
        ("anil", {}, "bandit/k5n10", "anil is for classification and regression, bandit is control"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(method: str, fields: dict, task: str, said: str) -> None:
    tasks: TaskDistribution = registry.build_task(task)
    assert registry.mismatch(registry.build_method(method, tasks, **fields), method, tasks) == said


def test_no_conv_is_the_papers_network_with_its_omniglot_settings() -> None:
    tasks = registry.build_task("omniglot/20w1s")
    plain, fully_connected = (registry.build_method(name, tasks) for name in ("maml", "maml-no-conv"))
    assert fully_connected.config() == {**plain.config(), "backbone": "mlp-256-128-64-64"}
