"""metabench for Python and notebooks: run methods on tasks, read every score, load a trained learner.

::

    import benchmarks as mb

    done = mb.run(methods=["maml", "./mine.py"], tasks=["sinusoid/k5"], seeds=2, meta_steps=500)
    frame = mb.results(done.store)                           # one row per query
    learner, state, tasks = mb.load(done.store, method="maml", task="sinusoid/k5")
    steps = learner.reported_steps()[-1]                     # adapt may go on for ever: stop after these
    for _, predictor in zip(range(steps + 1), learner.adapt(state, mb.LabelledSet(x, y), tasks)): ...

Importing this package loads nothing else: each name below loads its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

importlib.import_module("benchmarks.run")  # binds its name here, once; from here on the name is the function's
del run  # noqa: F821

if TYPE_CHECKING:
    from benchmarks.api import LabelledSet, MetaLearner, State, TaskDistribution
    from benchmarks.errors import MetabenchError
    from benchmarks.models import register_backbone
    from benchmarks.python_api.load import load
    from benchmarks.python_api.results import results
    from benchmarks.python_api.run import run
    from benchmarks.registry import register_method, register_task

__all__ = ["LabelledSet", "MetaLearner", "MetabenchError", "State", "TaskDistribution", "load", "register_backbone"]
__all__ += ["register_method", "register_task", "results", "run"]
_MODULES = {
    **dict.fromkeys(("LabelledSet", "MetaLearner", "State", "TaskDistribution"), "benchmarks.api"),
    "MetabenchError": "benchmarks.errors",
    "register_backbone": "benchmarks.models",
    **dict.fromkeys(("register_method", "register_task"), "benchmarks.registry"),
    **{name: f"benchmarks.python_api.{name}" for name in ("load", "results", "run")},
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
