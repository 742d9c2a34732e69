"""What MAML is compared with: what is particular to each; `tests/conformance` holds what all methods promise."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.finetune import FineTune
from baselines.shared.fingerprints import fingerprints
from benchmarks.api import LabelledSet, MetaLearner, State, TaskDistribution, in_regime, regimes_of
from benchmarks.registry import build_method, build_task, incompatible
from benchmarks.run.selection import GRID_STEPS, choose, settings
from maml.inner_loop import RATES
from maml.maml import MAML

MLP = "mlp-256-128-64-64"
TRAINED = ("finetune", "nearest-neighbour-embedding", "matching-nets", "matching-nets-fce")
PAIRS = [
    ("chance", "classification"),
    ("constant", "regression"),
    ("oracle", "regression"),
    *itertools.product((*TRAINED, "nearest-neighbour"), ("classification", "regression")),
]


@functools.cache
def tasks_of(kind: str) -> TaskDistribution:
    tasks = build_task("sinusoid/k5" if kind == "regression" else "glyphs/5w1s")
    tasks.prepare()
    return tasks


def after(stream: Iterator[State], steps: int) -> State:
    return next(itertools.islice(stream, steps - 1, None)).copy()


@functools.cache
def fitted(name: str, kind: str) -> tuple[MetaLearner, State]:
    """The method with the published settings for the task, trained on fewer examples per step."""
    learner = build_method(name, tasks_of(kind))
    small = {"batch_size": 16, "meta_batch": 3} | ({"backbone": MLP} if kind == "classification" else {})
    learner = learner.replace(**{key: value for key, value in small.items() if hasattr(learner, key)})
    return learner, after(learner.fit(tasks_of(kind), seed=0), 3) if learner.fits else State()


def predictions(
    learner: MetaLearner, state: State, support: LabelledSet, x: Tensor, tasks: TaskDistribution
) -> dict[str, Tensor]:
    """After 0, 1, 2 ... steps, ``[S, T, n, outputs]``, under each regime."""
    adapted = list(itertools.islice(learner.adapt(state, support, tasks), max(learner.reported_steps()) + 1))
    return {name: torch.stack([in_regime(p, name)(x)[0] for p in adapted]) for name in regimes_of(adapted[0])}


def accuracy(learner: MetaLearner, state: State, tasks: TaskDistribution) -> float:
    """The mean score at the last reported step on test episodes."""
    cut = tasks.episodes("test", range(100))
    *_, last = itertools.islice(learner.adapt(state, cut.support, tasks), max(learner.reported_steps()) + 1)
    return float(tasks.score(last, cut.query).mean())


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_no_graph_is_left_even_when_the_state_asks_for_gradients(name: str, kind: str) -> None:
    (learner, state), tasks = fitted(name, kind), tasks_of(kind)
    live = state.copy()
    for value in live.parameters.values():
        value.requires_grad_()
    cut = tasks.episodes("test", range(2))
    found = predictions(learner, live, cut.support, cut.query.x, tasks)
    assert not any(output.requires_grad for output in found.values())


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_only_the_oracle_is_told_of_the_task(name: str, kind: str) -> None:
    (learner, state), tasks = fitted(name, kind), tasks_of(kind)
    cut = tasks.episodes("test", range(2))
    supports = [dataclasses.replace(cut.support, parameters=torch.full((2, 2), told)) for told in (1.0, 1e3)]
    true, false = (predictions(learner, state, support, cut.query.x, tasks) for support in supports)
    assert all(torch.equal(true[regime], false[regime]) for regime in true) == (name != "oracle")


@pytest.mark.parametrize("name", TRAINED)
def test_embeddings_have_four_regimes_and_by_default_the_running_one(name: str) -> None:
    (learner, state), tasks = fitted(name, "classification"), tasks_of("classification")
    predictor = next(learner.adapt(state, tasks.episodes("test", range(2)).support, tasks))
    assert regimes_of(predictor) == ("running", "query", "support", "single")


# Floors and ceiling


def test_chance_is_right_once_in_way_and_guesses_evenly() -> None:
    tasks, learner = tasks_of("classification"), build_method("chance")
    cut = tasks.episodes("test", range(300), queries=19)
    predictor = next(learner.adapt(State(), cut.support, tasks))
    scores = tasks.score(predictor, cut.query).float()
    deviation = math.sqrt(0.2 * 0.8 / scores.numel())
    assert abs(float(scores.mean()) - 0.2) < 4 * deviation
    shares = predictor(cut.query.x)[0].mean((0, 1))
    assert float((shares - 0.2).abs().max()) < 4 * deviation


def test_chance_tells_episodes_apart_by_their_support_set() -> None:
    support = tasks_of("classification").episodes("test", range(200)).support
    for given in (support, dataclasses.replace(support, items=None)):
        numbers = fingerprints(given)
        assert len(np.unique(numbers)) == 200
        assert numbers.min() >= 0


def test_constant_is_the_mean_of_all_targets_seen() -> None:
    tasks = tasks_of("regression")
    state = after(build_method("constant", tasks, batch_size=16).fit(tasks, seed=1), 4)
    seen = tasks.pooled("train", np.arange(64) + (1 << 40)).y[0].double()
    torch.testing.assert_close(state.parameters["mean"], seen.mean(0))
    assert state.examples == 64


def test_oracle_beats_the_constant_after_a_short_fit() -> None:
    tasks = tasks_of("regression")
    oracle, constant = build_method("oracle", tasks), build_method("constant", tasks)
    floor = accuracy(constant, after(constant.fit(tasks, seed=0), 20), tasks)
    assert 3.0 < floor < 6.0
    assert accuracy(oracle, after(oracle.fit(tasks, seed=0), 300), tasks) < 0.5 * floor


def test_oracle_refuses_batch_norm_and_tasks_without_parameters() -> None:
    oracle = build_method("oracle", backbone=MLP)
    assert oracle.refuses(tasks_of("regression")) == "oracle takes a backbone without batch-norm"
    assert "classification" in str(incompatible("oracle", "omniglot"))


# Against each other


def test_matching_nets_learn() -> None:
    tasks = tasks_of("classification")
    learner = build_method("matching-nets", tasks, meta_batch=4, backbone=MLP)
    stream = learner.fit(tasks, seed=0)
    first, last = after(stream, 1), after(stream, 60)
    assert accuracy(learner, last, tasks) > accuracy(learner, first, tasks) + 0.1


def test_nearest_neighbour_in_the_embedding_uses_the_fit_of_finetune() -> None:
    tasks = tasks_of("classification")
    learner, state = fitted("nearest-neighbour-embedding", "classification")
    assert learner.fit_method() == "finetune"
    theirs = after(FineTune(backbone=MLP).fit(tasks, seed=0), 3)
    assert all(torch.equal(value, state.parameters[name]) for name, value in theirs.parameters.items())
    cut = tasks.episodes("test", range(3))
    raw = predictions(build_method("nearest-neighbour"), state, cut.support, cut.query.x, tasks)
    embedded = predictions(learner, state, cut.support, cut.query.x, tasks)
    assert not torch.allclose(raw["none"], embedded["running"])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_full_context_depends_on_the_order_of_the_support_set_and_plain_does_not(kind: str) -> None:
    tasks = tasks_of(kind)
    cut = tasks.episodes("test", range(3))
    turned = LabelledSet(cut.support.x.roll(1, 1), cut.support.y.roll(1, 1))
    for name in ("matching-nets", "matching-nets-fce"):
        learner, state = fitted(name, kind)
        given, other = (predictions(learner, state, support, cut.query.x, tasks) for support in (cut.support, turned))
        for regime in given:
            assert torch.allclose(given[regime], other[regime], atol=1e-4) == (name == "matching-nets")


def test_rates_are_chosen_from_the_grid_of_maml() -> None:
    assert tuple(FineTune.grid.values()) == tuple(MAML.grid.values()) == (RATES,)
    tasks = tasks_of("regression")
    learner, state = fitted("finetune", "regression")
    chosen = choose(learner, state, tasks, 5, ["none"])["none"]
    assert chosen.fields["inner_lr"] in RATES
    assert chosen.trials == (GRID_STEPS + 1) * len(RATES)


def test_the_published_setting_is_among_those_that_selection_tries() -> None:
    tasks = tasks_of("regression")
    rates = [{"test_lr": rate} for rate in RATES]
    published = {"maml": 0.01, "cavia": 1.0}
    for name, rate in published.items():
        learner = build_method(name, tasks)
        assert settings(learner, tasks) == ([] if rate in RATES else [{}]) + rates
