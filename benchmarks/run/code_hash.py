"""Which program computes a cell: a hash of every source file that its classes reach by import.

The files are those of a class and of its parents, and all that they import, found in the syntax tree wherever an import
stands: modules of the suite by their name, modules in a plug-in's own folder by theirs. Comments, docstrings and layout
don't count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SUITE = ("benchmarks", "maml", "baselines")

#: what can't change a result: errors, files, clocks, and what finds plug-ins by name
IRRELEVANT = (
    *("benchmarks/__init__.py", "benchmarks/errors.py", "benchmarks/registry.py", "benchmarks/cache.py"),
    *("benchmarks/clock.py", "benchmarks/machine.py", "benchmarks/records"),
)


def code_hash(classes: Iterable[Any], entries: Iterable[str]) -> str:
    """16 hexadecimal digits for the code that a cell runs.

    classes: its method, its task, and functions that make its network. entries: modules of the suite that run them."""
    files = {Path(inspect.getfile(each)) for given in classes for each in _with_parents(given)}
    files |= {found for name in entries for found in _module_files(name, ROOT)}
    return _hash_of(frozenset(files))


def _with_parents(given: Any) -> Iterator[Any]:
    if not isinstance(given, type):
        yield given
        return
    yield from (each for each in given.__mro__ if each.__module__ not in ("builtins", "typing", "abc"))


@functools.cache
def _hash_of(files: frozenset[Path]) -> str:
    reached: set[Path] = set()
    ahead = list(files)
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            ahead += _source(path)[1]
    digests = sorted(_source(path)[0] for path in reached)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def forget_own_files() -> None:
    """Read files outside the suite again when they are next asked for: a long session may have changed them. Those of
    the suite stay as this process, and the server that it forks cells from, have imported them."""
    _hash_of.cache_clear()
    _own_source.cache_clear()
    _module_files.cache_clear()


def _source(path: Path) -> tuple[str, frozenset[Path]]:
    """The hash of a file's program, and the files it imports that belong to the suite or to its own folder."""
    return _suite_source(path) if path.is_relative_to(ROOT) else _own_source(path)


def _read(path: Path) -> tuple[str, frozenset[Path]]:
    tree = ast.parse(path.read_bytes())
    found = {file for name in _imported(tree) for file in _module_files(name, path.parent)}
    return hashlib.sha256(repr(essence(tree)).encode()).hexdigest(), frozenset(found - {path})


_suite_source, _own_source = functools.cache(_read), functools.cache(_read)


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (name for name in (node.module,) if name)
            yield from (f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names)


@functools.cache
def _module_files(name: str, folder: Path) -> tuple[Path, ...]:
    """The file of a module of the suite, or of one in this folder; none for libraries, attributes and `IRRELEVANT`."""
    base = ROOT if name.partition(".")[0] in SUITE else folder
    bare = base.joinpath(*name.split("."))
    path = next((path for path in (bare.with_suffix(".py"), bare / "__init__.py") if path.is_file()), None)
    if path is None:
        return ()
    relative = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    return () if relative.startswith(IRRELEVANT) else (path,)


def essence(node: Any) -> Any:
    """A syntax tree as nested tuples, without docstrings and what says how the source looks; the same for every version
    of Python."""
    if isinstance(node, list):
        return tuple(essence(each) for each in node)
    if not isinstance(node, ast.AST):
        return node
    found = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            value = value[_documented(value) :]
        if name not in ("ctx", "kind", "type_comment") and value not in (None, []):
            found.append((name, essence(value)))
    return type(node).__name__, *found


def _documented(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
