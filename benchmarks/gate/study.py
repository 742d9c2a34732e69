"""How often the gate is wrong: a long series of processes of the same code, cut into windows of base and head.

``python -m benchmarks.gate.study record series.json --processes 900`` records (it can be stopped and goes on where it
was); ``python -m benchmarks.gate.study judge series.json`` counts false alarms with their Clopper-Pearson interval, and
how many planted slowdowns are found. A slowdown is planted by scaling the times of the head's processes, or really:
``record --slower 1.05`` makes every second process do that much more work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.errors import MetabenchError
from benchmarks.files import write_text
from benchmarks.gate import relative, timed
from benchmarks.gate.decision import LOOKS, decide

PLANTED = (1.0, 1.05, 1.1, 1.2)


def gate(base: Sequence[float], head: Sequence[float]) -> bool:
    """Whether the gate fails on these processes: slower in the first run and in a second one after it."""
    first, used = _run(base, head)
    if first != "slower":
        return False
    return _run(base[used:], head[used:])[0] == "slower"


def _run(base: Sequence[float], head: Sequence[float]) -> tuple[str, int]:
    """The verdict, adding pairs as the gate does, and how many were used."""
    for pairs in LOOKS:
        decision = decide(base[:pairs], head[:pairs])
        if decision.final:
            return decision.verdict, pairs
    return decision.verdict, pairs


def judge(samples: Sequence[float], planted: Sequence[float] = PLANTED, stride: int = 1) -> list[dict[str, Any]]:
    """How often the gate fails on a series of processes, with every planted slowdown of the head: a row for each.

    samples: in the order of recording; even ones stand for the base, odd ones for the head. Windows of processes start
    ``stride`` pairs apart; windows that overlap are more comparisons, but not that many independent ones."""
    base, head = list(samples[0::2]), list(samples[1::2])
    width = 2 * LOOKS[-1]  # a first run and, where it fails, a second one
    starts = range(0, min(len(base), len(head)) - width + 1, stride)
    if not starts:
        raise MetabenchError(f"a window needs {2 * width} processes, of both sides; the series has {len(samples)}")
    rows = []
    for slower in planted:
        scaled = [slower * value for value in head]
        found = sum(gate(base[at : at + width], scaled[at : at + width]) for at in starts)
        low, high = clopper_pearson(found, len(starts))
        rows.append({"slower": slower, "windows": len(starts), "found": found, "low": low, "high": high})
    return rows


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share."""
    from scipy.stats import beta

    if not trials:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def record(path: Path, processes: int, slower: float = 1.0) -> None:
    """Append processes to the series in ``path`` until it has so many; written after each. Every second one is slowed
    down."""
    machine = measure.machine()
    facts = {"machine": machine, "versions": measure.versions(), "git": measure.git_state(relative.ROOT)}
    series: dict[str, Any] = {**facts, "slower": slower, "seconds": {name: [] for name in timed.STEPS}}
    if path.exists():
        series = json.loads(path.read_text(encoding="utf-8"))
        if (series["machine"]["id"], series["slower"]) != (machine["id"], slower):
            raise MetabenchError(f"{path} was recorded on another machine or with another slowdown")
    done = min(len(values) for values in series["seconds"].values())
    for number in range(done, processes):
        factor = slower if number % 2 else 1.0
        for name, value in relative.time_steps(relative.ROOT, list(series["seconds"]), factor).items():
            if value is None:
                raise MetabenchError(f"{name} can't be timed here")
            series["seconds"][name].append(value)
        write_text(path, json.dumps(series, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("series", type=Path)
    recording.add_argument("--processes", type=int, default=900)
    recording.add_argument("--slower", type=float, default=1.0)
    judging = commands.add_parser("judge")
    judging.add_argument("series", type=Path)
    judging.add_argument("--stride", type=int, default=1, help="pairs between the starts of two windows")
    given = parser.parse_args(arguments)
    if given.command == "record":
        record(given.series, given.processes, given.slower)
        return
    series = json.loads(given.series.read_text(encoding="utf-8"))
    planted = PLANTED if series["slower"] == 1 else (1.0,)
    for name, samples in series["seconds"].items():
        for row in judge(samples, planted, given.stride):
            share = f"{row['found']} of {row['windows']} [{row['low']:.3f}, {row['high']:.3f}]"
            print(f"{name}: {row['slower'] * series['slower'] - 1:.0%} slower: {share}")


if __name__ == "__main__":
    try:
        main()
    except MetabenchError as error:
        sys.exit(str(error))
