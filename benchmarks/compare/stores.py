"""What ``metabench compare`` and ``metabench power`` answer: two stores, commits or methods against each other,
somebody else's scores against ours, and what it would take to see a difference."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.compare import external_scores
from benchmarks.compare.episode_lists import export_episodes as export_episodes
from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record, Task, Tested
from benchmarks.records.store import Store
from benchmarks.stats import (
    Column,
    Contrast,
    Pair,
    Row,
    Scores,
    TestProtocol,
    columns,
    components,
    judge,
    margin_on_scale,
    needed,
    paired_contrast,
    power,
    protocol_of,
)

_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def compare(first: str, second: str, store: Path) -> pd.DataFrame:
    """Two stores (folders), two commits (7 or more hexadecimal digits) or two methods (labels) of ``store``.

    One row per test and pair, told from the side of ``first``; see `_table` for the columns."""
    folders = [Path(name) for name in (first, second) if _is_store(name)]
    if len(folders) == 2:
        return compare_stores(*folders)
    if len(folders) == 1:
        other = second if _is_store(first) else first
        raise MetabenchError(f"{folders[0]} is a store and {other!r} is none: compare two of a kind")
    opened = _open(store)
    records = _records(opened)
    found = columns(opened, records)
    known = {name for column in found for name in column.names}
    if first in known and second in known:
        return _compare_methods(store, found, first, second)
    commits = [_commit(name, records) for name in (first, second)]
    if all(commits):
        return compare_commits(store, first, second)
    for name, commit in zip((first, second), commits, strict=True):
        if not commit and name not in known:
            methods = ", ".join(sorted(known))
            raise MetabenchError(f"{name!r} is no store, no commit and no method of {store}; methods: {methods}")
    raise MetabenchError(f"{first!r} and {second!r} are a commit and a method: compare two of a kind")


def compare_stores(first: Path, second: Path) -> pd.DataFrame:
    """Each method of the first store against the same method of the second, on the same test episodes."""
    left, right = (columns(store, _records(store)) for store in (_open(first), _open(second)))
    return _matched(left, right, (str(first), str(second)))


def compare_commits(store: Path, first: str, second: str) -> pd.DataFrame:
    """Each method as it was run at one commit against the same method at another."""
    opened = _open(store)
    records = _records(opened)
    chosen = []
    for prefix in (first, second):
        here = [record for record in records if record.git and record.git.commit.startswith(prefix)]
        if not here:
            raise MetabenchError(f"no record of {store} is of commit {prefix}")
        chosen.append(columns(opened, here))
    return _matched(chosen[0], chosen[1], (first, second))


def _compare_methods(store: Path, found: Sequence[Column], first: str, second: str) -> pd.DataFrame:
    """Two methods, named as `metabench show` names them, against each other on every test that both have."""
    lines = []
    for column in found:
        rows = {row.name: row for row in column.rows}
        if first in rows and second in rows:
            lines += _column_lines(column, [(rows[first], rows[second])], ("", ""))
    if not lines:
        raise MetabenchError(f"{store} has no test of both {first!r} and {second!r}")
    return pd.DataFrame(lines)


def compare_foreign(path: Path, store: Path) -> pd.DataFrame:
    """Somebody's scores on our test episodes against each of our methods, without training anything.

    path: a parquet file with one row per query: task, episodes_digest (both as `export_episodes` has them), episode,
    query, score; also method, seed, shots and regime if there are several or they are known. Their seeds are averaged:
    a verdict is about these trained models. Raises `MetabenchError` where the table is not about our episodes."""
    frame, opened = external_scores.read(path), _open(store)
    ours = columns(opened, _records(opened))
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
            lines += _column_lines(narrowed, pairs, ("theirs: ", "ours: "), task=column.task, scope="models")
    return pd.DataFrame(lines)


def power_table(store: Path, delta: float, methods: Sequence[str] = (), alpha: float = 0.05) -> pd.DataFrame:
    """The power to find a difference of ``delta``, for every pair of learners of every test (or of these methods).

    delta: in points of accuracy, in percent of the mean squared error, or in units of the return. Columns task,
    batch_norm, shots, model, first, second, scope, scale, delta on that scale, the standard deviations of seed, class,
    episode and query on it, seeds, episodes, power, and the episodes or seeds that find it with probability 0.8 (None:
    no number does)."""
    if not delta > 0:
        raise MetabenchError(f"a difference of {delta:g} can't be found: --delta must be above 0")
    opened = _open(store)
    found = columns(opened, _records(opened))
    known = sorted({row.name for column in found for row in column.learners})
    for name in methods:
        if name not in known:
            raise MetabenchError(f"unknown method {name!r} in {store}; known: {', '.join(known)}")
    lines = []
    for column in found:
        rows = [row for row in column.learners if not methods or row.name in methods]
        for i, first in enumerate(rows):
            lines += [line for second in rows[i + 1 :] for line in _power_lines(column, first, second, delta, alpha)]
    if not lines:
        raise MetabenchError(f"{store} has no test of two methods whose difference has an interval")
    return pd.DataFrame(lines)


def _power_lines(column: Column, first: Row, second: Row, delta: float, alpha: float) -> list[dict[str, Any]]:
    size = {"accuracy": delta / 100, "squared error": float(np.log1p(delta / 100))}.get(column.metric, delta)
    both = [row.on(column.episodes) for row in (first, second)]
    scores = [Scores(v.reshape(len(v), -1), r.seeds, r.trained) for v, r in zip(both, (first, second), strict=True)]
    try:
        flat = paired_contrast(scores[0], scores[1], column.metric, column.higher_is_better)
    except MetabenchError:
        return []
    if flat is None or len(column.episodes) < 2:
        return []
    values = flat.values.reshape(flat.seeds, len(column.episodes), -1)
    parts = components(values, column.membership)
    lines = []
    for scope in Contrast(values.mean(2), flat.scale, column.membership, flat.trained).scopes():
        if scope == "methods" and parts.seeds < 2:
            continue
        need = needed(size, 0.0, parts, scope, alpha)
        lines.append(
            {
                "task": column.protocol.task,
                "batch_norm": column.protocol.regime,
                "shots": column.protocol.shots,
                "model": column.protocol.model,
                "first": first.name,
                "second": second.name,
                "scope": scope,
                "scale": flat.scale,
                "delta": size,
                **{
                    f"sd_{name.strip('_')}": getattr(parts, name) ** 0.5
                    for name in ("seed", "class_", "episode", "query")
                },
                "seeds": parts.seeds,
                "episodes": parts.episodes,
                "classes": parts.classes or None,
                "power": power(size, parts, scope, alpha=alpha),
                "episodes_needed": need.episodes,
                "seeds_needed": need.seeds,
            }
        )
    return lines


# --- pairs to lines ---


def _matched(first: Sequence[Column], second: Sequence[Column], sides: tuple[str, str]) -> pd.DataFrame:
    """The rows of the same name and protocol of both sides; what only one side has is a line that says so."""
    placed, tables = (_placed(first), _placed(second)), {column.protocol.task: column.examples for column in first}
    lines = []
    for protocol in sorted({*placed[0], *placed[1]}):
        here = [side.get(protocol, {}) for side in placed]
        pairs = [(row, here[1][name]) for name, row in here[0].items() if name in here[1]]
        if pairs:
            both = Column(protocol, tuple(row for pair in pairs for row in pair), tables[protocol.task])
            lines += _column_lines(both, pairs, tuple(f"{side}: " for side in sides))  # type: ignore[arg-type]
        for side, mine, other in zip(sides, here, reversed(here), strict=True):
            base = {
                "task": protocol.task,
                "batch_norm": protocol.regime,
                "shots": protocol.shots,
                "model": protocol.model,
            }
            only = [name for name in mine if name not in other]
            lines += [{**base, "first": name, "verdict": "can't say", "note": f"only in {side}"} for name in only]
    if not any(line["verdict"] != "can't say" for line in lines):
        raise MetabenchError(
            f"{sides[0]} and {sides[1]} have no method with the same test (task, data, regime) in common"
        )
    return pd.DataFrame(lines)


def _placed(found: Iterable[Column]) -> dict[TestProtocol, dict[str, Row]]:
    """The rows under the protocol of their own, by name: in which columns one without batch-norm stands depends on who
    else is in the store."""
    placed: dict[TestProtocol, dict[str, Row]] = {}
    for column in found:
        for row in column.rows:
            placed.setdefault(protocol_of(row.first), {})[row.name] = row
    return placed


def _column_lines(
    column: Column,
    pairs: Sequence[tuple[Row, Row]],
    prefixes: tuple[str, str],
    task: Task | None = None,
    scope: str | None = None,
) -> list[dict[str, Any]]:
    """One line per pair, all of them one family."""
    task = task or column.task
    metric, upwards = task.metric, task.higher_is_better
    couples, contrasts, kept, lines = [], [], [], []
    for first, second in pairs:
        names = f"{prefixes[0]}{first.name}", f"{prefixes[1]}{second.name}"
        try:
            sides = [row.scores(column.episodes) for row in (first, second)]
            one = paired_contrast(sides[0], sides[1], metric, upwards, column.membership)
            why = "no seed in common"
        except MetabenchError as refusal:
            one, why = None, str(refusal)
        if one is None:
            lines.append({**_base(column, names), "verdict": "can't say", "note": why})
            continue
        couples.append(names)
        contrasts.append(one)
        kept.append((first, second))
    if scope is None:
        scope = "methods" if contrasts and all("methods" in one.scopes() for one in contrasts) else "models"
    judged = judge(couples, contrasts, scope, margin_on_scale(task.equivalence_margin, metric))
    return [_table(column, rows, pair) for rows, pair in zip(kept, judged, strict=True)] + lines


def _base(column: Column, names: tuple[str, str]) -> dict[str, Any]:
    protocol = column.protocol
    return {
        "task": protocol.task,
        "batch_norm": protocol.regime,
        "shots": protocol.shots,
        "model": protocol.model,
        "metric": column.metric,
        "first": names[0],
        "second": names[1],
    }


def _table(column: Column, rows: tuple[Row, Row], pair: Pair) -> dict[str, Any]:
    """mean_first, mean_second: scores. advantage, low, high: by how much the first is better, with the adjusted
    interval, on the scale named (a difference of scores, or log(mean error of second / of first)). verdict: what the
    first is. within_margin: whether the 90 % interval lies within the margin. note: what else is different."""
    under = [row.name for row in rows if row.under_trained]
    notes = [_differences(*rows), f"under-trained: {', '.join(sorted(set(under)))}" if under else ""]
    notes += [
        f"{row.name} mixes seeds of {' and '.join(map(str, row.threads))} threads"
        for row in rows
        if len(row.threads) > 1
    ]
    if pair.verdict == "undecided" and (need := pair.need()) is not None:
        notes.append(f"would take {need}")
    if not pair.adjusted.known:
        notes.append("no interval")
    return {
        **_base(column, (pair.first, pair.second)),
        **{
            f"mean_{side}": float(row.on(column.episodes).mean())
            for side, row in zip(("first", "second"), rows, strict=True)
        },
        "scale": pair.contrast.scale,
        "advantage": pair.contrast.estimate,
        "low": pair.adjusted.low,
        "high": pair.adjusted.high,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "verdict": "under-trained" if under else pair.verdict,
        "within_margin": pair.equivalent,
        "scope": pair.scope,
        "survives_new_classes": pair.survives_new_classes,
        "seeds": pair.contrast.seeds,
        "episodes": pair.contrast.episodes,
        "note": "; ".join(filter(None, notes)),
    }


def _differences(first: Row, second: Row) -> str:
    """The fields, the budget and the threads in which two runs of a method differ."""
    one, other = first.first, second.first
    if one.method.name != other.method.name:
        return ""
    found = []
    for left, right in ((one.method.fields, other.method.fields), (_run_with(one), _run_with(other))):
        for name in sorted({*left, *right}):
            values = [json.dumps(side.get(name)) for side in (left, right)]
            found += [f"{name} {values[0]} against {values[1]}"] * (values[0] != values[1])
    return "; ".join(found)


def _run_with(tested: Tested) -> dict[str, Any]:
    budget = dataclasses.asdict(tested.record.budget) if tested.record.budget else {}
    return {**budget, "threads": tested.threads}


# --- stores ---


def _open(path: Path) -> Store:
    if not Path(path).is_dir():
        raise MetabenchError(f"no store at {path}: run `metabench run` first, or name another with --store")
    return Store(path, read_only=True)


def _is_store(name: str) -> bool:
    """Whether a folder holds records: one that only happens to be called like a method is none."""
    return (Path(name) / "records").is_dir()


def _records(store: Store) -> list[Record]:
    found = store.records("evaluation")
    if not found:
        raise MetabenchError(f"no finished evaluation in {store.path}: run `metabench run` first")
    return found


def _commit(name: str, records: Iterable[Record]) -> bool:
    commits = {record.git.commit for record in records if record.git}
    return bool(_COMMIT.fullmatch(name)) and any(commit.startswith(name) for commit in commits)
