"""MAML++: each switch against what it should do, and all of them off against MAML, bit for bit."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import Diverged, Parameters, State, in_regime, regimes_of
from benchmarks.execution.plans import Plan
from benchmarks.models import NetworkPredictor, Statistics, network_for
from benchmarks.models.normalisation import MOMENTUM
from maml.losses import supervised_loss
from maml.maml import MAML
from maml.maml_plus_plus import MAMLPlusPlus

OFF: dict[str, Any] = {
    **dict.fromkeys(("multi_step_loss", "first_order", "last_lr"), 0.0),
    **dict.fromkeys(("per_step_norm", "learned_rates"), False),
}
STEPS = 3


def plus_plus(given: Any, tasks: Any, **fields: Any) -> MAMLPlusPlus:
    """MAML++ with the rates of `Given.maml`; switches are off unless given."""
    return MAMLPlusPlus(**{**vars(given.maml(tasks)), "inner_steps": STEPS, "test_steps": (), **OFF, **fields})


def initial(given: Any, learner: MAMLPlusPlus, tasks: Any) -> Parameters:
    """Its first parameters in double precision, with a network whose batch-norm does something."""
    own = {name: value.double() for name, value in learner.initial(tasks, 0).items()}
    theta = given.state(tasks).parameters
    rows = {f"rule.norm.{name}": value.repeat(STEPS, 1) for name, value in theta.items() if f"rule.norm.{name}" in own}
    rate = learner.inner_lr / learner.rate_unit
    rates = {name: torch.full_like(value, rate) for name, value in own.items() if ".rate." in name}
    return own | rates | theta | rows


def outputs(learner: MAML, state: State, tasks: Any, regime: str = "query") -> list[Tensor]:
    predictors = islice(learner.adapt(state, tasks.data.support, tasks), STEPS + 1)
    return [in_regime(predictor, regime)(tasks.data.query.x)[0] for predictor in predictors]


@pytest.mark.parametrize("kind", ["waves", "images"])
def test_with_all_switches_off_it_is_maml_bit_for_bit(given: Any, kind: str) -> None:
    tasks = getattr(given, kind)()
    learner, plain = plus_plus(given, tasks).for_budget(5), given.maml(tasks, inner_steps=STEPS)
    assert learner.anneal_over == 0
    *_, found = islice(learner.fit(tasks, 0, given.state(tasks)), 3)
    *_, expected = islice(plain.fit(tasks, 0, given.state(tasks)), 3)
    assert (found.loss, found.buffers) == (expected.loss, expected.buffers)
    assert found.parameters.keys() == expected.parameters.keys()
    assert all(torch.equal(found.parameters[name], value) for name, value in expected.parameters.items())
    regime = "query" if kind == "images" else "none"
    pairs = zip(outputs(learner, found, tasks, regime), outputs(plain, expected, tasks, regime), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert len(list(islice(learner.adapt(found, tasks.data.support, tasks), 9))) == 9, "it may go on"


@pytest.mark.parametrize("switch", ["per_step_norm", "learned_rates"])
def test_equal_rows_for_all_steps_are_maml_bit_for_bit(given: Any, switch: str) -> None:
    tasks = given.images()
    learner, plain = plus_plus(given, tasks, **{switch: True}), given.maml(tasks, inner_steps=STEPS)
    found = next(learner.fit(tasks, 0, State(initial(given, learner, tasks))))
    expected = next(plain.fit(tasks, 0, given.state(tasks)))
    assert found.loss == expected.loss
    for name in expected.parameters:
        if name not in network_for(tasks).normalisation:
            assert torch.equal(found.parameters[name], expected.parameters[name]), name
    start = State(initial(given, learner, tasks))
    pairs = zip(outputs(learner, start, tasks), outputs(plain, given.state(tasks), tasks), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert len(list(islice(learner.adapt(start, tasks.data.support, tasks), 9))) == STEPS + 1


# --- the loss after every step ---


def test_weights_move_from_all_steps_to_the_last_and_then_the_last_counts_alone() -> None:
    learner = MAMLPlusPlus(inner_steps=5, multi_step_loss=0.1, anneal_over=1000)
    assert learner.loss_weights(0) == pytest.approx([0.2] * 5)
    for step in range(100):
        weights = learner.loss_weights(step)
        epoch = step // 10
        early = max(1 / 5 - epoch / (5 * 10), 0.03 / 5)
        assert weights == pytest.approx([early] * 4 + [min(1 / 5 + epoch * 4 / (5 * 10), 1 - 4 * 0.03 / 5)])
        assert sum(weights) == pytest.approx(1, abs=1e-12)
    assert learner.loss_weights(100) == learner.loss_weights(5000) == ()
    assert learner.replace(multi_step_loss=0.0).loss_weights(0) == ()


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, checkpointed=True)], ids=str)
def test_the_loss_is_the_weighted_sum_over_the_steps(given: Any, plan: Plan) -> None:
    tasks = given.images()
    learner = plus_plus(given, tasks, multi_step_loss=0.1, anneal_over=1000, plan=plan)
    state, network = State(given.state(tasks).parameters, step=40), network_for(tasks)
    after = list(islice(learner.adapt(state, tasks.data.support, tasks), 1, STEPS + 1))
    losses = [
        float(supervised_loss(NetworkPredictor(network, predictor.parameters), tasks.data.query).mean())  # type: ignore[attr-defined]
        for predictor in after
    ]
    expected = sum(weight * loss for weight, loss in zip(learner.loss_weights(40), losses, strict=True))
    assert next(learner.fit(tasks, 0, state)).loss == pytest.approx(expected, rel=1e-12)


def test_with_one_step_the_losses_of_all_steps_are_that_of_the_last(given: Any) -> None:
    tasks = given.waves()
    one, all_ = (
        next(plus_plus(given, tasks, inner_steps=1, multi_step_loss=share, anneal_over=100).fit(tasks, 0, state))
        for share, state in ((0.0, given.state(tasks)), (0.5, given.state(tasks)))
    )
    assert all(torch.equal(one.parameters[name], all_.parameters[name]) for name in one.parameters)


# --- schedules ---


def test_the_order_changes_at_its_step(given: Any) -> None:
    tasks = given.waves()
    learner = plus_plus(given, tasks, first_order=0.5).for_budget(6)
    assert [dict(learner.stage(step))["second_order"] for step in range(8)] == [False] * 3 + [True] * 5
    for step in (2, 3):
        found, first, second = (
            next(each.fit(tasks, 0, State(given.state(tasks).parameters, step=step))).moments["layer0.weight/exp_avg"]
            for each in (
                learner,
                *(given.maml(tasks, inner_steps=STEPS, second_order=order) for order in (False, True)),
            )
        )
        assert torch.equal(found, second if step == 3 else first)
        assert not torch.allclose(first, second)


def test_the_rate_of_adam_falls_along_a_cosine_to_the_end_of_the_budget(given: Any) -> None:
    tasks = given.waves()

    def length(learner: MAML, step: int) -> float:
        """Of the first move of a number, which is Adam's rate."""
        before = given.state(tasks).parameters
        after = next(learner.fit(tasks, 0, State(before, step=step))).parameters
        return float((after["head.bias"].detach() - before["head.bias"]).abs())

    learner = plus_plus(given, tasks, last_lr=1e-5).for_budget(100)
    rates = [length(learner, step) for step in (0, 50, 100, 150)]
    assert rates == pytest.approx([1e-3, (1e-3 + 1e-5) / 2, 1e-5, 1e-5], rel=1e-4)
    assert length(plus_plus(given, tasks, last_lr=0.0, anneal_over=100), 50) == pytest.approx(1e-3, rel=1e-4)


