"""A process that makes the page: what it draws with takes as long to import as the records take to read, so that both
go on at once; and where there are two cores, a fork of it draws half of the figures."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.errors import MetabenchError

if TYPE_CHECKING:
    from reports.scores.figures import Panel

#: what the page is made with
NEEDED = (
    "matplotlib.backends.backend_svg",
    "seaborn",
    "reports.page.sections",
    "scipy.special",
    "scipy.sparse",
    "jinja2",
)
#: what these import if it is there, which takes as long as all the rest: for densities and clusters, strings of large
#: tables, axes in space
UNNEEDED = ("scipy.stats", "scipy.cluster", "scipy.spatial", "pyarrow", "mpl_toolkits.mplot3d")

#: forking what has threads is no good idea elsewhere
FORKS = sys.platform == "linux"
GONE = "the process that makes the page ended with code {}: is memory short?"

T = TypeVar("T")


#: those that have been begun and not taken
_begun: list[subprocess.Popen[bytes]] = []


def begin() -> None:
    """Begin the process of the next `Artist` before it is clear that there will be one: it ends with this process."""
    places = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-c", "from reports import artist; artist.serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # products of small matrices need no threads, and without them it can be forked
        env={**os.environ, "PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1"},
    )
    _begun.append(process)


@atexit.register
def _end() -> None:
    for process in _begun:
        process.kill()


class Artist:
    """A process in which matplotlib and seaborn are being imported from the start on, so that it is ready when the
    records have been read. It ends with the ``with`` block, or with this process."""

    def __enter__(self) -> Artist:
        if not _begun:
            begin()
        self._process = _begun.pop()
        return self

    def start(self, function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
        """Begin a call there; what comes back waits for the answer, or raises what the function raised. The next one
        can begin after that. Function, arguments and answer are pickled."""
        call = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        # the process may be importing still, and a pipe holds little
        threading.Thread(target=self._send, args=(call,), daemon=True).start()
        return self._answer

    def _send(self, call: bytes) -> None:
        assert self._process.stdin is not None
        # if it is gone, whoever waits for the answer hears of it
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(call)
            self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            well, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise MetabenchError(GONE.format(self._process.wait())) from None
        if not well:
            raise value
        return value

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # something was left to be sent
                pipe.close()


def serve() -> None:
    """Inside the process: answer calls until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent as well, which ends this one
    gc.disable()  # it lives for one page, and what it collected would be what was imported
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between answers
    with _absent(*UNNEEDED), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unable to import Axes3D", UserWarning)
        for name in NEEDED:
            importlib.import_module(name)
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answers.write(_called(function, *arguments))
        answers.flush()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which walks through all records again and again while more of them are read."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Have modules taken for not installed."""
    hidden: dict[str, Any] = dict.fromkeys(name for name in names if name not in sys.modules)
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _called(function: Callable[..., Any], *arguments: Any) -> bytes:
    """What a call came to, as another process can read it."""
    try:
        return pickle.dumps((True, function(*arguments)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        error.add_note(f"in the process that makes the page:\n{traceback.format_exc()}")
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(traceback.format_exc())))


def drawing(
    panels: Sequence[Panel], folder: Path | None = None, beside: bool = True
) -> Callable[[Sequence[Panel]], None]:
    """Begin to draw figures in a fork of this process; what comes back draws others, then those that are left, and
    returns when all are drawn.

    folder: where each is also written as SVG and PNG. beside: whether to fork, where that can be done."""
    claims, ends = os.pipe()
    os.write(ends, b"".join(place.to_bytes(4, "big") for place in range(len(panels))))
    os.close(ends)

    def draw_some(parent: int | None = None) -> dict[int, str]:
        found = {}
        # nobody waits for a fork whose parent is gone
        while (parent is None or os.getppid() == parent) and (place := os.read(claims, 4)):
            number = int.from_bytes(place, "big")
            found[number] = _drawn(panels[number], folder)
        return found

    theirs = _forked(draw_some) if beside and FORKS and len(panels) > 1 else dict

    def finish(others: Sequence[Panel]) -> None:
        for panel in others:
            _drawn(panel, folder)
        draw_some()
        for number, text in theirs().items():
            panels[number].take(text)
        os.close(claims)
        for panel in panels:  # those of a fork that was killed
            if not panel.is_drawn:
                _drawn(panel, folder)

    return finish


def _drawn(panel: Panel, folder: Path | None) -> str:
    if folder is not None:
        panel.svg.write(folder, panel.name)
    return str(panel.svg)


def _forked(function: Callable[[int], dict[int, str]]) -> Callable[[], dict[int, str]]:
    """Begin a call in a fork, which is told the number of this process; what comes back waits for the answer, raises
    what the function raised, or answers nothing where the fork was killed."""
    there, here = os.pipe(), os.getpid()
    fork = os.fork()
    if not fork:
        try:
            with os.fdopen(there[1], "wb") as file:
                file.write(_called(function, here))
        finally:
            os._exit(0)
    os.close(there[1])

    def answer() -> dict[int, str]:
        with os.fdopen(there[0], "rb") as file:
            text = file.read()
        os.waitpid(fork, 0)
        try:
            well, value = pickle.loads(text)
        except (EOFError, pickle.UnpicklingError):
            return {}
        if not well:
            raise value
        return dict(value)

    return answer
