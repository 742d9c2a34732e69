"""VariBAD: beliefs are read as they were played, learn from the bound alone, and know nothing of what is ahead."""

import dataclasses
from itertools import islice

import pytest
import torch

from baselines.shared import gru
from baselines.varibad import belief, divergences
from benchmarks import registry
from benchmarks.api import State
from benchmarks.environments import ControlTasks, Gaussian

SMALL = {"meta_batch": 6, "hidden": 5, "latent": 2, "decoder": 4}
#: goals so near that most episodes end before their horizon
EARLY = {"goal_range": 0.05, "tolerance": 0.03, "horizon": 4}


def started(name="navigation-2d/quick", **fields):
    """The learner, its tasks, and parameters that make beliefs differ."""
    tasks = registry.build_task(name, **(EARLY if "navigation" in name else {}))
    method = registry.build_method("varibad", tasks, **{**SMALL, **fields})
    state = method.initial(tasks, 1)
    moved = {n: v + 0.3 * torch.sin(torch.arange(v.numel())).view_as(v) for n, v in state.parameters.items()}
    return method, tasks, moved, state.buffers


def in_double(name="navigation-2d/quick", **fields):
    method, tasks, parameters, buffers = started(name, **fields)
    trials = method.play(tasks, parameters, buffers, 0, 0)
    parts = {n: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for n, v in vars(trials).items()}
    leaves = {n: v.double().requires_grad_() for n, v in parameters.items()}
    return method, tasks, leaves, dataclasses.replace(trials, **parts)


@pytest.mark.parametrize("name", ["navigation-2d/quick", "bandit/k5n10"])
def test_a_replayed_trial_has_the_beliefs_and_probabilities_of_the_roll_out(name):
    method, tasks, parameters, buffers = started(name)
    trials = method.play(tasks, parameters, buffers, 0, 0)
    known, _, inputs = trials.inputs.tensor_split((4, 6), -1)
    policy, state = method.policy(tasks, parameters), torch.zeros(1, 1, method.hidden)
    for trial in range(len(inputs)):
        state = None
        for step in range(int(trials.live[trial].sum())):
            output, state = policy(inputs[trial, step].view(1, 1, -1), state)
            torch.testing.assert_close(belief(parameters, state)[0, 0], known[trial, step], atol=1e-5, rtol=0)
            likelihood = tasks.actions.log_probability(
                output, trials.actions[trial, step].view(1, 1, *trials.actions.shape[2:])
            )
            torch.testing.assert_close(likelihood[0, 0], trials.log_probabilities[trial, step], atol=1e-5, rtol=0)
    assert bool(trials.live.all()) == (name == "bandit/k5n10")
    told = gru.distribution(parameters, policy.informed(inputs, known))
    torch.testing.assert_close(told[trials.live], gru.distribution(parameters, policy.read(inputs))[trials.live])


def test_a_belief_knows_the_past_only():
    method, tasks, parameters, buffers = started("bandit/k5n10")
    inputs = method.play(tasks, parameters, buffers, 0, 0).inputs[..., 6:]
    before = belief(parameters, gru.read(parameters, inputs))
    inputs = inputs.clone()
    inputs[1, 4, -2] += 1.0
    changed = (before != belief(parameters, gru.read(parameters, inputs))).any(-1)
    assert changed[1].tolist() == [False] * 4 + [True] * 6
    assert not bool(changed[[0, 2, 3, 4, 5]].any())


def test_divergences_are_torchs_and_none_where_nothing_was_learned():
    beliefs = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = divergences(beliefs)
    mean, deviation = beliefs[..., :3], beliefs[..., 3:].exp()
    for step in range(4):
        last = (mean[:, step - 1], deviation[:, step - 1]) if step else (torch.zeros(3, 3), torch.ones(3, 3))
        pair = [torch.distributions.Normal(*each) for each in ((mean[:, step], deviation[:, step]), last)]
        torch.testing.assert_close(found[:, step], torch.distributions.kl_divergence(*pair).sum(-1))
    same = divergences(beliefs[:, :1].expand(-1, 4, -1))
    assert torch.equal(same[:, 1:], torch.zeros(3, 3, dtype=torch.float64))
    assert torch.equal(divergences(torch.zeros(2, 5, 6)), torch.zeros(2, 5))


