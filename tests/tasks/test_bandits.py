"""Classical players of Bernoulli bandits, compared with exact values and with table 1 of the RL^2 paper."""

import math
import os

import numpy as np
import pytest
import torch
from scipy import stats

from baselines.shared.beta_bernoulli import BayesOptimum, bayes_optimum, gittins_indices, posterior, situations
from benchmarks import registry
from benchmarks.api import State

TABLE = ("random-policy", "gittins", "thompson", "optimistic-thompson", "ucb1", "epsilon-greedy", "greedy")
#: Duan et al. 2016, table 1: mean total reward of 1000 bandits, by arms and pulls
PUBLISHED = {
    "k5n10": dict(zip(TABLE, (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6), strict=True)),
    "k10n10": dict(zip(TABLE, (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6), strict=True)),
    "k5n100": dict(zip(TABLE, (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8), strict=True)),
    "k10n100": dict(zip(TABLE, (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1), strict=True)),
}
PLAYERS = sorted({*TABLE, "optimistic-thompson-maximum", "bayes-optimal"})
slow = pytest.mark.skipif("METABENCH_SLOW" not in os.environ, reason="slow: set METABENCH_SLOW=1")


def returns(name, variant, count, trials=2, **fields):
    """Mean return of each of ``count`` test bandits, ``[count]``, float64."""
    tasks = registry.build_task(f"bandit/{variant}")
    learner = registry.build_method(name, tasks, **fields)
    scores = []
    for first in range(0, count, 500):
        episodes = tasks.episodes("test", range(first, min(first + 500, count)), queries=trials)
        (predictor,) = learner.adapt(State(), episodes.support, tasks)
        scores.append(tasks.score(predictor, episodes.query).double().mean(1))
    return torch.cat(scores).numpy()


def standard_error(values):
    return values.std(ddof=1) / math.sqrt(len(values))


def z_score(name, variant, count, trials=2):
    """z-score of our mean against the published one, with both errors and the rounding to one decimal."""
    ours = returns(name, variant, count, trials)
    spread = returns(name, variant, min(count, 1000), 1).std(ddof=1)
    variance = standard_error(ours) ** 2 + spread**2 / 1000 + 0.1**2 / 12
    return (ours.mean() - PUBLISHED[variant][name]) / math.sqrt(variance)


def test_gittins_indices_have_the_known_values():
    indices = gittins_indices(5, 0.9)
    assert [indices[0, 0], indices[1, 0], indices[0, 1]] == pytest.approx([0.7029, 0.8001, 0.5001], abs=1e-4)


def test_gittins_indices_rise_with_successes_discount_and_ignorance():
    low, high = gittins_indices(8, 0.5), gittins_indices(8, 0.95)
    successes, failures = np.meshgrid(np.arange(9), np.arange(9), indexing="ij")
    known = successes + failures <= 8
    assert np.isfinite(low[known]).all()
    assert np.isnan(low[~known]).all()
    means = (successes + 1) / (successes + failures + 2)
    assert (high[known] > low[known]).all()
    assert (low[known] > means[known]).all()
    assert (np.diff(high, axis=0)[known[1:]] > 0).all()
    assert (np.diff(high, axis=1)[known[:, 1:]] < 0).all()


@pytest.mark.parametrize(
    ("arms", "pulls", "value"), [(2, 10, 6.0218), (5, 10, 6.6600), (10, 10, 6.7140), (50, 10, 6.7140), (2, 20, 12.4313)]
)
def test_the_bayes_optimum_has_the_known_values(arms, pulls, value):
    assert bayes_optimum(arms, pulls).value == pytest.approx(value, abs=5e-5)


@pytest.mark.fault("V12")
def test_the_optimal_player_takes_what_it_can_work_through():
    """The limit is the number of situations, which is counted before they are met."""
    tasks = registry.build_task("bandit/k5n10", arms=3, pulls=15)
    optimal = registry.build_method("bayes-optimal", tasks)
    assert optimal.refuses(tasks) is None
    assert optimal.describe(tasks)["bayes_optimum"] == pytest.approx(9.91254, abs=5e-6)
    for arms, pulls in ((1, 5), (2, 9), (3, 8), (50, 6)):
        optimum = BayesOptimum(arms, pulls)
        optimum.best(())
        assert situations(arms, pulls) == len(optimum.known)


def test_the_bayes_optimum_of_two_pulls_by_hand():
    # 1/2 for the first pull; then 2/3 after a success, 1/2 with another arm after a failure.
    assert BayesOptimum(3, 2).value == pytest.approx(1 / 2 + (2 / 3 + 1 / 2) / 2)
    assert BayesOptimum(1, 2).value == pytest.approx(1.0)


def test_tables_of_the_posterior_are_those_of_the_beta_distribution():
    tables = posterior(3, 12)
    nodes = (np.polynomial.legendre.leggauss(len(tables.weights))[0] + 1) / 2
    for successes, failures in ((0, 0), (3, 1), (0, 12), (12, 0), (5, 7)):
        beta = stats.beta(successes + 1, failures + 1)
        assert np.allclose(tables.densities[successes, failures], beta.pdf(nodes), atol=1e-12)
        assert np.allclose(tables.distributions[successes, failures], beta.cdf(nodes), atol=1e-12)


