"""Profiles: the plain data of `profiles.toml`, or of a user's own file, checked key by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.checks import LARGEST, check_budget, check_known, check_name, check_table, read_toml, unknown
from benchmarks.errors import MetabenchError

#: where the rates and the number of steps of a learner come from
SELECTIONS = ("published", "validation")
#: the state of a fit that is tested: the best on validation episodes, or the last
MODELS = ("best", "last")
FILE = Path(__file__).with_name("profiles.toml")
#: the largest numbers of some keys: more is a typing mistake
_MOST = {"seeds": 1_000, "episodes": 10**7, "validation_episodes": 10**7, "patience": 1}


@dataclass(frozen=True)
class Block:
    """One task of a profile: its methods and budgets. `profiles.toml` explains each field."""

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
    queries: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    selections: tuple[str, ...] = ("published",)
    models: tuple[str, ...] = ("best",)
    kill_after: float | None = None
    patience: float | None = None
    examples: int | None = None

    @property
    def limit(self) -> float:
        """Seconds after which a cell's process is killed: leaves room for validation and slow starts."""
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

    Raises `MetabenchError` for a mistake in the file; the message names the key."""
    title, body = _find(name)
    common = dict(body)
    about, tasks = common.pop("about", ""), common.pop("tasks", [])
    blocks = tuple(_block(title, _over(common, task)) for task in tasks)
    return Profile(title, about, blocks, _block(title, {**common, "task": ""}))


def override(
    profile: Profile, meta_steps: int | None = None, episodes: int | None = None, seconds: float | None = None
) -> Profile:
    """The profile with other budgets in each of its blocks. None keeps what the profile says.

    meta_steps: of every fit. episodes: of every test. seconds: cut-off for the training of each fit; a longer one also
    moves the limit after which a cell's process is killed."""
    changes: dict[str, Any] = {}
    if meta_steps is not None:
        changes |= {"meta_steps": meta_steps, "meta_steps_of": {}, "examples": None}
    if episodes is not None:
        changes["episodes"] = episodes
    if seconds is not None:
        changes["seconds"] = seconds
    for key, value in changes.items():
        check_budget(key, value, _MOST.get(key, LARGEST))

    def changed(block: Block) -> Block:
        new = dataclasses.replace(block, **changes)
        return dataclasses.replace(new, kill_after=max(block.limit, 2 * new.seconds + 60)) if seconds else new

    return dataclasses.replace(profile, blocks=tuple(map(changed, profile.blocks)), other=changed(profile.other))


def title(name: str) -> str:
    """The name of the profile that `load` finds under a name or a path."""
    return _find(name)[0]


def names() -> dict[str, str]:
    """The suite's profiles and their purpose."""
    return {name: str(body.get("about", "")) for name, body in _read(FILE).items()}


def _find(name: str) -> tuple[str, dict[str, Any]]:
    """The title of a profile and its body, with all that it extends."""
    path, colon, wanted = name.rpartition(":") if not name.endswith(".toml") else (name, "", "")
    own = path.endswith(".toml")
    file = Path(path) if own else FILE
    known = _read(file)
    if not own:
        wanted = name
    elif not colon and len(known) == 1:
        wanted = next(iter(known))
    elif not known:
        raise MetabenchError(f"{path} holds no profile: begin one with [name]")
    elif not colon:
        raise MetabenchError(f"{path} holds {len(known)} profiles: write {path}:name; known: {', '.join(known)}")
    if wanted not in known:
        raise unknown(f"profile in {path}" if own else "profile", wanted, known)
    check_name(f"{path}: profile", wanted)
    return wanted, _extended(wanted, file, ())


def _extended(name: str, file: Path, above: tuple[tuple[str, Path], ...]) -> dict[str, Any]:
    """The body of a profile, merged into that of the profile that it extends: one of the same file, or of the suite.

    Settings of the profile win over those of the extended one, also over those of its tasks. A profile with tasks of
    its own has only these; each takes the settings that the extended profile has for the same task."""
    body = _read(file)[name]
    tasks = body.get("tasks", [])
    if not isinstance(tasks, list) or not all(_is_block(task) for task in tasks):
        raise MetabenchError(f'profile {name!r}: write each task as a block, [[{name}.tasks]] with task = "name"')
    parent = body.get("extends")
    if parent is None:
        return dict(body)
    above = (*above, (name, file))
    places = [place for place in (file, FILE) if str(parent) in _read(place) and (parent, place) not in above]
    circle = [place for place in above if place[0] == parent]
    if circle and not places:
        names = [*(one for one, _ in above[above.index(circle[0]) :]), parent]
        raise MetabenchError(f"profiles extend each other in a circle: {', '.join(names)}")
    if not isinstance(parent, str) or not places:
        raise unknown(f"profile in extends of {name!r}", str(parent), {*_read(file), *_read(FILE)} - {name})
    base = _extended(parent, places[0], above)
    common = {key: value for key, value in body.items() if key not in ("extends", "tasks", "about")}
    inherited = [_over(task, common) for task in base.pop("tasks", [])]
    by_task = {task["task"]: task for task in inherited}
    own = [_over(by_task.get(task["task"], {}), task) for task in tasks]
    about = body.get("about", f"{parent}, changed")
    return {**_over(base, common), "about": about, "tasks": own or inherited}


def _over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over others. A new budget replaces the old one whole, with those of single methods."""
    replaced = ("examples", "meta_steps_of") if {"examples", "meta_steps"} & new.keys() else ()
    return {**{key: value for key, value in old.items() if key not in replaced}, **new}


def _is_block(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("task"), str)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    known = read_toml(path, "profiles")
    for name, body in known.items():
        if not isinstance(body, dict):
            raise MetabenchError(f"{path}: {name} = {body!r} stands outside a profile: begin with [name]")
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
    "meta_steps_of": {str: int | str},
    "otherwise": str,
    "shots": [int],
    "queries": [int],
    "also": [str],
    "regimes": [str],
    "selections": [str],
    "models": [str],
    "kill_after": float,
    "patience": float,
    "examples": int,
}


def _block(profile: str, settings: Mapping[str, Any]) -> Block:
    from benchmarks.api import REGIMES

    check_table("profile", profile, settings, _TYPES, _MOST)
    for key, known in {"regimes": REGIMES, "selections": SELECTIONS, "models": MODELS}.items():
        for entry in settings.get(key, ()):
            check_known(f"entry of {key} in profile {profile!r}", entry, known)
    if settings.get("methods") == []:
        raise MetabenchError(f"profile {profile!r}: methods = [] leaves nothing to run")
    fields = dataclasses.fields(Block)
    missing = [f.name for f in fields if f.default is f.default_factory and f.name not in settings]
    if missing:
        raise MetabenchError(f"profile {profile!r} lacks {', '.join(missing)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Block(**values)