@pytest.mark.parametrize("name", ["navigation-2d/quick", "bandit/k5n10"])
def test_the_policys_loss_moves_no_belief_and_the_bound_no_policy(name):
    method, tasks, leaves, trials = in_double(name)
    own = ("policy", "value")
    for weight, moving in ((0.0, True), (1.0, False)):
        only = dataclasses.replace(method, bound_weight=weight)
        loss = only.loss(leaves, trials, tasks, 0.01)
        if weight:
            loss = loss - dataclasses.replace(method, bound_weight=0.0).loss(leaves, trials, tasks, 0.01)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        for key, gradient in zip(leaves, found, strict=True):
            assert bool(gradient.abs().max() > 1e-9) == (key.startswith(own) == moving), key


def test_the_gradient_of_the_bound_is_that_of_finite_differences():
    method, tasks, leaves, trials = in_double(kl_weight=0.7)
    found = torch.autograd.grad(method.loss(leaves, trials, tasks, 0.01), list(leaves.values()))
    with torch.no_grad():
        for (name, value), gradient in zip(leaves.items(), found, strict=True):
            direction = torch.sin(torch.arange(value.numel()).double() + 1).view_as(value)
            losses = [
                float(method.loss({**leaves, name: value + sign * 1e-6 * direction}, trials, tasks, 0.01))
                for sign in (1, -1)
            ]
            assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), abs=1e-7), name


def test_the_bound_is_written_out_and_counts_what_took_place():
    """Every belief tells every reward of its trial, also those ahead."""
    method, tasks, leaves, trials = in_double(kl_weight=0.3)
    _, noise, inputs = trials.inputs.tensor_split((4, 6), -1)
    assert not bool(trials.live.all())
    with torch.no_grad():
        found = float(method.bound(leaves, trials, inputs, noise, tasks))
        beliefs, total, count = belief(leaves, gru.read(leaves, inputs)), 0.0, 0
        for trial in range(len(inputs)):
            steps, before = int(trials.live[trial].sum()), torch.zeros(1, 4, dtype=torch.float64)
            for step in range(steps):
                here = beliefs[trial, step : step + 1]
                latent = here[:, :2] + here[:, 2:].exp() * noise[trial, step]
                total -= 0.3 * float(Gaussian(2).divergence(here, before))
                before, count = here, count + 1
                for other in range(steps):
                    played = torch.cat((inputs[trial, other, :2], trials.actions[trial, other]))
                    told = method.told(leaves, latent.view(1, 1, 2), played.view(1, 1, 4))
                    total -= 0.5 * float(told - trials.rewards[trial, other]) ** 2
    assert found == pytest.approx(total / count / trials.live.shape[1], rel=1e-10)


def test_beliefs_learn_to_tell_the_rewards():
    method, tasks, parameters, buffers = started("bandit/k5n10", meta_batch=40)
    trials = method.play(tasks, parameters, buffers, 0, 0)
    _, noise, inputs = trials.inputs.tensor_split((4, 6), -1)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    bounds = []
    for _ in range(25):
        bounds.append(method.bound(leaves, trials, inputs, noise, tasks))
        found = torch.autograd.grad(bounds[-1], list(leaves.values()), allow_unused=True, materialize_grads=True)
        leaves = {n: (v + 0.3 * g).detach().requires_grad_() for (n, v), g in zip(leaves.items(), found, strict=True)}
    assert bounds[-1] > 0.7 * bounds[0]
    assert bounds[-1] < 0


def test_training_goes_on_bit_for_bit_and_a_belief_is_shown():
    method, tasks, _, _ = started("navigation-2d/quick", minibatches=2, epochs=1)
    states = [state.copy() for state in islice(method.fit(tasks, 0), 3)]
    (again,) = (state.copy() for state in islice(method.fit(tasks, 0, start=states[1]), 1))
    assert all(torch.equal(value, again.parameters[name]) for name, value in states[2].parameters.items())
    episodes = tasks.episodes("test", range(3))
    first, second = islice(method.adapt(State(parameters=states[2].parameters), episodes.support, tasks), 2)
    assert first.embedding is None
    assert second.embedding.shape == (3, 2)
    shown = ControlTasks.exhibit(tasks, {0: first, 1: second}, episodes)
    assert shown["embedding"].shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("task", "fields", "said"),
    [
        ("bandit", {"outer": "trpo"}, 'outer = "trpo": beliefs are trained'),
        ("bandit", {"latent": 0}, "latent = 0 is not at least 1"),
        ("bandit", {"kl_weight": -1.0}, r"kl_weight = -1\.0 is not at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(task, fields, said):
    with pytest.raises(registry.MetabenchError, match=said):
        registry.build_method("varibad", registry.build_task(task), **fields)


def test_mazes_are_refused():
    assert "observations of visual-maze are images" in str(registry.incompatible("varibad", "visual-maze"))
