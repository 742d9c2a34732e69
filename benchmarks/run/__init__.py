"""A run: profiles, cells, processes, trainings and tests.

``benchmarks.run(...)`` is also the public function `benchmarks.python_api.run.run`. Python binds a submodule's name in
its package as soon as anything imports it, so this submodule can be called."""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *names: Any, **options: Any) -> Any:
        from benchmarks.python_api.run import run

        return run(*names, **options)


sys.modules[__name__].__class__ = _Callable
