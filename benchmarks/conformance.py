"""Does a plug-in keep the promises of the contract? The same checks run over somebody's own file (``metabench check``)
and, in the tests, over every method and task of the suite. Each complaint is a sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import (
    KINDS,
    REGIMES,
    SPLITS,
    Episodes,
    MetaLearner,
    State,
    TaskDistribution,
    in_regime,
    regimes_of,
)
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.registry import Entry

#: tasks that a method is tried on, small and at hand everywhere: the first of each kind that it can be run on
TRIAL_TASKS = ("sinusoid/k5", "glyphs/5w1s", "navigation-2d/quick", "bandit/k5n10", "tabular-mdp/n10")
#: how far a learner is trained before it is looked at
META_STEPS = 2
INDICES = (0, 1, 2)
#: queries per class that predictions are compared on: few, since every regime is tried
QUERIES = 2


def check(entry: Entry) -> list[str]:
    """All complaints about a registered method or task."""
    if issubclass(entry.cls, TaskDistribution):
        return [f"{entry.name}: {line}" for line in _guarded(lambda: check_task(entry))]
    lines = list(_guarded(lambda: check_method(entry)))
    tried: set[str] = set()
    for task in TRIAL_TASKS:
        tasks = registry.build_task(task)
        if lines or tasks.kind in tried or tasks.kind not in entry.cls.kinds:
            continue
        if registry.incompatible(entry.name, task) is None:
            tried.add(tasks.kind)
            tasks.prepare()
            learner = registry.build_method(entry.name, tasks)
            lines += [f"on {task}: {line}" for line in _guarded(lambda: check_pair(learner, tasks))]  # noqa: B023
    if not lines and not tried:
        lines.append(f"fits none of the tasks {', '.join(TRIAL_TASKS)}, so nothing but its class data was checked")
    return [f"{entry.name}: {line}" for line in lines]


def _guarded(checks: Callable[[], Iterator[str]]) -> Iterator[str]:
    """The complaints of these checks; an exception is one more, and the last."""
    try:
        yield from checks()
    except MetabenchError as error:
        yield str(error)
    except Exception as error:
        yield f"raises {type(error).__name__}: {error}"


def check_method(entry: Entry) -> Iterator[str]:
    """The class data of a method."""
    cls = entry.cls
    if not (cls.__doc__ or "").strip() or (cls.__doc__ or "").startswith(f"{cls.__name__}("):
        yield "has no docstring: say in one sentence what it learns and how"
    kinds = getattr(cls, "kinds", None)
    if not kinds or not set(kinds) <= set(KINDS):
        yield f"kinds = {kinds!r}: name one or more of {', '.join(KINDS)}"


def check_pair(learner: MetaLearner, tasks: TaskDistribution) -> Iterator[str]:
    """A method on a task: what it yields, that it is repeatable and leaves everything else as it was."""
    generators = _global_generators()
    state = State()
    used = learner.fit_method()
    trainer = learner if used is None else registry.build_method(used, tasks)
    if trainer.fits:
        trained = [s.copy() for s in islice(trainer.fit(tasks, 0), META_STEPS)]
        state = trained[-1]
        yield from _check_fit(trainer, tasks, trained)
    yield from _check_adaptation(learner, tasks, state)
    if _global_generators() != generators:
        yield "draws from a global random generator: randomness comes in as a seed or an index (benchmarks.sampling)"


def _global_generators() -> tuple[bytes, str]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state(legacy=False))  # noqa: NPY002


def _check_fit(learner: MetaLearner, tasks: TaskDistribution, trained: list[State]) -> Iterator[str]:
    if [state.step for state in trained] != list(range(1, META_STEPS + 1)):
        yield f"fit yields states with steps {[s.step for s in trained]}, not 1, 2 ...: one state after each meta-step"
    if not all(state.examples > 0 or state.environment_steps > 0 for state in trained):
        yield "fit does not count the examples (or environment steps) that it has seen"
    again = next(iter(learner.fit(tasks, 0, start=trained[0].copy())), None)
    if again is None or not _same(again.copy(), trained[1]):
        yield "fit(start=state) does not go on bit for bit: is something beside the state carried from step to step?"
    once_more = next(iter(learner.fit(tasks, 0)))
    if not _same(once_more.copy(), trained[0]):
        yield "fit gives another state for the same seed"


def _same(first: State, second: State) -> bool:
    tensors = [(s.parameters, s.buffers, s.moments) for s in (first, second)]
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(*tensors, strict=True)
    )


def _check_adaptation(learner: MetaLearner, tasks: TaskDistribution, state: State) -> Iterator[str]:
    before = copy.deepcopy(state.copy())
    episodes = _cut(tasks, INDICES)
    last = max(learner.reported_steps())
    regimes = regimes_of(next(iter(learner.adapt(state, episodes.support, tasks))))
    for regime in regimes:
        if regime not in REGIMES:
            yield f"a predictor's regimes name {regime!r}; known: {', '.join(REGIMES)}"
            return
        outputs = _outputs(learner, state, episodes, tasks, last, regime)
        if len(outputs) <= last:
            yield f"reports step {last} but adapt ends after {len(outputs) - 1} steps"
            return
        yield from _check_outputs(outputs, learner, state, episodes, tasks, regime)
    if not _same(state.copy(), before):
        yield "adapt changes the state that it was given"


def _cut(tasks: TaskDistribution, indices: tuple[int, ...]) -> Episodes:
    return tasks.episodes("test", indices, queries=None if tasks.kind == "control" else QUERIES)


def _outputs(
    learner: MetaLearner, state: State, episodes: Episodes, tasks: TaskDistribution, last: int, regime: str
) -> list[Tensor]:
    adapted = islice(learner.adapt(state, episodes.support, tasks), last + 1)
    predictors = (in_regime(predictor, regime) for predictor in adapted)
    if tasks.kind == "control":
        return [tasks.score(predictor, episodes.query) for predictor in predictors]
    return [predictor(episodes.query.x)[0] for predictor in predictors]


def _check_outputs(
    outputs: list[Tensor],
    learner: MetaLearner,
    state: State,
    episodes: Episodes,
    tasks: TaskDistribution,
    regime: str,
) -> Iterator[str]:
    expected = tuple(outputs[0].shape) if tasks.kind == "control" else (*episodes.query.x.shape[:2], tasks.outputs)
    for step, output in enumerate(outputs):
        if tuple(output.shape) != expected:
            yield f"step {step} predicts shape {tuple(output.shape)}, expected {expected} (tasks, queries, outputs)"
            return
        if not torch.isfinite(output).all():
            yield f"step {step} predicts numbers that are not finite"
        if output.requires_grad:
            yield f"step {step} keeps a graph: adapt runs without gradients of its own"
    last = len(outputs) - 1
    again = _outputs(learner, state, episodes, tasks, last, regime)
    if not all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True)):
        yield f"adapt gives another answer when called again (regime {regime})"
    alone = _cut(tasks, INDICES[1:2])
    single = _outputs(learner, state, alone, tasks, last, regime)[-1]
    if not torch.allclose(single, outputs[-1][1:2], rtol=1e-3, atol=1e-4):
        yield f"a task's predictions depend on the other tasks of the batch (regime {regime})"
    if tasks.kind != "control" and regime in ("support", "single", "running", "none"):
        fewer = Episodes(episodes.support, type(episodes.query)(episodes.query.x[:, :1], episodes.query.y[:, :1]))
        first = _outputs(learner, state, fewer, tasks, last, regime)[-1]
        if not torch.allclose(first, outputs[-1][:, :1], rtol=1e-3, atol=1e-4):
            yield f"a query's prediction depends on the other queries, which regime {regime!r} forbids"


def check_task(entry: Entry) -> Iterator[str]:
    """A task distribution: class data, and the properties of its episodes for every variant."""
    cls: Any = entry.cls
    if not (cls.__doc__ or "").strip() or (cls.__doc__ or "").startswith(f"{cls.__name__}("):
        yield "has no docstring: it is the data sheet (inputs, outputs, units, how tasks are drawn, source)"
    for name in ("kind", "variants", "metric", "higher_is_better", "equivalence_margin"):
        if not hasattr(cls, name):
            yield f"has no class data {name!r} (see benchmarks.api.TaskDistribution)"
            return
    if cls.kind not in KINDS:
        yield f"kind = {cls.kind!r}; known: {', '.join(KINDS)}"
    for variant in cls.variants:
        tasks = registry.build_task(f"{entry.name}/{variant}")
        try:
            tasks.prepare()
        except Unavailable as reason:
            yield f"can't be checked: {reason}"
            return
        for line in check_environments(tasks) if tasks.kind == "control" else check_episodes(tasks):
            yield f"variant {variant}: {line}"


def check_environments(tasks: TaskDistribution) -> Iterator[str]:
    """Purity and shapes of the returns of a policy that doesn't look (control tasks only)."""

    def returns(split: str, indices: tuple[int, ...], part: str = "query") -> Tensor:
        episodes = tasks.episodes(split, indices, shots=QUERIES, queries=QUERIES)
        return tasks.score(
            lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None), getattr(episodes, part)
        )

    first = {split: returns(split, INDICES) for split in SPLITS}
    for split, together in first.items():
        if tuple(together.shape) != (len(INDICES), QUERIES):
            yield f"score has shape {tuple(together.shape)}, not one return per trajectory {(len(INDICES), QUERIES)}"
            return
        if not torch.isfinite(together).all():
            yield f"{split} returns are not finite"
    if not torch.equal(first["test"], returns("test", INDICES[::-1]).flip(0)):
        yield "returns depend on which other tasks are simulated with them"
    if _alike(first["test"], returns("test", INDICES, "support")):
        yield "the query trajectories are those of the support"
    for split in ("validation", "test"):
        if _alike(first[split], first["train"]):
            yield f"the {split} trajectories are those of training"


