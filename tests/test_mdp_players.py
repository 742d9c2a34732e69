"""Players of tabular processes: their plans against enumeration, their counts against the trials, and bounds."""

import itertools
import math

import pytest
import torch

from baselines.mdp_players import plan
from benchmarks import registry
from benchmarks.api import State

PLAYERS = ("mdp-greedy", "psrl", "opsrl")
#: Duan et al. 2016, table 2, n = 10: mean total reward; of the others no reading that we tried agrees
PUBLISHED = {"random-policy": 100.1, "psrl": 138.1}


def played(name, count, trials=2, **fields):
    tasks = registry.build_task("tabular-mdp/n10", **fields)
    source = tasks.episodes("test", range(count), queries=trials).query
    (predictor,) = registry.build_method(name, tasks).adapt(State(), source, tasks)
    return source, source.batch(predictor, 0)


def value_of(policy, moves, rewards):
    """The expected return of a policy ``[H, S]`` from state 0."""
    value = torch.zeros(rewards.shape[0], dtype=torch.float64)
    for actions in policy.flip(0):
        rows = torch.arange(len(actions))
        value = rewards[rows, actions] + moves[rows, actions] @ value
    return float(value[0])


def test_a_plan_is_the_best_of_all_policies():
    generator = torch.Generator().manual_seed(0)
    moves = torch.rand(2, 1, 2, 2, 2, generator=generator, dtype=torch.float64)
    moves = moves / moves.sum(-1, keepdim=True)
    rewards = torch.rand(2, 1, 2, 2, generator=generator, dtype=torch.float64)
    found = plan([(moves, rewards)], 3)
    for task in range(2):
        every = [torch.tensor(actions).view(3, 2) for actions in itertools.product((0, 1), repeat=6)]
        best = max(value_of(policy, moves[task, 0], rewards[task, 0]) for policy in every)
        assert value_of(found[task, 0], moves[task, 0], rewards[task, 0]) == pytest.approx(best)


def test_several_models_are_planned_with_as_one_with_all_their_actions():
    generator = torch.Generator().manual_seed(1)
    moves = torch.rand(2, 1, 1, 3, 2, 3, generator=generator, dtype=torch.float64)
    moves = moves / moves.sum(-1, keepdim=True)
    rewards = torch.rand(2, 1, 1, 3, 2, generator=generator, dtype=torch.float64)
    several = plan(list(zip(moves, rewards, strict=True)), 4)
    together = plan([(torch.cat((*moves,), -2), torch.cat((*rewards,), -1))], 4)
    assert torch.equal(several, together % 2)


def test_the_memory_holds_the_counts_of_the_trial():
    _, seen = played("mdp-greedy", 3, rounds=4, horizon=5)
    kept = seen.memory
    state, action = seen.observations.argmax(-1), seen.actions
    assert kept.time == 20
    assert torch.equal(kept.visits.sum((-1, -2)), torch.full((3, 2), 19.0, dtype=torch.float64))
    assert torch.equal(kept.transitions.sum((-1, -2, -3)), torch.full((3, 2), 19.0 - 3, dtype=torch.float64))
    task, trial = 1, 1
    counts = torch.zeros(10, 5, 10, dtype=torch.float64)
    rewards = torch.zeros(10, 5, dtype=torch.float64)
    for time in range(19):
        s, a = state[task, trial, time], action[task, trial, time]
        rewards[s, a] += seen.rewards[task, trial, time].double()
        if time % 5 < 4:
            counts[s, a, state[task, trial, time + 1]] += 1
    assert torch.equal(kept.transitions[task, trial], counts)
    assert torch.allclose(kept.rewards[task, trial], rewards)


@pytest.mark.parametrize("name", PLAYERS)
def test_a_player_is_the_same_in_any_company(name):
    tasks = registry.build_task("tabular-mdp/n10", rounds=3)
    learner = registry.build_method(name, tasks)

    def rewards(indices):
        source = tasks.episodes("test", indices, queries=2).query
        (predictor,) = learner.adapt(State(), source, tasks)
        return source.batch(predictor, 0).rewards

    assert torch.equal(rewards([4, 1, 9])[1:2], rewards([1]))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_columns_of_the_paper_are_reproduced(name):
    _, seen = played(name, 300)
    returns = seen.returns.double()
    spread = float(returns[:, 0].std())
    error = math.sqrt(float(returns.mean(1).var()) / 300 + spread**2 / 1000 + 0.1**2 / 12)
    assert abs(float(returns.mean()) - PUBLISHED[name]) < 4 * error


def test_nobody_is_above_the_best_policy_of_the_known_process():
    source, _ = played("random-policy", 200)
    moves, means = source.model.tables(source.parameters.double())
    policy = plan([(moves.unsqueeze(1), means.unsqueeze(1))], 10)
    best = torch.tensor([value_of(policy[t, 0], moves[t], means[t]) for t in range(200)]).double()
    for name in PLAYERS:
        _, seen = played(name, 200)
        short = best - seen.returns.double().mean(1) / 10
        assert float(short.mean()) > -4 * float(short.std()) / math.sqrt(200)
        assert float(short.mean()) > 0.5


@pytest.mark.parametrize("name", PLAYERS)
def test_they_refuse_what_is_no_table_with_a_reason(name):
    assert "no table" in str(registry.incompatible(name, "bandit"))
    assert registry.incompatible(name, "tabular-mdp/n100") is None
