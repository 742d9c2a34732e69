"""The trend layer: the times of every run, one line of JSON each, and steps that have crept up on this machine.

The history shows changes that are too small for the relative layer, or many small ones. Times of different machines are
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

#: the report looks for it next to the stores
FILE = ROOT / "reports" / "runs" / "gate-history.jsonl"


def path(given: Path | None) -> Path:
    """The file of the history: the given one, METABENCH_GATE_HISTORY, or the one next to the runs."""
    return given or Path(os.environ.get("METABENCH_GATE_HISTORY") or FILE)


class History:
    """A file that is only appended to. Raises `MetabenchError` if it can't be written, or is not text."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.machine = machine.fingerprint()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("a", encoding="utf-8").close()
            self.read()
        except OSError as error:
            raise MetabenchError(f"the gate's history {file} can't be written: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise MetabenchError(f"the gate's history {file} is not UTF-8 text (byte {error.start})") from None

    def add(self, commit: str, seconds: Mapping[str, float]) -> int:
        """Add the time of each step of a commit; returns their number."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        facts = {"when": now, "commit": commit, "machine": self.machine["id"], "cpu": self.machine["cpu"]}
        facts["torch"] = machine.versions().get("torch", "")
        lines = [json.dumps({**facts, "step": step, "seconds": value}) + "\n" for step, value in seconds.items()]
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
        return len(lines)

    def read(self) -> dict[str, list[dict[str, Any]]]:
        """This machine's lines by step, the oldest first. Torn lines and others are left out."""
        found: dict[str, list[dict[str, Any]]] = {}
        for text in self.file.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                if line["machine"] == self.machine["id"] and line["seconds"] > 0:
                    found.setdefault(str(line["step"]), []).append(line)
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def steps_up(self) -> list[str]:
        """A sentence for each step whose latest change of level is upwards."""
        said = []
        for step, lines in self.read().items():
            found = changes([line["seconds"] for line in lines])
            if found and found[-1].ratio > 1:
                last = found[-1]
                where, count = str(lines[last.at].get("commit"))[:10], len(lines) - last.at
                slower = f"{last.ratio - 1:.1%} slower on this machine since {where}"
                said.append(f"{step}: {slower} ({count} times, p = {last.p:.1g})")
        return said
