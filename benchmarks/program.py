"""The program of Python files: their syntax trees without comments, docstrings and layout."""

from __future__ import annotations

import ast
import hashlib
from typing import Any


def program_hash(program: ast.AST | list[ast.Module]) -> str:
    """The sha256 of a program; the same for every version of Python and for other words around it."""
    return hashlib.sha256(repr(essence(program)).encode()).hexdigest()


def essence(node: Any) -> Any:
    """A syntax tree as nested tuples, without docstrings and what says how the source looks."""
    if isinstance(node, list):
        return tuple(essence(each) for each in node)
    if not isinstance(node, ast.AST):
        return node
    found = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            value = value[_documented(value) :]
        if isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty pieces to nested format specifications
            value = [piece for piece in value if not (isinstance(piece, ast.Constant) and piece.value == "")]
        if name not in ("ctx", "kind", "type_comment") and value not in (None, []):
            found.append((name, essence(value)))
    return type(node).__name__, *found


def _documented(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
