"""MAML on control tasks: its meta-step against double backward, and what a fit and an adaptation promise."""

import dataclasses
import itertools
import math

import pytest
import torch
from control_steps_by_hand import SMALL, Doubled, learner_of, navigation, states
from torch.autograd.functional import hessian

from benchmarks import registry
from benchmarks.api import Diverged, MetabenchError, State
from maml.control import trust_region
from maml.control.meta_objective import flat
from maml.control.policies import Acting
from maml.control.policy_gradient import experience_of, surrogate_loss
from maml.control.trust_region import trust_region_step
from maml.inner_loop import per_task


@pytest.mark.parametrize(
    ("name", "inner_steps", "surrogate"),
    [
        ("maml", 2, "likelihood-ratio"),
        ("maml", 1, "dice"),
        ("context-vector", 2, "log-likelihood"),
    ],
)
def test_the_meta_step_is_that_of_double_backward(name, inner_steps, surrogate):
    # So few products that rounding does not take the conjugate directions apart.
    few = {"cg_iterations": 5, "damping": 1e-3}
    problem = Doubled(name, inner_steps=inner_steps, surrogate=surrogate, **few)
    here = problem.objective.linearise(problem.theta)
    exact = problem.gradient(problem.loss)
    assert here.loss == pytest.approx(float(problem.loss(problem.theta).detach()), abs=1e-12)
    assert float((here.gradient - exact).abs().max() / exact.abs().max()) < 1e-9
    near = [problem.loss(problem.theta + 1e-6 * sign * exact / exact.norm()) for sign in (1, -1)]
    assert float((near[0] - near[1]).detach() / 2e-6) == pytest.approx(float(exact.norm()), rel=1e-5)
    information = hessian(problem.divergence, problem.theta)
    product = here.product()
    found = torch.stack([product(row) for row in torch.eye(len(exact), dtype=torch.float64)])
    assert float((found - information).abs().max() / information.abs().max()) < 1e-8

    def evaluate(theta):
        return float(problem.loss(theta).detach()), float(problem.divergence(theta).detach())

    given = problem.theta, here.loss
    by_hand = trust_region_step(
        *given, exact, lambda vector: information @ vector, evaluate, iterations=5, damping=1e-3
    )
    step = trust_region_step(*given, here.gradient, product, problem.objective.evaluate, iterations=5, damping=1e-3)
    assert by_hand.accepted
    assert step.accepted
    length = (by_hand.parameters - problem.theta).norm()
    assert float((step.parameters - by_hand.parameters).norm() / length) < 1e-8
    assert torch.equal(problem.learner.improved(problem.objective, problem.theta), step.parameters)


def test_of_a_context_vector_policy_the_context_alone_takes_steps():
    tasks, learner = navigation(), learner_of("context-vector", context=3)
    state = states(learner, tasks, 1)[0]
    first, second = itertools.islice(learner.adapt(state, tasks.episodes("test", range(3)).support, tasks), 2)
    moved = {n for n, value in first.parameters.items() if not torch.equal(value, second.parameters[n])}
    assert moved == {"context"}
    assert second.parameters["context"].shape == (3, 3)
    assert not torch.equal(second.parameters["context"][0], second.parameters["context"][1])


def test_first_order_leaves_all_jacobians_out():
    problem = Doubled(second_order=False)
    here = problem.objective.linearise(problem.theta)
    assert [taken.graphs for taken in here.steps] == [[]]
    leaves = {n: v.detach().requires_grad_() for n, v in problem.adapted(problem.theta)[-1].items()}
    predictor, actions = Acting(problem.policy, leaves), problem.policy.actions
    loss = surrogate_loss(predictor, problem.part.outer, actions, "likelihood-ratio")
    found = torch.autograd.grad(loss.mean(), list(leaves.values()))
    assert torch.allclose(here.gradient, flat(dict(zip(leaves, found, strict=True))), rtol=1e-10, atol=1e-13)
    assert not torch.allclose(here.gradient, problem.gradient(problem.loss), rtol=1e-3)


def test_first_order_takes_no_product_with_a_hessian(monkeypatch):
    plain, products = trust_region._pulled_back, []

    def counted(*arguments):
        products.append(1)
        return plain(*arguments)

    monkeypatch.setattr(trust_region, "_pulled_back", counted)
    states(learner_of("fomaml"), navigation(), 1)
    assert not products
    states(learner_of("maml"), navigation(), 1)
    assert len(products) == 1 + 2 * (learner_of().cg_iterations + 1)


@pytest.mark.parametrize("extras", [{}, {"outer": "ppo", "inner_penalty": 0.5}, {"exploration": 1.0}])
def test_where_nothing_has_moved_the_divergence_and_its_gradient_are_zero(extras):
    problem = Doubled(**extras)
    loss, divergence = problem.objective.evaluate(problem.theta)
    assert abs(divergence) < 1e-15
    assert float(problem.gradient(problem.divergence).abs().max()) < 1e-14
    assert loss == pytest.approx(problem.objective.linearise(problem.theta).loss, abs=1e-13)


@pytest.mark.parametrize("name", ["maml", "fomaml", "pretrained"])
@pytest.mark.parametrize("every", [1, 3])
def test_an_accepted_step_keeps_its_promise_on_the_same_data(name, every):
    tasks = navigation()
    own = {"curvature_every": every} | ({"inner_lr": 0.3} if name != "pretrained" else {})
    learner = registry.build_method(name, tasks, **{k: v for k, v in {**SMALL, **own}.items() if hasattr_(name, k)})
    policy, before = learner.policy(tasks), learner.policy(tasks).initialise(0)
    after = states(learner, tasks, 1)[0].parameters
    objective = learner.objective(policy, before, learner.play(policy, before, tasks, 0, 0))
    old, new = (objective.evaluate(flat(per_task(theta, 1))) for theta in (before, after))
    assert new[0] < old[0] - 1e-3
    assert abs(old[1]) < 1e-6
    assert 0.002 < new[1] <= learner.max_divergence


