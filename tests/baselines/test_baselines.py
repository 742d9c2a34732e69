"""What MAML is compared with: properties that every baseline has, then what is particular to each."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.chance import fingerprints
from baselines.finetune import FineTune
from benchmarks import sampling
from benchmarks.api import (
    Episodes,
    LabelledSet,
    MetaLearner,
    Predictor,
    State,
    TaskDistribution,
    in_regime,
    regimes_of,
)
from benchmarks.registry import build_method, build_task, incompatible
from benchmarks.run.selection import GRID_STEPS, choose
from maml.inner_loop import RATES
from maml.maml import MAML

FEATURES, SIGNAL = 64, 8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Signals(TaskDistribution):
    """Classes that differ in their first 8 of 64 numbers; all else is louder noise, so that there is something to
    learn across classes. 60 classes for training, 20 for each other split."""

    name: ClassVar[str] = "signals"
    kind: ClassVar[str] = "classification"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"5w2s": {}}
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    equivalence_margin: ClassVar[float] = 0.01
    offers: ClassVar[frozenset[str]] = frozenset({"pooled", "classes"})

    variant: str = "5w2s"
    way: int = 5
    shot: int = 2
    queries: int = 3
    network: str = "mlp-256-128-64-64"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    @property
    def outputs(self) -> int:
        return self.way

    @property
    def backbone(self) -> str:
        return self.network

    def pooled_outputs(self, split: str) -> int:
        return 60 if split == "train" else 20

    def examples(self, split: str, classes: np.ndarray, indices: Sequence[int] | np.ndarray, purpose: str) -> Tensor:
        """``[T, n]`` class numbers to inputs ``[T, n, 1, 8, 8]``."""
        prototypes = sampling.normal(sampling.stream("prototypes", split), range(self.pooled_outputs(split)), SIGNAL)
        noise = sampling.normal(sampling.stream("noise", split, purpose), indices, classes.shape[1] * FEATURES)
        x = noise.reshape(*classes.shape, FEATURES)
        x[..., :SIGNAL] = 0.3 * x[..., :SIGNAL] + prototypes[classes]
        return torch.from_numpy(x.astype(np.float32)).unflatten(-1, self.input_shape)

    def episodes(
        self, split: str, indices: Sequence[int] | np.ndarray, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        classes = sampling.choices(sampling.stream("classes"), indices, self.pooled_outputs(split), self.way)[:, 0]

        def cut(purpose: str, each: int) -> LabelledSet:
            y = sampling.permutations(sampling.stream(purpose, "order"), indices, self.way * each) % self.way
            chosen = np.take_along_axis(classes, y, axis=1)
            x = self.examples(split, chosen, indices, purpose)
            return LabelledSet(x, torch.from_numpy(y), torch.from_numpy(chosen))

        return Episodes(cut("support", shots or self.shot), cut("query", queries or self.queries))

    def pooled(self, split: str, indices: Sequence[int] | np.ndarray) -> LabelledSet:
        classes = sampling.integers(sampling.stream("pooled"), indices, 1, self.pooled_outputs(split))
        x = self.examples(split, classes, indices, "pooled")
        return LabelledSet(x.transpose(0, 1), torch.from_numpy(classes.T.copy()))

    def score(self, predictor: Predictor, query: LabelledSet) -> Tensor:
        return (predictor(query.x)[0].argmax(-1) == query.y).float()


@functools.cache
def tasks_of(kind: str) -> TaskDistribution:
    return build_task("sinusoid/k5") if kind == "regression" else Signals()


FEW = {"batch_size": 16, "meta_batch": 3}
PAIRS = [
    ("chance", "classification"),
    ("constant", "regression"),
    ("oracle", "regression"),
    *itertools.product(
        ("finetune", "nearest-neighbour", "nearest-neighbour-embedding", "matching-nets", "matching-nets-fce"),
        ("classification", "regression"),
    ),
]


def learner_of(name: str, kind: str) -> MetaLearner:
    """The method with the published settings for the task, trained on fewer examples per step."""
    learner = build_method(name, tasks_of(kind))
    known = {f.name for f in dataclasses.fields(learner)}
    return learner.replace(**{key: value for key, value in FEW.items() if key in known})


def after(stream: Iterator[State], steps: int) -> State:
    return next(itertools.islice(stream, steps - 1, None)).copy()


@functools.cache
def fitted(name: str, kind: str) -> tuple[MetaLearner, State]:
    learner = learner_of(name, kind)
    return learner, after(learner.fit(tasks_of(kind), seed=0), 3) if learner.fits else State()


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def predictions(
    learner: MetaLearner, state: State, support: LabelledSet, x: Tensor, tasks: TaskDistribution
) -> dict[str, Tensor]:
    """After 0, 1, 2 ... steps, ``[S, T, n, outputs]``, under each regime."""
    steps = max(learner.reported_steps()) + 1
    adapted = list(itertools.islice(learner.adapt(state, support, tasks), steps))
    return {name: torch.stack([in_regime(p, name)(x)[0] for p in adapted]) for name in regimes_of(adapted[0])}


def accuracy(learner: MetaLearner, state: State, tasks: TaskDistribution, episodes: int = 100) -> float:
    """The mean score at the last reported step on test episodes."""
    cut = tasks.episodes("test", range(episodes))
    *_, last = itertools.islice(learner.adapt(state, cut.support, tasks), max(learner.reported_steps()) + 1)
    return float(tasks.score(last, cut.query).mean())


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# What every baseline does


def test_adapting_twice_says_the_same_and_leaves_the_state_alone(pair: tuple[str, str]) -> None:
    (learner, state), tasks = fitted(*pair), tasks_of(pair[1])
    cut, before = tasks.episodes("test", range(3)), state.copy()
    first, second = (predictions(learner, state, cut.support, cut.query.x, tasks) for _ in range(2))
    assert equal(first, second)
    for output in first.values():
        assert output.shape[1:] == (3, cut.query.x.shape[1], tasks.outputs)
        assert bool(output.isfinite().all())
    assert equal(before.parameters, state.parameters)
    assert equal(before.buffers, state.buffers)


def test_no_graph_is_left_even_when_the_state_asks_for_gradients(pair: tuple[str, str]) -> None:
    (learner, state), tasks = fitted(*pair), tasks_of(pair[1])
    live = state.copy()
    for value in live.parameters.values():
        value.requires_grad_()
    cut = tasks.episodes("test", range(2))
    found = predictions(learner, live, cut.support, cut.query.x, tasks)
    assert not any(output.requires_grad for output in found.values())


def test_tasks_do_not_touch_each_other(pair: tuple[str, str]) -> None:
    (learner, state), tasks = fitted(*pair), tasks_of(pair[1])
    cut = tasks.episodes("test", range(4))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = tasks.episodes("test", order.tolist())
    together = predictions(learner, state, cut.support, cut.query.x, tasks)
    permuted = predictions(learner, state, shuffled.support, shuffled.query.x, tasks)
    shuffle = {regime: output[:, order] for regime, output in together.items()}
    torch.testing.assert_close(permuted, shuffle, atol=1e-4, rtol=1e-4)
    for task in (slice(number, number + 1) for number in range(4)):
        alone = predictions(learner, state, cut.support[task], cut.query.x[task], tasks)
        torch.testing.assert_close(alone, {r: output[:, task] for r, output in together.items()}, atol=1e-4, rtol=1e-4)


def test_only_the_oracle_is_told_of_the_task(pair: tuple[str, str]) -> None:
    name, kind = pair
    (learner, state), tasks = fitted(*pair), tasks_of(kind)
    cut = tasks.episodes("test", range(2))
    told = dataclasses.replace(cut.support, parameters=torch.full((2, 2), 1.0))
    lied_to = dataclasses.replace(cut.support, parameters=torch.full((2, 2), 1e3))
    true, false = (predictions(learner, state, support, cut.query.x, tasks) for support in (told, lied_to))
    assert equal(true, false) == ("parameters" not in learner.needs)
    assert ("parameters" in learner.needs) == (name == "oracle")


def test_fitting_goes_on_bit_for_bit(pair: tuple[str, str]) -> None:
    tasks, learner = tasks_of(pair[1]), learner_of(*pair)
    if not learner.fits:
        pytest.skip("nothing to fit")
    whole = after(learner.fit(tasks, seed=5), 6)
    half = after(learner.fit(tasks, seed=5), 3)
    rest = after(learner.fit(tasks, seed=5, start=half), 3)
    for part in ("parameters", "buffers", "moments"):
        assert equal(getattr(whole, part), getattr(rest, part))
    assert (whole.step, whole.examples, whole.loss) == (rest.step, rest.examples, rest.loss)
    assert not equal(whole.parameters, half.parameters)
    assert not equal(whole.parameters, after(learner.fit(tasks, seed=6), 6).parameters)


@pytest.mark.parametrize("name", ["finetune", "nearest-neighbour-embedding", "matching-nets", "matching-nets-fce"])
def test_only_the_query_regime_lets_queries_see_each_other(name: str) -> None:
    (learner, state), tasks = fitted(name, "classification"), tasks_of("classification")
    cut = tasks.episodes("test", range(2))
    together = predictions(learner, state, cut.support, cut.query.x, tasks)
    fewer = predictions(learner, state, cut.support, cut.query.x[:, :4], tasks)
    assert tuple(together) == ("running", "query", "support", "single")
    for regime, output in together.items():
        assert torch.allclose(output[:, :, :4], fewer[regime], atol=1e-4) == (regime != "query")


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_settings_of_the_suites_own_tasks_are_fields(name: str, kind: str) -> None:
    task = "sinusoid" if kind == "regression" else "omniglot/5w1s"
    assert incompatible(name, task) is None
    assert isinstance(build_method(name, build_task(task)), MetaLearner)


# Floors and ceiling


def test_chance_is_right_once_in_way_and_guesses_evenly() -> None:
    tasks, learner = Signals(queries=20), build_method("chance")
    cut = tasks.episodes("test", range(300))
    predictor = next(learner.adapt(State(), cut.support, tasks))
    scores = tasks.score(predictor, cut.query)
    assert set(scores.unique().tolist()) == {0.0, 1.0}
    deviation = math.sqrt(0.2 * 0.8 / scores.numel())
    assert abs(float(scores.mean()) - 0.2) < 4 * deviation
    shares = predictor(cut.query.x)[0].mean((0, 1))
    assert float((shares - 0.2).abs().max()) < 4 * deviation


def test_chance_tells_episodes_apart_by_their_support_set() -> None:
    support = Signals().episodes("test", range(200)).support
    numbers = fingerprints(support)
    assert len(np.unique(numbers)) == 200
    assert numbers.min() >= 0
    numbered = dataclasses.replace(support, items=torch.arange(200 * 10).view(200, 10))
    assert len(np.unique(fingerprints(numbered))) == 200


def test_constant_is_the_mean_of_all_targets_seen() -> None:
    tasks = tasks_of("regression")
    state = after(learner_of("constant", "regression").fit(tasks, seed=1), 4)
    seen = tasks.pooled("train", np.arange(64) + (1 << 40)).y[0].double()
    torch.testing.assert_close(state.parameters["mean"], seen.mean(0))
    assert state.examples == 64


def test_oracle_beats_the_constant_after_a_short_fit() -> None:
    tasks = tasks_of("regression")
    oracle, constant = build_method("oracle", tasks), build_method("constant", tasks)
    informed = accuracy(oracle, after(oracle.fit(tasks, seed=0), 300), tasks)
    floor = accuracy(constant, after(constant.fit(tasks, seed=0), 20), tasks)
    assert 3.0 < floor < 6.0
    assert informed < 0.5 * floor


def test_oracle_refuses_batch_norm_and_tasks_without_parameters() -> None:
    oracle = build_method("oracle", backbone="mlp-256-128-64-64")
    assert oracle.refuses(tasks_of("regression")) == "oracle takes a backbone without batch-norm"
    assert "classification" in str(incompatible("oracle", "omniglot"))


# Against each other


def test_matching_nets_learn_what_raw_inputs_do_not_show() -> None:
    tasks = tasks_of("classification")
    learner = build_method("matching-nets", tasks)
    learned = accuracy(learner, after(learner.fit(tasks, seed=0), 100), tasks)
    raw = accuracy(build_method("nearest-neighbour"), State(), tasks)
    assert 0.25 < raw < 0.6
    assert learned > raw + 0.2


def test_nearest_neighbour_in_the_embedding_uses_the_fit_of_finetune() -> None:
    tasks = tasks_of("classification")
    learner, state = fitted("nearest-neighbour-embedding", "classification")
    assert learner.fit_method() == "finetune"
    theirs = after(FineTune().fit(tasks, seed=0), 3)
    assert equal(theirs.parameters, state.parameters)
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
    chosen = choose(learner.replace(test_steps=(2,)), state, tasks, 5, ("none",))["none"]
    assert chosen.fields["inner_lr"] in RATES
    assert chosen.trials == (GRID_STEPS + 1) * len(RATES)
