"""RL^2: the state of a trial begins anew, is carried through it, and replays to the same probabilities."""

import dataclasses
from itertools import islice

import pytest
import torch

from baselines.shared import gru
from baselines.shared.beta_bernoulli import bayes_optimum
from baselines.shared.gru import RecurrentPolicy
from baselines.shared.trials import (
    RETURNS_KEPT,
    fitted_values,
    generalised_advantages,
    in_sequence,
    natural_step,
    play,
    seen_returns,
    take_in,
)
from benchmarks import registry
from benchmarks.api import State
from benchmarks.environments import Categorical, Gaussian
from maml.control.meta_objective import unflat
from maml.control.trust_region import fisher_product

SMALL = {"meta_batch": 60, "hidden": 8}
#: goals so near that most episodes end before their horizon
EARLY = {"goal_range": 0.05, "tolerance": 0.03, "horizon": 6}


def learner(task="bandit/k5n10", **fields):
    return registry.build_method("rl2", registry.build_task(task), **{**SMALL, **fields})


def a_policy(tasks, hidden=8):
    inputs = tasks.input_shape[0] + tasks.actions.features + 2
    parameters = gru.initialise(inputs, hidden, tasks.actions, 3)
    return RecurrentPolicy({name: value + 0.3 * torch.sin(torch.arange(value.numel())).view_as(value)
                            for name, value in parameters.items()})  # fmt: skip


def trials_of(tasks, count, episodes=1, policy=None):
    source = tasks.episodes("train", range(count), shots=1).support
    source = dataclasses.replace(source, episodes=source.episodes * episodes)
    policy = policy or a_policy(tasks)
    return policy, play(source, policy, seen_returns("cpu"), 0.99, 0.9)


@pytest.mark.parametrize(
    ("task_id", "fields"),
    [("bandit/k5n10", {}), ("tabular-mdp/n10", {}), ("navigation-2d/quick", EARLY), ("navigation-2d/quick", {})],
)
def test_replayed_trials_have_the_probabilities_that_they_were_played_with(task_id, fields):
    tasks = registry.build_task(task_id, **fields)
    policy, trials = trials_of(tasks, 12, episodes=2)
    distributions = gru.distribution(policy.parameters, gru.read(policy.parameters, trials.inputs))
    likelihood = tasks.actions.log_probability(distributions, trials.actions)
    assert torch.allclose(likelihood[trials.live], trials.log_probabilities[trials.live], atol=1e-5)
    assert bool(trials.live.all()) == (fields is not EARLY)


def test_the_first_episode_changes_the_second_and_no_other_trial():
    tasks = registry.build_task("tabular-mdp", rounds=2, horizon=3)
    policy = a_policy(tasks)
    seen = tasks.episodes("test", range(3), shots=2).support.batch(policy, 0)
    inputs = seen.inputs.flatten(0, 1).clone()
    before = gru.read(policy.parameters, inputs)
    inputs[2, 1, -2] += 1.0  # a reward in the first episode of one trial
    after = gru.read(policy.parameters, inputs)
    same = (before == after).all(-1)
    assert bool(same[[0, 1, 3, 4, 5]].all())
    assert bool(same[2, :1].all())
    assert not bool(same[2, 3:].any())


def test_an_episode_boundary_is_fed_after_a_time_out_as_after_an_end():
    tasks = registry.build_task("navigation-2d/quick", horizon=4)
    _, trials = trials_of(tasks, 3, episodes=2)
    assert trials.inputs[..., -1].tolist() == [[0, 0, 0, 0, 1, 0, 0, 0]] * 3
    assert torch.equal(trials.inputs[:, 0, -4:], torch.zeros(3, 4))
    assert bool((trials.inputs[:, 4, -2] < 0).all())  # the last reward of the first episode
    assert torch.equal(trials.inputs[:, 4, -4:-2], trials.actions[:, 3])
    assert torch.equal(trials.inputs[:, 4, :2], torch.zeros(3, 2))