def hasattr_(name, field):
    return field in registry.method_entry(name, "control").known_fields


def test_steps_at_test_have_the_rates_alpha_and_half_of_it_on_fresh_data():
    tasks, learner = navigation(tolerance=0.2), learner_of(inner_steps=2)
    state = states(learner, tasks, 1)[0]
    policy = learner.policy(tasks)
    support = tasks.episodes("test", range(3)).support
    fresh = tasks.episodes("test", range(3)).support
    theta, seen = per_task(state.parameters, 3), []
    for number, predictor in zip(range(4), learner.adapt(state, support, tasks), strict=False):
        assert all(torch.equal(predictor.parameters[name], theta[name]) for name in theta)
        assert support.environment_steps == sum(trajectories.environment_steps for trajectories in seen)
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        seen.append(fresh.batch(Acting(policy, leaves), number))
        experience = experience_of(seen[-1], 0.99)
        loss = surrogate_loss(Acting(policy, leaves), experience, tasks.actions, "log-likelihood").sum()
        found = torch.autograd.grad(loss, list(leaves.values()))
        rate = 0.3 if number == 0 else 0.15
        theta = {n: (v - rate * g).detach() for (n, v), g in zip(leaves.items(), found, strict=True)}
    assert len({float(trajectories.rewards.sum()) for trajectories in seen}) == 4


def test_a_random_policy_is_another_one_in_each_task_and_the_same_again():
    tasks, learner = navigation(), registry.build_method("random", navigation(), hidden=(5,))
    weights = next(learner.adapt(State(), tasks.episodes("test", (4, 7)).support, tasks)).parameters["layer0.weight"]
    again = next(learner.adapt(State(), tasks.episodes("test", (7, 4)).support, tasks)).parameters["layer0.weight"]
    assert torch.equal(weights, again.flip(0))
    assert not torch.equal(weights[0], weights[1])


def test_an_oracle_is_told_the_task_and_does_what_it_is_told():
    tasks = navigation(horizon=20)
    oracle = registry.build_method("oracle", tasks, hidden=(16,), meta_batch=20, trajectories=4)
    state = states(oracle, tasks, 25)[-1]
    episodes = tasks.episodes("test", range(20))
    (predictor,) = oracle.adapt(state, episodes.support, tasks)
    wrong = dataclasses.replace(predictor, told=-predictor.told)
    informed, misled = (float(tasks.score(policy, episodes.query).mean()) for policy in (predictor, wrong))
    assert informed > misled + 2.0


@pytest.mark.parametrize("name", ["maml", "fomaml", "pretrained", "oracle"])
def test_all_learners_see_as_many_environment_steps_in_an_iteration(name):
    tasks = navigation(tolerance=0.0)
    own = {key: value for key, value in SMALL.items() if hasattr_(name, key)}
    learner = registry.build_method(name, tasks, **own)
    counts = [state.environment_steps for state in states(learner, tasks, 2)]
    assert counts == [3 * 2 * 4 * 8, 2 * 3 * 2 * 4 * 8]


@pytest.mark.parametrize("extras", [{"outer": "ppo", "epochs": 3}, {"inner_steps": 2, "exploration": 0.1}])
def test_a_fit_goes_on_bit_for_bit(extras):
    tasks, learner = navigation(), learner_of(**extras)
    whole = states(learner, tasks, 4)
    rest = states(learner, tasks, 2, start=whole[1])
    for found, expected in zip(rest, whole[2:], strict=True):
        for count in ("step", "environment_steps", "loss"):
            assert getattr(found, count) == getattr(expected, count)
        for kind in ("parameters", "moments"):
            pairs = getattr(found, kind), getattr(expected, kind)
            assert pairs[0].keys() == pairs[1].keys()
            assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    assert whole[3].step == 4


def test_the_order_and_the_passes_of_tasks_change_no_meta_step():
    problem = Doubled(seed=1)
    turned = dataclasses.replace(problem.objective, parts=[problem.part[slice(n, n + 1)] for n in (2, 0, 1)])
    here, there = problem.objective.linearise(problem.theta), turned.linearise(problem.theta)
    assert torch.allclose(here.gradient, there.gradient, rtol=1e-12, atol=1e-15)
    assert torch.allclose(here.product()(here.gradient), there.product()(here.gradient), rtol=1e-12, atol=1e-15)


def test_a_simulation_that_becomes_unstable_is_divergence():
    tasks, learner = navigation(), learner_of()
    state = states(learner, tasks, 1)[0]
    broken = {name: value * math.nan for name, value in state.parameters.items()}
    with pytest.raises(Diverged, match="not finite"):
        next(learner.fit(tasks, 0, start=dataclasses.replace(state, parameters=broken)))


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("inner_lr", -0.1, "maml: inner_lr = -0.1 is not above 0"),
        ("inner_lr", math.nan, "inner_lr = nan is not finite"),
        ("test_steps", (), r"test_steps = \(\) is empty"),
        ("test_steps", (-1,), r"test_steps = \(-1,\) is not at least 0"),
        ("hidden", (32, 0), r"hidden = \(32, 0\) is not at least 1"),
        ("trace", 1.5, "trace = 1.5 is not between 0 and 1"),
        ("surrogate", "reinforce", "known: log-likelihood, likelihood-ratio, dice"),
    ],
)
def test_a_bad_setting_is_one_line(field, value, complaint):
    with pytest.raises(MetabenchError, match=complaint) as refused:
        learner_of(**{field: value})
    assert "\n" not in str(refused.value)
