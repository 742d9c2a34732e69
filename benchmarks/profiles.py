"""Profiles: the plain data of `profiles.toml`, checked key by key."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError

FILE = Path(__file__).with_name("profiles.toml")


@dataclass(frozen=True)
class Block:
    """One task of a profile: what is run on it and for how long. `profiles.toml` explains each field."""

    task: str
    methods: tuple[str, ...]
    seeds: int
    episodes: int
    validation_episodes: int
    validations: int
    seconds: float
    meta_steps: int | str
    meta_steps_of: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    otherwise: str | None = None
    shots: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    selections: tuple[str, ...] = ("published",)


@dataclass(frozen=True)
class Profile:
    """A named list of blocks; ``other`` is the block for a task that the profile does not list."""

    name: str
    about: str
    blocks: tuple[Block, ...]
    other: Block


def load(name: str) -> Profile:
    """The profile of this name; a mistake in the file is an error that names the key."""
    known = tomllib.loads(FILE.read_text(encoding="utf-8"))
    from benchmarks.registry import unknown

    if name not in known:
        raise unknown("profile", name, known)
    common = dict(known[name])
    about, tasks = common.pop("about", ""), common.pop("tasks", [])
    blocks = tuple(_block(name, {**common, **task}) for task in tasks)
    return Profile(name, about, blocks, _block(name, {**common, "task": ""}))


def names() -> dict[str, str]:
    """The profiles and what each is for."""
    return {name: str(body.get("about", "")) for name, body in tomllib.loads(FILE.read_text(encoding="utf-8")).items()}


_TYPES: dict[str, Any] = {
    "task": str,
    "methods": list,
    "seeds": int,
    "episodes": int,
    "validation_episodes": int,
    "validations": int,
    "seconds": float,
    "meta_steps": int | str,
    "meta_steps_of": dict,
    "otherwise": str,
    "shots": list,
    "also": list,
    "regimes": list,
    "selections": list,
}


def _block(profile: str, settings: Mapping[str, Any]) -> Block:
    from benchmarks.registry import check_type, unknown

    for key, value in settings.items():
        if key not in _TYPES:
            raise unknown(f"key of profile {profile!r}", key, _TYPES)
        check_type(f"profile {profile}: {key}", value, _TYPES[key])
    try:
        return Block(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    except TypeError as error:
        raise MetabenchError(f"profile {profile!r}: {error}") from error
