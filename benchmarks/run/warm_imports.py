"""Imports of the server that cells are forked from: the worker and all plug-ins of the suite. None of them starts a
thread (pandas does, through pyarrow)."""

from __future__ import annotations

from benchmarks import registry
from benchmarks.run import worker

__all__ = ["worker"]

registry.discover()
worker.remember()
