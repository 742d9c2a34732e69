"""Steps in new tasks at several rates: what they share is played once, and nothing else changes."""

import pytest
import torch

from benchmarks import registry
from benchmarks.api import Diverged, State
from benchmarks.environments import Rollouts
from maml.control.policy_learners import POLICY_RATES


@pytest.fixture
def tasks():
    return registry.build_task("navigation-2d/quick", horizon=8, start_range=0.3)


@pytest.fixture
def played(monkeypatch):
    """(stream, inner step) of everything that is rolled out."""
    calls, batch = [], Rollouts.batch

    def counted(self, predictor, step):
        calls.append((self.key, step))
        return batch(self, predictor, step)

    monkeypatch.setattr(Rollouts, "batch", counted)
    return calls


def learner_and_state(tasks, name="pretrained", **fields):
    learner = registry.build_method(name, tasks, hidden=(8,), **fields)
    return learner, State(parameters=learner.policy(tasks).initialise(3))


def by_itself(learner, state, tasks, rate, episodes):
    """Mean returns after 1, 2 and 3 steps at one rate, of the trajectories that the predictors play, which the rate
    alone gives, where the next step begins."""
    cut = tasks.episodes("validation", range(episodes))
    predictors = learner.replace(test_rates=(rate,)).adapt(state, cut.support, tasks)
    support = tasks.episodes("validation", range(episodes)).support
    return [float(support.batch(next(predictors), step).returns.double().mean()) for step in range(4)][1:]


@pytest.mark.parametrize("name", ["pretrained", "maml", "fomaml", "context-vector"])
def test_the_chosen_rates_are_those_of_the_highest_returns(tasks, name):
    """Of one grid for every policy that adapts, so that none is tuned more than the others."""
    learner, state = learner_and_state(tasks, name)
    assert learner.grid == {"test_rates": tuple((rate,) for rate in POLICY_RATES)}
    learner = learner.replace(test_rates=(1.75,))
    rates = [*(rate for (rate,) in learner.grid["test_rates"]), 1.75]
    returns = torch.tensor([by_itself(learner, state, tasks, rate, 5) for rate in rates])
    chosen, trials = learner.choose(state, tasks, 5)
    assert chosen == {"test_rates": tuple(rates[row] for row in returns.argmax(0))}
    assert trials == returns.numel()


def test_all_rates_begin_with_the_same_trajectories_and_no_step_is_scored_for_nothing(tasks, played):
    learner, state = learner_and_state(tasks)
    cut = tasks.episodes("validation", [0])
    played.clear()
    learner.choose(state, tasks, 4)
    rates = len(learner.grid["test_rates"])
    assert played.count((cut.support.key, 0)) == 1
    assert [played.count((cut.support.key, step)) for step in (1, 2, 3)] == [rates] * 3
    assert len(played) == 1 + 3 * rates


def test_a_path_counts_what_who_takes_it_has_seen(tasks):
    learner, state = learner_and_state(tasks, test_rates=(0.1, 3.0, 0.1))
    mixed, alone = (tasks.episodes("test", range(3)).support for _ in range(2))
    ours = learner.adapt(state, mixed, tasks)
    theirs = learner.replace(test_rates=(0.1,)).adapt(state, alone, tasks)
    for step in range(4):
        mine, other = next(ours), next(theirs)
        if step != 2:
            assert mixed.environment_steps == alone.environment_steps
            for name, value in mine.parameters.items():
                assert torch.equal(value, other.parameters[name])
        else:
            assert not torch.equal(mine.parameters["head.weight"], other.parameters["head.weight"])


def test_a_rate_that_runs_away_is_tried_no_further_and_the_others_go_on(tasks, monkeypatch):
    learner, state = learner_and_state(tasks)
    whole = type(learner).steps

    def until_it_diverges(self, policy, parameters, support, rate):
        for number, theta in enumerate(whole(self, policy, parameters, support, rate)):
            if rate == 1.0 and number == 2:
                raise Diverged("too far")
            yield theta

    rates = [rate for (rate,) in learner.grid["test_rates"]]
    returns = torch.tensor([by_itself(learner, state, tasks, rate, 4) for rate in rates])
    returns[rates.index(1.0), 1:] = -torch.inf
    monkeypatch.setattr(type(learner), "steps", until_it_diverges)
    chosen, trials = learner.choose(state, tasks, 4)
    assert trials == returns.numel() - 2
    assert chosen == {"test_rates": tuple(rates[row] for row in returns.argmax(0))}