def test_an_episode_that_ended_early_waits_without_learning():
    """The second episode follows on the last live step, in what is fed, what is remembered and what is earned."""
    tasks = registry.build_task("navigation-2d/quick", **EARLY)
    policy = a_policy(tasks)
    source = dataclasses.replace(tasks.episodes("train", range(30), shots=1).support, episodes=2)
    seen = source.batch(policy, 0)
    live = seen.live[:, 0]
    assert bool((~live[:, :6]).any())
    inputs, reward, kept = in_sequence(live, seen.inputs[:, 0], seen.rewards[:, 0], live)
    steps = live.sum(1)
    for task in range(30):
        count = int(live[task, :6].sum())
        assert float(inputs[task, count, -1]) == 1.0
        assert torch.equal(inputs[task, count, -2], reward[task, count - 1])
        assert torch.equal(inputs[task, : int(steps[task])], seen.inputs[task, 0, live[task]])
    assert torch.equal(kept.sum(1), steps)
    memories = gru.read(policy.parameters, inputs)
    last = memories[torch.arange(30), steps - 1]
    assert torch.allclose(last, seen.memory[:, 0], atol=1e-6)


def test_each_support_episode_goes_on_from_the_one_before():
    """What `adapt` yields after two episodes is the policy in the middle of a trial: the same trial, read in one go."""
    tasks = registry.build_task("navigation-2d/quick", horizon=5)
    method, policy = learner("navigation-2d/quick"), a_policy(tasks)
    episodes = tasks.episodes("test", range(3))
    predictors = method.adapt(State(parameters=dict(policy.parameters)), episodes.support, tasks)
    yielded = [next(predictors) for _ in range(3)]
    assert episodes.support.environment_steps == 2 * 3 * 5
    source = dataclasses.replace(episodes.support, trajectories=1)
    first, second = source.batch(yielded[0], 0), source.batch(yielded[1], 1)
    inputs = torch.cat((first.inputs, second.inputs), 2).flatten(0, 1)
    inputs[:, 5, 2:] = first.history[:, 0]  # the environment feeds zeros; the policy puts its own history there
    memories = gru.read(policy.parameters, inputs)
    assert torch.allclose(memories[:, 4], yielded[1].memory[:, 0], atol=1e-6)
    assert torch.allclose(memories[:, 9], yielded[2].memory[:, 0], atol=1e-6)
    likelihood = tasks.actions.log_probability(gru.distribution(policy.parameters, memories[:, 5:]),
                                               second.actions[:, 0])  # fmt: skip
    assert torch.allclose(likelihood, second.log_probabilities[:, 0], atol=1e-5)


def test_every_query_trajectory_goes_on_from_a_copy():
    tasks = registry.build_task("navigation-2d/quick", horizon=5)
    method, policy = learner("navigation-2d/quick"), a_policy(tasks)
    cut = tasks.episodes("test", range(3), queries=4)
    before, after = islice(method.adapt(State(parameters=dict(policy.parameters)), cut.support, tasks), 2)
    seen = [cut.query.batch(predictor, 0) for predictor in (before, after)]
    start = [part.distributions[:, :, 0] for part in seen]
    assert torch.equal(start[1], start[1][:, :1].expand_as(start[1]))
    assert not torch.equal(start[0], start[1])
    alone = next(islice(method.adapt(State(parameters=dict(policy.parameters)), cut.support[1:2], tasks), 1, None))
    assert torch.allclose(alone.memory, after.memory[1:2], atol=1e-6)


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


def test_values_are_in_units_of_the_returns_seen_so_far():
    returns = seen_returns("cpu")
    generator = torch.Generator().manual_seed(0)
    first, second = 5 + 3 * torch.randn(2, 400, generator=generator, dtype=torch.float64)
    mean, deviation = take_in(returns, first)
    assert float(mean) == pytest.approx(float(first.mean()), rel=1e-5)
    assert float(deviation) == pytest.approx(float(first.std(correction=0)), rel=1e-5)
    mean, _ = take_in(returns, second + 10)
    shares = RETURNS_KEPT / (1 + RETURNS_KEPT), 1 / (1 + RETURNS_KEPT)
    assert float(mean) == pytest.approx(shares[0] * float(first.mean()) + shares[1] * float(second.mean() + 10))


