"""Figures that two processes draw. A test's own process has threads, so it isn't forked: these run in another one."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports import artist, svg
from reports.scores.figures import Panel


def panel(number: int, draw: Callable[[], str]) -> Panel:
    return Panel(f"figure-{number}", "", "", lambda: svg.Drawing(draw()), ())


def drawn(panels: list[Panel], folder: Path | None = None) -> list[str]:
    """What two processes make of figures."""
    artist.drawing(panels, folder)([])
    return [str(one.svg) for one in panels]


def slow(number: int) -> str:
    time.sleep(0.05)
    return f"{number} {os.getpid()}"


def by_two() -> list[str]:
    return drawn([panel(number, functools.partial(slow, number)) for number in range(12)])


def fails_in_the_fork(how: Callable[[], Any]) -> list[str]:
    here = os.getpid()

    def draw() -> str:
        if os.getpid() != here:
            how()
        time.sleep(0.05)
        return "drawn"

    return drawn([panel(number, draw) for number in range(12)])


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def broken() -> None:
    raise LookupError("no such colour")
