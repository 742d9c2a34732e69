"""The trend layer: the counts and times of every run, one line of JSON each, and steps that have crept up.

The history shows changes that are too small for the relative layer, or many small ones. Times of different machines are
never compared: a line carries the fingerprint of its machine (`benchmarks.machine.fingerprint`).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import machine
from benchmarks.errors import MetabenchError
from benchmarks.gate.checkouts import ROOT
from benchmarks.records.plain import from_text, read
from benchmarks.stats.changes import changes

#: the report looks for it next to the stores
FILE = ROOT / "reports" / "runs" / "gate-history.jsonl"
T = TypeVar("T", "Timing", "Counted")


def path(given: Path | None) -> Path:
    """The file of the history: the given one, METABENCH_GATE_HISTORY, or the one next to the runs."""
    return given or Path(os.environ.get("METABENCH_GATE_HISTORY") or FILE)


@dataclass(frozen=True)
class Timing:
    """A line of the history: CPU seconds of a step of a commit. when: UTC. machine: the id of its fingerprint."""

    when: str
    commit: str
    machine: str
    cpu: str
    torch: str
    step: str
    seconds: float


@dataclass(frozen=True)
class Counted:
    """A line about the counts of a commit, which no machine changes. steps: how many were counted. changed: those whose
    counts are not the committed ones."""

    when: str
    commit: str
    torch: str
    steps: int
    changed: tuple[str, ...]


def timings(file: Path) -> list[Timing]:
    """The times of a history, the oldest first; none where there is no file. Torn lines and others are left out."""
    return [line for line in _lines(file, Timing) if line.seconds > 0]


def counts(file: Path) -> list[Counted]:
    """The lines about counts, likewise."""
    return [line for line in _lines(file, Counted) if line.steps > 0]


def _lines(file: Path, kind: type[T]) -> list[T]:
    lines = file.read_bytes().splitlines() if file.is_file() else []
    return [found for line in lines if (found := _read(line, kind))]


def _read(line: bytes, kind: type[T]) -> T | None:
    try:
        value = from_text(line)
        return read(kind, {name: value[name] for name in kind.__dataclass_fields__}, "line")
    except (ValueError, TypeError, KeyError):
        return None


class History:
    """A file that is only appended to. Raises `MetabenchError` if it can't be written, or is not text."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.machine = machine.fingerprint()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("a", encoding="utf-8").close()
            file.read_text(encoding="utf-8")
        except OSError as error:
            raise MetabenchError(f"the gate's history {file} can't be written: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise MetabenchError(f"the gate's history {file} is not UTF-8 text (byte {error.start})") from None

    def add(self, commit: str, seconds: Mapping[str, float]) -> int:
        """Add the time of each step of a commit; returns their number."""
        facts = _now(), commit, self.machine["id"], self.machine["cpu"], machine.versions().get("torch", "")
        self._append([Timing(*facts, step, value) for step, value in seconds.items()])
        return len(seconds)

    def add_counts(self, commit: str, steps: int, changed: Sequence[str]) -> None:
        """Add how many steps of a commit were counted, and those with other counts than the committed ones."""
        self._append([Counted(_now(), commit, machine.versions().get("torch", ""), steps, tuple(changed))])

    def _append(self, lines: Iterable[Timing | Counted]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(vars(line)) + "\n" for line in lines))

    def read(self) -> dict[str, list[Timing]]:
        """This machine's lines by step, the oldest first."""
        found: dict[str, list[Timing]] = {}
        for line in timings(self.file):
            if line.machine == self.machine["id"]:
                found.setdefault(line.step, []).append(line)
        return found

    def steps_up(self) -> list[str]:
        """A sentence for each step whose latest change of level is upwards."""
        said = []
        for step, lines in self.read().items():
            found = changes([line.seconds for line in lines])
            if found and found[-1].ratio > 1:
                last = found[-1]
                where, count = lines[last.at].commit[:10], len(lines) - last.at
                slower = f"{last.ratio - 1:.1%} slower on this machine since {where}"
                said.append(f"{step}: {slower} ({count} times, p = {last.p:.1g})")
        return said


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