def test_the_budget_is_a_field_where_something_follows_it() -> None:
    assert MAMLPlusPlus().for_budget(70).anneal_over == 70
    assert MAMLPlusPlus(anneal_over=9).for_budget(70).anneal_over == 9
    assert dict(MAMLPlusPlus().stage(0)) == {"second_order": True, "step_weights": ()}, (
        "without a budget the schedules are over"
    )


# --- rates and batch-norm for each step ---


def test_each_step_takes_its_own_rate_and_none_is_left_over(given: Any) -> None:
    """The released code has a rate more than steps."""
    tasks = given.waves()
    learner = plus_plus(given, tasks, learned_rates=True)
    parameters = initial(given, learner, tasks)
    rates = {name: value for name, value in parameters.items() if name.startswith("rule.rate.")}
    assert {value.shape for value in rates.values()} == {(STEPS,)}
    before = outputs(learner, State(parameters), tasks, "none")
    for step in range(STEPS):
        changed = {name: value.clone() for name, value in parameters.items()}
        for name in rates:
            changed[name][step] *= 1.5
        after = outputs(learner, State(changed), tasks, "none")
        assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [n <= step for n in range(STEPS + 1)]


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_a_meta_step_moves_a_rate_by_its_share_of_the_unit(given: Any, unit: float) -> None:
    learner = plus_plus(given, tasks := given.waves(), learned_rates=True, rate_unit=unit)
    state = next(learner.fit(tasks, 0, State(initial(given, learner, tasks))))
    for value in (value for name, value in state.parameters.items() if "rule." in name):
        moved = (unit * value.detach() - learner.inner_lr).abs()
        assert moved.tolist() == pytest.approx([unit * learner.meta_lr] * STEPS, rel=0.01)  # as Adam's first moves are


