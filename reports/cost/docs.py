"""The tables of costs in docs/, from committed records; ``python -m reports.cost.docs`` writes them.

A block between ``<!-- costs STORE -->`` and ``<!-- /costs -->`` holds those of the store of that name in
``reports/reference/``. No number there is typed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.errors import MetabenchError
from reports import words
from reports.cost import frames

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "docs" / "performance.md", ROOT / "docs" / "results.md")
REFERENCE = ROOT / "reports" / "reference"

BLOCK = re.compile(r"(<!-- costs ([a-z0-9-]+) -->\n).*?(<!-- /costs -->)", re.DOTALL)


def section(records: Sequence[frames.Record]) -> str:
    """Two tables, second order over first and others over ours, and their source."""
    return "\n\n".join([_orders(records), _others(records), _source(records)])


def _orders(records: Sequence[frames.Record]) -> str:
    frame = frames.ratios(records)
    own = frame[(frame["label"] == frames.OURS) & (frame["work"] == "meta-step")]
    rows = [
        (frames.described(row), _interval(row), words.MISSING if pd.isna(row["memory"]) else f"{row['memory']:.2f}")
        for row in own.to_dict("records")
    ]
    return _table(("setting", "second / first, time", "memory"), rows)


def _others(records: Sequence[frames.Record]) -> str:
    """The time of every implementation over ours, a row per setting and order."""
    frame = frames.against(records)
    frame = frame[~frame["label"].str.startswith("ours")]
    labels = sorted(frame["label"].unique(), key=lambda label: (label != "learn2learn", label))
    memory = _memory(records)
    rows = []
    for place, group in frame.groupby([*frames.SETTING, "order"], sort=False):
        row = dict(zip((*frames.SETTING, "order"), place, strict=True))
        times = {each["label"]: _interval(each) for each in group.to_dict("records")}
        held = memory.get((place, frames.OURS)), memory.get((place, "learn2learn"))
        share = f"{held[0] / held[1]:.2f}" if held[0] and held[1] else words.MISSING
        cells = [times.get(label, words.MISSING) for label in labels]
        rows.append((f"{frames.described(row)}, {row['order']}", *cells, share))
    titles = [f"{label} / ours" for label in labels]
    return _table(("setting, order", *titles, "ours / learn2learn, memory"), rows)


def _memory(records: Sequence[frames.Record]) -> dict[Any, float]:
    """(setting and order, implementation) -> bytes."""
    frame = frames.rows(records)
    known = frame[(frame["status"] == "ok") & frame["peak_bytes"].notna()]
    return {
        (tuple(row[name] for name in (*frames.SETTING, "order")), row["label"]): float(row["peak_bytes"])
        for row in known.to_dict("records")
    }


def _source(records: Sequence[frames.Record]) -> str:
    timed = [row for row in frames.rows(records).to_dict("records") if row["status"] == "ok"]
    error = max(float(row["gradient_error"] or 0) for row in timed)
    unstable = sum(not row["stable"] for row in timed)
    where = "; ".join(dict.fromkeys(map(_where, records)))
    return (
        f"Ratios of the medians of interleaved rounds with 95 % intervals over rounds; {unstable} of {len(timed)} rows "
        f"are unstable. The largest relative difference from our results in double precision is {error:.0e}. {where}."
    )


def _where(record: frames.Record) -> str:
    machine = record.machine
    assert machine is not None
    name = machine.cpu if record.device == "cpu" else (machine.gpu or {})["name"]
    return f"{name}, torch {record.versions['torch']}"


def _interval(row: Mapping[str, Any]) -> str:
    digits = 2 if row["time"] < 20 else 0
    return frames.interval(row["time"], row["low"], row["high"], lambda value: f"{value:.{digits}f}")


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return words.pipe_table(titles, (place > 0 for place in range(len(titles))), rows)


def written(text: str, reference: Path = REFERENCE) -> str:
    """The document with every block rewritten; raises `MetabenchError` for a store without costs."""

    def block(found: re.Match[str]) -> str:
        begin, store, end = found.groups()
        return f"{begin}{section(frames.load(reference / store))}\n{end}"

    return BLOCK.sub(block, text)


def main() -> int:
    """The command: a mistake is one line and exit code 2."""
    try:
        for document in DOCUMENTS:
            document.write_text(written(document.read_text(encoding="utf-8")), encoding="utf-8")
    except MetabenchError as error:
        print(f"reports.cost.docs: {error}", file=sys.stderr)
        return 2
    print(f"wrote the tables of costs in {words.listed([document.name for document in DOCUMENTS])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
