"""The parent's side of `benchmarks.run.isolate`: starts, watches and kills one process."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import clock
from benchmarks.masking import masked
from benchmarks.records.record import Status
from benchmarks.run.isolate import child

#: modules that the server imports before it forks; each must be importable and start no thread
PRELOAD = ("torch", "benchmarks.api", "benchmarks.registry", "benchmarks.run.isolate.child")
#: the same for a server of cells: it has imported the worker and every plug-in of the suite
SUITE = (*PRELOAD, "benchmarks.run.warm_imports")

#: warnings of `multiprocessing` that are not worth a line: jobs end without exit handlers, so the tracker cleans up
#: after their libraries, and the server after their children
QUIET = ("ignore:resource_tracker:UserWarning", "ignore:forkserver:UserWarning")

#: seconds between two checks of the limits
POLL = 0.1
#: seconds from the start of a process until its function is called (mainly imports)
START_LIMIT = 120.0
#: characters of the log's tail in an outcome
TAIL_BYTES = 4000

#: process ids of the running jobs of this process; held while one starts and while strays are looked for
_running: set[int] = set()
_starting = threading.Lock()


@dataclass(frozen=True)
class Job:
    """A call to run in a separate process.

    call: "module:function" and its keyword arguments, plain values. log: file for stdout and stderr. seconds: time
    limit, counted from the call. memory_bytes: limit of resident memory with the process's children; imported
    libraries take about 0.2 GB of it. after: key of the job that must succeed before."""

    key: str
    call: tuple[str, dict[str, Any]]
    log: Path
    seconds: float | None = None
    memory_bytes: int | None = None
    after: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The end of a job. value: the function's result; None unless ok. stderr: tail of the log. seconds: wall time from
    the call to the end. peak_bytes: peak resident memory seen by the parent. facts: of the machine, as for a record,
    where it was another one."""

    status: Status
    reason: str | None = None
    value: dict[str, Any] | None = None
    stderr: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """``path:line`` of the innermost frame in a file, from a stack in the log; else the path."""
        lines = re.findall(rf'File "{re.escape(path)}", line (\d+)', self.stderr)
        return f"{path}:{lines[0]}" if lines else path