def test_rates_thirty_times_as_large_end_a_fit_on_the_sinusoid() -> None:
    """With the unit 1 a tensor's rate was twenty times as large after 200 meta-steps."""
    learner = registry.build_method("maml-plus-plus", tasks := registry.build_task("sinusoid/k10"), plan=Plan(25))
    state = next(learner.fit(tasks, 0)).copy()
    planted = {name: value * (30 if "rule." in name else 1) for name, value in state.parameters.items()}
    with pytest.raises(Diverged, match=r"training loss is (inf|nan) at meta-step 1"):
        next(learner.fit(tasks, 0, State(planted)))


def test_in_first_order_the_slope_of_a_rate_sees_no_later_step(given: Any) -> None:
    """It is minus the product of two gradients: of its own step, and of the queries at the end."""
    tasks = given.waves()
    learner = plus_plus(given, tasks, learned_rates=True, first_order=1.0, anneal_over=10, plan=Plan(3))
    parameters = initial(given, learner, tasks)
    moments = next(learner.fit(tasks, 0, State(parameters))).moments
    objective = learner._objective(tasks, learner.inner_lr, learner.plan, second_order=False)
    support, query = tasks.data.support, tasks.data.query

    def gradient(theta: Parameters, last: bool) -> Parameters:
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items() if "rule." not in name}
        loss = objective.at(leaves, support, query) if last else supervised_loss(objective.predictor(leaves), support)
        return dict(zip(leaves, torch.autograd.grad(loss.sum(), list(leaves.values())), strict=True))

    *before, end = islice(objective.steps(parameters, support), STEPS + 1)
    at_the_end = gradient(end, last=True)
    for number, theta in enumerate(before):
        for name, value in gradient(theta, last=False).items():
            found = moments[f"rule.rate.{name}/exp_avg"][number] / (1 - 0.9)
            torch.testing.assert_close(found, -(value * at_the_end[name]).sum())


@pytest.mark.parametrize("kind", ["waves", "images"])
@pytest.mark.parametrize("plan", [Plan(3), Plan(3, checkpointed=True), Plan(1)], ids=str)
def test_the_meta_gradient_of_rates_and_rows_is_the_slope(given: Any, kind: str, plan: Plan) -> None:
    tasks = getattr(given, kind)()
    fields = {"learned_rates": True, "per_step_norm": True, "multi_step_loss": 0.5, "anneal_over": 10, "plan": plan}
    learner = plus_plus(given, tasks, **fields)
    parameters = initial(given, learner, tasks)
    moments = next(learner.fit(tasks, 0, State(parameters))).moments
    gradient = {name: moments[f"{name}/exp_avg"] / (1 - 0.9) for name in parameters}
    learned = [name for name in parameters if name.startswith("rule.")]
    assert all(
        (gradient[name] != 0).flatten(1 if "norm" in name else 0).any(-1).all()
        for name in learned
        if not name.endswith("bias")
    )
    length = sum(float(gradient[name].square().sum()) for name in learned) ** 0.5

    def loss(sign: int) -> float:
        moved = {name: parameters[name] + sign * 1e-6 * gradient[name] / length for name in learned}
        found = next(learner.fit(tasks, 0, State(parameters | moved))).loss
        assert found is not None
        return found

    assert (loss(1) - loss(-1)) / 2e-6 == pytest.approx(length, rel=1e-5)


def normalised(given: Any) -> tuple[MAMLPlusPlus, Any, State]:
    """A learner with batch-norm for each step, and its state after two meta-steps."""
    tasks = given.images(backbone="tiny-mlp-normalised", size=4)
    learner = plus_plus(given, tasks, per_step_norm=True)
    *_, state = islice(learner.fit(tasks, 0, State(initial(given, learner, tasks))), 2)
    return learner, tasks, state.copy()


def test_each_step_has_its_own_scale_and_shift_from_then_on(given: Any) -> None:
    learner, tasks, state = normalised(given)
    before = outputs(learner, state, tasks)
    for row in range(STEPS):
        changed = state.copy()
        changed.parameters["rule.norm.layer1.scale"][row] += 0.5
        after = outputs(learner, changed, tasks)
        assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [n <= row for n in range(STEPS + 1)]


