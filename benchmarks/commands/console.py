"""What a run says while it goes: a live view on a terminal, one line per cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from benchmarks.run.cells import Cell
    from benchmarks.run.isolate import Event
    from benchmarks.run.schedule import Todo

#: seconds between two lines about the same cell where the output is not a terminal
LINE_EVERY = 60.0
STYLES = {"ok": "green", "skipped": "yellow"}


def plain() -> Console:
    """A terminal as it is; where the output goes to a file, a line is never broken."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
        console.soft_wrap = True
    return console


class RunView:
    """Shows which cells run, at which meta-step, with which loss, and how long they will take."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.running: dict[str, tuple[Cell, float, Mapping[str, Any]]] = {}
        self.done = 0
        self.total = 0
        self.counts: dict[str, int] = {}
        self._began = time.monotonic()
        self._said: dict[str, float] = {}
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def line(self, text: str) -> None:
        """A sentence of its own."""
        self.console.print(Text(text))

    def plan(self, plan: Todo) -> None:
        """How much there is to do."""
        self.total = len(plan.to_run)
        skipped = [cell for cell in plan.cells if cell.skip is not None]
        together: dict[tuple[str, str], list[str]] = {}
        for cell in skipped:
            together.setdefault((cell.task, str(cell.skip)), []).append(cell.label)
        for (task, reason), labels in together.items():
            self.line(f"skipped: {', '.join(labels)} on {task}: {reason}")
        self.line(f"{self.total} cells to run, {plan.finished} finished before, {len(skipped)} skipped")

    def event(self, cell: Cell, event: Event) -> None:
        """What a cell's process reports."""
        if event.kind == "started":
            self.running[cell.key] = (cell, time.monotonic(), {})
        elif event.kind == "progress":
            self.running[cell.key] = (*self.running[cell.key][:2], event.progress)
            self._say_now_and_then(cell)
        elif event.outcome is not None:
            self.running.pop(cell.key, None)
            self.done += 1
            status = event.outcome.status
            self.counts[status] = self.counts.get(status, 0) + 1
            line = Text(f"[{self.done}/{self.total}] {cell}: ")
            line.append(status, STYLES.get(status, "red"))
            line.append(f" in {event.outcome.seconds:.1f} s" if status == "ok" else f" ({event.outcome.reason})")
            self.console.print(line)

    def _say_now_and_then(self, cell: Cell) -> None:
        now = time.monotonic()
        began = self.running[cell.key][1]
        if not self.console.is_terminal and now - self._said.get(cell.key, began) > LINE_EVERY:
            self._said[cell.key] = now
            self.console.print(Text(f"  {cell}: {_doing(self.running[cell.key][2])}"))

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for cell, began, progress in self.running.values():
            table.add_row(Text(str(cell)), Text(_doing(progress)), Text(_clock(time.monotonic() - began), "dim"))
        spent = time.monotonic() - self._began
        stage = f"{self.done} of {self.total} cells done" if self.total else "getting data ready"
        return Group(table, Text(f"{stage}, {_clock(spent)}", "bold"))


def _doing(progress: Mapping[str, Any]) -> str:
    if "step" not in progress:
        return str(progress.get("line", "starting"))
    text = f"{progress['step']}/{progress['steps']}"
    if progress.get("loss") is not None:
        text += f", loss {progress['loss']:.4g}"
    if progress.get("left") is not None:
        text += f", {_clock(progress['left'])} left"
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
