"""The page of a run that goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

#: between two pages, and before the first one
SECONDS = 240.0
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def refreshed(page: Path | None, store: Path) -> Iterator[None]:
    """Write the page of a store every `SECONDS` while the block runs, and once more when it has ended without an error;
    None: no page. Each is written in a process of its own.

    As long as there is nothing to show, nothing is written."""
    if page is None:
        yield
        return
    command = [sys.executable, "-m", "benchmarks", "report", "--store", str(store), "--output", str(page)]
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = threading.Event()

    def write(until: threading.Event) -> None:
        nothing = subprocess.DEVNULL
        with subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": search}, stdin=nothing, stdout=nothing, stderr=nothing
        ) as process:
            try:
                while process.poll() is None and not until.wait(0.1):
                    pass
            finally:
                process.kill()

    def refresh() -> None:
        while not ended.wait(SECONDS):
            write(ended)

    writer = threading.Thread(target=refresh)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()
    write(threading.Event())
