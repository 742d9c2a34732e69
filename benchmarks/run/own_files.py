"""A user's own files: each is imported only in processes that need it, never in the one that starts them.

A job with limits lists the names that a file registers. Another one resolves the methods of one file on the tasks of
one file, and no other file is imported there. Methods and tasks of the suite are resolved in the calling process.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import registry
from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.models.backbones import BACKBONES
from benchmarks.models.modules import OwnBackbone
from benchmarks.records.plain import Unreadable
from benchmarks.run import isolate
from benchmarks.run.isolate import Job, Outcome
from benchmarks.run.profiles import Profile
from benchmarks.run.resolution import Request, Resolution, Resolved, check_that_settings_matter, resolve, resolved

#: a file may take this long to be imported and described, in seconds
SECONDS = 120.0

#: names of methods or tasks by the files that they need
Groups = Mapping[tuple[str, ...], list[str]]


@dataclass(frozen=True)
class OwnFiles:
    """The names that a user's own files register, each with its files: several where they share one name."""

    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    backbones: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """All of them, each once."""
        tables = (self.methods, self.tasks, self.backbones)
        return list(dict.fromkeys(file for table in tables for files in table.values() for file in files))

    def of(self, path: str, kind: str) -> list[str]:
        """The "methods", "tasks" or "backbones" of a file."""
        return [name for name, files in getattr(self, kind).items() if path in files]

    def known(self, files: Iterable[str]) -> set[str]:
        """The names of methods and tasks that exist where these files are imported."""
        own = {name for table in (self.methods, self.tasks) for name, of in table.items() if set(of) <= set(files)}
        return {*registry.methods(), *registry.tasks(), *own}


def registered(paths: Sequence[str], memory_bytes: int | None) -> OwnFiles:
    """The names that these files register; raises `MetabenchError` for one that is no plug-in, naming the line."""
    found = OwnFiles()
    answers = _in_jobs("names", [{"files": [path]} for path in paths], memory_bytes)
    for path, names in zip(paths, answers, strict=True):
        for kind in ("methods", "tasks", "backbones"):
            table = getattr(found, kind)
            table.update({name: tuple(dict.fromkeys((*table.get(name, ()), path))) for name in names[kind]})
    return found


def resolve_with(own: OwnFiles, profile: Profile, request: Request, memory_bytes: int | None = None) -> Resolution:
    """As `benchmarks.run.resolution.resolve`, with methods and tasks of the user's own files.

    Raises `MetabenchError` for a file whose job fails."""
    if not own.files:
        return resolve(profile, request)
    for key in request.settings:
        check_known("method or task in settings", key.partition(".")[0], own.known(own.files))
    shared = _of_backbones(own, request.settings)
    pairs = [
        (sorted({*files, *others, *shared}), names, tasks)
        for others, tasks in _groups(request.tasks, own.tasks).items()
        for files, names in _groups(request.methods, own.methods).items()
    ]
    parts = [dataclasses.replace(request, methods=names, tasks=tasks) for _, names, tasks in pairs]
    requests = [_with_known_settings(part, own, files) for part, (files, *_) in zip(parts, pairs, strict=True)]
    calls = [
        {"files": files, "profile": profile, "request": part}
        for (files, *_), part in zip(pairs, requests, strict=True)
        if files
    ]
    answers = iter(_in_jobs("resolve", calls, memory_bytes))
    blocks: dict[tuple[Any, ...], Resolved] = {}
    for (files, _, tasks), part in zip(pairs, requests, strict=True):
        here = _from_plain(files, next(answers)["blocks"]) if files else resolved(profile, part)
        for number, block in enumerate(here):
            place = (*tasks, number)
            blocks[place] = _joined(blocks[place], block, request.methods) if place in blocks else block
    found = Resolution(profile.name, request, tuple(blocks.values()))
    check_that_settings_matter(found)
    return found


