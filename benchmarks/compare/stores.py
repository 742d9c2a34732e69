"""The answers of ``metabench compare`` and ``metabench power``: two stores, commits or methods against each other,
external scores against ours, and the episodes or seeds that would show a difference."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.checks import check_known
from benchmarks.compare import external_scores
from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record, Tested
from benchmarks.records.store import Store
from benchmarks.stats import (
    Column,
    Contrast,
    Row,
    Scores,
    TestProtocol,
    Verdict,
    columns,
    components,
    judge,
    margin_on_scale,
    needed,
    paired_contrast,
    power,
    protocol_of,
    starved,
)

_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def compare(first: str, second: str, store: Path) -> pd.DataFrame:
    """Two stores (folders), two commits (7 or more hexadecimal digits) or two methods of ``store``, which are named as
    `metabench show` names them.

    One row per test and pair, told from the side of ``first``; see `_table` for the columns. Stores and commits: each
    method of one side against the same method of the other."""
    if first == second or (Path(first).is_dir() and Path(second).is_dir() and Path(first).samefile(second)):
        raise MetabenchError(f"{first!r} and {second!r} are the same: name another to compare it with")
    # a folder that only happens to be called like a method has no records
    folders = [name for name in (first, second) if (Path(name) / "records").is_dir()]
    if len(folders) == 1:
        other = second if folders == [first] else first
        raise MetabenchError(f"{folders[0]} is a store and {other!r} is none: compare two of a kind")
    if folders:
        sides = [columns(opened, opened.evaluations()) for opened in map(Store.existing, folders)]
        return matched(sides, (first, second))
    opened = Store.existing(store)
    records = opened.evaluations()
    found = columns(opened, records)
    known = sorted({name for column in found for name in column.names})
    if first in known and second in known:
        return _compare_methods(store, found, first, second)
    commits = [_of_commit(name, records) for name in (first, second)]
    if all(commits):
        return matched([columns(opened, each) for each in commits], (first, second))
    for name, commit in zip((first, second), commits, strict=True):
        if not commit and name not in known:
            raise MetabenchError(
                f"{name!r} is no store, no commit and no method of {store}; methods: {', '.join(known)}"
            )
    raise MetabenchError(f"{first!r} and {second!r} are a commit and a method: compare two of a kind")


def _of_commit(name: str, records: Iterable[Record]) -> list[Record]:
    return [
        record for record in records if _COMMIT.fullmatch(name) and record.git and record.git.commit.startswith(name)
    ]


def _compare_methods(store: Path, found: Sequence[Column], first: str, second: str) -> pd.DataFrame:
    lines = []
    for column in found:
        rows = {row.name: row for row in column.rows}
        if first in rows and second in rows:
            lines += _method_lines(column, rows[first], rows[second])
    if not lines:
        raise MetabenchError(f"{store} has no test of both {first!r} and {second!r}")
    return pd.DataFrame(lines)


def _method_lines(column: Column, first: Row, second: Row) -> list[dict[str, Any]]:
    """The verdict of the page; floor and ceiling, which it doesn't compare, are a family of their own."""
    if first in column.learners and second in column.learners:
        judged = column.comparison()
        if any({pair.first, pair.second} == {first.name, second.name} for pair in judged.pairs):
            return [_table(column, (first, second), judged.of(first.name, second.name))]
    return _column_lines(column, [(first, second)], ("", ""))


def compare_foreign(path: Path, store: Path) -> pd.DataFrame:
    """Somebody's scores on our test episodes against each of our methods, without training anything.

    path: a parquet file with one row per query: task, episodes_digest (both as `export_episodes` has them), episode,
    query, score; also method, seed, shots and regime if there are several or they are known. Their seeds are averaged:
    a verdict is about these trained models. Raises `MetabenchError` where the table is not about our episodes."""
    frame, opened = external_scores.read(path), Store.existing(store)
    ours = columns(opened, opened.evaluations())
    lines = []
    for task, method, theirs in external_scores.methods(frame):
        fitting = [column for column in ours if column.protocol.task == task and external_scores.fits(column, theirs)]
        if not fitting:
            known = ", ".join(sorted({column.protocol.task for column in ours}))
            raise MetabenchError(f"{path}: {store} has no result on {task} of these shots and regime; it has {known}")
        for column in fitting:
            row = external_scores.row_of(path, method, theirs, column, opened)
            pairs = [(row, external_scores.cut(mine, row.episodes)) for mine in column.learners]
            narrowed = Column(column.protocol, (row, *(mine for _, mine in pairs)), column.examples)
            lines += _column_lines(narrowed, pairs, ("theirs: ", "ours: "), scope="models")
    return pd.DataFrame(lines)


