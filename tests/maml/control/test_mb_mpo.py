"""MB-MPO: a perfect model makes it MAML; what networks learn, by hand; what is imagined and what is real."""

import dataclasses
import importlib.util
import itertools

import pytest
import torch
from control_steps_by_hand import SMALL, learner_of, navigation, states

from benchmarks import registry
from benchmarks.api import MetabenchError
from benchmarks.environments.learned import ImaginedTasks
from benchmarks.models import join, split
from benchmarks.training import training_indices
from maml.control.dynamics import CHECK_EVERY, Ensemble, Fitting, Transitions, Units, inputs_of
from maml.control.mb_mpo import MBMPO, NETWORKS, REPLAY
from maml.control.policies import Acting, Layers
from maml.control.policy_gradient import distributions
from maml.inner_loop import per_task

FEW = {**SMALL, "models": 2, "model_hidden": (6,), "model_steps": 3, "model_batch": 8, "updates": 2}


def truth(model, tasks):
    return lambda state, action: model.following(tasks, state, action, state.new_zeros(()))


class Perfect(MBMPO):
    """Whatever the networks have learned, states follow as in the true environment."""

    def dynamics(self, buffers):
        return truth


def perfect(tasks, **fields):
    return Perfect(**registry.build_method("mb-mpo", tasks, **{**FEW, **fields}).config())


def poles():
    return registry.build_task("cartpole/quick", horizon=12)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the exact property ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [navigation, poles])
@pytest.mark.parametrize(
    "extras",
    [
        {},
        {"second_order": False, "inner_steps": 2},
        {"outer": "ppo", "epochs": 2, "inner_penalty": 0.1},
        {"critic": (4,), "exploration": 0.5},
    ],
)
def test_with_a_perfect_model_it_is_maml_bit_for_bit_on_far_fewer_real_steps(make, extras):
    tasks = make()
    maml = registry.build_method("maml", tasks, **{**SMALL, **extras})
    real = states(maml, tasks, 4)
    found = states(perfect(tasks, **extras), tasks, 2)
    for mine, his in zip(found, real[1::2], strict=True):
        assert equal(mine.parameters, his.parameters)
        assert equal(mine.moments, his.moments)
        # two updates of MAML play four trajectories before and after each inner step, this one in all
        assert mine.environment_steps <= his.environment_steps / (8 * maml.inner_steps)
    assert [state.step for state in found] == [1, 2]
    assert not equal(found[0].parameters, found[1].parameters)


def test_policies_that_have_adapted_to_the_model_play_the_real_trajectories():
    tasks = navigation()
    learner, maml = perfect(tasks, collected=3), learner_of()
    policy, (state,) = learner.policy(tasks), states(learner, tasks, 1)
    source, seen = learner.collect(state, tasks, 0)
    indices = training_indices(0, 2, 3)
    assert source.indices.tolist() == indices.tolist()
    _, theta = maml.adapted(policy, state.parameters, tasks, tasks.episodes("train", indices, shots=4).support)
    assert torch.allclose(distributions(Acting(policy, theta), seen), seen.distributions, atol=1e-6)
    assert seen.returns.shape == (3, 3)
    assert not torch.allclose(theta["head.weight"], state.parameters["head.weight"])


@pytest.mark.parametrize("make", [navigation, poles])
def test_equal_networks_are_one_network(make):
    """An environment does not know by which of them it is imagined."""
    tasks = make()
    (state,) = states(registry.build_method("mb-mpo", tasks, **FEW), tasks, 1)
    networks, others = split(state.buffers, NETWORKS)
    played = []
    for chosen in ([0], [0, 0, 0]):
        buffers = others | join(NETWORKS, {name: value[chosen] for name, value in networks.items()})
        learner = registry.build_method("mb-mpo", tasks, **FEW)
        source = ImaginedTasks.of(tasks, learner.dynamics(buffers)).episodes("train", range(4), shots=3).support
        played.append(source.batch(Acting(learner.policy(tasks), per_task(state.parameters, 4)), 0))
    assert torch.equal(played[0].rewards, played[1].rewards)
    assert torch.equal(played[0].inputs, played[1].inputs)


