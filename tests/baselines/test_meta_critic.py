"""Meta-critic networks: what the critic is told, what trains it, and the actors that it teaches."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from baselines.meta_critic import Judging, MetaValues
from baselines.shared.actors import Adam, Coached
from benchmarks import registry
from benchmarks.api import MetabenchError, State
from benchmarks.environments import Categorical, Trajectories
from maml.control.policies import Acting
from maml.control.policy_gradient import returns_to_go
from maml.inner_loop import detached

SMALL = {"hidden": (5,), "values": (6,), "encoder": 4, "meta_batch": 3, "lifetime": 2, "test_steps": (2,)}


def poles(**fields):
    return registry.build_task("cartpole/quick", **{"horizon": 15, "shot": 2, "queries": 2, **fields})


def learner(**fields):
    return registry.build_method("meta-critic", poles(), **{**SMALL, **fields})


def states(method, tasks, count, start=None):
    return [state.copy() for state in itertools.islice(method.fit(tasks, 0, start), count)]


def critic(window=3):
    return MetaValues(2, Categorical(2), (6,), 4, 3, window)


def trials(lengths, steps=6, seed=0):
    """Trajectories of one task with these numbers of live steps, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    shape = 1, len(lengths), steps
    live = torch.arange(steps).expand(shape) < torch.tensor(lengths).view(1, -1, 1)
    inputs = torch.randn(*shape, 2, generator=generator, dtype=torch.float64)
    rewards = torch.randn(shape, generator=generator, dtype=torch.float64).masked_fill(~live, 0.0)
    actions = torch.randint(2, shape, generator=generator)
    ended = (torch.arange(steps).expand(shape) + 1) >= torch.tensor(lengths).view(1, -1, 1)
    chances = torch.zeros(shape, dtype=torch.float64)
    return Trajectories(inputs, actions, rewards, live, ended, torch.zeros_like(live), inputs, chances, None, 2)


def doubled(parameters):
    return {name: value.double() for name, value in parameters.items()}


def test_the_window_holds_the_last_transitions_and_zeros_before_the_first():
    seen = trials([6, 2])
    found = critic().last(seen)
    assert found.shape == (1, 2, 3, 5)
    assert bool((found[0, 1, 0] == 0).all())
    for trial, first in ((0, 3), (1, 0)):
        for row, step in zip(
            found[0, trial][-min(3, 6 - first - 4 * trial) :], range(first, 6 - 4 * trial), strict=True
        ):
            assert torch.equal(row[:2], seen.inputs[0, trial, step])
            assert int(row[2:4].argmax()) == int(seen.actions[0, trial, step])
            assert float(row[4]) == float(seen.rewards[0, trial, step])


def test_the_embedding_does_not_know_the_order_of_trajectories_nor_what_is_not_live():
    network, seen = critic(), trials([6, 2, 4])
    parameters = doubled(network.initialise(0))
    order = torch.tensor([2, 0, 1])
    turned = dataclasses.replace(
        seen, **{name: getattr(seen, name)[:, order] for name in ("inputs", "actions", "rewards", "live")}
    )
    poisoned = dataclasses.replace(seen, inputs=seen.inputs.masked_fill(~seen.live.unsqueeze(-1), 9.0))
    here = network.embed(parameters, network.last(seen))
    assert torch.allclose(network.embed(parameters, network.last(turned)), here, rtol=0, atol=1e-14)
    assert torch.equal(network.embed(parameters, network.last(poisoned)), here)


def test_encoder_and_values_get_the_gradient_of_finite_differences():
    """The released code makes an optimiser for the encoder and never steps it."""
    network, before, seen = critic(), trials([6, 2], seed=1), trials([5, 6])
    start, returns = doubled(network.initialise(0)), returns_to_go(trials([5, 6]), 0.9)
    # away from kinks of ReLU, and with an encoder that matters
    start = {name: value * 1.5 + 0.01 for name, value in start.items()}

    def error(parameters):
        judge = Judging(network, parameters, network.last(before))
        judge(seen, returns)
        return judge.error.sum()

    leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
    found = dict(zip(leaves, torch.autograd.grad(error(leaves), list(leaves.values())), strict=True))
    assert all(bool((found[name] != 0).any()) for name in found if name != "encoder.recurrent")
    for name, gradient in found.items():
        way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2)).double()
        near = [float(error(start | {name: start[name] + size * way})) for size in (1e-6, -1e-6)]
        assert (near[0] - near[1]) / 2e-6 == pytest.approx(float((gradient * way).sum()), rel=1e-6, abs=1e-8)


def test_a_fit_steps_the_encoder_from_the_second_update_on():
    tasks, method = poles(), learner()
    first, second, *_ = states(method, tasks, 3)
    changed = {name for name, value in first.parameters.items() if not torch.equal(value, second.parameters[name])}
    assert changed == set(first.parameters)


def test_a_fit_goes_on_bit_for_bit_and_renews_actors_after_a_lifetime():
    tasks, method = poles(), learner()
    whole = states(method, tasks, 4)
    for first in (1, 2):
        for found, expected in zip(states(method, tasks, 4 - first, whole[first - 1]), whole[first:], strict=True):
            assert (found.step, found.loss, found.environment_steps) == (
                expected.step,
                expected.loss,
                expected.environment_steps,
            )
            for kind in ("parameters", "buffers", "moments"):
                pairs = getattr(found, kind), getattr(expected, kind)
                assert pairs[0].keys() == pairs[1].keys()
                assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    biases = [state.buffers["actor.layer0.bias"].abs().max() for state in whole]
    # a step of Adam is at most its rate, and biases begin at 0
    assert float(biases[0]) <= 0.0101 < float(biases[1])
    assert float(biases[2]) <= 0.0101


