"""metabench for Python and notebooks: run methods on tasks, read every score, load a trained learner.

::

    import benchmarks as mb

    done = mb.run(methods=["maml", "./mine.py"], tasks=["sinusoid/k5"], seeds=2, meta_steps=500)
    frame = mb.results(done.store)                           # one row per query
    learner, state, tasks = mb.load(done.store, method="maml", task="sinusoid/k5")
    predictor, *_ = learner.adapt(state, mb.LabelledSet(x, y), tasks)

Importing this package loads nothing else: each name below loads its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.api import LabelledSet as LabelledSet
    from benchmarks.api import MetaLearner as MetaLearner
    from benchmarks.api import State as State
    from benchmarks.api import TaskDistribution as TaskDistribution
    from benchmarks.errors import MetabenchError as MetabenchError
    from benchmarks.models import register_backbone as register_backbone
    from benchmarks.python_api.load import load as load
    from benchmarks.python_api.results import results as results
    from benchmarks.python_api.run import run as run
    from benchmarks.registry import register_method as register_method
    from benchmarks.registry import register_task as register_task

#: public name -> its module
_MODULES = {
    "results": "benchmarks.python_api.results",
    "load": "benchmarks.python_api.load",
    "run": "benchmarks.python_api.run",
    "LabelledSet": "benchmarks.api",
    "State": "benchmarks.api",
    "MetaLearner": "benchmarks.api",
    "TaskDistribution": "benchmarks.api",
    "MetabenchError": "benchmarks.errors",
    "register_method": "benchmarks.registry",
    "register_task": "benchmarks.registry",
    "register_backbone": "benchmarks.models",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