# --- networks --------------------------------------------------------------------------------------------------------


def made_up(rows=90, inputs=3, changes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 5 + 2 * torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    return Transitions(x, 0.01 * torch.sin(x[:, :changes]) + 3)


def networks(data, members=3, hidden=(5,)):
    network, generator = Layers(data.inputs.shape[1], hidden, data.changes.shape[1], "relu"), torch.Generator()
    drawn = [network.initialise(generator) for _ in range(members)]
    return network, {name: torch.stack([each[name] for each in drawn]).double() for name in drawn[0]}


def test_training_is_that_of_plain_torch_on_standardised_differences():
    data, fitting = made_up(), Fitting(CHECK_EVERY + 7, 16, 0.01)
    network, start = networks(data)
    held = data.held_out(5, 3)
    found = Ensemble.of(network, start, data).trained(data, held, torch.Generator().manual_seed(3), fitting)
    x = (data.inputs - data.inputs.mean(0)) / data.inputs.std(0, correction=0)
    y = (data.changes - data.changes.mean(0)) / data.changes.std(0, correction=0)
    generator = torch.Generator().manual_seed(3)
    draws = [torch.rand((3, 16), generator=generator, dtype=torch.float64) for _ in range(fitting.steps)]
    for member in range(3):
        weights = {name: value[member].clone().requires_grad_() for name, value in start.items()}
        first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))

        def error(rows, weights=weights):
            hidden = (x[rows] @ weights["layer0.weight"].T + weights["layer0.bias"]).relu()
            return (hidden @ weights["head.weight"].T + weights["head.bias"] - y[rows]).square().mean()

        def look(rows, weights=weights):
            return float(error(rows).detach()), {name: value.detach().clone() for name, value in weights.items()}

        seen, unseen = ((held[:, member] == other).nonzero().squeeze(1) for other in (False, True))
        unseen = unseen[-int(held.sum(0).min()) :]
        looks = [look(unseen)]
        for number, draw in enumerate(draws, 1):
            found_gradients = torch.autograd.grad(error(seen[(draw[member] * len(seen)).long()]), weights.values())
            for (name, value), gradient in zip(weights.items(), found_gradients, strict=True):
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                root = (second[name] / (1 - 0.999**number)).sqrt() + 1e-8
                value.data -= 0.01 * first[name] / (1 - 0.9**number) / root
            if number in (CHECK_EVERY, fitting.steps):
                looks.append(look(unseen))
        _, best = min(looks, key=lambda one: one[0])
        for name, value in best.items():
            assert torch.allclose(found.parameters[name][member], value, rtol=1e-9, atol=1e-12)


def test_a_network_keeps_its_best_weights_on_what_it_has_not_seen():
    data = made_up(400)
    network, start = networks(data)
    ensemble, held = Ensemble.of(network, start, data), data.held_out(5, 3)
    better = ensemble.trained(data, held, torch.Generator(), Fitting(100, 16, 0.01))
    assert all(not torch.equal(better.parameters[name], start[name]) for name in start)
    worse = better.trained(data, held, torch.Generator(), Fitting(1, 16, 1e3))
    assert equal(worse.parameters, better.parameters)


def test_linear_dynamics_are_recovered():
    x = made_up(300).inputs
    data = Transitions(x, x @ torch.tensor([[1.0, -2.0], [0.0, 1.0], [0.5, 0.0]], dtype=torch.float64) + 7)
    network, start = networks(data, hidden=())
    ensemble = Ensemble.of(network, start, data)
    found = ensemble.trained(data, data.held_out(0, 3), torch.Generator(), Fitting(350, 32, 0.03))
    scaled = found.network(found.parameters, found.seen.scaled(data.inputs).expand(3, -1, -1))
    assert torch.allclose(found.changed.unscaled(scaled), data.changes.expand(3, -1, -1), atol=1e-3)


