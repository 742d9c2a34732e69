"""How often the gate is wrong: a long series of pairs of processes of the same code, cut into windows.

``python -m benchmarks.gate.study record series.json --pairs 240`` records; it can be stopped, and the same command goes
on. After every fourth pair comes one whose head does work after every step that makes it 5 % slower.
``python -m benchmarks.gate.study judge series.json`` counts false alarms, with their Clopper-Pearson interval, and the
slowdowns that are found: planted in the processes, and by scaling the ratios.

Windows that start one pair apart overlap, so they are not as many independent comparisons as their interval takes them
for. Beside them stand windows that share nothing: each begins where the one before has ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, relative, timed
from benchmarks.gate.decision import LOOKS, THRESHOLD, decide
from benchmarks.machine import fingerprint, git_state, versions
from benchmarks.records.formats import write_text

#: factors that the ratios are scaled by
SCALED = (1.0, 1.05, 1.1, 1.2)
#: how much slower head is in the pairs with planted work, and after how many others one comes
PLANTED, EVERY = 1.05, 4
#: pairs of processes that one comparison can take: a first run and, where it fails, a second one
WIDTH = 2 * LOOKS[-1]
#: the name of the row for all steps together
ALL = "all steps"


def gate(ratios: Sequence[float], threshold: float = THRESHOLD) -> tuple[bool, int]:
    """Whether the gate fails on what these pairs saw (slower in a first run and in a second one after it), and how many
    pairs it used."""
    first, used = _run(ratios, threshold)
    if first != "slower":
        return False, used
    again, more = _run(ratios[used:], threshold)
    return again == "slower", used + more


def _run(ratios: Sequence[float], threshold: float) -> tuple[str, int]:
    """The verdict, adding pairs as the gate does, and how many were used."""
    for pairs in LOOKS:
        decision = decide(ratios[:pairs], threshold)
        if decision.final:
            return decision.verdict, pairs
    return decision.verdict, pairs


def windows(ratios: Sequence[float], threshold: float, apart: bool) -> list[bool]:
    """Whether the gate fails in each window; windows start one pair apart, or (``apart``) where the last one ended."""
    if len(ratios) < WIDTH:
        raise MetabenchError(f"a window needs {WIDTH} pairs of processes; the series has {len(ratios)}")
    failed, start = [], 0
    while start + WIDTH <= len(ratios):
        found, used = gate(ratios[start : start + WIDTH], threshold)
        failed.append(found)
        start += used if apart else 1
    return failed


def judge(series: dict[str, Any], threshold: dict[str, float] = relative.THRESHOLDS) -> list[dict[str, Any]]:
    """Rows of how often the gate fails, by step and for all steps together.

    slower: by what factor head is slower; how: "scaled" or "planted"; windows, failed, low, high: overlapping windows;
    apart_...: the same for windows that share no process."""
    rows = []
    for how, slower in [*(("scaled", factor) for factor in SCALED), ("planted", series["slower"])]:
        counted: list[tuple[str, list[bool], list[bool]]] = []  # step, overlapping windows, windows apart
        for step, ratios in series["ratios" if how == "scaled" else "planted"].items():
            seen = [slower * ratio for ratio in ratios] if how == "scaled" else ratios
            limit = threshold.get(step, THRESHOLD)
            counted.append((step, windows(seen, limit, apart=False), windows(seen, limit, apart=True)))
        together = [one for _, beside, _ in counted for one in beside], [one for *_, apart in counted for one in apart]
        counted.append((ALL, *together))
        rows += [
            {"step": step, "slower": slower, "how": how, **_share(beside), **_share(apart, "apart_")}
            for step, beside, apart in counted
        ]
    return rows


def _share(failed: Sequence[bool], prefix: str = "") -> dict[str, Any]:
    low, high = clopper_pearson(sum(failed), len(failed))
    found = {"windows": len(failed), "failed": sum(failed), "low": round(low, 5), "high": round(high, 5)}
    return {prefix + name: value for name, value in found.items()}


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share."""
    from scipy.stats import beta

    if not trials:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def record(path: Path, pairs: int) -> None:
    """Append pairs of processes to the series in ``path`` until it has so many; written after each."""
    machine = fingerprint()
    facts = {"machine": machine, "versions": versions(), "git": git_state(checkouts.ROOT)}
    empty: dict[str, Any] = {"slower": PLANTED, **({part: {s: [] for s in timed.STEPS} for part in PARTS})}
    series: dict[str, Any] = read(path) if path.exists() else {**facts, **empty}
    if (series["machine"]["id"], series["slower"], list(series["ratios"])) != (machine["id"], PLANTED, [*timed.STEPS]):
        raise MetabenchError(f"{path} was recorded on another machine or with other steps: name another file")
    both = {"base": checkouts.ROOT, "head": checkouts.ROOT}

    def add(part: str, slower: float) -> None:
        for step, seen in relative.time_pair(both, list(timed.STEPS), slower).items():
            if seen is None:
                raise MetabenchError(f"{step} can't be timed here")
            series[part][step].append(seen.ratio)
        write_text(path, json.dumps(series) + "\n")

    def count(part: str) -> int:
        return min(len(values) for values in series[part].values())

    while count("ratios") < pairs:
        add("ratios", 1.0)
        if count("planted") < count("ratios") // EVERY:
            add("planted", PLANTED)


#: head's time over base's by step, as it is and with planted work
PARTS = ("ratios", "planted")


def read(path: Path) -> dict[str, Any]:
    """A recorded series; raises `MetabenchError` for anything else."""
    try:
        series: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        assert {"machine", "slower", *PARTS} <= series.keys()
    except OSError as error:
        raise MetabenchError(f"the series {path} can't be read: {error.strerror}") from None
    except (ValueError, AttributeError, AssertionError):
        raise MetabenchError(f"{path} is no series of `study record`") from None
    return series


def table(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The rows as lines of a Markdown table."""
    yield "| step | head slower by | fails, of all windows | 95 % | of windows that share nothing | 95 % |"
    yield "| --- | --- | ---: | --- | ---: | --- |"
    for row in rows:
        by = f"{row['slower'] - 1:.0%}" + (", planted" if row["how"] == "planted" else "")
        shares = " | ".join(
            f"{row[f'{part}failed']} of {row[f'{part}windows']} | {row[f'{part}low']:.2%} to {row[f'{part}high']:.2%}"
            for part in ("", "apart_")
        )
        yield f"| {row['step']} | {by} | {shares} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="add pairs of processes to a series")
    recording.add_argument("series", type=Path)
    recording.add_argument("--pairs", type=int, default=240, help="how many the series shall have")
    judging = commands.add_parser("judge", help="count false alarms and found slowdowns")
    judging.add_argument("series", type=Path)
    judging.add_argument("--write", type=Path, help="write the rows as JSON too")
    given = parser.parse_args(arguments)
    if given.command == "record":
        record(given.series, given.pairs)
        return
    rows = judge(read(given.series))
    if given.write:
        write_text(given.write, json.dumps(rows, indent=1) + "\n")
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except MetabenchError as error:
        sys.exit(str(error))
