"""Which program computes a cell: a hash of every source file that its classes reach by import.

The files are those of a class and of its parents, and all that they import: modules of the suite, and modules next to
a plug-in. Imports are found in the syntax tree, wherever they stand. Comments, docstrings and layout don't count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.api import MetaLearner, TaskDistribution
from benchmarks.models.modules import own_factories
from benchmarks.program import program_hash
from benchmarks.records.record import Kind

ROOT = Path(__file__).parents[2]
SUITE = ("benchmarks", "maml", "baselines")

#: the modules that compute a cell with its method and its task
ENTRIES = {
    "fit": ("benchmarks.run.fitting",),
    "evaluation": ("benchmarks.run.evaluation", "benchmarks.run.selection"),
}

#: what can't change a result: errors, checks, files, clocks, what finds plug-ins by name, and what only hands calls on
IRRELEVANT = (
    *("benchmarks/__init__.py", "benchmarks/errors.py", "benchmarks/checks.py", "benchmarks/registry.py"),
    *("benchmarks/cache.py", "benchmarks/clock.py", "benchmarks/machine.py", "benchmarks/records"),
    *("benchmarks/python_api", "benchmarks/run/__init__.py"),
)


def code_of(kind: Kind, learner: MetaLearner, tasks: TaskDistribution) -> str:
    """The hash of the code that computes a cell."""
    classes = [type(learner), type(tasks), *own_factories(getattr(learner, "backbone", None))]
    return code_hash(classes, ENTRIES[kind])


def code_hash(classes: Iterable[Any], entries: Iterable[str]) -> str:
    """16 hexadecimal digits for the code that a cell runs.

    classes: its method, its task, and functions that make its network. entries: modules of the suite that run them."""
    files = {Path(inspect.getfile(each)) for given in classes for each in _with_parents(given)}
    files |= {found for name in entries for found in _module_files(name, ROOT)}
    return _hash_of(frozenset(files))


def _with_parents(given: Any) -> Iterator[Any]:
    """A class or function, and the parents of a class that are no library's."""
    yield given
    for parent in given.__mro__[1:] if isinstance(given, type) else ():
        if parent.__module__.partition(".")[0] in SUITE or not _is_library(parent):
            yield parent


def _is_library(cls: type) -> bool:
    try:
        path = Path(inspect.getfile(cls))
    except (TypeError, OSError):  # built in
        return True
    return any(path.is_relative_to(folder) for folder in sysconfig.get_paths().values())


@functools.cache
def _hash_of(files: frozenset[Path]) -> str:
    reached: set[Path] = set()
    # a file and the folder that its plug-in imports from
    ahead = [(path, path.parent) for path in files]
    while ahead:
        path, root = ahead.pop()
        if path not in reached:
            reached.add(path)
            ahead += [(file, root) for file in _neighbours(path, root)]
    digests = sorted(_source(path)[0] for path in reached)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


@functools.cache
def _neighbours(path: Path, root: Path) -> frozenset[Path]:
    """The files that a file's imports run. root: of the plug-in."""
    return frozenset(file for name in _source(path)[1] for file in _module_files(name, root, path.parent))


@functools.cache
def _source(path: Path) -> tuple[str, tuple[str, ...]]:
    """The hash of a file's program, and the names of all modules and attributes that it imports."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # a neighbour that is no Python of this version
        return hashlib.sha256(content).hexdigest(), ()
    return program_hash(tree), tuple(dict.fromkeys(_imported(tree)))


def _imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names; a relative import keeps its dots in front."""
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (f"{node.module}." if node.module else "")
            yield from (f"{module}{alias.name}" for alias in node.names)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All that holds statements, and the statements: expressions, which are nearly all of a tree, hold none."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(tree, part, None) or ():
            yield node
            yield from _statements(node)


@functools.cache
def _module_files(name: str, root: Path, folder: Path | None = None) -> tuple[Path, ...]:
    """The files that an import of this name runs: of the suite, or of the plug-in's folders; none of libraries.

    name: a module, or an attribute of one. root: of the plug-in. folder: of the file that imports."""
    bare = name.lstrip(".")
    if level := len(name) - len(bare):
        bases = [(folder or root).joinpath(*[".."] * (level - 1)).resolve()]
    else:
        bases = [ROOT] if name.partition(".")[0] in SUITE else [root, *([folder] if folder else [])]
    for base in bases:
        place, found = base, []
        for part in bare.split("."):
            place = place / part
            found += [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()][:1]
        if found:
            return tuple(path for path in found if not _is_irrelevant(path))
    return ()


def _is_irrelevant(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix().startswith(IRRELEVANT)