def test_units_turn_back_and_a_constant_column_has_the_unit_1():
    rows = torch.cat((made_up(50).inputs, torch.full((50, 1), 0.1, dtype=torch.float64)), 1).float()
    units = Units.of(rows)
    scaled = units.scaled(rows).double()
    assert float(units.deviation[-1]) == 1.0
    assert torch.allclose(scaled.mean(0), torch.zeros(4).double(), atol=1e-6)
    assert torch.allclose(scaled[:, :-1].std(0, correction=0), torch.ones(3).double(), atol=1e-6)
    assert torch.allclose(units.unscaled(units.scaled(rows)), rows)


def test_a_prediction_is_the_state_and_a_change_within_those_of_the_data():
    tasks = navigation()
    source = tasks.episodes("train", range(4)).support
    data = made_up(inputs=2 + 2 + 2)
    network, start = networks(data, members=3)
    ensemble = Ensemble.of(network, start, data)
    generator = torch.Generator().manual_seed(1)
    state, action = (torch.randn(4, 5, 2, generator=generator).double() for _ in range(2))
    parameters = source.parameters.double()
    found = ensemble(tasks.model, parameters)(state, action)
    x = torch.cat((state, action, parameters.unsqueeze(1).expand(-1, 5, -1)), -1)
    assert torch.equal(x, inputs_of(tasks.model, parameters, state, action))
    for task in range(4):
        weights = {name: value[task % 3] for name, value in start.items()}
        scaled = (x[task] - data.inputs.mean(0)) / data.inputs.std(0, correction=0)
        hidden = (scaled @ weights["layer0.weight"].T + weights["layer0.bias"]).relu()
        scaled = hidden @ weights["head.weight"].T + weights["head.bias"]
        change = data.changes.mean(0) + data.changes.std(0, correction=0) * scaled
        change = torch.minimum(torch.maximum(change, data.changes.amin(0)), data.changes.amax(0))
        assert torch.allclose(found[task], state[task] + change, rtol=1e-12, atol=1e-12)


def test_what_is_held_out_is_a_fifth_other_for_each_network_and_stays():
    data = dataclasses.replace(made_up(5000), first=1000)
    held = data.held_out(3, 4)
    assert torch.allclose(held.double().mean(0), torch.full((4,), 0.2).double(), atol=0.03)
    assert not torch.equal(held[:, 0], held[:, 1])
    late = (data + made_up(10)).latest(60)
    assert late.first == 1000 + 5010 - 60
    assert torch.equal(late.held_out(3, 4)[:50], held[-50:])
    assert torch.equal(late.inputs[:50], data.inputs[-50:])


# --- real and imagined steps -----------------------------------------------------------------------------------------

WORLDS = [(navigation, {"tolerance": 0.05, "goal_range": 0.1}), (poles, {})]
if importlib.util.find_spec("mujoco"):
    WORLDS.append((lambda: registry.build_task("half-cheetah-velocity/quick", horizon=6), {}))


@pytest.mark.parametrize(("make", "fields"), WORLDS)
def test_transitions_are_the_steps_that_took_place_with_their_true_next_states(make, fields):
    tasks = make(**fields)
    learner = registry.build_method("mb-mpo", tasks, **FEW, collected=5)
    (state,) = states(learner, tasks, 1)
    source, seen = learner.collect(state, tasks, 0)
    before, after = seen.states.unbind(3)
    follow = seen.live[:, :, 1:]
    assert torch.equal(before[:, :, 1:][follow], after[:, :, :-1][follow])
    flat = (part.flatten(1, 2) for part in (before, seen.actions, after))
    rewards = tasks.model.reward(source.parameters, *flat).view_as(seen.rewards).float()
    assert torch.equal(rewards[seen.live], seen.rewards[seen.live])
    changes = (after - before)[seen.live].float()
    told = source.parameters[:, None, None].expand(*seen.rewards.shape, -1)
    actions = tasks.actions.as_features(seen.actions, torch.float32)
    found = next(itertools.islice(learner.fit(tasks, 0, state), 1))
    assert torch.equal(found.buffers[REPLAY + "changes"][-len(changes) :], changes)
    inputs = torch.cat((seen.observations, actions, told), -1)[seen.live]
    assert torch.equal(found.buffers[REPLAY + "inputs"][-len(changes) :], inputs)
    assert found.environment_steps == state.environment_steps + len(changes) == len(found.buffers[REPLAY + "inputs"])