def warm(preload: Sequence[str] = PRELOAD) -> None:
    """Start the server in the background, so that its imports are done before the first job.

    Returns at once; does nothing if the server runs. The first call in this process decides the modules."""
    if _start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(["benchmarks.run.isolate.server", *preload])
    environment = {
        # numpy's OpenBLAS starts threads on import, and threads don't survive a fork
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONWARNINGS": ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), *QUIET))),
        # Python 3.11's server doesn't inherit sys.path
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    with _no_main_module(), _environment(environment), _no_interrupt():
        forkserver.ensure_running()


class Process:
    """A running job. threads: as in `benchmarks.run.isolate.run`. variables: of its environment, besides this one's."""

    def __init__(self, job: Job, threads: int | None, variables: Mapping[str, str] = {}) -> None:
        self.job = job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        context: Any = multiprocessing.get_context(_start_method())
        self._link, theirs = context.Pipe(duplex=False)
        # not daemonic: a plug-in may start processes, which daemonic ones can't
        arguments = (job.call, theirs, str(job.log.absolute()), threads, {**os.environ, **variables})
        self._process = context.Process(target=child.main, args=arguments)
        with _starting, _no_main_module():
            self._process.start()
            _running.add(self._process.pid)
        theirs.close()
        self._launched = time.monotonic()
        self._called: float | None = None
        self._last: dict[str, Any] | None = None
        self._last_look = self._last_count = 0.0
        self._family: list[int] = []
        self._peak_bytes = 0
        self.closed = False

    def begun(self) -> bool:
        """Whether it has started: always."""
        return True

    def handles(self) -> list[Any]:
        """Handles that become ready with news: the link (while open) and the process's end."""
        return [self._process.sentinel] if self._link.closed else [self._link, self._process.sentinel]

    def news(self) -> Iterator[dict[str, Any]]:
        """Reports of the function since the last call."""
        while not self._link.closed:
            try:
                if not self._link.poll():
                    return
                kind, plain = json.loads(self._link.recv_bytes())
            except (EOFError, OSError):
                self._link.close()
                return
            if kind == "called":
                self._called = time.monotonic()
            elif kind == "ended":
                self._last = plain
            else:
                yield plain

    def outcome(self) -> Outcome | None:
        """The end of the job; None while it runs within its limits."""
        alive = self._process.is_alive()
        if not alive:
            for _ in self.news():  # it may have ended well since the last look
                pass
        value: dict[str, Any] | None = None
        end: tuple[Status, str | None] | None
        if self._last is not None:
            end, value = (self._last["status"], self._last["reason"]), self._last.get("value")
        else:
            end = self._excess() if alive else ("error", _exit_reason(self._process.exitcode))
        if end is None:
            return None
        seconds, (status, reason) = self._seconds(), end
        if status == "timeout":
            self._dump_stack()
        self.kill()  # its children may still work
        self.close()
        tail = "" if status == "ok" else _tail(self.job.log)
        return Outcome(status, reason and masked(reason), value, tail, seconds, self._peak_bytes)

    def _seconds(self) -> float:
        return time.monotonic() - (self._called or self._launched)

    def _excess(self) -> tuple[Status, str] | None:
        """The exceeded limit, if any."""
        seconds, limit = self._seconds(), self.job.seconds
        if self._called is None and seconds > START_LIMIT:
            return "timeout", f"its process did not start within {START_LIMIT:.0f} s"
        if self._called is not None and limit is not None and seconds > limit:
            return "timeout", f"took longer than {limit:g} s"
        now = time.monotonic()
        if now - self._last_look >= POLL:
            self._last_look = now
            used = self._resident_bytes(now)
            self._peak_bytes = max(self._peak_bytes, used)
            allowed = self.job.memory_bytes
            if allowed is not None and used > allowed:
                return "out-of-memory", f"used {used / 1e9:.2f} GB of memory; the limit is {allowed / 1e9:.2f} GB"
        return None

    def _resident_bytes(self, now: float) -> int:
        """Memory of the process and its children; finding new children is slow, so once a second."""
        if now - self._last_count >= 1.0:
            self._last_count = now
            self._family = [self._process.pid, *clock.descendants(self._process.pid)]
        return sum(map(clock.resident_bytes, self._family))

    def _dump_stack(self) -> None:
        """Let the process write to its log where it hangs (`faulthandler` in `child`)."""
        if hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)
                time.sleep(POLL)

    def kill(self) -> None:
        """Kill the process and its children."""
        for pid in (*clock.descendants(self._process.pid), self._process.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait until the process is gone, and kill what it has left behind."""
        self._process.join(timeout=5.0)
        self._link.close()
        self.closed = True
        with _starting:
            _running.discard(self._process.pid)
            _kill_strays()


def _kill_strays() -> None:
    """Kill children of the server that are no running job: they were left behind by jobs that ended by themselves."""
    server = _server()
    for stray in set(clock.descendants(server, recursive=False)) - _running if server else ():
        for pid in (*clock.descendants(stray), stray):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _server() -> int | None:
    """The process id of the server that jobs are forked from; None without one."""
    if _start_method() != "forkserver":
        return None
    from multiprocessing import forkserver

    return getattr(forkserver._forkserver, "_forkserver_pid", None)  # type: ignore[attr-defined]


def _exit_reason(code: int | None) -> str:
    """Reason for an exit code; a negative code is a signal's number."""
    if code is not None and code < 0:
        hint = " (the kernel does this when memory is short)" if code == -9 else ""
        return f"killed by {signal.Signals(-code).name}{hint}"
    return f"exited with code {code} in the middle"


def _tail(log: Path) -> str:
    """The last whole lines of a log, without secrets."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2 * TAIL_BYTES))  # no secret is cut in two before it is masked
            text = masked(file.read().decode(errors="replace"))
    except OSError:
        return ""
    end = text[-TAIL_BYTES:]
    return end.partition("\n")[2] if len(end) < len(text) and "\n" in end else end


def _start_method() -> str:
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ignore Ctrl-C in a process that is started meanwhile, and put it off here: the server would print a traceback if
    it came during its imports. Its processes have sessions of their own and end with this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # blocked, it waits, also where it is ignored
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the parent's script from `multiprocessing`.

    A child would import it, run a script without a guard again and pay for the command line's imports."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
