"""Policies in simulators: ends of episodes, masks, inputs of a policy, and trajectories that depend on their task's
index alone."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from benchmarks import registry
from benchmarks.api import Diverged, MetabenchError
from benchmarks.environments import Categorical, Gaussian

SMALL = ("navigation-2d/maml2017", "navigation-2d/promp", "bandit/k5n10", "tabular-mdp/n10")
if importlib.util.find_spec("mujoco"):
    SMALL += ("half-cheetah-velocity/quick",)
FIELDS = ("inputs", "actions", "rewards", "live", "terminated", "truncated", "distributions", "log_probabilities")


class Looking:
    """A policy with a memory that reacts to all inputs, so that any leak between tasks shows."""

    def __init__(self, outputs, history=True):
        self.outputs, self.history = outputs, history

    def __call__(self, x, memory=None):
        seen = x.sum(-1, keepdim=True)
        memory = seen if memory is None else 0.9 * memory + seen
        return torch.cat([torch.sin((i + 1) * memory) for i in range(self.outputs)], -1), memory


class Steady:
    """A policy of one constant action, without noise."""

    def __init__(self, action):
        self.action = torch.tensor([*action, *(-30.0,) * len(action)])

    def __call__(self, x, memory=None):
        return self.action.expand(*x.shape[:2], -1), None


def rolled(tasks, indices=range(4), policy=None, shots=3, step=0, split="test"):
    source = tasks.episodes(split, indices, shots=shots).support
    return source.batch(policy or Looking(tasks.outputs), step)


def goals_of(tasks, count):
    return tasks.episodes("test", range(count)).query.parameters


@pytest.mark.parametrize("task_id", SMALL)
def test_a_trajectory_is_the_same_in_any_company(task_id):
    tasks = registry.build_task(task_id)
    together, alone = rolled(tasks, [3, 0, 7, 2**40]), rolled(tasks, [7])
    turned, more = rolled(tasks, [2**40, 7, 0, 3]), rolled(tasks, [3, 0, 7, 2**40], shots=5)
    for name in FIELDS:
        found = getattr(together, name)
        assert torch.equal(found[2:3], getattr(alone, name))
        assert torch.equal(found.flip(0), getattr(turned, name))
        assert torch.equal(found, getattr(more, name)[:, :3])


@pytest.mark.parametrize("task_id", SMALL)
def test_every_step_trajectory_source_and_split_has_randomness_of_its_own(task_id):
    tasks = registry.build_task(task_id)
    first = rolled(tasks)
    assert torch.equal(first.actions, rolled(tasks).actions)
    assert not torch.equal(first.actions[:, 0], first.actions[:, 1])
    assert not torch.equal(first.actions, rolled(tasks, step=1).actions)
    assert not torch.equal(first.actions, rolled(tasks, split="train").actions)
    query = tasks.episodes("test", range(4), queries=3).query.batch(Looking(tasks.outputs), 0)
    assert not torch.equal(first.actions, query.actions)


@pytest.mark.parametrize("task_id", SMALL)
def test_shapes_are_those_of_the_data_sheet_and_inputs_replay_the_log_probabilities(task_id):
    tasks = registry.build_task(task_id)
    plain, seen = rolled(tasks, policy=Looking(tasks.outputs, history=False)), rolled(tasks)
    steps = tasks.trial_steps
    assert plain.observations.shape == plain.inputs.shape == (4, 3, steps, *tasks.input_shape)
    assert seen.inputs.shape == (4, 3, steps, tasks.input_shape[0] + tasks.actions.features + 2)
    assert plain.distributions.shape == (4, 3, steps, tasks.outputs)
    assert plain.rewards.shape == plain.live.shape == plain.log_probabilities.shape == (4, 3, steps)
    assert tasks.score(Looking(tasks.outputs), tasks.episodes("test", range(4), queries=6).query).shape == (4, 6)
    policy, memory = Looking(tasks.outputs), None
    for time in range(steps):
        distribution, memory = policy(seen.inputs[:, :, time], memory)
        likelihood = tasks.actions.log_probability(distribution, seen.actions[:, :, time])
        assert torch.allclose(likelihood, seen.log_probabilities[:, :, time], atol=1e-5)
    assert torch.equal(memory, seen.memory)


@pytest.mark.fault("V11")
@pytest.mark.parametrize("task_id", SMALL[:4])  # a robot refuses such an action in one line
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_policy_that_is_no_number_has_no_return(task_id, value):
    tasks = registry.build_task(task_id)

    def policy(x, memory=None):
        outputs = torch.zeros(*x.shape[:2], tasks.outputs)
        outputs[1] = value
        return outputs, None

    returns = tasks.score(policy, tasks.episodes("test", range(3), queries=2).query)
    assert torch.isfinite(returns).tolist() == [[True] * 2, [False] * 2, [True] * 2]


def test_history_is_the_last_action_the_reward_for_it_and_the_end_of_the_episode():
    tasks = registry.build_task("tabular-mdp", rounds=3, horizon=4)
    seen = rolled(tasks)
    history = seen.inputs[..., tasks.input_shape[0] :]
    assert bool((history[:, :, 0] == 0).all())
    one_hot = torch.nn.functional.one_hot(seen.actions[:, :, :-1], 5).float()
    assert torch.equal(history[:, :, 1:, :5], one_hot)
    assert torch.equal(history[:, :, 1:, 5], seen.rewards[:, :, :-1])
    begins = torch.arange(12) % 4 == 0
    assert torch.equal(history[:, :, 1:, 6], begins[1:].float().expand(4, 3, -1))
    assert bool((seen.observations[:, :, begins, 0] == 1).all())
    assert seen.truncated[:, :, 3::4].all()
    assert int(seen.truncated.sum()) == 4 * 3 * 3
    assert not seen.terminated.any()


def test_an_early_end_pays_nothing_further_and_is_no_truncation():
    tasks = registry.build_task("navigation-2d/maml2017")
    source = tasks.episodes("test", range(20), shots=2).support
    goals = source.parameters

    def to_the_goal(x, memory=None):
        mean = (goals.unsqueeze(1) - x) / 0.1
        return torch.cat((mean, torch.full_like(mean, -30.0)), -1), None

    seen = source.batch(to_the_goal, 0)
    steps = seen.live.sum(-1)
    needed = ((goals.abs().amax(-1) - tasks.tolerance) / tasks.action_bound).ceil().long()
    assert torch.equal(steps, needed.unsqueeze(1).expand(-1, 2))
    assert seen.environment_steps == int(steps.sum())
    assert bool((seen.rewards[~seen.live] == 0).all())
    assert bool((seen.rewards[..., 0] < 0).all())
    assert seen.terminated[..., -1].all()
    assert not seen.truncated.any()
    assert bool(((seen.live & seen.terminated).sum(-1) == 1).all())
    assert bool(((seen.observations[..., -1, :] - goals.unsqueeze(1)).abs() < tasks.tolerance).all())


def test_the_horizon_cuts_an_episode_off():
    seen = rolled(registry.build_task("navigation-2d/varibad", horizon=7), policy=Steady((0.0, 0.0)))
    assert bool(seen.live.all())
    assert bool(seen.truncated[..., -1].all())
    assert int(seen.truncated.sum()) == 12
    assert not seen.terminated.any()


def test_returns_of_a_point_that_stays_are_its_distance_times_the_horizon():
    tasks = registry.build_task("navigation-2d/maml2017")
    for reward, power in (("distance", 1), ("squared", 2)):
        seen = rolled(tasks.replace(reward=reward), range(50), Steady((0.0, 0.0)))
        expected = -100 * goals_of(tasks, 50).norm(dim=-1, keepdim=True) ** power
        assert torch.allclose(seen.returns, expected.expand(-1, 3), rtol=1e-4)


@pytest.mark.parametrize("preset", ["maml2017", "promp", "varibad"])
def test_the_policy_is_not_told_the_goal(preset):
    """Equal actions give equal observations in all tasks, until an episode ends."""
    tasks = registry.build_task(f"navigation-2d/{preset}", start_range=0.0, tolerance=0.0)
    seen = rolled(tasks, range(8), Steady((0.7, -0.2)))
    assert torch.equal(seen.observations, seen.observations[:1].expand_as(seen.observations))
    told = rolled(tasks.replace(observation="position-goal"), range(8), Steady((0.7, -0.2)))
    assert torch.equal(told.observations[..., 2:], goals_of(tasks, 8)[:, None, None].expand(-1, 3, 100, -1))


def test_actions_are_scaled_then_clipped_and_starts_fill_their_range():
    tasks = registry.build_task("navigation-2d/promp", start_range=0.0)
    moved = rolled(tasks, [0], Steady((5.0, -50.0))).observations[0, 0, 1]
    assert torch.allclose(moved, torch.tensor([0.1, -0.2]))
    starts = rolled(registry.build_task("navigation-2d/promp", horizon=1), range(200), shots=20).observations[:, :, 0]
    assert float(starts.abs().max()) <= 0.2
    assert float(starts.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.03)
    assert abs(float(starts.mean())) < 4 * 0.1155 / math.sqrt(8000)


def test_corner_progress_is_paid_in_the_right_quadrant_only():
    tasks = registry.build_task("navigation-2d/promp", start_range=0.0)
    seen = rolled(tasks, range(40), Steady((10.0, 10.0)), shots=1)
    right = (goals_of(tasks, 40) > 0).all(-1)
    assert 0 < int(right.sum()) < 40
    assert bool((seen.rewards[~right] == 0).all())
    # At (0.2, 0.2) the point is still too near to the origin.
    assert bool((seen.rewards[right][..., 0] == 0).all())
    assert torch.allclose(seen.rewards[right][..., 1], torch.tensor(0.2 * math.sqrt(2)), atol=1e-5)


def test_goals_follow_their_preset():
    box, corners, circle = (
        goals_of(registry.build_task(f"navigation-2d/{preset}"), 500) for preset in ("maml2017", "promp", "varibad")
    )
    assert float(box.abs().max()) == pytest.approx(0.5, abs=0.01)
    assert {tuple(row) for row in corners.tolist()} == {(a, b) for a in (-2.0, 2.0) for b in (-2.0, 2.0)}
    assert torch.allclose(circle.norm(dim=-1), torch.ones(500))
    assert bool((circle[:, 1] >= 0).all())


def test_the_exhibit_holds_the_paths_before_and_after():
    tasks = registry.build_task("navigation-2d/maml2017")
    episodes = tasks.episodes("test", range(4))
    shown = tasks.exhibit({0: Steady((0.0, 0.0)), 1: Steady((1.0, 1.0))}, episodes)
    assert shown["paths"].shape == (2, 3, 3, 100, 2)
    assert np.array_equal(shown["goals"], episodes.query.parameters[:3].numpy())
    assert shown["steps"].tolist() == [0, 1]
    assert np.allclose(shown["paths"][0], 0, atol=1e-6)
    assert np.allclose(shown["paths"][1, :, :, 3][~np.isnan(shown["paths"][1, :, :, 3])], 0.3)


def test_arms_pay_with_their_probability():
    tasks = registry.build_task("bandit", arms=2, pulls=200)
    source = tasks.episodes("test", range(40), shots=20).support
    seen = source.batch(lambda x, memory=None: (torch.tensor([0.0, -torch.inf]).expand(*x.shape[:2], 2), None), 0)
    assert not seen.actions.any()
    rate, p = seen.rewards.mean((1, 2)), source.parameters[:, 0]
    assert float(((rate - p) / (p * (1 - p) / 4000).sqrt()).abs().max()) < 4.5


def test_transitions_and_rewards_follow_the_tables():
    tasks = registry.build_task("tabular-mdp", states=3, choices=2, rounds=20)
    source = tasks.episodes("test", [5], shots=200).support
    seen = source.batch(lambda x, memory=None: (x.new_zeros(*x.shape[:2], 2), None), 0)
    transitions, means = source.model.tables(source.parameters)
    assert torch.allclose(transitions.sum(-1), torch.ones(1, 3, 2))
    state = seen.observations.argmax(-1)
    pair, following = (state * 2 + seen.actions)[..., :-1], state[..., 1:]
    inside = ~seen.truncated[..., :-1]
    for number in range(6):
        chosen = (pair == number) & inside
        count = int(chosen.sum())
        shares = torch.bincount(following[chosen], minlength=3) / count
        p = transitions[0].flatten(0, 1)[number]
        assert float(((shares - p) / (p * (1 - p) / count).sqrt()).abs().max()) < 4.5
        rewards = seen.rewards[..., :-1][pair == number]
        assert float(rewards.mean()) == pytest.approx(float(means.flatten()[number]), abs=4.5 / math.sqrt(len(rewards)))
        assert float(rewards.std()) == pytest.approx(1.0, abs=4.5 / math.sqrt(2 * len(rewards)))


def test_a_source_is_sliced_by_task_and_counts_the_steps_of_its_slices():
    source = registry.build_task("bandit").episodes("test", range(6), shots=2).support
    assert source.environment_steps == 0
    whole = source.batch(Looking(5), 1)
    assert source.environment_steps == 6 * 2 * 10
    assert torch.equal(whole.rewards[2:4], source[2:4].batch(Looking(5), 1).rewards)
    assert source.environment_steps == (6 + 2) * 2 * 10
    early = registry.build_task("navigation-2d/quick", goal_range=0.005).episodes("test", [0], shots=3).support
    early.batch(Steady((0.0, 0.0)), 0)
    assert early.environment_steps < 3 * 100


def test_a_policy_that_is_not_finite_is_divergence():
    tasks = registry.build_task("navigation-2d/quick")
    with pytest.raises(Diverged, match="not finite"):
        rolled(tasks, policy=Steady((math.nan, 0.0)))


@pytest.mark.parametrize(
    ("task_id", "fields", "said"),
    [
        ("navigation-2d/nowhere", {}, "maml2017"),
        ("navigation-2d", {"horizon": 0}, "horizon = 0 is not at least 1"),
        ("navigation-2d", {"goal_range": 0.0}, r"goal_range = 0\.0 is not above 0"),
        ("navigation-2d", {"start_range": -0.1}, "start_range"),
        ("navigation-2d", {"reward": "cubed"}, "squared"),
        ("navigation-2d", {"discount": 1.5}, r"discount = 1\.5 is not between 0 and 1"),
        ("navigation-2d", {"shot": 0}, "shot"),
        ("bandit", {"arms": 1}, "arms = 1 is not at least 2"),
        ("bandit", {"pulls": 0}, "pulls"),
        ("tabular-mdp", {"rounds": 0}, "rounds"),
        ("tabular-mdp", {"horizon": 0}, "horizon"),
    ],
)
def test_bad_settings_are_one_line_that_names_them(task_id, fields, said):
    with pytest.raises(MetabenchError, match=said) as error:
        registry.build_task(task_id, **fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wishes", [{"shots": 0}, {"queries": 0}])
def test_no_trajectories_are_an_error(wishes):
    with pytest.raises(MetabenchError, match="rolled out"):
        registry.build_task("bandit").episodes("test", [0], **wishes)


def test_categorical_draws_what_it_should():
    space = Categorical(4)
    logits = torch.tensor([0.5, -torch.inf, 2.0, -1.0], dtype=torch.float64)
    noise = torch.from_numpy((np.arange(10000) + 0.5) / 10000).unsqueeze(-1)
    drawn = space.sample(logits.expand(10000, 4), noise)
    shares = torch.bincount(drawn, minlength=4) / 10000
    assert torch.allclose(shares.double(), logits.softmax(-1), atol=2e-4)
    assert torch.allclose(space.log_probability(logits.expand(10000, 4), drawn).exp(), logits.softmax(-1)[drawn])


def test_gaussian_draws_and_densities_are_those_of_torch():
    space = Gaussian(2)
    parameters = torch.tensor([0.5, -1.0, -0.7, 0.3], dtype=torch.float64)
    noise = torch.from_numpy((np.arange(10000) + 0.5) / 10000).unsqueeze(-1).expand(-1, 2)
    drawn = space.sample(parameters.expand(10000, 4), noise)
    assert torch.allclose(drawn.mean(0), parameters[:2], atol=1e-6)
    assert torch.allclose(drawn.std(0), parameters[2:].exp(), rtol=1e-3)
    reference = torch.distributions.Normal(parameters[:2], parameters[2:].exp()).log_prob(drawn).sum(-1)
    assert torch.allclose(space.log_probability(parameters.expand(10000, 4), drawn), reference)
    assert bool(torch.isfinite(space.sample(parameters, torch.zeros(2, dtype=torch.float64))).all())