def test_each_step_is_tested_with_the_statistics_of_its_own_row(given: Any) -> None:
    """The released code stores statistics for each step and never uses them."""
    learner, tasks, state = normalised(given)
    predictor = next(learner.adapt(state, tasks.data.support, tasks))
    assert regimes_of(predictor) == ("running", "query", "support", "single")
    for name, rows in state.buffers.items():
        assert len({tuple(row.tolist()) for row in rows}) == STEPS + 1, f"{name}: rows differ"
    before = {regime: outputs(learner, state, tasks, regime) for regime in ("running", "query")}
    for row in range(STEPS + 1):
        changed = state.copy()
        changed.buffers["layer0.mean"][row] += 0.5
        used = [
            torch.equal(*pair)
            for pair in zip(before["running"], outputs(learner, changed, tasks, "running"), strict=True)
        ]
        assert used == [n != row for n in range(STEPS + 1)]
        assert all(map(torch.equal, before["query"], outputs(learner, changed, tasks, "query")))


def test_a_row_follows_the_queries_of_training_after_its_steps(given: Any) -> None:
    learner, tasks, _ = normalised(given)
    state = next(learner.fit(tasks, 0, State(initial(given, learner, tasks)))).copy()
    network, first, query = network_for(tasks), tasks.data.support[:1], tasks.data.query.x[:1]
    for row, predictor in enumerate(learner.adapt(state, first, tasks)):
        theta: Any = predictor.parameters  # type: ignore[attr-defined]
        running = {name: value.double() for name, value in network.running_statistics().items()}
        network.features(theta, query, Statistics(running=running, update=True))
        entering = query.flatten(2) @ theta["layer0.weight"][0].T + theta["layer0.bias"][0]
        torch.testing.assert_close(running["layer0.mean"], MOMENTUM * entering.mean((0, 1)))
        for name, value in running.items():
            torch.testing.assert_close(state.buffers[name][row].double(), value, rtol=1e-5, atol=1e-6)


def test_training_resumes_bit_for_bit_with_its_statistics(given: Any) -> None:
    tasks = given.images()
    learner = plus_plus(given, tasks, **dict.fromkeys(("per_step_norm", "learned_rates"), True), last_lr=1e-5)
    learner = learner.replace(multi_step_loss=0.5, first_order=0.5).for_budget(4)
    states = [state.copy() for state in islice(learner.fit(tasks, 0, State(initial(given, learner, tasks))), 4)]
    again = next(islice(learner.fit(tasks, 0, states[1]), 1, None))
    for part in ("parameters", "buffers", "moments"):
        expected = getattr(states[3], part)
        assert all(torch.equal(getattr(again, part)[name], value) for name, value in expected.items())
    assert states[3].buffers


# --- refusals and settings ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"test_lr": 0.1}, "test_lr = 0.1: the rates are learned"),
        ({"adapt_normalisation": True}, "adapt_normalisation and per_step_norm exclude each other"),
        ({"adapted_layers": 1}, "adapted_layers = 1 embeds the support set once"),
        ({"test_steps": (6,)}, "test_steps = (6,): adaptation ends after step 5, as in training"),
        ({"adapted_layers": 7}, "adapted_layers = 7: conv4-64-strided has 5 layers"),
    ],
)
def test_fields_that_exclude_each_other_are_refused_in_one_line(fields: dict, said: str) -> None:
    tasks = registry.build_task("glyphs/5w1s")
    learner = registry.build_method("maml-plus-plus", tasks, **fields)
    assert (registry.mismatch(learner, "maml-plus-plus", tasks) or "").startswith(said)
    assert registry.mismatch(learner.replace(**OFF, adapted_layers=0), "maml-plus-plus", tasks) is None


def test_nothing_is_compiled_on_a_cpu_while_weights_change() -> None:
    tasks = registry.build_task("sinusoid/k10")
    learner = registry.build_method("maml-plus-plus", tasks)
    planned, facts = learner.planned(tasks, 70_000)
    assert planned.plan.mode == "eager"  # type: ignore[attr-defined]
    assert facts["forced"] is None
    assert "weights" in facts["why"]


@pytest.mark.parametrize("backbone", ["mlp-256-128-64-64", "conv4-48"])
def test_it_trains_in_single_precision_and_answers_under_every_regime(backbone: str) -> None:
    tasks = registry.build_task("glyphs/5w1s")
    learner = registry.build_method("maml-plus-plus", tasks, backbone=backbone, meta_batch=1, inner_steps=2).for_budget(
        2
    )
    state = next(learner.fit(tasks, 0))
    cut = tasks.episodes("test", range(2), queries=1)
    for predictor in learner.adapt(state, cut.support, tasks):
        for regime in regimes_of(predictor):
            assert in_regime(predictor, regime)(cut.query.x)[0].isfinite().all()
