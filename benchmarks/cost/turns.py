"""Who works when, of settings that are prepared side by side and timed one after the other.

A wave of settings starts at once, each in its process. Importing, comparing and compiling go on in a few of them at a
time, each with cores of its own. Nothing is timed until all of them are prepared; then each in its turn has the machine
to itself, while the others sleep. What is counted and not timed may come after all of that, side by side again. They
tell each other by files in a folder that they share, and whoever ends, even killed, is counted as done by `Turn.ended`,
which the parent calls.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch

from benchmarks.machine import usable_cores

#: seconds between two looks at the files: too seldom to disturb who is timed
LOOK = 0.1


@dataclass(frozen=True)
class Turn:
    """A setting's place in its wave; plain values, so that a process can be told.

    number: of the setting, from 0, in the order of the turns. of: how many there are. places: how many prepare at a
    time. after: the numbers of those that begin to prepare before this one does."""

    folder: str
    number: int = 0
    of: int = 1
    places: int = 1
    after: Sequence[int] = ()

    @contextlib.contextmanager
    def preparing(self) -> Iterator[int]:
        """Wait for a free place, those that go first having theirs, and hold it; its number, from 0."""
        self._wait_for("started", self.after)
        while True:
            for place in range(self.places):
                with contextlib.suppress(filelock.Timeout), filelock.FileLock(self._file(f"place-{place}"), timeout=0):
                    self._file(f"started-{self.number}").touch()
                    yield place
                    return
            time.sleep(LOOK)

    def wait(self) -> float:
        """Say that this one is prepared, and wait until all are and those before it are timed; seconds waited."""
        began = time.monotonic()
        self._file(f"prepared-{self.number}").touch()
        self._wait_for("prepared", range(self.of))
        self._wait_for("timed", range(self.number))
        return time.monotonic() - began

    def wait_for_all(self) -> float:
        """Say that this one is timed, and wait until all are; seconds waited."""
        began = time.monotonic()
        self._file(f"timed-{self.number}").touch()
        self._wait_for("timed", range(self.of))
        return time.monotonic() - began

    def ended(self) -> None:
        """Nobody waits for this one any more."""
        for name in ("started", "prepared", "timed"):
            self._file(f"{name}-{self.number}").touch()

    @contextlib.contextmanager
    def on_device(self) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """Work on a GPU beside the others of the wave, unless one of them has it alone; as what is given does, within,
        once the others have paused."""
        try:
            import fcntl
        except ImportError:
            yield contextlib.nullcontext
            return
        with self._file("device").open("a") as device, self._file("gate").open("a") as gate:

            @contextlib.contextmanager
            def alone() -> Iterator[None]:
                # who waits at the gate must not hold up another that is through
                fcntl.flock(device, fcntl.LOCK_UN)
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(device, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    fcntl.flock(device, fcntl.LOCK_SH)
                    fcntl.flock(gate, fcntl.LOCK_UN)

            # nobody passes the gate while one has the device alone or waits for that, so that its turn comes
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(device, fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield alone

    def _wait_for(self, what: str, others: Iterable[int]) -> None:
        while not all(self._file(f"{what}-{other}").exists() for other in others):
            time.sleep(LOOK)

    def _file(self, name: str) -> Path:
        return Path(self.folder) / name


def limit_threads(wanted: int, place: int = 0, bind: bool = True) -> int:
    """Use so many cores (0: all that this process may), and tell libraries that don't ask torch by binding to them.

    place: of settings that are prepared side by side, which have different cores as far as there are enough. bind: not
    where the work is a GPU's and a compiler needs the cores."""
    cores = usable_cores() or 1
    threads = min(wanted or cores, cores)
    torch.set_num_threads(threads)
    if bind and hasattr(os, "sched_setaffinity") and threads < cores:
        usable = sorted(os.sched_getaffinity(0), reverse=True)
        os.sched_setaffinity(0, {usable[(place * threads + own) % len(usable)] for own in range(threads)})
    return threads
