"""What every cell imports, for the server that cells' processes are forked from: the runner and all plug-ins of the
suite. None of it starts a thread (pandas does, by way of pyarrow)."""

from __future__ import annotations

from benchmarks import registry, runner

__all__ = ["runner"]

registry.discover()
