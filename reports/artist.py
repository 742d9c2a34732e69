"""A process that draws while this one makes tables: two thirds of a page's time are matplotlib's."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from benchmarks.errors import MetabenchError

#: what seaborn estimates densities and clusters with if it is there; that takes as long to import as all the rest
UNNEEDED = ("scipy.stats", "scipy.cluster", "scipy.spatial")

T = TypeVar("T")


class Artist:
    """A process in which matplotlib and seaborn are being imported from the start on, so that it is ready when the
    records have been read. It ends with the ``with`` block, or with this process."""

    def __enter__(self) -> Artist:
        places = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from reports import artist; artist.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": places},
        )
        return self

    def start(self, function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
        """Begin a call there; what comes back waits for the answer, or raises what the function raised. The next one
        can begin after that. Function, arguments and answer are pickled."""
        call = pickle.dumps((function, arguments))
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
            code = self._process.wait()
            raise MetabenchError(
                f"the process that draws the figures ended with code {code}: is memory short?"
            ) from None
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
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between answers
    importlib.import_module("matplotlib.backends.backend_svg")
    with _absent(*UNNEEDED):
        importlib.import_module("seaborn")
    importlib.import_module("reports.sections")
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        gc.freeze()  # or the collector walks through all that was imported and sent again and again
        answers.write(_called(function, arguments))
        answers.flush()


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


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps((True, function(*arguments)))
    except Exception as error:
        error.add_note(f"in the process that draws:\n{traceback.format_exc()}")
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(traceback.format_exc())))
