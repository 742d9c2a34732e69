"""Output of a run: a live view on a terminal, one line per cell elsewhere, and the scores at the end."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from benchmarks.records.record import Tested
    from benchmarks.records.store import Store
    from benchmarks.run.cells import Cell
    from benchmarks.run.isolate import Event
    from benchmarks.run.schedule import Todo

#: seconds between two lines about the same cell where the output is not a terminal
LINE_EVERY = 60.0
#: rows of scores that a run prints at its end
MOST_SCORES = 24
STYLES = {"ok": "green", "skipped": "yellow"}


def plain() -> Console:
    """The terminal. Where the output goes to a file, lines are not broken."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
        console.soft_wrap = True
    return console


def screen() -> Console:
    """The terminal for tables and text that are fitted to its width; 100 columns where the output goes to a file."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=100, highlight=False)


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
        """Print a line above the live view."""
        self.console.print(Text(text))

    def plan(self, plan: Todo) -> None:
        """Say how many cells there are to run, and which are skipped."""
        self.total = len(plan.to_run)
        skipped = [cell for cell in plan.cells if cell.skip is not None]
        together: dict[tuple[str, str], list[str]] = {}
        for cell in skipped:
            together.setdefault((cell.task, str(cell.skip)), []).append(cell.label)
        for (task, reason), labels in together.items():
            self.line(f"skipped: {', '.join(labels)} on {task}: {reason}")
        self.line(f"{self.total} cells to run, {len(plan.done)} finished before, {len(skipped)} skipped")

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
        stage = f"{self.done} of {self.total} cells done" if self.total else "preparing data"
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
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"


def scores(store: Store, cells: Iterable[Cell]) -> None:
    """Print the mean scores of the evaluations among these cells, a row per method and test, best first."""
    found: dict[tuple[str, str], list[Tested]] = {}
    for cell in cells:
        record = store.get(cell.key) if cell.kind == "evaluation" and cell.skip is None else None
        for tested in record.tested if record else ():
            found.setdefault((_test(tested), tested.record.label), []).append(tested)
    rows = []
    for (test, label), tests in found.items():
        mean, task = statistics.fmean(map(_mean, tests)), tests[0].task
        rows.append((test, -mean if task.higher_is_better else mean, label, _score(mean, task.metric), str(len(tests))))
    table = Table("test", "method", "score", "seeds", box=None, header_style="dim", pad_edge=False)
    for test, _, label, score, seeds in sorted(rows)[:MOST_SCORES]:
        table.add_row(Text(test), Text(label), Text(score), Text(seeds))
    if rows:
        plain().print(table)
    if len(rows) > MOST_SCORES:
        plain().print(f"and {len(rows) - MOST_SCORES} more rows: metabench show", highlight=False)


def _test(tested: Tested) -> str:
    """``omniglot-v1/5w1s, 1-shot, batch-norm: query``."""
    conditions, test = tested.conditions, tested.test
    parts = [conditions.task_id, f"{conditions.shots}-shot" if conditions.shots else ""]
    parts += [f"batch-norm: {test.regime}" if test.regime != "none" else ""]
    parts += ["last checkpoint" if test.model == "last" else ""]
    return ", ".join(filter(None, parts))


def _mean(tested: Tested) -> float:
    """The mean at the headline step; not a number where the scores are not."""
    summary = tested.test.at(tested.test.headline_step)
    return math.nan if summary is None or summary.mean is None else summary.mean


def _score(mean: float, metric: str) -> str:
    return f"{100 * mean:.2f} % {metric}" if metric == "accuracy" else f"{mean:.4g} {metric}"