def test_the_first_update_is_the_policy_gradient():
    """At the policy that played, the clipped surrogate has the gradient of log-probability times advantage."""
    tasks = registry.build_task("bandit/k5n10")
    method = learner(value_weight=0.0)
    parameters = {name: value.requires_grad_() for name, value in gru.initialise(8, 8, tasks.actions, 1).items()}
    trials = method.play(tasks, parameters, seen_returns("cpu"), 0, 0)
    loss = method.loss(parameters, trials, tasks, 0.0)
    names = [name for name in parameters if not name.startswith("value")]
    found = torch.autograd.grad(loss, [parameters[name] for name in names])
    distributions = gru.distribution(parameters, gru.read(parameters, trials.inputs))
    likelihood = tasks.actions.log_probability(distributions, trials.actions)
    expected = torch.autograd.grad(-(likelihood * trials.advantages).mean(), [parameters[name] for name in names])
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "horizon", "fields"),
    [
        ("bandit/k5n10", None, {"outer": "trpo", "meta_batch": 20}),
        ("navigation-2d/quick", 20, {"meta_batch": 8}),
        ("half-cheetah-direction/quick", 5, {"meta_batch": 8}),
        ("visual-maze/quick", 5, {"meta_batch": 8, "units": 8}),
        ("visual-maze/quick", 5, {"meta_batch": 8, "units": 8, "outer": "trpo"}),
    ],
)
def test_environment_steps_are_counted_and_training_goes_on_bit_for_bit(task, horizon, fields):
    if "cheetah" in task:
        pytest.importorskip("mujoco")
    tasks = registry.build_task(task, **({"horizon": horizon} if horizon else {}))
    method = learner(task, **fields)
    states = [state.copy() for state in islice(method.fit(tasks, 0), 4)]
    assert [state.step for state in states] == [1, 2, 3, 4]
    most = method.meta_batch * tasks.trial_steps * method.trial_episodes
    for number, state in enumerate(states, 1):
        assert 0.8 * number * most <= state.environment_steps <= number * most
    gone_on = [state.copy() for state in islice(method.fit(tasks, 0, start=states[1]), 2)]
    for one, other in zip(states[2:], gone_on, strict=True):
        assert one.environment_steps == other.environment_steps
        assert one.loss == other.loss
        for tensors in ("parameters", "moments", "buffers"):
            mine, its = getattr(one, tensors), getattr(other, tensors)
            assert mine.keys() == its.keys()
            assert all(torch.equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize("outer", ["ppo", "trpo"])
def test_it_learns_and_is_not_above_the_bayes_optimum(outer):
    tasks = registry.build_task("bandit", arms=2, pulls=10)
    method = registry.build_method("rl2", tasks, meta_batch=100, hidden=12, meta_lr=0.02, outer=outer)
    state = next(islice(method.fit(tasks, 0), 24, None)).copy()
    query = tasks.episodes("test", range(500), queries=2).query
    (trained,) = method.adapt(state, None, tasks)
    returns = tasks.score(trained, query).double().mean(1)
    error = float(returns.std()) / 500**0.5
    assert returns.mean() > 5.0 + 4 * error
    assert returns.mean() < bayes_optimum(2, 10).value + 4 * error


def test_the_unit_written_out_is_that_of_torch():
    tasks = registry.build_task("bandit/k5n10")
    policy, trials = trials_of(tasks, 4)
    once, twice = (gru.read(policy.parameters, trials.inputs, twice=twice) for twice in (False, True))
    assert torch.allclose(once, twice, atol=1e-6)


def test_the_scan_and_its_gradient_are_those_of_torch():
    n, steps, inputs, hidden = 7, 5, 4, 3
    torch.manual_seed(0)
    unit = torch.nn.GRU(inputs, hidden, batch_first=True).double()
    x, weight = torch.randn(n, steps, inputs).double().requires_grad_(), torch.randn(n, steps, hidden).double()
    names = ("input", "recurrent", "input_bias", "recurrent_bias")
    parameters = {f"gru.{name}": value for name, value in zip(names, unit.parameters(), strict=True)}
    found, expected = gru.read(parameters, x), unit(x)[0]
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        *(torch.autograd.grad((states * weight).sum(), [x, *unit.parameters()]) for states in (found, expected)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("space", [Categorical(5), Gaussian(2)])
def test_actions_are_judged_as_by_torch(space):
    parameters = torch.randn(4, 3, 2, space.outputs, generator=torch.Generator().manual_seed(0))
    if isinstance(space, Categorical):
        theirs = torch.distributions.Categorical(logits=parameters)
        actions, constant = theirs.sample(), 0.0
    else:
        mean, log_deviation = parameters.chunk(2, -1)
        theirs = torch.distributions.Independent(torch.distributions.Normal(mean, log_deviation.exp()), 1)
        actions, constant = theirs.sample(), 2 * 1.4189385
    likelihood, entropy = space.judge(parameters, actions)
    torch.testing.assert_close(likelihood, space.log_probability(parameters, actions))
    torch.testing.assert_close(likelihood, theirs.log_prob(actions))
    torch.testing.assert_close(entropy, theirs.entropy() - constant)


@pytest.mark.parametrize("task_id", ["bandit/k5n10", "navigation-2d/quick"])
def test_the_fisher_information_is_the_hessian_of_the_divergence(task_id):
    """Against the second derivative of the Kullback-Leibler divergence at the policy that played."""
    tasks = registry.build_task(task_id, **({"horizon": 3} if "navigation" in task_id else {}))
    policy, trials = trials_of(tasks, 5, policy=a_policy(tasks, 3))
    some = {name: value.double() for name, value in policy.parameters.items() if not name.startswith("value")}
    inputs, weights = trials.inputs.double(), trials.live.double() / trials.live.sum()

    def distributions_of(vector):
        parameters = unflat(vector, some)
        return gru.distribution(parameters, gru.read(parameters, inputs, twice=True))

    here = torch.cat([value.flatten() for value in some.values()])
    before = distributions_of(here)
    hessian = torch.autograd.functional.hessian(
        lambda flat: tasks.actions.divergence(before, distributions_of(flat))[trials.live].mean(), here
    )
    vector = torch.sin(torch.arange(len(here), dtype=torch.float64))
    found = fisher_product(distributions_of, here, weights, tasks.actions)(vector)
    torch.testing.assert_close(found, hessian @ vector, rtol=1e-9, atol=1e-12)


def test_a_natural_step_stays_within_its_radius_and_gains():
    tasks = registry.build_task("bandit/k5n10")
    policy, trials = trials_of(tasks, 100)
    after = natural_step(policy, trials, tasks.actions, 0.01, 1.0)
    old, new = (gru.distribution(p, gru.read(p, trials.inputs)) for p in (policy.parameters, after))
    divergence = float(tasks.actions.divergence(old, new)[trials.live].mean())
    assert 0.003 < divergence <= 0.01
    ratio = (tasks.actions.log_probability(new, trials.actions) - trials.log_probabilities).exp()
    assert float((ratio * trials.advantages)[trials.live].mean()) > 0.0


def test_fitted_values_are_the_nearest():
    policy, trials = trials_of(registry.build_task("bandit/k5n10"), 100)
    memories = gru.read(policy.parameters, trials.inputs)
    fitted = fitted_values(memories, trials)
    moved = [
        {**fitted, "value.bias": fitted["value.bias"] + 0.05},
        {**fitted, "value.weight": 0.9 * fitted["value.weight"]},
    ]
    errors = [float((gru.value(each, memories) - trials.targets).square().mean()) for each in (fitted, *moved)]
    assert errors[0] < min(errors[1:])


def test_real_actions_have_a_deviation_that_is_learned():
    tasks = registry.build_task("navigation-2d/quick")
    parameters = a_policy(tasks).parameters
    assert parameters["policy.log_deviation"].shape == (2,)
    output, _ = RecurrentPolicy(parameters)(torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(output[..., 2:], parameters["policy.log_deviation"].expand(3, 2, 2))
    # Half the logarithm of 2 pi e in each dimension is the constant.
    expected = torch.distributions.Normal(0.0, parameters["policy.log_deviation"].exp()).entropy().sum()
    constant = 2 * 1.4189385
    assert float(Gaussian(2).judge(output, output[..., :2])[1][0, 0]) == pytest.approx(
        float(expected) - constant, abs=1e-5
    )


@pytest.mark.parametrize("fields", [{"hidden": 0}, {"clip": 0.0}, {"minibatches": 61}, {"trace": 1.5}])
def test_settings_that_make_no_sense_are_one_line(fields):
    with pytest.raises(registry.MetabenchError, match=next(iter(fields))):
        learner(**fields)


def test_one_trial_of_one_episode_is_refused_and_steps_are_episodes():
    navigation = registry.build_task("navigation-2d")
    assert "has one" in str(learner(trial_episodes=1).refuses(navigation))
    assert learner("navigation-2d").reported_steps() == (0, 1)
    assert learner("bandit/k5n10").reported_steps() == (0,)
    bandits = registry.build_task("bandit/k5n10")
    (only,) = learner().adapt(State(parameters=dict(a_policy(bandits).parameters)), None, bandits)
    x = torch.zeros(2, 3, 8)
    assert torch.equal(only(x)[0], only(x, torch.zeros(2, 3, 8))[0])
