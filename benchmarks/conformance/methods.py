"""Does a method keep the contract? Trained for two meta-steps, then adapted to a few test episodes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import (
    KINDS,
    REGIMES,
    Episodes,
    LabelledSet,
    MetaLearner,
    State,
    TaskDistribution,
    in_regime,
    regimes_of,
)
from benchmarks.conformance.findings import Finding, complaint, guarded, note, tried
from benchmarks.conformance.watch import changes, generators, watched
from benchmarks.registry import Entry

#: tasks that need no data, with small fields; a method is tried on the first of each kind that it fits
TRIALS: Mapping[str, Mapping[str, Any]] = {
    "sinusoid/k5": {},
    "glyphs/5w1s": {},
    "navigation-2d/quick": {"horizon": 20, "shot": 4, "queries": 2},
    "bandit/k5n10": {"queries": 2},
    "tabular-mdp/n10": {"rounds": 2, "queries": 2},
}
META_STEPS = 2
INDICES = (0, 1, 2)
#: queries per class (or per task) that predictions are compared on
QUERIES = 2
#: (number of inner steps, batch-norm regime) -> predictions ``[T, n, outputs]``, or returns ``[T, n]`` in control
Answers = dict[tuple[int, str], Tensor]


def check_method(entry: Entry, own_tasks: Iterable[str] = (), **fields: Any) -> Iterator[Finding]:
    """The class data of a method, and the method on one small task of each kind it learns.

    own_tasks: more tasks to try it on. fields: values other than the defaults."""
    subject = f"{entry.name}:"
    found = 0
    for finding in guarded(_check_class(entry), entry.path):
        found += finding.kind == "complaint"
        yield finding.about(subject)
    kinds: set[str] = set()
    reasons = []
    for task in () if found else (*own_tasks, *TRIALS):
        tasks = registry.build_task(task, **TRIALS.get(task, {}))
        if tasks.kind not in entry.cls.kinds or (tasks.kind in kinds and task in TRIALS):
            continue
        if (reason := registry.mismatch(registry.build_method(entry.name, tasks), entry.name, tasks)) is not None:
            reasons.append(reason)
            continue
        kinds.add(tasks.kind)
        for finding in guarded(_check_on(entry, tasks, fields), entry.path):
            yield finding.about(f"{entry.name} on {tasks.id}:")
    if not found and not kinds:
        why = "; ".join(reasons) or f"it is for {', '.join(entry.cls.kinds)}"
        yield complaint(f"fits no task that is at hand ({why}): register one in the same file").about(subject)


def _check_class(entry: Entry) -> Iterator[Finding]:
    yield tried("class data")
    cls = entry.cls
    if not (cls.__doc__ or "").strip() or (cls.__doc__ or "").startswith(f"{cls.__name__}("):
        yield complaint("has no docstring: say in one sentence what it learns and how")
    kinds = getattr(cls, "kinds", None)
    if not kinds or not set(kinds) <= set(KINDS):
        yield complaint(f"kinds = {kinds!r}: name one or more of {', '.join(KINDS)}")


def _check_on(entry: Entry, tasks: TaskDistribution, fields: Mapping[str, Any]) -> Iterator[Finding]:
    tasks.prepare()
    # the entry is one of several kinds under its name, so it is built from the name
    yield from check_pair(registry.build_method(entry.name, tasks, **fields), tasks)


def check_pair(learner: MetaLearner, tasks: TaskDistribution) -> Iterator[Finding]:
    """A method on a task: its states and predictions, that it repeats itself and leaves all else as it was."""
    before = generators()
    steps = max(learner.reported_steps())
    training = f"{META_STEPS} meta-steps, " if learner.fits or learner.fit_method() else ""
    yield tried(f"{training}adaptation up to step {steps} on {len(INDICES)} test episodes ({tasks.kind})")
    used = learner.fit_method()
    trainer = learner if used is None else registry.build_method(used, tasks)
    state = State()
    if trainer.fits:
        watching, asked = watched(tasks)
        trained = [each.copy() for each in islice(trainer.fit(watching, 0), META_STEPS)]
        yield from _check_splits("fit", asked)
        if len(trained) < META_STEPS:
            yield complaint(f"fit ends after {len(trained)} meta-steps: yield states for ever, the runner stops it")
            return
        state = trained[-1]
        yield note(f"only {META_STEPS} meta-steps were tried")
    watching, asked = watched(tasks)
    kept = copy.deepcopy(state.copy())
    answers = _answers(learner, state, _cut(tasks), watching)
    if not answers:
        yield complaint("adapt yields no predictor: yield one before the first step")
        return
    yield from _check_answers(answers, learner, state, tasks)
    yield from _check_other_shots(learner, state, tasks)
    if trainer.fits and used is None:
        yield from _check_fit(trainer, tasks, trained)
    # other episodes and more training lie between the two calls
    again = _answers(learner, state, _cut(tasks), tasks)
    if any(not torch.equal(answer.nan_to_num(), again.get(at, answer).nan_to_num()) for at, answer in answers.items()):
        yield complaint("adapt answers otherwise when called again: read everything from the state and the support set")
    if not _same(state.copy(), kept):
        yield complaint("adapt changes the state that it was given: work on a copy")
    yield from _check_splits("adapt", asked)
    if names := changes(before, generators()):
        yield complaint(
            f"draws from a global random generator ({names}): take random numbers from the seed (benchmarks.sampling)"
        )
    yield from _note_score(answers, learner, tasks, state.step)


_ALLOWED = {"fit": "train on 'train' alone", "adapt": "learn from the support set alone"}


def _check_splits(function: str, asked: list[tuple[str, str]]) -> Iterator[Finding]:
    for name, split in dict.fromkeys(asked):
        if split != "train":
            yield complaint(f"{function} reads the {split} split ({name}): {_ALLOWED[function]}")


def _check_fit(learner: MetaLearner, tasks: TaskDistribution, trained: list[State]) -> Iterator[Finding]:
    if [state.step for state in trained] != list(range(1, META_STEPS + 1)):
        yield complaint(
            f"fit yields states with steps {[s.step for s in trained]}, not 1, 2 ...: one after each meta-step"
        )
    if not all(state.examples > 0 or state.environment_steps > 0 for state in trained):
        yield complaint("fit counts neither examples nor environment steps: add them to the state")
    again = next(iter(learner.fit(tasks, 0, start=trained[0].copy())), None)
    if again is None or not _same(again.copy(), trained[1]):
        yield complaint("fit(start=state) does not resume bit for bit: carry all that a step needs in the state")
    if not _same(next(iter(learner.fit(tasks, 0))).copy(), trained[0]):
        yield complaint("fit gives another state for the same seed: keep nothing between calls")


def _same(first: State, second: State) -> bool:
    tensors = [(s.parameters, s.buffers, s.moments) for s in (first, second)]
    return first.step == second.step and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(*tensors, strict=True)
    )


def _cut(tasks: TaskDistribution, indices: tuple[int, ...] = INDICES) -> Episodes:
    return tasks.episodes("test", indices, queries=None if tasks.kind == "control" else QUERIES)


def _answers(learner: MetaLearner, state: State, episodes: Episodes, tasks: TaskDistribution) -> Answers:
    """The predictions after each step up to the last reported one, under each batch-norm regime."""
    answers = {}
    adapted = learner.adapt(state, episodes.support, tasks)
    for step, predictor in enumerate(islice(adapted, max(learner.reported_steps()) + 1)):
        for regime in regimes_of(predictor):
            if tasks.kind == "control":
                answers[step, regime] = tasks.score(predictor, episodes.query)
            else:
                answers[step, regime] = in_regime(predictor, regime)(episodes.query.x)[0]
    return answers


def _check_answers(answers: Answers, learner: MetaLearner, state: State, tasks: TaskDistribution) -> Iterator[Finding]:
    episodes = _cut(tasks)
    last = max(step for step, _ in answers)
    if last < max(learner.reported_steps()):
        yield complaint(f"reports step {max(learner.reported_steps())}, but adapt ends after step {last}")
    shape = _shape(answers, tasks)
    for (step, regime), answer in answers.items():
        if regime not in REGIMES:
            yield complaint(f"names the batch-norm regime {regime!r}; known: {', '.join(REGIMES)}")
        if tuple(answer.shape) != shape:
            yield complaint(
                f"step {step} predicts shape {tuple(answer.shape)}, expected {shape} (tasks, queries, outputs)"
            )
            return
        if not torch.isfinite(answer).all():
            yield complaint(f"step {step} predicts numbers that are not finite")
        if answer.requires_grad:
            yield complaint(f"step {step} keeps a graph: detach the parameters in adapt")
    alone = _answers(learner, state, _cut(tasks, INDICES[1:2]), tasks)
    fewer = {}
    if tasks.kind != "control":
        one = LabelledSet(episodes.query.x[:, :1], episodes.query.y[:, :1])
        fewer = _answers(learner, state, Episodes(episodes.support, one), tasks)
    for (step, regime), answer in answers.items():
        # many steps magnify rounding, which differs between batches
        if step == min(last, 1) and not _close(alone[step, regime], answer[1:2]):
            yield complaint(f"a task's predictions depend on the other tasks of the batch (regime {regime})")
        if step == last and regime != "query" and fewer and not _close(fewer[step, regime], answer[:, :1]):
            yield complaint(f"a query's prediction depends on the other queries, which regime {regime!r} forbids")


def _check_other_shots(learner: MetaLearner, state: State, tasks: TaskDistribution) -> Iterator[Finding]:
    """Two shots where the task has one: as many examples as classes hide an answer with a column per example."""
    if tasks.kind == "control" or _cut(tasks).support.x.shape[1] != tasks.outputs:
        return
    yield tried(f"adaptation to two shots ({tasks.kind})")
    episodes = tasks.episodes("test", INDICES, shots=2, queries=QUERIES)
    expected = (*episodes.query.x.shape[:2], tasks.outputs)
    for (step, _), answer in _answers(learner, state, episodes, tasks).items():
        if tuple(answer.shape) != expected:
            k, found = episodes.support.x.shape[1], tuple(answer.shape)
            yield complaint(
                f"step {step} predicts shape {found} from {k} support examples, expected {expected}: "
                "one column per output, not per example"
            )
            return


def _shape(answers: Answers, tasks: TaskDistribution) -> tuple[int, ...]:
    """Tasks, queries and outputs; tasks and trajectories in control, where `score` decides how many there are."""
    if tasks.kind == "control":
        return len(INDICES), *next(iter(answers.values())).shape[1:2]
    return *_cut(tasks).query.x.shape[:2], tasks.outputs


def _close(answer: Tensor, other: Tensor) -> bool:
    return answer.shape == other.shape and torch.allclose(answer, other, rtol=1e-3, atol=1e-4, equal_nan=True)


def _note_score(answers: Answers, learner: MetaLearner, tasks: TaskDistribution, meta_steps: int) -> Iterator[Finding]:
    """A note where the first regime's last answer scores worse than an answer without a look at the task."""
    query = _cut(tasks).query
    regime = next(iter(answers))[1]
    answer = answers[max(step for step, _ in answers), regime]
    if learner.role == "floor" or tuple(answer.shape) != _shape(answers, tasks):
        return
    blind = tasks.score(lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None), query)
    scores = answer if tasks.kind == "control" else tasks.score(lambda x, memory=None: (answer, None), query)
    found, chance = float(scores.double().mean()), float(blind.double().mean())
    chance = 1 / tasks.outputs if tasks.kind == "classification" else chance
    if found < chance if tasks.higher_is_better else found > chance:
        against = "guessing" if tasks.kind == "classification" else "predicting 0"
        after = f" after {meta_steps} meta-steps" if meta_steps else ""
        yield note(f"scores worse than {against}{after}: {tasks.metric} {found:.3g} against {chance:.3g}")
