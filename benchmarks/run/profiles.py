"""Profiles: the plain data of `profiles.toml`, or of somebody's own file like it, checked key by key."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError

#: how the rates and the number of steps of a learner are set
SELECTIONS = ("published", "validation")
#: which state of a fit is tested: the best on validation episodes, or the last
MODELS = ("best", "last")
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
    models: tuple[str, ...] = ("best",)
    kill_after: float | None = None

    @property
    def limit(self) -> float:
        """Seconds after which a cell's process is killed: room for validation and slow starts beside the training."""
        return 2 * self.seconds + 60 if self.kill_after is None else self.kill_after


@dataclass(frozen=True)
class Profile:
    """A named list of blocks; ``other`` is the block for a task that the profile does not list."""

    name: str
    about: str
    blocks: tuple[Block, ...]
    other: Block


def load(name: str) -> Profile:
    """The profile of this name, or of a path: ``./mine.toml`` for a file with one profile, ``./mine.toml:short``.

    A mistake in the file is an error that names the key."""
    title, body = _find(name)
    common = dict(body)
    about, tasks = common.pop("about", ""), common.pop("tasks", [])
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "task" in task for task in tasks):
        raise MetabenchError(f'profile {title!r}: write each task as a block, [[{title}.tasks]] with task = "name"')
    blocks = tuple(_block(title, {**common, **task}) for task in tasks)
    return Profile(title, about, blocks, _block(title, {**common, "task": ""}))


def title(name: str) -> str:
    """What the profile is called that `load` finds under a name or a path."""
    return _find(name)[0]


def names() -> dict[str, str]:
    """The suite's profiles and what each is for."""
    return {name: str(body.get("about", "")) for name, body in _read(FILE).items()}


def _find(name: str) -> tuple[str, Mapping[str, Any]]:
    path, colon, wanted = name.rpartition(":") if not name.endswith(".toml") else (name, "", "")
    own = path.endswith(".toml")
    known = _read(Path(path) if own else FILE)
    if not own:
        wanted = name
    elif not colon and len(known) == 1:
        wanted = next(iter(known))
    elif not colon:
        raise MetabenchError(f"{path} holds {len(known)} profiles: write {path}:name; known: {', '.join(known)}")
    if wanted not in known:
        from benchmarks.registry import unknown

        raise unknown(f"profile in {path}" if own else "profile", wanted, known)
    return wanted, known[wanted]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        known = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MetabenchError(f"no such file of profiles: {path} ({error.strerror})") from None
    except ValueError as error:
        raise MetabenchError(f"{path} is not TOML: {error}") from None
    for name, body in known.items():
        if not isinstance(body, dict):
            raise MetabenchError(f"{path}: {name} = {body!r} stands outside of a profile: begin with [name]")
    return known


#: what each key may hold; of a list, its entries
_TYPES: dict[str, Any] = {
    "task": str,
    "methods": [str],
    "seeds": int,
    "episodes": int,
    "validation_episodes": int,
    "validations": int,
    "seconds": float,
    "meta_steps": int | str,
    "meta_steps_of": dict,
    "otherwise": str,
    "shots": [int],
    "also": [str],
    "regimes": [str],
    "selections": [str],
    "models": [str],
    "kill_after": float,
}


def _block(profile: str, settings: Mapping[str, Any]) -> Block:
    from benchmarks.api import REGIMES
    from benchmarks.registry import unknown

    choices = {"regimes": REGIMES, "selections": SELECTIONS, "models": MODELS}
    for key, value in settings.items():
        if key not in _TYPES:
            raise unknown(f"key of profile {profile!r}", key, _TYPES)
        _check(f"profile {profile}: {key}", value, _TYPES[key])
        for entry in value if key in choices else ():
            if entry not in choices[key]:
                raise unknown(f"entry of {key} in profile {profile!r}", entry, choices[key])
    fields = dataclasses.fields(Block)
    missing = [f.name for f in fields if f.default is f.default_factory and f.name not in settings]
    if missing:
        raise MetabenchError(f"profile {profile!r} lacks {', '.join(missing)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Block(**values)


def _check(what: str, value: Any, expected: Any) -> None:
    from benchmarks.registry import check_type

    if isinstance(expected, list):
        check_type(what, value, list)
        for entry in value:
            _check(what, entry, expected[0])
        return
    check_type(what, value, expected)
    for number in value.values() if isinstance(value, dict) else (value,):
        if isinstance(number, (int, float)) and number <= 0:
            raise MetabenchError(f"{what} = {number!r} is not above 0")
