"""The trend layer: what the gate timed, a line of JSON per time, and whether a step has crept up on this machine.

A change too small for the relative layer, or many of them, shows in the history only. Times of different machines are
never compared: a line carries the fingerprint of its machine (`benchmarks.machine.fingerprint`).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.errors import MetabenchError
from benchmarks.gate.checkouts import ROOT
from benchmarks.stats.changes import changes

#: the report looks for it beside the stores that it is about
FILE = ROOT / "reports" / "runs" / "gate-history.jsonl"


def path(given: Path | None) -> Path:
    """The file of the history: the one that is named, METABENCH_GATE_HISTORY, or the one beside the runs."""
    return given or Path(os.environ.get("METABENCH_GATE_HISTORY") or FILE)


class History:
    """A file that is only ever added to; raises `MetabenchError` where it can't be."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.machine = machine.fingerprint()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("a", encoding="utf-8").close()
        except OSError as error:
            raise MetabenchError(f"the gate's history {file} can't be written: {error.strerror}") from None

    def add(self, commit: str, seconds: Mapping[str, float]) -> int:
        """Add the time of each step of a commit; returns how many there are."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        facts = {"when": now, "commit": commit, "machine": self.machine["id"], "cpu": self.machine["cpu"]}
        facts["torch"] = machine.versions().get("torch", "")
        lines = [json.dumps({**facts, "step": step, "seconds": value}) + "\n" for step, value in seconds.items()]
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
        return len(lines)

    def read(self) -> dict[str, list[dict[str, Any]]]:
        """This machine's lines by step, the oldest first; a torn line is left out."""
        found: dict[str, list[dict[str, Any]]] = {}
        for text in self.file.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.get("machine") == self.machine["id"] and line.get("seconds", 0) > 0:
                found.setdefault(str(line["step"]), []).append(line)
        return found

    def steps_up(self) -> list[str]:
        """A sentence per step whose latest change of level was upwards."""
        said = []
        for step, lines in self.read().items():
            found = changes([line["seconds"] for line in lines])
            if found and found[-1].ratio > 1:
                last = found[-1]
                where, count = str(lines[last.at]["commit"])[:10], len(lines) - last.at
                said.append(
                    f"{step}: {last.ratio - 1:.1%} slower on this machine since {where} ({count} times, {last.p:.1g})"
                )
        return said
