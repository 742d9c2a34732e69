"""Who works when, of settings that are prepared side by side and timed one after the other.

A wave of settings starts at once, each in its process. Importing, comparing and compiling go on in a few of them at a
time, each with cores of its own. Nothing is timed until all of them are prepared; then each in its turn has the machine
to itself, while the later ones sleep. They tell each other by files in a folder that they share, and whoever ends, even
killed, is counted as done by `Turn.ended`, which the parent calls.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch

from benchmarks.measure import usable_cores

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
        """Say that this one is prepared, and wait until all are and those before it have ended; seconds waited."""
        began = time.monotonic()
        self._file(f"prepared-{self.number}").touch()
        self._wait_for("prepared", range(self.of))
        self._wait_for("ended", range(self.number))
        return time.monotonic() - began

    def ended(self) -> None:
        """Nobody waits for this one any more."""
        for name in ("started", "prepared", "ended"):
            self._file(f"{name}-{self.number}").touch()

    @contextlib.contextmanager
    def on_device(self, alone: bool) -> Iterator[None]:
        """Work on a GPU that all of the wave share, ``alone`` or beside others that don't need to be."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        with self._file("device").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def _wait_for(self, what: str, others: Iterable[int]) -> None:
        while not all(self._file(f"{what}-{other}").exists() for other in others):
            time.sleep(LOOK)

    def _file(self, name: str) -> Path:
        return Path(self.folder) / name


def limit_threads(wanted: int, place: int = 0) -> int:
    """Use so many cores (0: all that this process may), and tell libraries that don't ask torch by binding to them.

    place: of settings that are prepared side by side, which have different cores as far as there are enough."""
    cores = usable_cores() or 1
    threads = min(wanted or cores, cores)
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity") and threads < cores:
        usable = sorted(os.sched_getaffinity(0), reverse=True)
        os.sched_setaffinity(0, {usable[(place * threads + own) % len(usable)] for own in range(threads)})
    return threads
