"""Copies of records: kept for a commit, merged from several stores, or exported as a table for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record, Tested
from benchmarks.records.store import Store

if TYPE_CHECKING:
    import numpy as np

#: how the arrays of an exhibit that hold pictures end
PICTURES = "_images"


def keep(source: Store, target: Store) -> tuple[int, int]:
    """Copy every record without its trained states and without pictures that may not be passed on.

    Returns how many were copied, and how many of them lost pictures. Records that ``target`` has already stay with
    their files where they are the same. Raises `MetabenchError` where both are one folder."""
    _apart([source], target)
    bare = 0
    records = source.records()
    for record in records:
        arrays = source.arrays(record)
        shown = {name: array for name, array in (arrays or {}).items() if not _withheld(record, name)}
        bare += len(shown) < len(arrays or {})
        _copy(record, source, target, shown or None, target.state(record) if target.get(record.key) else None)
    return len(records), bare


def merge(sources: Sequence[Store], target: Store) -> int:
    """Copy the records of several stores, with their states, into one; returns how many it has then.

    A cell that failed in one store and is finished in another counts as finished. Raises `MetabenchError`, before
    anything is written, where two stores have one key with other scores."""
    _apart(sources, target)
    chosen: dict[str, tuple[Record, Store]] = {}
    contradictions = []
    for store in (*sources, target):
        for record in store.records():
            known = chosen.get(record.key)
            if known is not None and record.ok and known[0].ok and not _same(record, store, *known):
                contradictions.append(f"{record.label} ({record.key}): {known[1].path} and {store.path}")
            # the one that is finished, and of two finished ones the one that has kept its states
            if known is None or (record.ok, len(record.files)) > (known[0].ok, len(known[0].files)):
                chosen[record.key] = record, store
    if contradictions:
        raise MetabenchError(f"the same key with other scores: {'; '.join(contradictions)}")
    for record, store in chosen.values():
        if store is not target:
            _copy(record, store, target, store.arrays(record), store.state(record))
    return len(chosen)


def forget(store: Store, methods: Sequence[str], failed: bool = False) -> int:
    """Delete the records of these methods (labels or registered names; all, if none is named), or only those that
    failed; returns how many. Raises `MetabenchError` for a method without records."""
    records = store.records()
    known = {record.label for record in records} | {record.method.name for record in records if record.method}
    for name in methods:
        if name not in known:
            raise registry.unknown(f"method in {store.path}", name, known)
    gone = [
        record
        for record in records
        if (not methods or {record.label, record.method and record.method.name} & set(methods))
        and (not failed or record.status not in ("ok", "skipped"))
    ]
    for record in gone:
        with store.lock(record.key):
            store.remove(record.key)
    return len(gone)


def export(store: Store, path: Path) -> int:
    """Write a parquet file with one row per query of every finished test; returns how many rows.

    Columns: method, task, seed, model (checkpoint), regime (batch-norm), shots, step (inner steps), headline, episode,
    query, score, key, commit; for images class and item as well."""
    import pandas as pd
    import pyarrow
    from pyarrow import parquet

    writer, rows = None, 0
    try:
        for table in _tables(store):
            frame = pyarrow.Table.from_pandas(pd.DataFrame(table), preserve_index=False)
            writer = writer or parquet.ParquetWriter(path, frame.schema, compression="zstd")
            writer.write_table(frame)
            rows += len(frame)
    finally:
        if writer is not None:
            writer.close()
    if not rows:
        raise MetabenchError(f"no finished evaluation in {store.path}: run `metabench run` first")
    return rows


def _tables(store: Store) -> Iterator[dict[str, Any]]:
    for record in store.records("evaluation"):
        scores = store.scores(record) or {}
        digest = record.evaluation.episodes_digest if record.evaluation else None
        examples = store.episodes(digest) if digest else None
        for tested in record.tested:
            for row in tested.test.summary:
                if (values := scores.get(tested.test.scores_name(row.step))) is not None:
                    yield _table(tested, row.step, values, examples)


def _table(tested: Tested, step: int, values: np.ndarray, examples: Any) -> dict[str, Any]:
    import numpy as np

    episode, query = np.indices(values.shape)
    nothing = np.full(values.size, -1, "int32")
    found = {name: examples[name][: len(values)].reshape(-1) if examples else nothing for name in ("classes", "items")}
    return {
        "method": tested.record.label,
        "task": tested.conditions.task_id,
        "seed": tested.seed,
        "model": tested.test.model,
        "regime": tested.test.regime,
        "shots": tested.conditions.shots or 0,
        "step": step,
        "headline": step == tested.test.headline_step,
        "episode": episode.reshape(-1).astype("int32"),
        "query": query.reshape(-1).astype("int32"),
        "score": values.reshape(-1).astype("float32"),
        "class": found["classes"],
        "item": found["items"],
        "key": tested.record.key,
        "commit": tested.record.git.commit if tested.record.git else "",
    }


def _copy(record: Record, source: Store, target: Store, arrays: Any, state: Any) -> None:
    digest = record.evaluation.episodes_digest if record.evaluation else None
    if digest is not None:
        examples = source.episodes(digest)
        if examples is None:
            raise MetabenchError(f"{source.path} has lost the episodes {digest} of {record.label} ({record.key})")
        target.write_episodes(examples)
    with target.lock(record.key):
        target.write(record, source.scores(record), arrays, state)


def _same(record: Record, store: Store, other: Record, holder: Store) -> bool:
    """Whether two finished records of one key tell the same: their scores, bit for bit."""
    if record.cell == "cost":
        return True
    names = ("scores",) if record.cell == "evaluation" else ()
    if all(record.files.get(name) == other.files.get(name) for name in names):
        return True
    import numpy as np

    one, two = store.scores(record) or {}, holder.scores(other) or {}
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name], equal_nan=True) for name in one)


def _apart(sources: Iterable[Store], target: Store) -> None:
    for store in sources:
        if store.path.resolve() == target.path.resolve():
            raise MetabenchError(f"{target.path} is the store itself: name another folder for the copies")


def _withheld(record: Record, name: str) -> bool:
    """Whether an array holds pictures that may not be passed on; those of an unknown task may."""
    if not name.endswith(PICTURES):
        return False
    entry = registry.tasks().get(record.task.name) if record.task else None
    return not getattr(getattr(entry, "cls", None), "redistributable", True)
