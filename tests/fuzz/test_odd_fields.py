"""Every field of every method with an odd value: refused in one line before anything runs."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.errors import MetabenchError
from benchmarks.registry import build_method, build_task, check_method_setting, methods

#: fields that may be below 0
SIGNED = {"adapted_layers"}


def fields_of(name: str) -> Iterator[tuple[str, Any]]:
    """The fields of a method's classes that a user may set, and their annotations."""
    for entry in methods()[name].all:
        hints = typing.get_type_hints(entry.cls)
        for field in dataclasses.fields(entry.cls):
            if field.metadata.get("configuration", True):
                yield field.name, hints[field.name]


def numbers_in(hint: Any) -> set[type]:
    """The types of number that an annotation allows, alone or in a tuple."""
    arguments = typing.get_args(hint) or (hint,)
    return {kind for kind in (int, float) if kind in arguments}


def odd_values(hint: Any) -> list[Any]:
    """Values of another type, too large, not finite and below 0."""
    found: list[Any] = [[], {"a": 1}]
    if not (kinds := numbers_in(hint)):
        return found
    numbers = [10**18, -1, *([math.nan, math.inf, 1e30] if float in kinds else [1.5])]
    many = typing.get_origin(hint) is tuple
    return [*found, *([(number,) for number in (*numbers, "x", True)] if many else numbers)]


def refusal(name: str, field: str, value: Any) -> str:
    """Why a method does not take the value; "" if it does."""
    try:
        check_method_setting(name, field, value)
    except MetabenchError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", sorted(methods()))
def test_an_odd_value_of_a_field_is_one_line(name: str) -> None:
    wrong = []
    for field, hint in fields_of(name):
        for value in odd_values(hint):
            if field in SIGNED and value == -1:
                continue
            line = refusal(name, field, value)
            if field not in line or "\n" in line:
                wrong.append((field, value, line))
    assert not wrong


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("maml", "test_steps", (1, "x"), "an entry of maml.test_steps = 'x' is str, not int"),
        ("maml", "meta_batch", 10**18, "maml.meta_batch = 1000000000000000000 is too large; the most is 1,000,000,000"),
        ("maml", "clip", math.nan, "maml.clip = nan is not finite"),
        ("finetune", "test_steps", (), "finetune: test_steps = (): at least one number of steps"),
        ("reptile", "test_steps", (), "reptile: test_steps = (): at least one number of steps"),
        ("snail", "keys", (), "snail: keys = (): at least one attention block"),
        ("meta-baseline", "scale", 0.0, "meta-baseline: scale = 0.0 is not above 0"),
    ],
)
def test_the_line_names_field_and_value(name: str, field: str, value: Any, said: str) -> None:
    with pytest.raises(MetabenchError) as error:
        check_method_setting(name, field, value)
    assert str(error.value) == said


def test_the_context_alone_adapts_so_layers_are_no_choice() -> None:
    with pytest.raises(MetabenchError, match="unknown field of 'cavia' 'adapted_layers'"):
        check_method_setting("cavia", "adapted_layers", 1)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("maml", {"training_queries": 1000}),
        ("reptile", {"training_shot": 1000}),
        ("memory-augmented", {"training_shot": 1000}),
        ("meta-baseline", {"training_queries": 1000}),
    ],
)
def test_more_training_examples_than_there_are_are_one_line(name: str, fields: dict[str, Any]) -> None:
    tasks = build_task("glyphs/5w1s")
    with pytest.raises(MetabenchError, match=r"per class need \d+ images, but class"):
        build_method(name, tasks, **fields).check_data(tasks)


def test_a_cosine_schedule_of_the_rate_0_is_0() -> None:
    descent = build_method("maml-plus-plus", meta_lr=0.0).for_budget(4).descent()
    assert descent["learning_rate"] * descent.get("schedule", lambda step: 1.0)(4) == 0
