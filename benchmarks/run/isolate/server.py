"""The first import of the server that jobs are forked from: what a job leaves behind becomes a child of the server, and
ends with it at the latest. A process that a plug-in detaches (a double fork) escapes its group and its session."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal

from benchmarks import clock
from benchmarks.run.isolate import child


def end_descendants() -> None:
    """Kill all that descends from this process."""
    while found := clock.descendants(os.getpid()):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


child.adopt_orphans()
atexit.register(end_descendants)
