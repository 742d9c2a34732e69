"""The tables as pandas frames, shared by page, terminal and CSV."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.records.plain import whole
from benchmarks.records.record import Record
from benchmarks.stats import Comparison
from reports import published, words
from reports.results import Result, Results


@functools.lru_cache(maxsize=1)
def main_table(results: Results) -> pd.DataFrame:
    """One row per number, best first within its column.

    ``mean`` and ``half_width`` are in the ``unit`` shown (accuracy in percent): the mean over seeds of the score of
    each episode at the headline step, then mean and Student's 95 % interval over episodes."""
    columns = results.columns
    numbers = published.load()
    return pd.DataFrame(
        [
            _row(result, words.title(result.column, columns), results.judged(result))
            | _published(result, reproduced(result, numbers))
            for result in ordered(results)
        ]
    )


def ordered(results: Results) -> list[Result]:
    """The results in the order of the rows of `main_table`."""
    order = {test: place for place, test in enumerate(results.tests)}
    return sorted(results.results, key=lambda result: order[result.column.test])


def reproduced(result: Result, numbers: Sequence[published.Published]) -> published.Reproduction | None:
    """A result compared with its published number; None for further conditions and where there is none."""
    if not result.row.own or not np.isfinite(result.interval.estimate):
        return None
    mine = published.ours(result.row)
    anchor = published.anchor(numbers, mine)
    return published.reproduction(anchor, mine) if anchor else None


def _published(result: Result, found: published.Reproduction | None) -> dict[str, Any]:
    if found is None:
        return {"published": None, "published_half_width_95": None, "reproduced": None, "published_source": None}
    half_width, scale = found.published.half_width, words.factor(result.metric)
    return {
        "published": found.published.value * scale,
        "published_half_width_95": None if half_width is None else half_width * scale,
        "reproduced": _outcome(found, published.ours(result.row)),
        "published_source": found.published.source,
    }


def _outcome(found: published.Reproduction, mine: published.Ours) -> str:
    """The outcome as text; a fit with less than the published budget has none."""
    if found.outcome == "not run":
        return found.why if mine.full_budget else "not the published budget"
    return str(found)


def published_table(results: Results) -> pd.DataFrame:
    """Our number and the published one, with differences of the protocol: one row per result that has both."""
    numbers, rows = published.load(), []
    for result in results.results:
        if (found := reproduced(result, numbers)) is None:
            continue
        mine, anchor = published.ours(result.row), found.published
        differences = published.protocol_differences(anchor, mine)
        unknown = published.not_stated(anchor, mine)
        scale, reported = words.factor(result.metric), published.spread(numbers, mine.method, mine.protocol.task)
        rows.append(
            {
                "method": result.name,
                "task": words.title(result.column, results.columns),
                "batch_norm": result.column.regime,
                "ours": words.plus_minus(result.interval, result.metric),
                "published": words.published(anchor.value, anchor.half_width, result.metric),
                "ours_minus_published": (mine.mean - anchor.value) * scale,
                "z": found.z,
                "reproduced": _outcome(found, mine),
                "protocol_differs": "; ".join(differences) or None,
                "not_stated": ", ".join(unknown) or None,
                "reported_anywhere": words.spread([value * scale for value in reported or ()], "{:.4g}"),
                "source": anchor.source,
            }
        )
    return pd.DataFrame(rows)


#: outcome -> how the summary counts it
OUTCOMES = {
    "agrees": "agree",
    "no published interval": "without a published interval",
    "protocol differs": "of another protocol",
    "protocol unknown": "of a protocol that is not stated",
}


def published_sentence(results: Results) -> str:
    """How many comparisons with published numbers came out how."""
    numbers = published.load()
    found = [(result, one) for result in results.results if (one := reproduced(result, numbers)) is not None]
    judged = Counter(one.outcome for _, one in found if one.outcome != "not run")
    said = [f"{count} {OUTCOMES.get(outcome, outcome)}" for outcome, count in judged.items()]
    waiting = [result for result, one in found if one.outcome == "not run"]
    if waiting:
        shares = [fit.share for result in waiting for fit in result.training if fit.share is not None]
        ends = list(dict.fromkeys(words.percent(share(shares)) for share in (min, max))) if shares else []
        spent = f" ({' to '.join(ends)} of it)" if ends else ""
        said.append(f"{len(waiting)} too early, with under-trained fits or less than the published budget{spent}")
    return f"Of {words.count(len(found), 'comparison')}: {'; '.join(said)}."