def _alike(returns: Tensor, others: Tensor) -> bool:
    """Whether two sets of returns are the same and say so: where rewards are sparse, all of them are 0."""
    return torch.equal(returns, others) and bool(returns.std() > 0)


def check_episodes(tasks: TaskDistribution) -> Iterator[str]:
    """Purity, disjointness, shapes and scores of the episodes of one variant (labelled sets only)."""
    for split in SPLITS:
        together = tasks.episodes(split, INDICES)
        backwards = tasks.episodes(split, INDICES[::-1])
        if not torch.equal(together.query.x, backwards.query.x.flip(0)):
            yield f"{split} episodes depend on which others are cut with them"
        for part in ("support", "query"):
            labelled = getattr(together, part)
            if tuple(labelled.x.shape[2:]) != tasks.input_shape:
                yield f"{part} inputs have shape {tuple(labelled.x.shape[2:])}, input_shape says {tasks.input_shape}"
        if together.query.items is not None and _overlap(together):
            yield f"{split}: an example is in the support set and in the queries of the same episode"
    yield from _check_splits(tasks)
    yield from _check_scores(tasks)


def _overlap(episodes: Episodes) -> bool:
    """An image turned by 90 degrees belongs to another class, so an example is an item of a class."""

    def examples(labelled: Any) -> list[set[tuple[int, int]]]:
        rows = zip(labelled.classes.tolist(), labelled.items.tolist(), strict=True)
        return [set(zip(*row, strict=True)) for row in rows]

    pairs = zip(examples(episodes.support), examples(episodes.query), strict=True)
    return any(support & query for support, query in pairs)


def _check_splits(tasks: TaskDistribution) -> Iterator[str]:
    first = {split: tasks.episodes(split, INDICES) for split in SPLITS}
    for split in ("validation", "test"):
        if torch.equal(first[split].support.x, first["train"].support.x):
            yield f"the {split} episodes are the training episodes"
    fewer = tasks.episodes("test", INDICES, shots=1)
    if not torch.equal(fewer.query.x, first["test"].query.x):
        yield "the queries change with the number of shots, so scores at different shots are not paired"


def _check_scores(tasks: TaskDistribution) -> Iterator[str]:
    query = tasks.episodes("test", INDICES).query
    if tasks.kind == "classification":
        right = torch.nn.functional.one_hot(query.y, tasks.outputs).float()
        best, perfect = 1.0, right
    else:
        best, perfect = 0.0, query.y
    scores = tasks.score(lambda x, memory=None: (perfect, None), query)  # type: ignore[arg-type]
    if tuple(scores.shape) != tuple(query.x.shape[:2]):
        yield f"score has shape {tuple(scores.shape)}, not one score per query {tuple(query.x.shape[:2])}"
    elif not (scores.double() == best).all():
        yield f"a perfect predictor scores {float(scores.double().mean()):g}, not {best:g}"
