"""The tables as pandas frames, shared by page, terminal and CSV."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pandas as pd

from benchmarks.records.plain import whole
from benchmarks.records.record import Record
from benchmarks.stats import Comparison
from reports import words
from reports.results import Result, Results
from reports.scores.reproduced import columns_of, reproductions

#: why a cell has no record yet
UNFINISHED = {
    "at work": "a run is at work on it",
    "waits": "a run that goes on has not begun it",
    "stopped": "its run was stopped: run the same command again to resume",
}


@functools.lru_cache(maxsize=1)
def main_table(results: Results) -> pd.DataFrame:
    """One row per number, best first within its column.

    ``mean`` and ``half_width`` are in the ``unit`` shown (accuracy in percent): the mean over seeds of the score of
    each episode at the headline step, then mean and Student's 95 % interval over episodes."""
    columns, found = results.columns, reproductions(results)
    return pd.DataFrame(
        [
            _row(results, result, words.title(result.column, columns), results.judged(result))
            | columns_of(result, found.get(result, []))
            for result in ordered(results)
        ]
    )


def ordered(results: Results) -> list[Result]:
    """The results in the order of the rows of `main_table`."""
    order = {test: place for place, test in enumerate(results.tests)}
    return sorted(results.results, key=lambda result: order[result.column.test])


def _row(results: Results, result: Result, test: str, judged: Comparison | None) -> dict[str, Any]:
    interval, column, first = result.interval, result.column, result.first
    scale, deviation = words.factor(result.metric), result.row.seed_deviation
    ranks, groups = judged.ranking if judged else ({}, {})
    fields, facts, training = first.method.fields, first.method.facts, result.training
    return {
        "method": result.name,
        "task": test,
        "batch_norm": column.regime,
        "rank": ranks.get(result.name),
        "groups": groups.get(result.name),
        "mean": interval.estimate * scale,
        "half_width_95": interval.half_width * scale,
        "unit": "%" if result.metric == "accuracy" else result.metric,
        "seeds": len(result.tested),
        "seed_deviation": None if deviation is None else deviation * scale,
        "under_trained": result.under_trained,
        "failed": results.failed(result),
        "best_step": _shared(one.best_step for one in training),
        "failed_validations": sum(one.failed_validations for one in training) if training else None,
        "headline_step": _shared(result.headline_steps),
        "settings": settings_of(result),
        "backbone": facts.get("backbone"),
        "training_inner_steps": whole(fields.get("inner_steps")),
        "inner_rate_mean_loss": facts.get("mean_loss_inner_lr"),
        "meta_steps": _shared(one.meta_steps for one in training),
        "stood_still_at": _shared(one.meta_steps for one in training if one.stopped_by == "standstill"),
        "published_meta_steps": _shared(one.published_meta_steps for one in training),
        "share_of_budget": _least(one.share for one in training),
        "training_seconds": _mean(one.seconds for one in training),
        "pace": max((one.pace for one in training if one.pace), default=None),
        "examples_seen": _mean(one.examples for one in training),
        "environment_steps_seen": _mean(one.environment_steps for one in training),
        "training_batch_norm": _shared(one.regime for one in training),
        "parameters": _shared(one.parameters for one in training),
        "split": column.split,
        "way": column.way or None,
        "shot": column.shots,
        "queries_per_class": column.queries,
        "episodes": result.row.values.shape[1],
        "profile": first.record.profile or None,
        "role": result.row.role,
        "records": result.keys,
    }


def settings_of(result: Result) -> str | None:
    """Where the settings come from: "published", "ours", or chosen on validation tasks from so many trials; None in
    older records."""
    if result.first.conditions.selection == "validation":
        return f"validation ({words.count(max(tested.test.trials for tested in result.tested), 'trial')})"
    return result.first.method.facts.get("settings") or None


