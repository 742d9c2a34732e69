"""The learned rule: gradient descent, Hebb's rule and decay as special cases."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters, State
from benchmarks.models import network_for
from benchmarks.registry import build_method, build_task
from maml.inner_loop import per_task
from maml.learned_rule import TERMS, LearnedRule, potentials
from maml.maml import MAML

STEPS = {"inner_lr": 0.02, "inner_steps": 3, "test_steps": (3,), "meta_batch": 3, "backbone": "tiny-mlp"}


def with_terms(tasks: Any, **factors: float) -> Parameters:
    theta = network_for(tasks, "tiny-mlp").initialise(0)
    named = [factors.get(term.replace(" ", "_"), 0.0) for term in TERMS]
    return {name: value.double() for name, value in theta.items()} | {"rule.terms": torch.tensor(named).double()}


@pytest.mark.parametrize("kind", ["waves", "images"])
def test_training_starts_as_gradient_descent_bit_for_bit(given: Any, kind: str) -> None:
    tasks = getattr(given, kind)()
    learner = LearnedRule(**STEPS)
    parameters = {name: value.double() for name, value in learner.initial(tasks, 0).items()}
    theta = {name: value for name, value in parameters.items() if not name.startswith("rule.")}
    plain = MAML(inner_lr=0.02, inner_steps=3, meta_batch=3, loss_scale="mean", backbone="tiny-mlp")
    support, x = tasks.data.support, tasks.data.query.x
    found = [each(x)[0] for each in learner.adapt(State(parameters), support, tasks)]
    expected = [each(x)[0] for each in islice(plain.adapt(State(theta), support, tasks), 4)]
    assert all(map(torch.equal, found, expected))
    trained, second_order = (
        next(each.fit(tasks, 0, State(own))) for each, own in ((learner, parameters), (plain, theta))
    )
    assert trained.loss == second_order.loss
    for name in theta:
        one, other = (state.moments[f"{name}/exp_avg"] for state in (trained, second_order))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-15)


def after_one_step(tasks: Any, parameters: Parameters) -> Parameters:
    _, predictor = islice(LearnedRule(**STEPS).adapt(State(parameters), tasks.data.support, tasks), 2)
    found: Parameters = predictor.parameters  # type: ignore[attr-defined]
    return found


def layers_by_hand(parameters: Parameters, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Activities before and potentials after each layer of one task."""
    first = F.linear(x, parameters["layer0.weight"], parameters["layer0.bias"])
    last = F.linear(first.relu(), parameters["head.weight"], parameters["head.bias"])
    return {"layer0": (x, first), "head": (first.relu(), last)}


def test_activity_times_potential_is_hebbs_rule(given: Any) -> None:
    tasks = given.waves()
    parameters = with_terms(tasks, activity_times_potential=1.0)
    found = after_one_step(tasks, parameters)
    for task in range(3):
        for layer, (before, after) in layers_by_hand(parameters, tasks.data.support.x[task]).items():
            products = torch.stack([torch.outer(y, x) for x, y in zip(before, after, strict=True)]).mean(0)
            weight = parameters[f"{layer}.weight"] + 0.02 * products
            bias = parameters[f"{layer}.bias"] + 0.02 * after.mean(0)
            torch.testing.assert_close(found[f"{layer}.weight"][task], weight, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(found[f"{layer}.bias"][task], bias, rtol=1e-12, atol=1e-14)


def test_each_term_is_what_its_name_says(given: Any) -> None:
    """All seven, for one synapse at a time, in loops."""
    tasks = given.waves()
    theta = with_terms(tasks)
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    layers = layers_by_hand(leaves, tasks.data.support.x[0])
    loss = (layers["head"][1] - tasks.data.support.y[0]).square().mean()
    errors = torch.autograd.grad(loss, [potential for _, potential in layers.values()])
    for number, term in enumerate(TERMS):
        found = after_one_step(tasks, with_terms(tasks, **{term.replace(" ", "_"): 1.0}))
        for (layer, (before, after)), error in zip(layers.items(), errors, strict=True):
            for j, i in ((0, 0), (after.shape[1] - 1, before.shape[1] - 1)):
                w = float(theta[f"{layer}.weight"][j, i])
                x, y, e = before[:, i].tolist(), after[:, j].tolist(), error[:, j].tolist()
                n = len(x)
                by_name = [
                    sum(x) / n,
                    sum(y) / n,
                    sum(e),
                    sum(a * b for a, b in zip(x, y, strict=True)) / n,
                    sum(a * b for a, b in zip(x, e, strict=True)),
                    w * sum(y) / n,
                    w,
                ]
                moved = float(found[f"{layer}.weight"][0, j, i])
                assert moved == pytest.approx(w + 0.02 * by_name[number], rel=1e-10), (term, layer, j, i)


def test_the_rule_is_the_same_few_numbers_for_all_synapses(given: Any) -> None:
    tasks = given.waves()
    rule = {name: value.shape for name, value in LearnedRule().initial(tasks, 0).items() if name.startswith("rule.")}
    assert rule == {"rule.terms": (len(TERMS),)}


def test_the_potentials_of_the_last_layer_are_the_networks_outputs(given: Any) -> None:
    tasks = given.images()
    network = network_for(tasks, "mlp-40-40")
    parameters = per_task({name: value.double() for name, value in network.initialise(0).items()}, 3)
    *_, (layer, _, potential) = potentials(parameters, tasks.data.support.x)
    assert layer == "head"
    assert torch.equal(potential, network(parameters, tasks.data.support.x))


def test_a_start_that_is_not_learned_stays(given: Any) -> None:
    tasks = given.waves()
    learner = LearnedRule(**STEPS, learned_start=False)
    parameters = with_terms(tasks, activity_times_error=-1.0, activity_times_potential=0.1, weight=-0.1)
    state = next(learner.fit(tasks, 0, State(parameters)))
    for name, value in parameters.items():
        assert torch.equal(state.parameters[name], value) is (name != "rule.terms"), name


@pytest.mark.parametrize("backbone", ["conv4-64-strided", "mlp-256-128-64-64", "resnet12"])
def test_other_layers_are_refused_with_a_reason(backbone: str) -> None:
    learner = build_method("learned-rule", backbone=backbone)
    reason = learner.refuses(build_task("glyphs/5w1s"))
    assert reason == f"learned-rule is for fully connected layers without batch-norm, not {backbone}; known: mlp-40-40"
