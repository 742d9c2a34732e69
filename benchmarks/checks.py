"""Checks of names, types and numbers that users write: on the command line, in TOML, and as fields of a learner.

Each refuses with one line that names the thing, the value and what is known. Importable without torch.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError

#: the largest number in a table of TOML, and of a field: more is a typing mistake
LARGEST = 10**9
#: a profile's name is also the name of its store's folder; a comma, a slash or a blank would end that of a method
_NAME = re.compile(r"\w[\w.-]*")
BOUNDS: Mapping[str, Callable[[float], bool]] = {
    "at least 0": lambda number: number >= 0,
    "at least 1": lambda number: number >= 1,
    "at least 2": lambda number: number >= 2,
    "above 0": lambda number: number > 0,
    "between 0 and 1": lambda number: 0 <= number <= 1,
    "above 0 and below 1": lambda number: 0 < number < 1,
    "a finite number": math.isfinite,
}


def unknown(what: str, name: str, known: Iterable[str]) -> MetabenchError:
    """The line for a name that is not known: the name, the nearest one and the known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return MetabenchError(f"unknown {what} {name!r}{hint}; known: {', '.join(known)}")


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in (known := tuple(known)):
        raise unknown(what, name, known)


def listed(given: Iterable[str]) -> list[str]:
    """Names, each once, where a text may be a comma list of them: ``maml,fomaml``. A file's name may have a comma."""
    texts = list(given)
    found = [
        part.strip()
        for text in texts
        for part in ([text] if text.endswith(".py") and Path(text).is_file() else text.removesuffix(",").split(","))
    ]
    if not all(found):
        raise MetabenchError(f"{','.join(texts)!r} has an empty name: write names as in maml,fomaml")
    return list(dict.fromkeys(found))


def check_name(what: str, name: str) -> None:
    """Refuse a name that could not be typed in a list of names, or that is a path."""
    if not _NAME.fullmatch(name):
        raise MetabenchError(f"{what} name {name!r}: use letters, digits, '-', '_' and '.'")


def check_type(what: str, value: Any, expected: Any) -> None:
    """Refuse a value of another type than an annotation says, and entries of a tuple; ``[int]`` stands for a list of
    integers, ``{str: int}`` for a table of them."""
    if isinstance(expected, (list, dict)):
        check_type(what, value, type(expected))
        entries = value.values() if isinstance(value, dict) else value
        for entry in entries:
            check_type(what, entry, *(expected.values() if isinstance(expected, dict) else expected))
        return
    arguments = typing.get_args(expected)
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        if value not in arguments:
            raise MetabenchError(f"{what} = {value!r}; known: {', '.join(map(str, arguments))}")
        return
    allowed = arguments if origin in (typing.Union, types.UnionType) else (expected,)
    plain = tuple(typing.get_origin(kind) or kind for kind in allowed)
    accepted = (*plain, int) if float in plain else plain
    if not (bool in plain if isinstance(value, bool) else isinstance(value, accepted)):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in plain)
        raise MetabenchError(f"{what} = {value!r} is {type(value).__name__}, not {names}")
    for entry in value if isinstance(value, tuple) and arguments[1:] == (...,) else ():
        check_type(f"an entry of {what}", entry, arguments[0])


def check_device(name: str, here: bool = True) -> str:
    """The name of a device, ``cpu``, ``cuda`` or ``cuda:N``; refuses one that torch does not have, if it is to be
    here."""
    kind, colon, number = str(name).partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not (number.isascii() and number.isdigit()))):
        raise MetabenchError(f"unknown device {name!r}; known: cpu, cuda, cuda:N")
    if not here:
        return name
    import torch

    if kind == "cuda" and not torch.cuda.is_available():
        raise MetabenchError(f"device {name!r} is missing: torch {torch.__version__} finds no CUDA device")
    if number and int(number) >= (count := torch.cuda.device_count()):
        raise MetabenchError(f"device {name!r} is missing; known: {', '.join(f'cuda:{i}' for i in range(count))}")
    return name


def check_size(what: str, value: Any) -> None:
    """Refuse a number, or one of several, that is not finite or larger than `LARGEST`."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not abs(number) <= LARGEST:
            why = f"is too large; the most is {LARGEST:,}" if math.isfinite(number) else "is not finite"
            raise MetabenchError(f"{what} = {value!r} {why}")


def check_fields(learner: Any, bound: str, *names: str) -> None:
    """Refuse fields whose number, or one of several, is outside one of `BOUNDS` or not finite, for `__post_init__`."""
    for name in names:
        value = getattr(learner, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) and BOUNDS[bound](number) for number in numbers):
            raise ValueError(f"{name} = {value} is not {bound}")


def check_table(
    what: str, name: str, table: Mapping[str, Any], expected: Mapping[str, Any], most: Mapping[str, int] | None = None
) -> None:
    """Refuse unknown keys, values of another type, and numbers that are not above 0 or larger than ``most``.

    what, name: the kind of table and its name. expected: key -> type, as for `check_type`."""
    for key, value in table.items():
        check_known(f"key of {what} {name!r}", key, expected)
        check_type(f"{what} {name}: {key}", value, expected[key])
        check_budget(f"{what} {name}: {key}", value, (most or {}).get(key, LARGEST))


def check_budget(what: str, value: Any, most: int = LARGEST) -> None:
    """Refuse a number, or one within a list or a table, that is not above 0 or larger than ``most``."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
    for number in entries:
        if not isinstance(number, (int, float)):
            continue
        if not number > 0:
            raise MetabenchError(f"{what} = {number!r} is not above 0")
        if not number <= most:
            raise MetabenchError(f"{what} = {number!r} is too large; the most is {most:,}")


def check_output(path: Path) -> None:
    """Refuse a file to write that is a folder or a device, or whose folder is not there and can't be created."""
    try:
        if path.exists() and not path.is_file():
            raise MetabenchError(f"{path} can't be written: it is {'a folder' if path.is_dir() else 'no regular file'}")
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    except OSError as error:
        raise MetabenchError(f"{path} can't be written: {error.strerror}") from None
    if not folder.is_dir():
        raise MetabenchError(f"{path} can't be written: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise MetabenchError(f"{path} can't be written: no permission to write in {folder}")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; what: the file's contents in words."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors may begin it with a byte-order mark
    except OSError as error:
        raise MetabenchError(f"no such file of {what}: {path} ({error.strerror})") from None
    except ValueError as error:
        raise MetabenchError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise MetabenchError(f"{path} is not TOML: nested too deeply") from None
