"""Secrets in texts that are kept: the values of environment variables whose names look secret are replaced."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

#: names that look secret
SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL", re.IGNORECASE)
#: shorter values are words that occur elsewhere
SHORTEST = 6
#: fields of a record that may hold an exception's text
TEXTS = ("reason", "stderr", "plan", "cost")


def masked(value: Any) -> Any:
    """A text, or all texts in a plain value, with ``<NAME>`` for the value of a secret variable NAME."""
    secrets = sorted(_secrets(), key=lambda pair: -len(pair[0]))  # one may be part of another
    return _masked(value, secrets) if secrets else value


def masked_texts(record: Any) -> dict[str, Any]:
    """The fields of a record that hold texts of a method's code or of libraries, masked."""
    return {name: masked(getattr(record, name)) for name in TEXTS}


def _masked(value: Any, secrets: list[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        for secret, name in secrets:
            value = value.replace(secret, f"<{name}>")
        return value
    if isinstance(value, Mapping):
        return {name: _masked(each, secrets) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_masked(each, secrets) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{name: _masked(each, secrets) for name, each in vars(value).items()})
    return value


def _secrets() -> Iterator[tuple[str, str]]:
    """Each form in which a secret may stand in a text, and its name: also quoted, in a URL, and its single lines."""
    for name, value in os.environ.items():
        if SECRET.search(name):
            forms = {value, repr(value)[1:-1], quote(value, safe=""), *value.split("\n")}
            yield from ((form, name) for form in forms if len(form) >= SHORTEST)
