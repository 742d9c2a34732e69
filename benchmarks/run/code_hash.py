"""Which program computes a cell: a hash of the code it runs, without comments, docstrings and layout."""

from __future__ import annotations

import ast
import functools
import inspect
from pathlib import Path
from typing import Any

from benchmarks.records.store import content_key

#: code that every fit and evaluation runs through, beside the files of its method and its task
SHARED_CODE = (
    "models/*.py",
    "models/fast/*.py",
    "images/distribution.py",
    "sampling.py",
    "training.py",
    "execution/*.py",
    "run/fitting.py",
    "run/worker.py",
    "records/tables.py",
    "../maml/gradient.py",
    "../maml/inner_loop.py",
    "../maml/losses.py",
    "../baselines/shared/embedding.py",
    "../baselines/shared/similarity.py",
)
#: code that cells of control tasks run through beside that
CONTROL_CODE = (
    "environments/*.py",
    "../maml/control/*.py",
    "../baselines/shared/*.py",
)


def program_hash(*classes: Any) -> str:
    """A hash of the code that a cell runs, without comments, docstrings and layout: of the files of these classes (and
    functions), and of the shared ones."""
    control = any(getattr(each, "kind", None) == "control" for each in classes)
    return _hash_of(SHARED_CODE + (CONTROL_CODE if control else ()), *map(inspect.getfile, classes))


@functools.cache
def _hash_of(patterns: tuple[str, ...], *own: str) -> str:
    folder = Path(__file__).parents[1]
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    files += map(Path, own)
    return content_key([essence(path.read_text(encoding="utf-8")) for path in files])


def essence(source: str) -> str:
    """A source without what does not change the program."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            node.body = body[1:]  # type: ignore[attr-defined]
    return ast.unparse(tree)