def _groups(names: Sequence[str], own: Mapping[str, tuple[str, ...]]) -> Groups:
    """The names by their files; a task may have a version and a variant."""
    groups: dict[tuple[str, ...], list[str]] = {} if names else {(): []}
    for name in names:
        bare = name.partition("/")[0]
        files = own.get(bare) or own.get(re.sub(r"-v\d+$", "", bare), ())
        groups.setdefault(files, []).append(name)
    return groups


def _of_backbones(own: OwnFiles, settings: Mapping[str, Any]) -> set[str]:
    """The files of backbones that any method may use: those that register nothing else, and those that are set."""
    named = {value for value in settings.values() if isinstance(value, str)} & own.backbones.keys()
    alone = [file for file in own.files if not (own.of(file, "methods") or own.of(file, "tasks"))]
    return {*alone, *(file for name in named for file in own.backbones[name])}


def _with_known_settings(request: Request, own: OwnFiles, files: Iterable[str]) -> Request:
    """Without the settings of methods and tasks of other files."""
    known = own.known(files)
    settings = {key: value for key, value in request.settings.items() if key.partition(".")[0] in known}
    return dataclasses.replace(request, settings=settings)


def _from_plain(files: Sequence[str], blocks: Sequence[Any]) -> tuple[Resolved, ...]:
    try:
        return tuple(map(Resolved.from_plain, blocks))
    except Unreadable as error:
        raise MetabenchError(f"{', '.join(files)}: {error}") from None


def _joined(one: Resolved, two: Resolved, methods: Sequence[str]) -> Resolved:
    """A block with the methods of both, in the order of the request."""
    entries = sorted((*one.found.entries, *two.found.entries), key=lambda entry: methods.index(entry.name))
    other = _joined(one.otherwise, two.otherwise, methods) if one.otherwise and two.otherwise else None
    found = dataclasses.replace(one.found, entries=tuple(entries))
    return dataclasses.replace(one, found=found, otherwise=other)


# --- in jobs ---


def _in_jobs(function: str, calls: Sequence[dict[str, Any]], memory_bytes: int | None) -> list[dict[str, Any]]:
    """The answers of calls, each in a process of its own. Raises `MetabenchError` for the first that gave none."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(f"{number}", (f"{__name__}:{function}_in_job", call), Path(folder) / f"{number}", SECONDS, memory_bytes)
            for number, call in enumerate(calls)
        ]
        outcomes = isolate.run(jobs, 1, lambda event: None, preload=isolate.SUITE) if jobs else {}
    for call, outcome in zip(calls, outcomes.values(), strict=True):
        if outcome.value is None or "refused" in outcome.value:
            raise MetabenchError((outcome.value or {}).get("refused") or _broken_off(call["files"], outcome))
    return [outcome.value or {} for outcome in outcomes.values()]


def _broken_off(files: Sequence[str], outcome: Outcome) -> str:
    """One line for a process that ended early: which file, at which line where that is known, and why."""
    places = [place for path in files if (place := outcome.place(path)) != path]
    return f"{(places or [', '.join(files)])[0]} can't be imported: {outcome.reason}"


def names_in_job(progress: Callable[[dict[str, Any]], None], files: Sequence[str]) -> dict[str, Any]:
    """The names of the methods, tasks and backbones that a file registers, or the refusal of one that is no plug-in."""
    try:
        registry.discover(files)
    except MetabenchError as error:
        return {"refused": str(error)}
    paths = {Path(file).resolve() for file in files}

    def own(table: Mapping[str, registry.Entry]) -> list[str]:
        return [name for name, entry in table.items() if paths & {each.path for each in entry.all}]

    backbones = [name for name, each in BACKBONES.items() if isinstance(each, OwnBackbone) and each.path in paths]
    return {"methods": own(registry.methods()), "tasks": own(registry.tasks()), "backbones": backbones}


def resolve_in_job(
    progress: Callable[[dict[str, Any]], None], files: Sequence[str], profile: Profile, request: Request
) -> dict[str, Any]:
    """The blocks as plain data, or the refusal of a request."""
    try:
        registry.discover(files)
        return {"blocks": [dataclasses.asdict(block) for block in resolved(profile, request, files)]}
    except MetabenchError as error:
        return {"refused": str(error)}
