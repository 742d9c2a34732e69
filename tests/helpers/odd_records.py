"""Records for tests of the store: a plain one, random ones of every type of field, and plain values with one change."""

from __future__ import annotations

import dataclasses
import random
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.records.plain import content_key
from benchmarks.records.record import Evaluation, Method, Record, StepSummary, Task, Test

KEY, OTHER = content_key("one"), content_key("other")
TASK = Task("glyphs-v1/5w1s", "glyphs", 1, "5w1s", "classification", "accuracy", True, 0.002, {"shot": 1})


def evaluation(key: str = KEY, digest: str | None = None, **changes: Any) -> Record:
    """A finished evaluation of a method without a fit: one test, 20 episodes, step 0."""
    conditions = Evaluation("test", TASK.id, TASK.id, 5, 1, 3, 20, "published", 4, 20, digest)
    test = Test("best", "none", (0,), (StepSummary(0, 0.5, 0.1, 0.2, 20, 0.4),), 0.01)
    record = Record(key, "evaluation", "chance", method=Method("chance", {}), task=TASK, tests=(test,))
    return dataclasses.replace(record, evaluation=conditions, started="2031", finished="2032", **changes)


def scores(episodes: int = 20, level: float = 0.7) -> dict[str, np.ndarray]:
    """Scores as `evaluation` has them: ``[episodes, 3]``, right or wrong."""
    return {"best/none/0": np.random.default_rng(episodes).random((episodes, 3)) < level}


def examples(episodes: int = 20, item: int = 0) -> dict[str, np.ndarray]:
    """Test examples ``[episodes, 3]``."""
    numbers = np.arange(3 * episodes).reshape(episodes, 3)
    return {"classes": numbers % 7, "items": numbers + item}


def anything(kind: Any, draw: random.Random) -> Any:
    """A random value of an annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return draw.choice([None, True, 3, -0.25, "text", [1, "two", None], {"a": {"b": [0.5]}}])
    if origin is typing.Literal:
        return draw.choice(arguments)
    if type(None) in arguments:
        return None if draw.random() < 0.3 else anything(arguments[0], draw)
    if origin is tuple:
        return tuple(anything(arguments[0], draw) for _ in range(draw.randint(1, 3)))
    if origin is dict:
        return {anything(str, draw): anything(arguments[1], draw) for _ in range(draw.randint(0, 3))}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        found = {f.name: anything(hints[f.name], draw) for f in dataclasses.fields(kind)}
        if kind is Test:
            found["reported_steps"] = tuple(row.step for row in found["summary"])
        return kind(**found)
    return {
        str: lambda: draw.choice(["", "a", "käse", "\U0001f600 \n\t\"'", "../../x", "2031-05-01"]),
        int: lambda: draw.choice([0, 1, -7, draw.getrandbits(62)]),
        float: lambda: draw.choice([0.0, 1e-300, -2.5, draw.random(), 1e300]),
        bool: lambda: draw.random() < 0.5,
    }[kind]()


def random_record(number: int) -> Record:
    """A record with random values in every field, of those that do not contradict each other."""
    draw = random.Random(number)
    while True:
        record = dataclasses.replace(anything(Record, draw), key=KEY, schema=2, files={})
        if record._contradiction() is None:
            return record


def single_changes(value: Any, odd: list[Any]) -> Iterator[Any]:
    """The plain value with each of the odd ones in each place, one at a time."""
    for place in list(value) if isinstance(value, dict) else range(len(value)):
        inner = value[place]
        for new in (*odd, *(single_changes(inner, odd) if isinstance(inner, (dict, list)) else ())):
            changed = value.copy()
            changed[place] = new
            yield changed
