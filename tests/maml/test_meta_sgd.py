"""Meta-SGD: its rates, their gradient, and the end of adaptation. tests/maml/test_update_rules.py has its equality with
MAML for equal rates."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import State
from benchmarks.models import NetworkPredictor, join, network_for
from maml.inner_loop import gradients_of, per_task
from maml.losses import supervised_loss
from maml.meta_sgd import MetaSGD


def double(learner: MetaSGD, tasks: Any) -> State:
    """Its first state, in double precision as the given tasks."""
    return State({name: value.double() for name, value in learner.initial(tasks, 0).items()})


def test_every_adapted_number_has_a_rate_of_its_own_in_units_of_a_mean_loss() -> None:
    """learn2learn gives batch-norm's scale and shift rates too, and copies of a learner share them."""
    tasks = registry.build_task("glyphs/5w1s")
    parameters = registry.build_method("meta-sgd", tasks, inner_lr=0.1).initial(tasks, 0)  # type: ignore[attr-defined]
    network = network_for(tasks)
    rates = {name: value for name, value in parameters.items() if name.startswith("rule.")}
    adapted = [name for name in network.initialise(0) if name not in network.normalisation]
    assert set(rates) == {f"rule.{name}" for name in adapted}
    for name in adapted:
        assert torch.equal(rates[f"rule.{name}"], torch.full_like(parameters[name], 5 * 0.1))
    assert len({value.data_ptr() for value in rates.values()}) == len(rates)


def test_the_gradient_of_a_rate_is_minus_the_product_of_two_gradients(given: Any) -> None:
    """L(theta - a g): dL/da = -g o grad L(theta'), exact for one step."""
    tasks = given.waves()
    network, data, theta = network_for(tasks), tasks.data, given.state(tasks).parameters
    parameters = theta | join("rule.", {name: torch.full_like(value, 0.02) for name, value in theta.items()})
    state = next(MetaSGD(inner_steps=1, meta_batch=3).fit(tasks, 0, State(parameters)))

    def gradients(at: dict[str, Tensor], batch: Any) -> list[Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in at.items()}
        loss = supervised_loss(NetworkPredictor(network, leaves), batch).sum()
        return list(gradients_of(loss, leaves, graph=False))

    before = per_task(theta, 3)
    inner = gradients(before, data.support)
    after = {name: value - 0.02 * gradient for (name, value), gradient in zip(before.items(), inner, strict=True)}
    for name, first, second in zip(theta, inner, gradients(after, data.query), strict=True):
        found = state.moments[f"rule.{name}/exp_avg"] / (1 - 0.9)
        torch.testing.assert_close(found, -(first * second).sum(0) / 3, rtol=1e-9, atol=1e-12)


def test_rates_may_become_negative_and_are_trained(given: Any) -> None:
    tasks = given.waves()
    learner = MetaSGD(inner_lr=1e-4, meta_batch=3, meta_lr=1e-2)
    *_, state = islice(learner.fit(tasks, 0, double(learner, tasks)), 3)
    rates = torch.cat([value.detach().flatten() for name, value in state.parameters.items() if "rule." in name])
    assert (rates < 0).any()
    assert (rates > 1e-4).any()


def test_adaptation_ends_after_the_steps_of_training_and_more_are_refused(given: Any) -> None:
    tasks = given.waves()
    learner = MetaSGD(inner_steps=2, meta_batch=3)
    assert len(list(islice(learner.adapt(double(learner, tasks), tasks.data.support, tasks), 9))) == 3
    assert learner.reported_steps() == (2,)
    waves = registry.build_task("sinusoid/k5")
    asked = registry.build_method("meta-sgd", waves, test_steps=(1, 3))
    line = "test_steps = (1, 3): adaptation ends after step 1, as in training"
    assert registry.mismatch(asked, "meta-sgd", waves) == line
    assert registry.mismatch(registry.build_method("meta-sgd", waves), "meta-sgd", waves) is None


@pytest.mark.parametrize("fields", [{"test_lr": 0.1}, {"later_rate": 0.5}])
def test_a_rate_that_is_not_learned_is_refused_in_one_line(fields: dict) -> None:
    tasks = registry.build_task("sinusoid/k5")
    ((name, value),) = fields.items()
    learner = registry.build_method("meta-sgd", tasks, **fields)
    assert registry.mismatch(learner, "meta-sgd", tasks) == f"{name} = {value}: the rates of all steps are learned"