def _row(result: Result, test: str, judged: Comparison | None) -> dict[str, Any]:
    interval, column, first = result.interval, result.column, result.first
    scale = words.factor(result.metric)
    fields, facts, training = first.method.fields, first.method.facts, result.training
    return {
        "method": result.name,
        "task": test,
        "batch_norm": column.regime,
        "rank": judged.ranks.get(result.name) if judged else None,
        "groups": judged.letters.get(result.name) if judged else None,
        "mean": interval.estimate * scale,
        "half_width_95": interval.half_width * scale,
        "unit": "%" if result.metric == "accuracy" else result.metric,
        "seeds": len(result.tested),
        "under_trained": result.under_trained,
        "headline_step": _shared(result.headline_steps),
        "selection": first.conditions.selection,
        "trials": max(tested.test.trials for tested in result.tested),
        "backbone": facts.get("backbone"),
        "training_inner_steps": whole(fields.get("inner_steps")),
        "inner_rate_mean_loss": facts.get("mean_loss_inner_lr"),
        "meta_steps": _shared(one.meta_steps for one in training),
        "published_meta_steps": _shared(one.published_meta_steps for one in training),
        "share_of_published": _least(one.share for one in training),
        "training_seconds": _mean(one.seconds for one in training),
        "pace": max((one.pace for one in training if one.pace), default=None),
        "examples_seen": _mean(one.examples for one in training),
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


def failures_table(results: Results) -> pd.DataFrame:
    """Runs without a number, grouped by status and reason: status, reason, runs, where, stderr."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in results.unfinished:
        groups.setdefault((record.status, record.reason or "no reason given"), []).append(record)
    rows = [
        {
            "status": status,
            "reason": reason,
            "runs": len(records),
            "where": "; ".join(_where(records)),
            "stderr": next((record.stderr for record in records if record.stderr), ""),
        }
        for (status, reason), records in groups.items()
    ]
    frame = pd.DataFrame(rows, columns=["status", "reason", "runs", "where", "stderr"])
    # failures first: skips are expected
    return frame.sort_values("status", key=lambda column: column == "skipped", kind="stable", ignore_index=True)


def _where(records: Iterable[Record]) -> list[str]:
    """``maml on sinusoid-v1/k5 (fit and evaluation, seeds 0, 1)``, one for each method and task."""
    places: dict[tuple[str, str], tuple[set[str], set[int]]] = {}
    for record in records:
        kinds, seeds = places.setdefault((record.label, record.task.id if record.task else ""), (set(), set()))
        kinds.add(record.cell)
        if record.seed is not None:
            seeds.add(record.seed)
    return [
        f"{label} on {task} ({' and '.join(sorted(kinds, reverse=True))}"
        + (f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}" if seeds else "")
        + ")"
        for (label, task), (kinds, seeds) in places.items()
    ]


def under_trained_table(results: Results) -> pd.DataFrame:
    """The fits that are marked as under-trained, and why."""
    rows: dict[str, dict[str, Any]] = {}
    for record in sorted(results.records, key=lambda record: record.cell != "fit"):
        if (training := record.training) and training.under_trained and record.ok and record.task:
            row = {
                "method": record.label,
                "task": record.task.id,
                "seed": record.seed,
                "meta_steps": training.meta_steps,
                "published_meta_steps": training.published_meta_steps,
                "share_of_published": training.share,
                "still_improving": training.still_improving,
                "stopped_by": training.stopped_by,
                "training_seconds": training.seconds,
            }
            rows.setdefault(training.fit, row)
    return pd.DataFrame(sorted(rows.values(), key=lambda row: (row["task"], row["method"], row["seed"])))


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