def power_table(store: Path, delta: float, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The power to find a difference of ``delta``, for every pair of learners of every test (or of these methods).

    delta: in points of accuracy, in percent of the mean squared error, or in units of the return. Columns test, task,
    batch_norm, shots, model, metric, first, second, scope, scale, delta on that scale, the standard deviations of seed,
    class, episode and query on it, seeds, episodes, power of a test at 5 %, and the episodes or seeds that find it with
    probability 0.8 (None: no number does)."""
    if not 0 < delta < np.inf:
        raise MetabenchError(f"--delta {delta:g}: a difference is a finite number above 0")
    opened = Store.existing(store)
    found = columns(opened, opened.evaluations())
    known = sorted({row.name for column in found for row in column.learners})
    for name in methods:
        check_known(f"method in {store}", name, known)
    lines: list[dict[str, Any]] = []
    for column in found:
        rows = [row for row in column.learners if not methods or row.name in methods]
        for first, second in itertools.combinations(rows, 2):
            lines += _power_lines(column, first, second, delta)
    if not lines:
        raise MetabenchError(f"{store} has no test of two methods whose difference has an interval")
    return pd.DataFrame(lines)


def _power_lines(column: Column, first: Row, second: Row, delta: float) -> Iterator[dict[str, Any]]:
    size = {"accuracy": delta / 100, "squared error": float(np.log1p(delta / 100))}.get(column.metric, delta)
    scores = []
    for row in (first, second):
        values = row.on(column.episodes)
        scores.append(Scores(values.reshape(len(values), -1), row.seeds, row.trained))
    try:
        flat = paired_contrast(scores[0], scores[1], column.metric, column.higher_is_better)
    except MetabenchError:
        return
    if flat is None or flat.unstable or len(column.episodes) < 2:
        return
    values = flat.values.reshape(flat.seeds, len(column.episodes), -1)
    parts = components(values, column.membership)
    for scope in Contrast(values.mean(2), flat.scale, column.membership, flat.trained).scopes():
        if scope == "methods" and parts.seeds < 2:
            continue
        need = needed(size, 0.0, parts, scope)
        yield {
            **_base(column.protocol, first.name, second.name),
            "metric": column.metric,
            "scope": scope,
            "scale": flat.scale,
            "delta": size,
            "sd_seed": parts.seed**0.5,
            "sd_class": parts.class_**0.5,
            "sd_episode": parts.episode**0.5,
            "sd_query": parts.query**0.5,
            "seeds": parts.seeds,
            "episodes": parts.episodes,
            "classes": parts.classes or None,
            "power": power(size, parts, scope),
            "episodes_needed": need.episodes,
            "seeds_needed": need.seeds,
        }


# --- pairs to lines ---


def matched(found: Sequence[Sequence[Column]], sides: tuple[str, str]) -> pd.DataFrame:
    """The rows of the same name and protocol of both sides; what only one side has is a line that says so.

    Raises `MetabenchError` where the sides have nothing in common."""
    placed = [_placed(columns) for columns in found]
    examples = {column.protocol.task: column.examples for column in found[0]}
    lines = []
    for protocol in sorted({*placed[0], *placed[1]}):
        here = [side.get(protocol, {}) for side in placed]
        pairs = [(row, here[1][name]) for name, row in here[0].items() if name in here[1]]
        if pairs:
            both = Column(protocol, tuple(row for pair in pairs for row in pair), examples[protocol.task])
            lines += _column_lines(both, pairs, (f"{sides[0]}: ", f"{sides[1]}: "))
        for side, mine, other in zip(sides, here, reversed(here), strict=True):
            lines += [_no_verdict(protocol, f"only in {side}", name) for name in mine if name not in other]
    if all(line["verdict"] == "can't say" for line in lines):
        raise MetabenchError(
            f"{sides[0]} and {sides[1]} have no method with the same test (task, data, regime) in common"
        )
    return pd.DataFrame(lines)


def _placed(found: Iterable[Column]) -> dict[TestProtocol, dict[str, Row]]:
    """The rows under the protocol of their own, by name: in which columns one without batch-norm stands depends on who
    else is in the store."""
    placed: dict[TestProtocol, dict[str, Row]] = {}
    for row in (row for column in found for row in column.rows):
        placed.setdefault(protocol_of(row.first), {})[row.name] = row
    return placed


def _column_lines(
    column: Column, pairs: Sequence[tuple[Row, Row]], prefixes: tuple[str, str], scope: str | None = None
) -> list[dict[str, Any]]:
    """One line per pair, all of them one family."""
    couples, contrasts, kept, lines, why = [], [], [], [], []
    for first, second in pairs:
        names = f"{prefixes[0]}{first.name}", f"{prefixes[1]}{second.name}"
        try:
            scores = [row.scores(column.episodes) for row in (first, second)]
            task = column.metric, column.higher_is_better, column.membership, column.strata
            one, refused = paired_contrast(scores[0], scores[1], *task), "no seed in common"
        except MetabenchError as refusal:
            one, refused = None, str(refusal)
        if one is None:
            lines.append(_no_verdict(column.protocol, refused, *names))
            continue
        why.append(starved(dict(zip(names, scores, strict=True)), column.metric))
        couples.append(names)
        contrasts.append(one)
        kept.append((first, second))
    count, limit = len(couples), margin_on_scale(column.margin, column.metric)
    judged = judge(couples, contrasts, [column.metric] * count, [limit] * count, scope, why)
    return [_table(column, rows, pair) for rows, pair in zip(kept, judged, strict=True)] + lines


def _base(protocol: TestProtocol, first: str, second: str | None = None) -> dict[str, Any]:
    return {
        "test": protocol.title,
        "task": protocol.task,
        "batch_norm": protocol.regime,
        "shots": protocol.shots,
        "model": protocol.model,
        "first": first,
        "second": second,
    }


def _no_verdict(protocol: TestProtocol, why: str, first: str, second: str | None = None) -> dict[str, Any]:
    return {**_base(protocol, first, second), "verdict": "can't say", "note": why}


def _table(column: Column, rows: tuple[Row, Row], pair: Verdict) -> dict[str, Any]:
    """mean_first, mean_second: scores. advantage, low, high: by how much the first is better, with the interval that
    decided (adjusted, or of 90 % where equivalent or non-inferior), on the scale named (a difference of scores, or
    log(mean error of second / of first)). verdict: what the first is. within_margin: whether the 90 % interval lies
    within the margin. note: what else is different."""
    notes = [_differences(*rows), pair.reason]
    notes += [
        f"{row.name} mixes seeds of {' and '.join(map(str, row.threads))} threads"
        for row in rows
        if len(row.threads) > 1
    ]
    if pair.need is not None:
        notes.append(f"would take {pair.need}")
    return {
        **_base(column.protocol, pair.first, pair.second),
        "metric": column.metric,
        "mean_first": float(rows[0].on(column.episodes).mean()),
        "mean_second": float(rows[1].on(column.episodes).mean()),
        "scale": pair.contrast.scale,
        "advantage": pair.contrast.estimate,
        "low": pair.shown.low,
        "high": pair.shown.high,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "verdict": pair.word,
        "within_margin": pair.equivalent,
        "scope": pair.scope,
        "survives_new_classes": pair.survives_new_classes,
        "seeds": pair.contrast.seeds,
        "episodes": pair.contrast.episodes,
        "note": "; ".join(filter(None, notes)),
    }


def _differences(first: Row, second: Row) -> str:
    """The fields, the budget and the threads in which two runs of a method differ."""
    left, right = (_settings(row.first) for row in (first, second))
    if first.first.method.name != second.first.method.name:
        return ""
    told = [(name, *(json.dumps(side.get(name)) for side in (left, right))) for name in {**left, **right}]
    return "; ".join(f"{name} {one} against {other}" for name, one, other in told if one != other)


def _settings(tested: Tested) -> dict[str, Any]:
    budget = dataclasses.asdict(tested.record.budget) if tested.record.budget else {}
    return {**tested.method.fields, **budget, "threads": tested.threads}
