"""Several runs in one store: what each is about to compute, which failures are old, a fresh look at a network folder,
and whether locks hold there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.errors import MetabenchError
from benchmarks.records import formats
from benchmarks.records.formats import fresh
from benchmarks.records.plain import content_key
from benchmarks.records.store import Store

#: seconds for which a client of NFS may not see what another machine has written
HIDDEN = 60.0
#: takes the lock of its argument: exit code 3 where another process holds it
TAKE = """
import sys, filelock
try:
    filelock.FileLock(sys.argv[1], timeout=0).acquire()
except filelock.Timeout:
    sys.exit(3)
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Unfinished:
    """A cell without a record. doing: "at work", "waits", or "stopped" where no run that names it goes on."""

    key: str
    label: str
    task: str
    cell: str
    seed: int | None
    doing: str


class LocksDoNotHold(MetabenchError):
    """A lock that another machine holds could be taken."""


@contextlib.contextmanager
def announced(store: Store, cells: Iterable[tuple[str, str, str, str, int | None]]) -> Iterator[None]:
    """Name the cells of a run (key, label, task, kind, seed) in its store while it goes on, for `unfinished`.

    The list stays where the run is interrupted or killed, until the next run of the store begins."""
    for path in _plans(store):
        if not _goes_on(store, path):
            _remove(path, store.path / "locks" / f"{path.stem}.lock")
    name = content_key(["plan", platform.node(), os.getpid(), time.time_ns()])
    path = store.path / "plans" / f"{name}.json"
    lock = store.lock(name)
    with lock:
        formats.write(path, json.dumps([*cells]).encode())
        yield
        _remove(path)
    _remove(Path(lock.lock_file))


def unfinished(store: Store, finished: Iterable[str]) -> list[Unfinished]:
    """The cells that runs of a store have named (`announced`) and that have no record. finished: keys of records."""
    found: dict[str, Unfinished] = {}
    known = frozenset(finished)
    for path in _plans(store):
        goes_on = _goes_on(store, path)
        with contextlib.suppress(OSError, ValueError, TypeError):
            for key, label, task, cell, seed in json.loads(path.read_bytes()):
                begun = (store.path / "logs" / f"{key}.log").exists()
                doing = "stopped" if not goes_on else "at work" if begun else "waits"
                if key not in known and (goes_on or key not in found):
                    found[key] = Unfinished(key, label, task, cell, seed, doing)
    return [*found.values()]


def _plans(store: Store) -> list[Path]:
    return sorted((store.path / "plans").glob("*.json"))


def _goes_on(store: Store, plan: Path) -> bool:
    """Whether the run that wrote a list of cells holds its lock, as far as one can see who may not write here."""
    import filelock

    path = store.path / "locks" / f"{plan.stem}.lock"
    with contextlib.suppress(filelock.Timeout, OSError):
        if not path.exists():
            return False
        with filelock.FileLock(path, timeout=0):
            return False
    return True


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def failed_before(store: Store, keys: Iterable[str], group: str | None) -> dict[str, str]:
    """Key -> when it failed, of the cells that had failed before this run, or the first run of its group, began.

    group: names the runs that try a failing cell once together, also where they begin at different times."""
    if group is None:
        return _failures(store, keys)
    name = content_key(["run", group])
    path = store.path / "runs" / f"{name}.json"
    with store.lock(name):
        fresh(path.parent)
        with contextlib.suppress(FileNotFoundError, ValueError, AttributeError):
            found = json.loads(path.read_bytes())
            return {str(key): str(when) for key, when in found.items()}
        formats.write(path, json.dumps(found := _failures(store, keys)).encode())
        return found


def _failures(store: Store, keys: Iterable[str]) -> dict[str, str]:
    records = (store.get(key) for key in keys)
    return {record.key: record.finished for record in records if record is not None and not record.ok}


def look_again(folder: Path, look: Callable[[], T | None], seconds: float = HIDDEN) -> T | None:
    """The result of ``look``, repeated until it finds something: another machine may just have written there."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
        fresh(folder)
    return found


@contextlib.contextmanager
def held(store: Store) -> Iterator[str]:
    """Hold a lock of the store, by which others can tell that they see the same store; yields its name.

    Raises `MetabenchError` where the file system has no locks, or where a second process gets this one."""
    name = content_key(["held", platform.node(), os.getpid(), time.time_ns()])
    lock = store.lock(name, wait=5)
    try:
        with lock:
            take = [sys.executable, "-c", TAKE, lock.lock_file]
            if subprocess.run(take, capture_output=True, timeout=HIDDEN).returncode != 3:
                raise MetabenchError(f"locks in {store.path} do not hold: {ADVICE}")
            yield name
    except (OSError, NotImplementedError) as error:
        raise MetabenchError(f"{store.path} has no locks ({type(error).__name__}: {error}): {ADVICE}") from None
    finally:
        _remove(*(store.path / "locks").glob(f"{name}.*"))


def check_shared(folder: str, name: str, seconds: float = 10.0) -> None:
    """Raise `MetabenchError` unless this machine has the store whose lock ``name`` another one holds, and can't take
    that lock."""
    import filelock

    path, here = Path(folder) / "locks" / f"{name}.lock", platform.node()
    if look_again(path.parent, lambda: path.exists() or None, seconds) is None:
        raise MetabenchError(f"{here} does not share the store {folder}: name a folder that all machines have")
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(path, timeout=0):
        raise LocksDoNotHold(f"locks in {folder} do not hold between machines ({here} took one): {ADVICE}")


def is_held(folder: str, name: str) -> bool:
    """Whether the run that held the lock ``name`` of a store (`held`) is alive, as far as this machine can see."""
    import filelock

    path = Path(folder) / "locks" / f"{name}.lock"
    with contextlib.suppress(filelock.Timeout):
        if look_again(path.parent, lambda: path.exists() or None) is None:
            return False
        with filelock.FileLock(path, timeout=0):
            return False
    return True


def greet(folder: str, name: str) -> None:
    """Leave marks for the run that holds the lock ``name``: "here", and "taken" where this machine can take the lock.

    Raises `MetabenchError` where this machine does not share the store."""
    try:
        check_shared(folder, name)
    except LocksDoNotHold:  # or that run has ended
        (Path(folder) / "locks" / f"{name}.taken").touch()
    (Path(folder) / "locks" / f"{name}.here").touch()


ADVICE = "mount it with locks (NFS without nolock, Lustre with flock), or let one `metabench run` at a time use it"
