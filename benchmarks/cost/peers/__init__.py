"""Implementations of the same meta-gradient, one file each: the suite's own, a plain loop, and other libraries.

A file is found by its name; it has a class `Implementation` derived from `benchmarks.cost.peers.adapter.Adapter`. Its
library is imported when the class is made, and one that is not installed raises `Unavailable` with the reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path

import torch

from benchmarks.cost.peers.adapter import Adapter
from benchmarks.errors import Unavailable
from benchmarks.registry import unknown

#: modules of this package that are no implementation
SHARED = ("adapter", "modules")


def names() -> tuple[str, ...]:
    """The implementations, the suite's own first, whether their libraries are installed or not."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in SHARED]
    return tuple(sorted(found, key=lambda name: (name != "ours", name != "loop", name)))


def plans(name: str) -> tuple[str, ...]:
    """The execution plans of an implementation on this machine; (""), where there is only one."""
    return (*_class(name).plans, *(_class(name).cuda_plans if torch.cuda.is_available() else ()))


def elsewhere(name: str) -> tuple[str, ...]:
    """The plans that another machine would have: those of CUDA, where there is none."""
    return () if torch.cuda.is_available() else _class(name).cuda_plans


def compiles(name: str, plan: str = "") -> bool:
    """Whether an implementation compiles under a plan, whatever the model and the machine; no library is imported."""
    return _class(name).always_compiles(plan)


def installed(name: str) -> bool:
    """Whether the library of an implementation is here; nothing is imported."""
    return importlib.util.find_spec(_class(name).library) is not None


def load(name: str, plan: str = "") -> Adapter:
    """The implementation under one plan, its library imported; raises `Unavailable` where that can't be done."""
    found = _class(name)
    if plan not in plans(name):
        raise unknown(f"plan of {name!r}", plan, [each or "(none)" for each in plans(name)])
    try:
        return found(plan)
    except Unavailable:
        raise
    except ImportError as error:
        missing = getattr(error, "name", None) == found.library
        line = " ".join(str(error).split())
        raise Unavailable(
            f"{found.library} is not installed (make peers)"
            if missing
            else f"{found.library} can't be imported: {line}"
        ) from error
    except Exception as error:
        line = " ".join(str(error).split())
        raise Unavailable(f"{found.library} can't be imported: {type(error).__name__}: {line}") from error


def _class(name: str) -> type[Adapter]:
    if name not in names():
        raise unknown("implementation", name, names())
    implementation: type[Adapter] = importlib.import_module(f"{__name__}.{name}").Implementation
    return implementation
