"""Implementations of the same meta-gradient, one file each: the suite's own, a plain loop, and other libraries.

To add one, add a file with a class `Implementation` derived from `benchmarks.cost.peers.adapter.Adapter`; the file's
name is the name of the implementation. Making the class imports its library.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path

import torch

from benchmarks.checks import check_known, unknown
from benchmarks.cost.peers.adapter import Adapter
from benchmarks.errors import Unavailable

#: modules of this package that are not implementations
SHARED = ("adapter", "modules")


def names() -> tuple[str, ...]:
    """All implementations, installed or not, the suite's own first."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in SHARED]
    return tuple(sorted(found, key=lambda name: (name != "ours", name != "loop", name)))


def plans(name: str) -> tuple[str, ...]:
    """The execution plans of an implementation on this machine; only "" if it has no others."""
    return (*_class(name).plans, *(_class(name).cuda_plans if torch.cuda.is_available() else ()))


def learners(name: str) -> tuple[str, ...]:
    """The learners that an implementation has."""
    return _class(name).learners


def elsewhere(name: str) -> tuple[str, ...]:
    """The plans that this machine lacks: those of CUDA, where there is none."""
    return () if torch.cuda.is_available() else _class(name).cuda_plans


def compiles(name: str, plan: str = "") -> bool:
    """Whether an implementation compiles under a plan, for any model and machine; imports no library."""
    return _class(name).always_compiles(plan)


def installed(name: str) -> bool:
    """Whether the library of an implementation is installed; imports nothing."""
    return importlib.util.find_spec(_class(name).library) is not None


def load(name: str, plan: str = "") -> Adapter:
    """The implementation under one plan, with its library imported; raises `Unavailable` with the reason otherwise."""
    found = _class(name)
    if plan not in plans(name):
        raise unknown(f"plan of {name!r}", plan, [each or "(none)" for each in plans(name)])
    try:
        return found(plan)
    except Unavailable:
        raise
    except ImportError as error:
        missing = getattr(error, "name", None) == found.library
        reason = "is not installed (make peers)" if missing else f"can't be imported: {error}"
        raise Unavailable(" ".join(f"{found.library} {reason}".split())) from error
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise Unavailable(f"{found.library} can't be imported: {line}") from error


def _class(name: str) -> type[Adapter]:
    check_known("implementation", name, names())
    implementation: type[Adapter] = importlib.import_module(f"{__name__}.{name}").Implementation
    return implementation
