"""RL^2: the state of a trial begins anew, is carried through it, and replays to the same probabilities."""

import dataclasses
from itertools import islice

import pytest
import torch

from baselines.beta_bernoulli import bayes_optimum
from baselines.rl2 import RL2, Recurrent, generalised_advantages, initialise, replay
from benchmarks import registry
from benchmarks.api import State

SMALL = {"meta_batch": 60, "hidden": 8}


def learner(**fields):
    return registry.build_method("rl2", **{**SMALL, **fields})


def a_policy(tasks, hidden=8):
    inputs = tasks.input_shape[0] + tasks.actions.features + 2
    parameters = initialise(inputs, hidden, tasks.outputs, 3)
    return Recurrent({name: value + 0.3 * torch.sin(torch.arange(value.numel())).view_as(value)
                      for name, value in parameters.items()})  # fmt: skip


@pytest.mark.parametrize("task_id", ["bandit/k5n10", "tabular-mdp/n10"])
def test_replayed_trials_have_the_probabilities_that_they_were_played_with(task_id):
    tasks = registry.build_task(task_id)
    policy = a_policy(tasks)
    seen = tasks.episodes("test", range(5), shots=3).support.batch(policy, 0)
    distributions, _ = replay(policy.parameters, seen.inputs.flatten(0, 1))
    likelihood = tasks.actions.log_probability(distributions, seen.actions.flatten(0, 1))
    assert torch.allclose(likelihood, seen.log_probabilities.flatten(0, 1), atol=1e-5)


def test_a_trial_begins_with_the_initial_state_whatever_was_played_before():
    tasks = registry.build_task("bandit/k5n10")
    policy = a_policy(tasks)
    source = tasks.episodes("test", range(4), shots=2).support
    first, again = source.batch(policy, 0), source.batch(policy, 0)
    assert torch.equal(first.distributions, again.distributions)
    start, _ = policy(torch.zeros(4, 2, 8))
    assert torch.equal(first.distributions[:, :, 0], start)


def test_the_first_episode_changes_the_second_and_no_other_trial():
    tasks = registry.build_task("tabular-mdp", rounds=2, horizon=3)
    policy = a_policy(tasks)
    seen = tasks.episodes("test", range(3), shots=2).support.batch(policy, 0)
    inputs = seen.inputs.flatten(0, 1).clone()
    before, _ = replay(policy.parameters, inputs)
    inputs[2, 1, -2] += 1.0  # a reward in the first episode of one trial
    after, _ = replay(policy.parameters, inputs)
    same = (before == after).all(-1)
    assert bool(same[[0, 1, 3, 4, 5]].all())
    assert bool(same[2, :1].all())
    assert not bool(same[2, 3:].any())


def test_advantages_are_sums_of_discounted_surprises_over_the_whole_trial():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(2, 2, 5, generator=generator, dtype=torch.float64)
    found = generalised_advantages(rewards, values, 0.9, 0.7)
    following = torch.cat((values[:, 1:], torch.zeros(2, 1)), 1)
    surprises = rewards + 0.9 * following - values
    by_hand = sum((0.9 * 0.7) ** k * surprises[:, 1 + k] for k in range(4))
    assert torch.allclose(found[:, 1], by_hand)
    to_the_end = sum(0.9**k * rewards[:, 1 + k] for k in range(4)) - values[:, 1]
    assert torch.allclose(generalised_advantages(rewards, values, 0.9, 1.0)[:, 1], to_the_end)


def test_the_first_update_is_the_policy_gradient():
    """At the policy that played, the clipped surrogate has the gradient of log-probability times advantage."""
    tasks = registry.build_task("bandit/k5n10")
    method = learner(value_weight=0.0)
    parameters = {name: value.requires_grad_() for name, value in initialise(8, 8, 5, 1).items()}
    trials = method._play(tasks, parameters, 0, 0)
    loss = method._loss(parameters, trials, tasks.actions, 0.0)
    names = [name for name in parameters if not name.startswith("value")]
    found = torch.autograd.grad(loss, [parameters[name] for name in names])
    distributions, _ = replay(parameters, trials.inputs)
    likelihood = tasks.actions.log_probability(distributions, trials.actions)
    expected = torch.autograd.grad(-(likelihood * trials.advantages).mean(), [parameters[name] for name in names])
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_environment_steps_are_counted_and_training_goes_on_bit_for_bit():
    tasks = registry.build_task("bandit/k5n10")
    states = [state.copy() for state in islice(learner().fit(tasks, 0), 4)]
    assert [state.step for state in states] == [1, 2, 3, 4]
    assert [state.environment_steps for state in states] == [600, 1200, 1800, 2400]
    gone_on = [state.copy() for state in islice(learner().fit(tasks, 0, start=states[1]), 2)]
    for one, other in zip(states[2:], gone_on, strict=True):
        assert one.environment_steps == other.environment_steps
        assert one.loss == other.loss
        for tensors in ("parameters", "moments"):
            mine, its = getattr(one, tensors), getattr(other, tensors)
            assert mine.keys() == its.keys()
            assert all(torch.equal(mine[name], its[name]) for name in mine)


def test_it_learns_and_is_not_above_the_bayes_optimum():
    tasks = registry.build_task("bandit", arms=2, pulls=10)
    method = learner(meta_batch=200, hidden=16, meta_lr=0.01)
    state = next(islice(method.fit(tasks, 0), 59, None)).copy()
    query = tasks.episodes("test", range(1000), queries=2).query
    (trained,) = method.adapt(state, None, tasks)
    returns = tasks.score(trained, query).double().mean(1)
    error = float(returns.std()) / 1000**0.5
    assert returns.mean() > 5.0 + 8 * error
    assert returns.mean() < bayes_optimum(2, 10).value + 4 * error


def test_it_refuses_trials_of_one_episode_and_settings_that_make_no_sense():
    assert "a trial of navigation-2d has one" in str(registry.incompatible("rl2", "navigation-2d"))
    assert registry.incompatible("rl2", "tabular-mdp") is None
    for field in ("meta_batch", "hidden", "epochs"):
        with pytest.raises(registry.MetabenchError, match=field):
            learner(**{field: 0})
    with pytest.raises(registry.MetabenchError, match="minibatches"):
        learner(minibatches=61)


def test_a_memory_of_nothing_is_zeros():
    tasks = registry.build_task("bandit/k5n10")
    policy, x = a_policy(tasks), torch.zeros(2, 3, 8)
    assert torch.equal(policy(x)[0], policy(x, torch.zeros(2, 3, 8))[0])
    (adapted,) = RL2(hidden=8).adapt(State(parameters=dict(policy.parameters)), None, tasks)
    assert dataclasses.is_dataclass(adapted)
    assert torch.equal(adapted(x)[0], policy(x)[0])