@pytest.mark.parametrize(("make", "fields"), WORLDS)
def test_rewards_and_ends_are_those_of_imagined_states(make, fields):
    tasks = make(**fields)
    learner = registry.build_method("mb-mpo", tasks, **FEW)
    (state,) = states(learner, tasks, 1)
    source = ImaginedTasks.of(tasks, learner.dynamics(state.buffers)).episodes("train", range(3), shots=4).query
    seen = source.play(Acting(learner.policy(tasks), per_task(state.parameters, 3)), 0, states=True)
    steps = [part.flatten(1, 2) for part in (seen.states[..., 0, :], seen.actions, seen.states[..., 1, :])]
    live = seen.live.flatten(1)
    for name, found in (("reward", seen.rewards), ("terminated", seen.terminated)):
        expected = getattr(tasks.model, name)(source.parameters, *steps)
        assert torch.equal(expected[live].to(found.dtype), found.flatten(1)[live])
    real = tasks.episodes("train", range(3), shots=4).query
    assert torch.equal(seen.states[:, :, 0, 0], tasks.model.start(source.parameters, real.noise(0)[0][:, :, 0]))


def test_a_fit_goes_on_bit_for_bit_and_forgets_the_oldest_transitions():
    tasks, learner = navigation(), registry.build_method("mb-mpo", navigation(), **FEW, replay=40)
    whole = states(learner, tasks, 3)
    rest = states(learner, tasks, 2, start=whole[0])
    for found, expected in zip(rest, whole[1:], strict=True):
        assert equal(found.parameters, expected.parameters)
        assert equal(found.buffers, expected.buffers)
    assert [len(state.buffers[REPLAY + "inputs"]) for state in whole] == [24, 40, 40]
    assert [state.environment_steps for state in whole] == [24, 48, 72]
    assert learner.examples_per_step(tasks) == 24


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"models": 0}, "mb-mpo: models = 0 is not at least 1"),
        ({"model_hidden": (8, 0)}, r"mb-mpo: model_hidden = \(8, 0\) is not at least 1"),
        ({"model_lr": 0.0}, r"mb-mpo: model_lr = 0\.0 is not above 0"),
        ({"replay": 0}, "mb-mpo: replay = 0 is not at least 1"),
        ({"models": "five"}, "mb-mpo.models = 'five' is str, not int"),
    ],
)
def test_a_bad_ensemble_is_one_line(fields, said):
    with pytest.raises(MetabenchError, match=said) as refused:
        registry.build_method("mb-mpo", navigation(), **fields)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("bandit/k5n10", "mb-mpo imagines single episodes; a trial of bandit has 10"),
        ("tabular-mdp/n10", "mb-mpo imagines single episodes; a trial of tabular-mdp has 10"),
        ("visual-maze/small", "mb-mpo predicts from a vector; observations of visual-maze are (3, 30, 40)"),
        ("sinusoid/k10", "mb-mpo is for control, sinusoid is regression"),
    ],
)
def test_tasks_that_do_not_fit_are_refused_with_a_reason(task, said):
    assert registry.incompatible("mb-mpo", task) == said


def test_steps_that_are_random_are_refused():
    tasks = registry.build_task("tabular-mdp/n10", rounds=1)
    assert registry.build_method("mb-mpo", tasks).refuses(tasks) == (
        "mb-mpo predicts one next state; steps of tabular-mdp are random"
    )
