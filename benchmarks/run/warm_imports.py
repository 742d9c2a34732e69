"""What every cell imports, for the server that cells' processes are forked from: the runner and all plug-ins of the
suite. None of it starts a thread (pandas does, by way of pyarrow)."""

from __future__ import annotations

from benchmarks import registry
from benchmarks.run import worker

__all__ = ["worker"]

registry.discover()
