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
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

T = TypeVar("T")

#: metadata of a field whose rows, dataclasses of plain values, are written by column: a third of the text
COLUMNS = {"columns": True}


class Unreadable(ValueError):
    """A plain value that is not of the type that is read. path: the names of the fields that lead to it."""

    def __init__(self, why: str, *path: str) -> None:
        super().__init__(f"{'.'.join(path)} {why}".strip())
        self.why, self.path = why, path


def plain(value: Any) -> Any:
    """The value as JSON can hold it: dataclasses become dicts, numpy's numbers Python's, tuples lists, and numbers that
    are not finite None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _written(f, plain(getattr(value, f.name))) for f in dataclasses.fields(value)}
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


def _written(field: dataclasses.Field[Any], value: Any) -> Any:
    if value and field.metadata.get("columns"):
        return {name: [row[name] for row in value] for name in value[0]}
    return value


def whole(value: Any) -> int | None:
    """A whole number among values of any type; None for others."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def content_key(value: Any) -> str:
    """16 hexadecimal digits that stand for a plain value (dicts, sequences, text, numbers, None).

    Independent of the order of a dict's entries; a tuple is a list, and 1.0 is 1."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed(value: dict[str, Any]) -> bytes:
    """A JSON object as text, an entry per line, with the SHA-256 of all its other entries under "sha256"."""
    return json.dumps(value | {"sha256": _text_hash(value)}, indent=0, allow_nan=False).encode()


def unseal(value: dict[str, Any]) -> bool:
    """Remove the hash from a sealed object; returns whether it is right. Records of older versions have none."""
    return value.pop("sha256", None) in (None, _text_hash(value))


def _text_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
    try:
        found: T = _reader(typing.cast(Any, cls))(value)
    except Unreadable as error:
        raise Unreadable(error.why, where, *error.path) from None
    return found


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """The function that reads an annotated type: a dataclass, tuple[X, ...], dict[str, X] (or with a TypedDict
    of some entries), Literal, X | None, Any, or bool, int, float or str."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if dataclasses.is_dataclass(kind):
        return functools.partial(_object, kind, *_fields(kind))
    if origin is Annotated:
        readers = {name: _reader(each) for name, each in typing.get_type_hints(arguments[1]).items()}
        return functools.partial(_known_entries, readers)
    if origin in (typing.Union, types.UnionType):
        present = _reader(next(each for each in arguments if each is not type(None)))
        return lambda value: None if value is None else present(value)
    if origin is Literal:
        return functools.partial(_choice, arguments)
    if origin is tuple:
        return lambda value: tuple(map(_reader(arguments[0]), _of(list, value)))
    if origin is dict:
        return lambda value: {
            name: _field(_reader(arguments[1]), name, each) for name, each in _of(dict, value).items()
        }
    return functools.partial(_number, kind) if kind in (int, float) else functools.partial(_of, kind)


def _known_entries(readers: Mapping[str, Callable[[Any], Any]], value: Any) -> dict[str, Any]:
    """A dict whose known entries have their types; it may have others."""
    for name, each in _of(dict, value).items():
        if name in readers:
            _field(readers[name], name, each)
    return value  # type: ignore[no-any-return]


def _fields(cls: Any) -> tuple[dict[str, Callable[[Any], Any]], frozenset[str]]:
    """The readers of all fields, and the names of those without a default."""
    missing = dataclasses.MISSING
    required = (f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing)
    hints = typing.get_type_hints(cls, include_extras=True)
    readers = {name: _reader(kind) for name, kind in hints.items()}
    for f in dataclasses.fields(cls):
        if f.metadata.get("columns"):
            readers[f.name] = functools.partial(_rows, readers[f.name])
    return readers, frozenset(required)


def _rows(reader: Callable[[Any], Any], value: Any) -> Any:
    """The tuple that columns of equal length hold; older records have a list of rows instead."""
    if type(value) is dict:
        lengths = {len(_field(functools.partial(_of, list), name, column)) for name, column in value.items()}
        if len(lengths) > 1:
            raise Unreadable(f"has columns of {min(lengths)} and {max(lengths)} rows")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return reader(value)


def _object(cls: Any, readers: Mapping[str, Callable[[Any], Any]], required: frozenset[str], value: Any) -> Any:
    if type(value) is not dict:
        raise Unreadable(f"is {type(value).__name__}, not an object")
    if unknown := sorted(value.keys() - readers.keys()):
        raise Unreadable(f"has an unknown field {unknown[0]!r}")
    if missing := sorted(required - value.keys()):
        raise Unreadable(f"has no {missing[0]!r}")
    return cls(**{name: _field(readers[name], name, entry) for name, entry in value.items()})


def _field(reader: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        return reader(value)
    except Unreadable as error:
        raise Unreadable(error.why, name, *error.path) from None


def _choice(known: tuple[str, ...], value: Any) -> Any:
    if value not in known:
        raise Unreadable(f"is {value!r}; known: {', '.join(known)}")
    return value


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Unreadable(f"is {type(value).__name__}, not {kind.__name__}")
    return value


def _number(kind: type, value: Any) -> Any:
    """An int below 2**63, or a finite float, which JSON may spell like an int."""
    if kind is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    if (kind is int and abs(_of(int, value)) >= 2**63) or (kind is float and not math.isfinite(_of(float, value))):
        raise Unreadable("is out of range")
    return value
