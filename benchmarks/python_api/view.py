"""A run as it goes: a live view on a terminal, one line per cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.errors import one_line

if TYPE_CHECKING:
    from benchmarks.run.cells import Cell
    from benchmarks.run.isolate import Event
    from benchmarks.run.schedule import Todo

#: seconds between two lines about the same cell where the output is not a terminal
LINE_EVERY = 60.0
STYLES = {"ok": "green", "skipped": "yellow"}


class RunView:
    """Shows which cells run, at which meta-step, with which loss, and how long they will take."""

    def __init__(self) -> None:
        self.console = Console()
        self.running: dict[str, tuple[Cell, float, Mapping[str, Any]]] = {}
        self.done = 0
        self.total = 0
        self._began = time.monotonic()
        self._said: dict[str, float] = {}
        self._live = Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def line(self, text: str | Text) -> None:
        """Print a line above the live view; in a file it is not broken."""
        self.console.print(Text.assemble(text), soft_wrap=not self.console.is_terminal)

    def plan(self, plan: Todo) -> None:
        """Say how many cells there are to run, and which are skipped."""
        self.total = len(plan.to_run)
        for skip in plan.skips:
            self.line(f"skipped: {skip}")
        skipped = len(plan.cells) - self.total
        self.line(f"{self.total} cells to run, {len(plan.done)} finished before, {skipped} skipped")

    def event(self, cell: Cell, event: Event) -> None:
        """Show what a cell's process reports."""
        if event.kind == "started":
            self.running[cell.key] = (cell, time.monotonic(), {})
        elif event.kind == "progress":
            self.running[cell.key] = (*self.running[cell.key][:2], event.progress)
            self._say_now_and_then(cell)
        elif event.outcome is not None:
            self.running.pop(cell.key, None)
            self.done += 1
            status, reason = event.outcome.status, event.outcome.reason
            told = f" in {event.outcome.seconds:.1f} s" if status == "ok" else f" ({one_line(reason)})"
            self.line(Text.assemble(f"[{self.done}/{self.total}] {cell}: ", (status, STYLES.get(status, "red")), told))

    def _say_now_and_then(self, cell: Cell) -> None:
        now, (_, began, progress) = time.monotonic(), self.running[cell.key]
        if not self.console.is_terminal and now - self._said.get(cell.key, began) > LINE_EVERY:
            self._said[cell.key] = now
            self.line(f"  {cell}: {_doing(progress)}")

    def _render(self) -> Group:
        table, now = Table.grid(padding=(0, 2)), time.monotonic()
        for cell, began, progress in self.running.values():
            table.add_row(Text(str(cell)), Text(_doing(progress)), Text(_clock(now - began), "dim"))
        stage = f"{self.done} of {self.total} cells done" if self.total else "preparing data"
        return Group(table, Text(f"{stage}, {_clock(now - self._began)}", "bold"))


def _doing(progress: Mapping[str, Any]) -> str:
    if "step" not in progress:
        return str(progress.get("line", "starting"))
    loss, left = progress.get("loss"), progress.get("left")
    text = f"{progress['step']}/{progress['steps']}"
    text += "" if loss is None else f", loss {loss:.4g}"
    return text + ("" if left is None else f", {_clock(left)} left")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"
