"""What changed since other records: scores beyond their interval, new and gone runs, times of training."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import words
from reports.cost.frames import interval
from reports.results import Results
from reports.scores.pairs import shown

NOW, BEFORE = "now", "before"
#: verdicts on a pair whose interval leaves out zero
MOVED = ("better", "worse", "ahead", "behind")
#: a training whose time per meta-step changes by less is left out of the count
NOTABLE = 0.1
NAMES = {NOW: "new", BEFORE: "gone"}


@dataclass(frozen=True)
class Changed:
    """compared: runs with the same test on both sides. scores: those beyond their interval.
    runs: what one side alone has. times: of trainings on the same machine."""

    compared: int
    scores: pd.DataFrame
    runs: pd.DataFrame
    times: pd.DataFrame

    @property
    def sentences(self) -> list[str]:
        """The three parts in a line each."""
        verdicts = self.scores["verdict"].isin(("worse", "behind")) if len(self.scores) else []
        moved = f"{len(self.scores)} of {words.count(self.compared, 'score')} changed beyond the interval"
        counts = self.runs["status"].value_counts() if len(self.runs) else {}
        came = ", ".join(f"{counts.get(name, 0)} {name}" for name in NAMES.values())
        slower = int((self.times["ratio"] > 1 + NOTABLE).sum()) if len(self.times) else 0
        timed = f"{slower} of {words.count(len(self.times), 'training')} took over {words.percent(NOTABLE)} longer"
        return [
            f"{moved}, {sum(verdicts)} for the worse.",
            f"Runs: {came}.",
            f"{timed}." if len(self.times) else "No training of both ran on the same machine: times aren't compared.",
        ]


def changed(now: Results, before: Results) -> Changed:
    """Each method against itself on the same test; all methods of a test are one family (`metabench compare`).

    Raises `MetabenchError` where the two have nothing in common."""
    from benchmarks.compare.stores import matched  # reaches torch

    lines = matched((now.compared, before.compared), (NOW, BEFORE)).to_dict("records")
    pairs = [line for line in lines if isinstance(line["second"], str)]
    alone = [line for line in lines if not isinstance(line["second"], str)]
    return Changed(
        len(pairs),
        pd.DataFrame([_score(line) for line in pairs if line["verdict"] in MOVED]),
        pd.DataFrame([_run(line) for line in alone]),
        _times(now, before),
    )


def _where(line: dict[str, Any]) -> dict[str, str]:
    return {"test": line["test"], "method": line["first"].removeprefix(f"{NOW}: ")}


def _score(line: dict[str, Any]) -> dict[str, str]:
    metric = line["metric"]
    size, low, high = (shown(line[name], metric) for name in ("advantage", "low", "high"))
    return {
        **_where(line),
        BEFORE: words.number(line["mean_second"], metric),
        NOW: words.number(line["mean_first"], metric),
        "better by": interval(size, low, high),
        "unit": "times smaller error" if metric == "squared error" else words.axis(metric),
        "verdict": line["verdict"],
        "note": line["note"],
    }


def _run(line: dict[str, Any]) -> dict[str, str]:
    return {**_where(line), "status": NAMES[line["note"].removeprefix("only in ")]}


def _times(now: Results, before: Results) -> pd.DataFrame:
    """Milliseconds per meta-step, means over seeds, of the trainings that both sides have on one machine."""
    sides = [_milliseconds(results) for results in (before, now)]
    rows = [
        {"method": key[0], "task": key[1], f"{BEFORE} (ms)": old, f"{NOW} (ms)": new, "ratio": new / old}
        for key, values in sides[0].items()
        if key in sides[1] and (old := statistics.fmean(values)) and (new := statistics.fmean(sides[1][key]))
    ]
    return pd.DataFrame(rows).sort_values("ratio", ascending=False) if rows else pd.DataFrame()


def _milliseconds(results: Results) -> dict[tuple[str, ...], list[float]]:
    """(method, task, fields, device, machine) -> a number per seed."""
    found: dict[tuple[str, ...], list[float]] = {}
    for record in results.records:
        fit = record.training
        if record.cell != "fit" or not record.ok or not fit or not fit.meta_steps or not record.machine:
            continue
        fields = json.dumps(record.method.fields, sort_keys=True, default=str) if record.method else ""
        key = record.label, record.task.id if record.task else "", fields, record.device, record.machine.id
        found.setdefault(key, []).append(1e3 * fit.seconds / fit.meta_steps)
    return found
