"""Plain values, as JSON holds them: written, hashed to keys, and read by type.

Reading is strict. A field that is missing, unknown or of another type raises `Unreadable`, which names the field.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class Unreadable(ValueError):
    """A plain value that is not of the type that is read; the text names the field."""


def plain(value: Any) -> Any:
    """The value as JSON can hold it: dataclasses become dicts, numpy's numbers Python's, tuples lists, and numbers that
    are not finite None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} is no plain value")


def content_key(value: Any) -> str:
    """16 hexadecimal digits that stand for a plain value (dicts, sequences, text, numbers, None).

    Independent of the order of a dict's entries; a tuple is a list, and 1.0 is 1."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _canonical(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"float:{value}"
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{value!r} is no plain value")


def from_text(text: bytes) -> Any:
    """The value of a JSON text; raises ValueError for anything else, `NaN` and lone surrogates included."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if b"\\u" in text:  # escapes alone can spell half a character, which no file can hold
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read(cls: type[T], value: Any, where: str) -> T:
    """A dataclass from the plain dict that `plain` made of it; raises `Unreadable`."""
    if not isinstance(value, dict):
        raise Unreadable(f"{where} is {type(value).__name__}, not an object")
    hints, required = _fields(typing.cast(Any, cls))
    if unknown := sorted(value.keys() - hints.keys()):
        raise Unreadable(f"{where} has an unknown field {unknown[0]!r}")
    if missing := sorted(required - value.keys()):
        raise Unreadable(f"{where} has no {missing[0]!r}")
    return cls(**{name: _typed(hints[name], entry, f"{where}.{name}") for name, entry in value.items()})


@functools.cache
def _fields(cls: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of all fields, and the names of those without a default."""
    missing = dataclasses.MISSING
    required = (f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing)
    return typing.get_type_hints(cls), frozenset(required)


def _typed(kind: Any, value: Any, where: str) -> Any:
    """A value of an annotated type: a dataclass, tuple[X, ...], dict[str, X], Literal, X | None or a plain type."""
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _typed(next(each for each in arguments if each is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise Unreadable(f"{where} is {value!r}; known: {', '.join(arguments)}")
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(arguments[0], entry, where) for entry in value)
    if origin is dict and isinstance(value, dict):
        return {name: _typed(arguments[1], each, f"{where}.{name}") for name, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return read(typing.cast(type, kind), value, where)
    expected = origin or kind
    if expected is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise Unreadable(f"{where} is {type(value).__name__}, not {expected.__name__}")
    if (expected is int and abs(value) >= 2**63) or (expected is float and not math.isfinite(value)):
        raise Unreadable(f"{where} is out of range")
    return value
