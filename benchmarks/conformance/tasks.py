"""Does a task distribution keep the contract? Every variant, on a few episodes of each split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import KINDS, SPLITS, Episodes, LabelledSet, TaskDistribution
from benchmarks.conformance.findings import Finding, complaint, guarded, note, tried
from benchmarks.conformance.watch import changes, generators
from benchmarks.errors import Unavailable
from benchmarks.registry import Entry

INDICES = (0, 1, 2)
#: the same without the first, in another order: episodes must not change
OTHERS = (2, 1)
#: trajectories per task of control
TRAJECTORIES = 2
#: numbers of channels that an image has
CHANNELS = (1, 3, 4)


def check_task(entry: Entry, variants: Iterable[str] | None = None) -> Iterator[Finding]:
    """The class data of a task distribution, and the properties of the episodes of these variants, or of all."""
    broken = False
    for finding in guarded(_check_class(entry), entry.path):
        broken |= finding.kind == "complaint"
        yield finding.about(f"{entry.name}:")
    for variant in () if broken else variants or entry.cls.variants:
        for finding in guarded(_check_variant(f"{entry.name}/{variant}"), entry.path):
            yield finding.about(f"{entry.name}/{variant}:")


def _check_class(entry: Entry) -> Iterator[Finding]:
    yield tried("class data")
    cls: Any = entry.cls
    if not (cls.__doc__ or "").strip() or (cls.__doc__ or "").startswith(f"{cls.__name__}("):
        yield complaint("has no docstring: it is the data sheet (inputs, outputs, units, how tasks are drawn, source)")
    for name in ("kind", "variants", "metric", "higher_is_better", "equivalence_margin"):
        if not hasattr(cls, name):
            yield complaint(f"has no class data {name!r}: see benchmarks.api.TaskDistribution")
            return
    if cls.kind not in KINDS:
        yield complaint(f"kind = {cls.kind!r}; known: {', '.join(KINDS)}")
    for name in ("shot", "queries", *(["way"] if cls.kind == "classification" else [])):
        if name not in entry.known_fields:
            yield complaint(f"has no field {name!r}: methods read it")


def _check_variant(task: str) -> Iterator[Finding]:
    tasks = registry.build_task(task)
    yield tried(f"episodes {', '.join(map(str, INDICES))} of {', '.join(SPLITS)} ({tasks.kind})")
    try:
        tasks.prepare()
    except Unavailable as reason:
        yield complaint(f"can't be checked: {reason}")
        return
    before = generators()
    yield from check_environments(tasks) if tasks.kind == "control" else check_episodes(tasks)
    if "pooled" in tasks.offers:
        yield from check_pooled(tasks)
    if names := changes(before, generators()):
        yield complaint(f"draws from a global random generator ({names}): use benchmarks.sampling")


def check_environments(tasks: TaskDistribution) -> Iterator[Finding]:
    """A control task: its discount, and purity and shapes of the returns of a policy that ignores what it sees."""
    discount = getattr(tasks, "discount", None)
    if not isinstance(discount, int | float) or not 0 <= discount <= 1:
        yield complaint(f"discount = {discount!r}: give it a number from 0 to 1, which learners of values read")

    def returns(split: str, indices: tuple[int, ...], part: str = "query") -> Tensor:
        episodes = tasks.episodes(split, indices, shots=TRAJECTORIES, queries=TRAJECTORIES)
        return tasks.score(
            lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None), getattr(episodes, part)
        )

    first = {split: returns(split, INDICES) for split in SPLITS}
    shape = (len(INDICES), TRAJECTORIES)
    for split, together in first.items():
        if tuple(together.shape) != shape:
            yield complaint(f"score has shape {tuple(together.shape)}, not one return per trajectory {shape}")
            return
        if not torch.isfinite(together).all():
            yield complaint(f"{split} returns are not finite")
    if not torch.equal(first["test"][1:], returns("test", OTHERS).flip(0)):
        yield complaint("returns depend on the other tasks of the batch: draw each task's noise by its index")
    if _alike(first["test"], returns("test", INDICES, "support")):
        yield complaint("the query trajectories are those of the support: give each a stream of its own")
    for split in ("validation", "test"):
        if _alike(first[split], first["train"]):
            yield complaint(f"the {split} trajectories are those of training: give each split a stream of its own")


def _alike(returns: Tensor, others: Tensor) -> bool:
    """Whether two sets of returns are the same and say so: where rewards are sparse, all of them are 0."""
    return torch.equal(returns, others) and bool(returns.std() > 0)


def check_episodes(tasks: TaskDistribution) -> Iterator[Finding]:
    """A task of labelled sets: purity, disjointness, shapes, labels and scores of the episodes of one variant."""
    shape = tasks.input_shape
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        yield complaint(f"input_shape {shape} has its channels last: an image is (channels, height, width)")
    first = {split: tasks.episodes(split, INDICES) for split in SPLITS}
    for split, together in first.items():
        others = tasks.episodes(split, OTHERS)
        for part in ("support", "query"):
            labelled = getattr(together, part)
            again = getattr(others, part)
            if not torch.equal(labelled.x[1:], again.x.flip(0)) or not torch.equal(labelled.y[1:], again.y.flip(0)):
                yield complaint(f"{split} episodes depend on the others of the batch: draw each by its index")
            if tuple(labelled.x.shape[2:]) != shape:
                yield complaint(f"{part} inputs have shape {tuple(labelled.x.shape[2:])}, input_shape says {shape}")
                return
            yield from _check_labelled(labelled, part, tasks)
        yield from _check_overlap(together, split)
    yield from _check_splits(tasks, first)
    yield from _check_scores(tasks, first["test"].query)


def check_pooled(tasks: TaskDistribution) -> Iterator[Finding]:
    """A task that offers "pooled": purity, shapes and labels of its single examples, which `constant` is trained on."""
    yield tried(f"pooled examples {', '.join(map(str, INDICES))} of train")
    found, again = tasks.pooled("train", INDICES), tasks.pooled("train", OTHERS)
    shape, count = (1, len(INDICES), *tasks.input_shape), tasks.pooled_outputs("train")
    if tuple(found.x.shape) != shape:
        yield complaint(
            f"pooled inputs have shape {tuple(found.x.shape)}, not one task of one example an index {shape}"
        )
        return
    if not torch.equal(found.x[:, 1:], again.x.flip(1)) or not torch.equal(found.y[:, 1:], again.y.flip(1)):
        yield complaint("pooled examples depend on the other indices: draw each by its index")
    if tasks.kind == "regression":
        if count != tasks.outputs:
            yield complaint(f"pooled_outputs = {count!r}, not the dimension of the target, {tasks.outputs}")
        yield from _check_labelled(found, "pooled", tasks)
    elif tuple(found.y.shape) != shape[:2] or found.y.dtype != torch.int64:
        yield complaint(f"pooled labels are {found.y.dtype} {tuple(found.y.shape)}, expected torch.int64 {shape[:2]}")
    elif int(found.y.min()) < 0 or int(found.y.max()) >= count:
        yield complaint(f"pooled labels {found.y.tolist()} aren't class numbers below pooled_outputs, {count}")


def _check_labelled(labelled: LabelledSet, part: str, tasks: TaskDistribution) -> Iterator[Finding]:
    x, y = labelled.x, labelled.y
    if not x.is_floating_point() or not torch.isfinite(x).all():
        yield complaint(f"{part} inputs are {x.dtype}, or not finite: give finite floats")
    if tasks.kind == "regression":
        expected = (*x.shape[:2], tasks.outputs)
        if tuple(y.shape) != expected or y.dtype != x.dtype:
            yield complaint(f"{part} targets are {y.dtype} {tuple(y.shape)}, expected {x.dtype} {expected}")
    elif tuple(y.shape) != tuple(x.shape[:2]) or y.dtype != torch.int64:
        yield complaint(f"{part} labels are {y.dtype} {tuple(y.shape)}, expected torch.int64 {tuple(x.shape[:2])}")
    elif any(set(row) != set(range(tasks.outputs)) for row in y.tolist()):
        yield complaint(f"{part} labels aren't all of 0 to {tasks.outputs - 1} in every episode")


def _check_overlap(episodes: Episodes, split: str) -> Iterator[Finding]:
    """Whether an example is in both sets, by its number; by its input where it has none."""
    support, query = episodes.support, episodes.query
    if query.items is None:
        if _shared(_inputs(support), _inputs(query)):
            yield complaint(
                f"{split}: an input of the support set is a query of the same episode: draw the queries apart, or give "
                "both sets `items` if examples differ in more than the input"
            )
        return
    if support.items is None or support.classes is None or query.classes is None:
        yield complaint(f"{split}: `classes` and `items` come together, in the support set and the queries")
    elif _shared(_numbers(support), _numbers(query)):
        yield complaint(f"{split}: an example is in the support set and in the queries of the same episode")
    elif _shared(_inputs(support), _inputs(query)):
        yield note(f"{split}: a query has the same input as an example of its support set, under another number")


def _shared(support: list[set[Any]], query: list[set[Any]]) -> bool:
    return any(a & b for a, b in zip(support, query, strict=True))


def _inputs(labelled: LabelledSet) -> list[set[bytes]]:
    return [{row.tobytes() for row in episode} for episode in labelled.x.flatten(2).cpu().numpy()]


def _numbers(labelled: LabelledSet) -> list[set[tuple[int, int]]]:
    """A turned image belongs to another class, so an example is an item of a class."""
    assert labelled.classes is not None
    assert labelled.items is not None
    rows = zip(labelled.classes.tolist(), labelled.items.tolist(), strict=True)
    return [set(zip(*row, strict=True)) for row in rows]


def _check_splits(tasks: TaskDistribution, first: dict[str, Episodes]) -> Iterator[Finding]:
    for split in ("validation", "test"):
        if torch.equal(first[split].support.x, first["train"].support.x):
            yield complaint(f"the {split} episodes are the training episodes: give each split a stream of its own")
    fewer = tasks.episodes("test", INDICES, shots=1)
    if not torch.equal(fewer.query.x, first["test"].query.x):
        yield complaint("the queries change with the number of shots: scores at different shots are not paired")


def _check_scores(tasks: TaskDistribution, query: LabelledSet) -> Iterator[Finding]:
    if tasks.kind == "classification":
        right = torch.nn.functional.one_hot(query.y, tasks.outputs).float()
        best, perfect = 1.0, right
    else:
        best, perfect = 0.0, query.y
    scores = tasks.score(lambda x, memory=None: (perfect, None), query)
    if tuple(scores.shape) != tuple(query.x.shape[:2]):
        yield complaint(f"score has shape {tuple(scores.shape)}, not one score per query {tuple(query.x.shape[:2])}")
    elif not (scores.double() == best).all():
        yield complaint(f"a perfect predictor scores {float(scores.double().mean()):g}, not {best:g}")
    lost = tasks.score(lambda x, memory=None: (torch.full_like(perfect, torch.nan), None), query)
    if torch.isfinite(lost).any():
        yield complaint(
            f"predictions that are not a number score {float(lost.nanmean()):g}: score is NaN there (for classes see "
            "benchmarks.images.distribution.classes_of)"
        )
    for wrong in (perfect[0, 0], perfect[..., :1, :], perfect[..., 0]):
        try:
            tasks.score(lambda x, memory=None: (wrong, None), query)  # noqa: B023
        except Exception:
            continue
        yield complaint(
            f"score takes predictions of shape {tuple(wrong.shape)}: call self.predictions(predictor, query), which "
            "refuses another shape than (tasks, queries, outputs)"
        )
        return
