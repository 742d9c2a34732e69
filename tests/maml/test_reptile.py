"""Reptile: its moves against averaged gradient descent and quadratics, its minibatches, and Adam's moments."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.api import Diverged, Episodes, LabelledSet, MetabenchError, Parameters, State
from benchmarks.models import NetworkPredictor, network_for
from benchmarks.registry import build_method, build_task, mismatch
from maml.inner_loop import per_task
from maml.losses import supervised_loss
from maml.reptile import AdamWithoutMomentum, Minibatches, Reptile


def reptile(**fields: Any) -> Reptile:
    """Plain gradient descent on whole sets."""
    plain = {"inner_rule": "sgd", "inner_lr": 0.02, "inner_batch": 0, "inner_steps": 3, "meta_batch": 3}
    return Reptile(**{**plain, "outer_rate": 0.3, **fields})


def after(learner: Reptile, tasks: Any, state: State, meta_steps: int = 1) -> State:
    return next(islice(learner.fit(tasks, 0, state), meta_steps - 1, None)).copy()


def descended(tasks: Any, parameters: Parameters, steps: int, rate: float = 0.02) -> Parameters:
    """The weights ``[T, ...]`` after steps of gradient descent that are written out."""
    network, theta = network_for(tasks), per_task(parameters, len(tasks.data.support))
    for _ in range(steps):
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        losses = supervised_loss(NetworkPredictor(network, leaves), tasks.data.support)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        theta = {name: theta[name] - rate * each for name, each in zip(theta, found, strict=True)}
    return theta


def assert_close(found: Parameters, expected: Parameters) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)


@pytest.fixture(params=["waves", "images"])
def tasks(request: pytest.FixtureRequest, given: Any) -> Any:
    return getattr(given, request.param)()


def test_one_inner_step_is_averaged_gradient_descent(given: Any, tasks: Any) -> None:
    """theta - epsilon * alpha * mean gradient: epsilon counts once."""
    theta = given.state(tasks).parameters
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    losses = supervised_loss(NetworkPredictor(network_for(tasks), per_task(leaves, 3)), tasks.data.support)
    mean = torch.autograd.grad(losses.mean(), list(leaves.values()))
    moved = {name: theta[name] - 0.3 * 0.02 * each for name, each in zip(theta, mean, strict=True)}
    assert_close(after(reptile(inner_steps=1), tasks, State(theta)).parameters, moved)


def test_it_moves_towards_the_mean_of_the_weights_after_all_steps(given: Any, tasks: Any) -> None:
    theta = given.state(tasks).parameters
    phi = descended(tasks, theta, 3)
    moved = {name: value + 0.3 * (phi[name].mean(0) - value) for name, value in theta.items()}
    assert_close(after(reptile(), tasks, State(theta)).parameters, moved)
    whole = after(reptile(outer_rate=1.0), tasks, State(theta)).parameters
    assert_close(whole, {name: phi[name].mean(0) for name in theta})


def test_two_steps_move_by_the_gradient_of_first_order_maml_and_the_first_gradient(given: Any) -> None:
    """With the training set as its queries."""
    tasks = given.waves()
    tasks = tasks.replace(data=Episodes(tasks.data.support, tasks.data.support))
    theta = given.state(tasks).parameters
    one, two = (after(reptile(inner_steps=n, outer_rate=1.0), tasks, State(theta)).parameters for n in (1, 2))
    second = given.meta_gradient(given.maml(tasks, inner_steps=1, second_order=False), tasks, theta)
    torch.testing.assert_close(given.flat(one) - given.flat(two), 0.02 * second, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_serial_with_one_task_is_batched_with_one_task(given: Any, tasks: Any, rule: str) -> None:
    batched, serial = (
        after(reptile(meta_batch=1, form=form, inner_rule=rule, inner_batch=4), tasks, given.state(tasks), 4)
        for form in ("batched", "serial")
    )
    for part in ("parameters", "moments"):
        one, other = getattr(batched, part), getattr(serial, part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert batched.loss == serial.loss


def test_serial_starts_each_task_where_the_one_before_has_moved_theta(given: Any) -> None:
    tasks = given.waves()
    state = given.state(tasks)
    serial = after(reptile(form="serial"), tasks, state).parameters
    one_by_one = after(reptile(meta_batch=1), tasks, state, 3).parameters
    assert_close(serial, one_by_one)
    assert not torch.allclose(serial["layer1.weight"], after(reptile(), tasks, state).parameters["layer1.weight"])


def test_the_order_of_the_tasks_of_a_batch_changes_nothing(given: Any) -> None:
    tasks = given.waves()
    order = torch.tensor([2, 0, 1])
    other = tasks.replace(data=Episodes(tasks.data.support[order], tasks.data.query))
    found = [after(reptile(inner_rule="adam"), each, given.state(tasks)) for each in (tasks, other)]
    assert_close(found[0].parameters, found[1].parameters)


def test_the_outer_rate_falls_linearly_to_nothing_at_the_end_of_the_budget(given: Any) -> None:
    """Not to a tenth of it, as the default flags of the released code have it."""
    learner = reptile().for_budget(4)
    assert learner.anneal_over == 4
    assert reptile(anneal_over=9).for_budget(4).anneal_over == 9
    assert [learner.epsilon(step) for step in range(6)] == pytest.approx([0.3, 0.225, 0.15, 0.075, 0, 0])
    tasks = given.waves()
    last = after(learner, tasks, given.state(tasks), 4)
    assert_close(after(learner, tasks, last).parameters, last.parameters)


def test_adam_is_that_of_torch_without_momentum(given: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 5), (4, 2, 5)))
    leaf = start.clone().requires_grad_()
    theirs, rule = torch.optim.Adam([leaf], lr=0.01, betas=(0.0, 0.999)), AdamWithoutMomentum(0.01)
    values, memory = {"w": start}, rule.start({"w": start})
    for number, gradient in enumerate(gradients):
        leaf.grad = gradient.clone()
        theirs.step()
        values, memory = rule.step(memory, values, {"w": gradient}, torch.zeros(2), number)
        torch.testing.assert_close(values["w"], leaf.detach(), rtol=1e-12, atol=1e-14)


def steps_of(learner: Reptile, tasks: Any, state: State) -> Tensor:
    *_, last = islice(learner.adapt(state, tasks.data.support, tasks), 4)
    return last.parameters["layer0.weight"]  # type: ignore[attr-defined,no-any-return]


def test_second_moments_go_on_from_task_to_task_and_into_the_test(given: Any) -> None:
    """The published choice; a learner that reloads only the weights at test has another step size."""
    tasks, learner = given.waves(), reptile(inner_rule="adam", inner_lr=1e-3)
    state = after(learner, tasks, given.state(tasks), 3)
    assert float(state.moments["step"]) == 9
    assert set(state.moments) == {"step", *(f"{name}/exp_avg_sq" for name in state.parameters)}
    bare = State(state.parameters)
    assert not torch.allclose(steps_of(learner, tasks, state), steps_of(learner, tasks, bare))


def test_switched_off_no_moment_leaks_between_tasks(given: Any) -> None:
    tasks, learner = given.waves(), reptile(inner_rule="adam", inner_lr=1e-3, moments_persist=False)
    state = after(learner, tasks, given.state(tasks), 3)
    assert state.moments == {}
    planted = State(state.parameters, moments={"step": torch.tensor(7.0)})
    assert torch.equal(steps_of(learner, tasks, state), steps_of(learner, tasks, planted))


def test_minibatches_go_through_a_set_before_they_repeat_an_example() -> None:
    count, size = 12, 5
    numbers = torch.arange(2 * count, dtype=torch.float64).view(2, count, 1)
    source = Minibatches(LabelledSet(numbers, numbers), size)
    drawn = np.concatenate([source.chosen(step) for step in range(24)])
    passes = drawn.reshape(-1, count)
    assert all(sorted(each) == list(range(count)) for each in passes)
    assert len({tuple(each) for each in passes}) == len(passes), "each pass has an order of its own"
    batch = source.batch(None, 3)
    assert batch.x[1, :, 0].tolist() == [count + number for number in source.chosen(3)]
    assert torch.equal(batch.x, batch.y)
    assert Minibatches(source.examples, 0).batch(None, 3) is source.examples
    large = Minibatches(source.examples, 30).chosen(0)
    assert set(np.bincount(large)) == {2, 3}


def test_training_draws_its_own_number_of_shots_and_no_queries() -> None:
    asked: list[tuple[str, Any, Any]] = []
    tasks = build_task("sinusoid/k5")

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(tasks, name)

        def episodes(self, split: str, indices: Any, *, shots: Any = None, queries: Any = None) -> Episodes:
            asked.append((split, shots, queries))
            return tasks.episodes(split, indices, shots=shots, queries=queries)

    learner = build_method("reptile", tasks, inner_steps=1)
    state = next(learner.fit(Watched(), 0))  # type: ignore[arg-type]
    assert asked == [("train", 50, 0)]
    assert state.examples == 50


def test_a_loss_that_is_not_finite_is_said(given: Any) -> None:
    with pytest.raises(Diverged, match="meta-step 1"):
        after(reptile(inner_lr=1e300), given.waves(), given.state(given.waves()))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outer_rate": 0.0}, "outer_rate = 0.0 is not above 0"),
        ({"inner_batch": -1}, "inner_batch = -1 is not at least 0"),
        ({"inner_steps": 0}, "inner_steps = 0 is not at least 1"),
        ({"form": "parallel"}, "reptile.form = 'parallel'; known: batched, serial"),
        ({"inner_rule": "adamw"}, "reptile.inner_rule = 'adamw'; known: adam, sgd"),
    ],
)
def test_a_setting_without_a_meaning_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(MetabenchError, match=re.escape(said)):
        build_method("reptile", **fields)
    assert "is for classification and regression" in str(
        mismatch(build_method("reptile"), "reptile", build_task("bandit"))
    )
