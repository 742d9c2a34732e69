"""Methods and tasks by name or by file, and seeds, for the command line and for Python."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import registry
from benchmarks.checks import listed
from benchmarks.errors import MetabenchError
from benchmarks.registry import Entry
from benchmarks.run.own_files import OwnFiles, registered
from benchmarks.run.schedule import Machine

#: the most training seeds of one run: more is a seed that was meant as one number
MOST_SEEDS = 1_000
#: training episodes are numbered by seed and meta-step in 64 bits (`benchmarks.training.training_indices`)
LARGEST_SEED = 2**23 - 1

#: one name or several, also as a comma list; a path to a Python file stands for the names that it registers, and
#: ``own.py/k2`` for this variant of its tasks
Names = str | Path | Sequence[str | Path]


def named(methods: Names, tasks: Names, memory_bytes: int | None = None) -> tuple[list[str], list[str], OwnFiles]:
    """Names of methods and tasks, where a file stands for those that it registers; and what the caller's own files
    register. They are imported in processes with this limit of memory, not here. Raises `MetabenchError` for a file
    that registers nothing of the kind."""
    given = [_texts(methods), _texts(tasks)]
    for name in itertools.chain(*given):
        if os.path.isdir(name) and ("/" in name or name.startswith(".")):
            raise MetabenchError(f"{name} is a folder: name the Python file in it, as in {Path(name) / 'mine.py'}")
    tables = {"methods": registry.methods(), "tasks": registry.tasks()}
    files = dict.fromkeys(_file(name) for names in given for name in names if _parts(name)[0])
    foreign = (_foreign(name, table) for names, table in zip(given, tables.values(), strict=True) for name in names)
    files |= dict.fromkeys(path for paths in foreign for path in paths)
    own = registered([*files], memory_bytes)

    def names(given: list[str], kind: str) -> list[str]:
        found: list[str] = []
        for name in given:
            file, variant = _parts(name)
            path = str(Path(file).resolve()) if file else ""
            if path and not own.of(path, kind) and not own.of(path, "backbones"):
                raise MetabenchError(f"{file} registers no {kind.removesuffix('s')}")
            if variant and kind == "methods":
                raise MetabenchError(f"{name}: a method has no variants: write {file}")
            found += [f"{one}/{variant}" if variant else one for one in own.of(path, kind)] if path else [name]
        return list(dict.fromkeys(found))

    return names(given[0], "methods"), names(given[1], "tasks"), own


def imported(methods: Names, tasks: Names) -> tuple[list[str], list[str]]:
    """The same names; this process imports their files, again where they have changed."""
    methods_found, tasks_found, own = named(methods, tasks, Machine.default("cpu", jobs=1).memory_bytes)
    for path in own.files:
        registry.forget_file(Path(path))
    registry.discover(own.files)
    return methods_found, tasks_found


def _parts(name: str) -> tuple[str, str]:
    """``own.py/k2``: the file and the variant; two empty texts for a name."""
    found = re.fullmatch(r"(.*\.py)(?:/([^/]+))?", name)
    return (found[1], found[2] or "") if found else ("", "")


def _file(name: str) -> str:
    file, _ = _parts(name)
    if not Path(file).is_file():
        raise MetabenchError(f"no such plug-in file: {file}")
    return str(Path(file).resolve())


def _texts(names: Names) -> list[str]:
    if isinstance(names, (str, Path)):
        return listed([str(names)])
    if not isinstance(names, Iterable):
        raise MetabenchError(f"{names!r} is no name and no list of names: write them as in 'maml,fomaml'")
    return listed(map(str, names))


def _foreign(name: str, table: Mapping[str, Entry]) -> Iterable[str]:
    """The files of a name that the caller has imported: other processes have to import them too."""
    for entry in table[name].all if name in table else ():
        if entry.cls.__module__ == "__main__":
            raise MetabenchError(
                f"{name} is defined in the notebook or script itself, and other processes can't import that: write it "
                "to a file of its own (%%writefile mine.py) and name the file"
            )
        if not entry.cls.__module__.startswith(tuple(f"{package}." for package in registry.PACKAGES)):
            yield str(entry.path.resolve())


def seeds(given: int | Sequence[int] | None) -> tuple[int, ...]:
    """``3``: seeds 0, 1 and 2; ``(0, 2, 5)``: these; None: nothing."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, (int, Iterable)):
        raise MetabenchError(f"seeds = {given!r}: write how many, as in 3, or which, as in [0, 2, 5]")
    numbers = range(given) if isinstance(given, int) else tuple(dict.fromkeys(given))
    one = f"; for the one seed {given} write seeds=[{given}], or --seeds {given}," if given == len(numbers) else ""
    if len(numbers) > MOST_SEEDS:
        told = f"that is {len(numbers):,} trainings of each method, {MOST_SEEDS:,} is the most"
        raise MetabenchError(f"seeds = {given!r}: {told}{one}")
    if not numbers or not all(isinstance(seed, int) and 0 <= seed <= LARGEST_SEED for seed in numbers):
        told = f"give their count, from 1 on, or numbers from 0 to {LARGEST_SEED}"
        raise MetabenchError(f"seeds = {given!r}: {told}{one}")
    return tuple(numbers)