def test_probabilities_to_be_the_best_arm_are_exact():
    two = torch.tensor([[1, 0], [0, 0]])
    assert posterior(2, 10).best_arm_probabilities(two) == pytest.approx(np.array([2 / 3, 1 / 3]), abs=1e-14)
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 10, (20, 10, 2), generator=generator)
    probabilities = posterior(10, 180).best_arm_probabilities(counts)
    assert torch.allclose(probabilities.sum(-1), torch.ones(20, dtype=torch.float64), atol=1e-12)
    draws = np.random.default_rng(0).beta(*(counts[0].numpy().T[..., None] + 1), size=(10, 40000))
    shares = np.bincount(draws.argmax(0), minlength=10) / 40000
    assert np.allclose(shares, probabilities[0], atol=4.5 * 0.5 / 200)


@pytest.mark.parametrize("variant", ["k5n10", "k10n10"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_columns_of_the_paper_are_reproduced(name, variant):
    assert abs(z_score(name, variant, 1500)) < 4


@pytest.mark.parametrize("variant", ["k5n100", pytest.param("k10n100", marks=slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[slow] if "thompson" in name else []) for name in sorted(TABLE)]
)
def test_long_columns_of_the_paper_are_reproduced(name, variant):
    assert abs(z_score(name, variant, 1000, 1)) < 4


def test_the_optimal_player_reaches_the_optimum_and_nobody_beats_it():
    found = {name: returns(name, "k5n10", 1500) for name in PLAYERS}
    for name, mine in found.items():
        missing = (bayes_optimum(5, 10).value - mine.mean()) / standard_error(mine)
        assert -4 < missing < (4 if name == "bayes-optimal" else math.inf), name
    gain = found["bayes-optimal"] - found["thompson"]
    assert gain.mean() > 4 * standard_error(gain)


@pytest.mark.parametrize("name", PLAYERS)
def test_a_player_takes_any_arm_first_and_never_looks_ahead(name):
    """All arms are alike before the first reward, and a reward changes nothing before it."""
    tasks = registry.build_task("bandit/k5n10")
    learner = registry.build_method(name, tasks)
    episodes = tasks.episodes("test", range(3), shots=4)
    (predictor,) = learner.adapt(State(), episodes.support, tasks)
    first, memory = predictor(torch.zeros(3, 4, 8 if getattr(predictor, "history", False) else 1))
    if name not in ("optimistic-thompson", "optimistic-thompson-maximum"):  # these sample before the first pull
        assert torch.allclose(first.softmax(-1), torch.full((3, 4, 5), 0.2), atol=1e-6)
    if memory is None:
        return
    fed = torch.zeros(3, 4, 8)
    fed[..., 3], fed[..., 6], fed[..., 7] = 1.0, 1.0, 1.0
    kept = memory[0].clone()
    _, after = predictor(fed, memory)
    assert torch.equal(memory[0], kept)
    assert after[0].sum() == 12
    assert bool((after[0][:, :, 2, 0] == 1).all())


def test_greedy_stays_with_an_arm_that_pays():
    tasks = registry.build_task("bandit/k5n10")
    source = tasks.episodes("test", range(50), shots=4).support
    (predictor,) = registry.build_method("greedy", tasks).adapt(State(), source, tasks)
    seen = source.batch(predictor, 0)
    won = seen.rewards[..., 0] == 1
    assert torch.equal(seen.actions[..., 1][won], seen.actions[..., 0][won])
    assert not bool((seen.actions[..., 1][~won] == seen.actions[..., 0][~won]).any())


def test_players_refuse_other_tasks_with_a_reason_and_settings_out_of_range():
    for name in set(PLAYERS) - {"random-policy"}:
        assert "has none" in str(registry.incompatible(name, "navigation-2d"))
        assert "is for control" in str(registry.incompatible(name, "sinusoid"))
        assert registry.incompatible(name, "bandit/k5n10") is None
    assert "too many" in str(registry.incompatible("bayes-optimal", "bandit/k10n100"))
    for name, field, value in (
        ("epsilon-greedy", "epsilon", 1.5),
        ("ucb1", "exploration", -1.0),
        ("gittins", "discount", 1.0),
    ):
        with pytest.raises(registry.MetabenchError, match=field):
            registry.build_method(name, **{field: value})


@pytest.mark.parametrize("name", ["greedy", "rl2"])
def test_facts_name_what_regret_is_counted_from(name):
    few, *others = (registry.build_task(task) for task in ("bandit/k5n10", "bandit/k5n100", "tabular-mdp/n10"))
    assert registry.build_method(name, few).describe(few)["bayes_optimum"] == pytest.approx(6.66, abs=5e-5)
    assert not any("bayes_optimum" in registry.build_method(name, tasks).describe(tasks) for tasks in others)