def failures_table(results: Results) -> pd.DataFrame:
    """Runs without a number, grouped by status and reason: status, reason, runs, where, stderr.

    Cells without a record, of runs that go on or were stopped, are "unfinished"."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in results.unfinished:
        groups.setdefault((record.status, record.reason or "no reason given"), []).append(record)
    rows = [
        {
            "status": status,
            "reason": reason,
            "runs": len(records),
            "where": "; ".join(_where((r.label, r.task.id if r.task else "", r.cell, r.seed) for r in records)),
            "stderr": next((record.stderr for record in records if record.stderr), ""),
        }
        for (status, reason), records in groups.items()
    ]
    for doing, reason in UNFINISHED.items():
        if cells := [cell for cell in results.planned if cell.doing == doing]:
            where = "; ".join(_where((cell.label, cell.task, cell.cell, cell.seed) for cell in cells))
            rows.append({"status": "unfinished", "reason": reason, "runs": len(cells), "where": where, "stderr": ""})
    frame = pd.DataFrame(rows, columns=["status", "reason", "runs", "where", "stderr"])
    # failures first: skips are expected
    return frame.sort_values("status", key=lambda column: column == "skipped", kind="stable", ignore_index=True)


def _where(cells: Iterable[tuple[str, str, str, int | None]]) -> list[str]:
    """``maml on sinusoid-v1/k5 (fit and evaluation, seeds 0, 1)``, one for each method and task.

    cells: method, task, kind and seed of each."""
    places: dict[tuple[str, str], tuple[set[str], set[int]]] = {}
    for label, task, kind, seed in cells:
        kinds, seeds = places.setdefault((label, task), (set(), set()))
        kinds.add(kind)
        if seed is not None:
            seeds.add(seed)
    return [
        f"{label} on {task} ({' and '.join(sorted(kinds, reverse=True))}"
        + (f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}" if seeds else "")
        + ")"
        for (label, task), (kinds, seeds) in places.items()
    ]


def under_trained_table(results: Results) -> pd.DataFrame:
    """The fits that are marked as under-trained, and why: a row per method and task that it was trained on, with means
    over its seeds."""
    fits: dict[tuple[str, str], dict[str, Record]] = {}
    seen = set()
    for record in sorted(results.records, key=lambda record: record.cell != "fit"):
        if record.training and record.training.under_trained and record.ok and record.task:
            if (fit := (record.label, record.training.fit)) not in seen:
                fits.setdefault((record.task.id, record.label), {})[record.training.fit] = record
            seen.add(fit)
    return pd.DataFrame(
        [_under_trained(task, label, list(found.values())) for (task, label), found in sorted(fits.items())]
    )


def _under_trained(task: str, label: str, records: list[Record]) -> dict[str, Any]:
    trained = [record.training for record in records if record.training]
    return {
        "method": label,
        "task": task,
        "seeds": ", ".join(str(seed) for seed in sorted(_known(record.seed for record in records))),
        "meta_steps": _shared(one.meta_steps for one in trained),
        "published_meta_steps": _shared(one.published_meta_steps for one in trained),
        "share_of_budget": _least(one.share for one in trained),
        "examples": _mean(one.examples or one.environment_steps for one in trained),
        "still_improving": any(one.still_improving for one in trained),
        "stopped_by": _shared(one.stopped_by for one in trained),
        "training_seconds": _mean(one.seconds for one in trained),
    }


def machines_table(records: Iterable[Record]) -> pd.DataFrame:
    """One row per machine, set of versions, commit and device."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        machine, git = record.machine, record.git
        facts = {
            "machine": machine and machine.id,
            "processor": machine and machine.cpu,
            "cores": machine and machine.usable_cores,
            "memory": f"{machine.memory_gib} GiB" if machine and machine.memory_gib else None,
            "gpu": machine and (machine.gpu or {}).get("name"),
            "system": machine and machine.os,
            "device": record.device,
            "threads": record.threads,
            "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items() if version),
            "commit": (git.commit[:12] + " (with changes)" * git.dirty) if git else "unknown",
        }
        row = rows.setdefault(tuple(map(str, facts.values())), {**facts, "records": 0, "first": None, "last": None})
        row["records"] += 1
        row["first"] = min(filter(None, [row["first"], record.started or None]), default=None)
        row["last"] = max(filter(None, [row["last"], record.finished or None]), default=None)
    return pd.DataFrame(list(rows.values()))


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _shared(values: Iterable[Any]) -> Any:
    """The common value; the range of numbers that differ, other values joined; None without any."""
    known = list(dict.fromkeys(_known(values)))
    if len(known) > 1 and all(isinstance(value, int) for value in known):
        return f"{min(known):,}–{max(known):,}"
    return known[0] if len(known) == 1 else ", ".join(map(str, known)) or None


def _least(values: Iterable[Any]) -> float | None:
    return min(_known(values), default=None)


def _mean(values: Iterable[Any]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None
