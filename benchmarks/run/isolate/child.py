"""The child's side of `benchmarks.run.isolate`: code inside a job's process."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.errors import status_of
from benchmarks.execution.memory import keep_freed_memory

#: least seconds between two progress reports; earlier ones are dropped
REPORT_EVERY = 0.2

#: of Linux's prctl
PR_SET_CHILD_SUBREAPER = 36

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(
    call: tuple[str, dict[str, Any]], link: Connection, log: str, threads: int | None, environment: dict[str, str]
) -> None:
    """Run a job's function, tell the parent how it ended, and exit."""
    if hasattr(os, "setsid"):
        os.setsid()
    adopt_orphans()
    _die_with_parent()
    try:
        _redirect_output(log)
    except FileNotFoundError:  # the parent has been interrupted and has removed the folder
        os._exit(1)
    os.environ.clear()
    os.environ.update(environment)
    _set_threads(threads)
    _be_first_to_go()
    keep_freed_memory()
    _send(link, "called", {})
    try:
        module, _, name = call[0].partition(":")
        value = getattr(importlib.import_module(module), name)(_progress(link), **call[1])
        ending = json.dumps(["ended", {"status": "ok", "reason": None, "value": value}])
    except BaseException as error:
        status, reason = status_of(error)
        ending = json.dumps(["ended", {"status": status, "reason": reason}])
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        link.send_bytes(ending.encode())
    os._exit(0)  # skips threads and exit handlers of a plug-in that could hang


def adopt_orphans() -> None:
    """Become the parent of what descendants leave behind when they end, on Linux. Elsewhere the system does."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _progress(link: Connection) -> Callable[[dict[str, Any]], None]:
    """The function's first argument: sends small plain dicts to the parent, about five per second."""
    after = 0.0

    def progress(plain: dict[str, Any]) -> None:
        nonlocal after
        if (now := time.monotonic()) >= after:
            after = now + REPORT_EVERY
            _send(link, "progress", plain)

    return progress


def _send(link: Connection, kind: str, plain: dict[str, Any]) -> None:
    message = json.dumps([kind, plain]).encode()
    with contextlib.suppress(OSError):  # the parent is gone; `_die_with_parent` handles that
        link.send_bytes(message)


def _die_with_parent() -> None:
    """Kill this process and its children when the parent ends.

    For the system its parent is the fork server, so neither SIGHUP nor getppid() would tell. The end of a pipe does."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    threading.Thread(target=_wait_and_die, args=(parent,), daemon=True).start()
    if sys.platform == "linux":
        import fcntl

        # a hanging C function may hold the interpreter's lock, which the thread needs; the kernel doesn't need it
        pipe = parent.sentinel
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpid())  # negative: the process group
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def _wait_and_die(parent: Any) -> None:
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _redirect_output(log: str) -> None:
    """Send stdout and stderr to the log by file descriptor, so that output of C libraries gets there too."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, file)
    faulthandler.enable(file=2)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=False)


def _set_threads(threads: int | None) -> None:
    """Limit CPU threads: torch's if it is imported, else through the variables that it reads on import."""
    if threads is None:
        return
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _be_first_to_go() -> None:
    """Ask Linux to kill this process, not the parent, when the machine runs out of memory."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