def test_a_critic_stays_as_it_is_in_a_new_task_and_tells_what_it_makes_of_it():
    tasks, method = poles(), learner()
    state = states(method, tasks, 2)[-1]
    kept = state.copy()
    predictors = list(itertools.islice(method.adapt(state, tasks.episodes("test", range(4)).support, tasks), 3))
    assert all(torch.equal(value, kept.parameters[name]) for name, value in state.parameters.items())
    assert [predictor.embedding.shape for predictor in predictors] == [(4, 3)] * 3
    assert torch.equal(predictors[0].embedding[0], predictors[0].embedding[1])
    assert not torch.equal(predictors[2].embedding[0], predictors[2].embedding[1])
    shown = tasks.exhibit({0: predictors[0], 2: predictors[2]}, tasks.episodes("test", range(4)))
    assert shown["embedding"].shape == (2, 4, 3)
    assert shown["names"].tolist() == ["half length", "pole mass", "cart mass", "force"]
    assert np.array_equal(shown["parameters"], tasks.episodes("test", range(4)).query.parameters.numpy())
    assert tasks.exhibit({0: Acting(predictors[0].policy, predictors[0].parameters)}, None) == {}


def test_the_advantage_is_the_return_less_the_value_and_a_fall_costs_what_it_says():
    seen = trials([6, 2])

    class Source:
        def batch(self, predictor, step):
            return seen

    plain, paid = (Coached(Source(), lambda s, r: torch.ones_like(r), 0.9, fall).batch(None, 0) for fall in (0, 11.0))
    assert torch.equal(plain.trajectories.rewards, seen.rewards)
    difference = paid.trajectories.rewards - seen.rewards
    assert difference.nonzero().tolist() == [[0, 0, 5], [0, 1, 1]]
    assert set(difference[difference != 0].tolist()) == {-11.0}
    expected = (returns_to_go(paid.trajectories, 0.9) - 1).masked_fill(~seen.live, 0.0)
    assert torch.equal(paid.advantages, expected)
    assert torch.equal(paid.scale, torch.ones(1).double())


def test_the_rule_is_torchs_adam_with_the_gradient_of_each_task_clipped():
    generator = torch.Generator().manual_seed(0)
    start = {"a": torch.randn(2, 3, generator=generator).double(), "b": torch.randn(2, generator=generator).double()}
    gradients = [{n: torch.randn(v.shape, generator=generator).double() for n, v in start.items()} for _ in range(4)]
    rule, values = Adam(0.01, clip_norm=0.5), dict(start)
    memory = rule.start(values)
    for number, gradient in enumerate(gradients):
        values, memory = rule.step(memory, values, gradient, torch.zeros(2), number)
    for task in range(2):
        leaves = [torch.nn.Parameter(value[task].clone()) for value in start.values()]
        adam = torch.optim.Adam(leaves, lr=0.01)
        for gradient in gradients:
            for leaf, name in zip(leaves, start, strict=True):
                leaf.grad = gradient[name][task].clone()
            torch.nn.utils.clip_grad_norm_(leaves, 0.5)
            adam.step()
        for leaf, name in zip(leaves, start, strict=True):
            assert torch.allclose(values[name][task], leaf.detach(), rtol=1e-10, atol=1e-12)


def test_from_scratch_every_task_has_a_critic_of_its_own_and_learns_alone():
    tasks = poles()
    method = registry.build_method("actor-critic", tasks, hidden=(5,), values=(6,), test_steps=(2,))
    together = list(itertools.islice(method.adapt(State(), tasks.episodes("test", (3, 8)).support, tasks), 3))
    alone = list(itertools.islice(method.adapt(State(), tasks.episodes("test", (8,)).support, tasks), 3))
    for one, other in zip(together, alone, strict=True):
        assert all(torch.allclose(one.parameters[n][1:], v, atol=1e-6) for n, v in other.parameters.items())
    weights = together[0].parameters["layer0.weight"]
    assert not torch.equal(weights[0], weights[1])
    assert all(not value.requires_grad for value in detached(together[2].parameters).values())


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("meta-critic", {"lifetime": 0}, "lifetime = 0 is not at least 1"),
        ("meta-critic", {"window": 0}, "window = 0 is not at least 1"),
        ("meta-critic", {"embedding": -1}, "embedding = -1 is not at least 1"),
        ("meta-critic", {"test_lr": -0.1}, r"test_lr = -0\.1 is not at least 0"),
        ("meta-critic", {"fall": -1.0}, r"fall = -1\.0 is not at least 0"),
        ("actor-critic", {"actor_lr": 0.0}, r"actor_lr = 0\.0 is not above 0"),
        ("actor-critic", {"test_steps": ()}, r"test_steps = \(\) is empty"),
        ("actor-critic", {"values": (0,)}, r"values = \(0,\) is not at least 1"),
    ],
)
def test_a_bad_setting_is_one_line(name, fields, said):
    with pytest.raises(MetabenchError, match=said) as refused:
        registry.build_method(name, poles(), **fields)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["meta-critic", "actor-critic"])
def test_they_are_for_control(name):
    assert f"{name} is for control, sinusoid is regression" in str(registry.incompatible(name, "sinusoid/k10"))
    assert registry.build_method(name, poles()).fall == 11.0
    assert registry.build_method(name, registry.build_task("navigation-2d")).fall == 0.0
