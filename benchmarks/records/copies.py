"""Copies of records: kept for a commit, or merged from several stores; and records to forget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import filelock

from benchmarks import registry
from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record, Training
from benchmarks.records.store import FILES, Store
from benchmarks.records.thinning import episode_means, thin

#: how the arrays of an exhibit that hold pictures end
PICTURES = "_images"


def keep(source: Store, target: Store) -> tuple[int, int]:
    """Copy every record, thinned, without its trained states and without pictures that may not be passed on.

    Returns how many records the copy has of the source, and how many of them lost pictures. What a ``target`` with
    trained states holds stays as it is. Raises `MetabenchError` where both are one folder, and for a target with other
    records than the source's: a copy is of one store."""
    _apart([source], target)
    bare = 0
    records = _records(source)
    there = {record.key: record for record in target.records()}
    whole = any("state" in record.files for record in there.values())
    others = there.keys() - {record.key for record in records}
    if others:
        raise MetabenchError(
            f"{target.path} holds {len(others)} record{'s' * (len(others) > 1)} that {source.path} lacks: name another "
            "folder, or join stores with `metabench merge`"
        )
    fits = {record.key for record in records if record.ok and record.cell == "fit"}
    for record in records:
        own = there.get(record.key)
        if whole and own is not None and own.ok:
            continue
        arrays = _intact("arrays", record, source) or {}
        shown = {name: array for name, array in arrays.items() if not _withheld(record, name)}
        bare += len(shown) < len(arrays)
        _copy(source, target, *thin(record, _intact("scores", record, source), shown, fits))
    return len(records), bare


def merge(sources: Sequence[Store], target: Store) -> int:
    """Copy the records of several stores, with their states, into one; returns how many it has then.

    A cell that failed in one store and is finished in another counts as finished. Raises `MetabenchError`, before
    anything is written, where two stores have one key with other results: a state must fit the scores of its tests."""
    _apart(sources, target)
    chosen: dict[str, tuple[Record, Store]] = {}
    contradictions = []
    for store, records in [(target, target.records()), *((store, _records(store)) for store in sources)]:
        for record in records:
            known = chosen.get(record.key)
            if known is not None and not _same(record, store, *known):
                contradictions.append(f"{record.label} ({record.key}): {known[1].path} and {store.path}")
            # finished before failed, with states before without, whole before thinned
            if known is None or _worth(record) > _worth(known[0]):
                chosen[record.key] = record, store
    if contradictions:
        raise MetabenchError(f"the same key with other results: {'; '.join(contradictions)}")
    for record, store in chosen.values():
        if store is not target:
            _copy(store, target, record, *(_intact(kind, record, store) for kind in ("scores", "arrays", "state")))
    return len(chosen)


def forget(store: Store, methods: Sequence[str], failed: bool = False) -> int:
    """Delete the records of these methods (labels or registered names; all, if none is named), or only those that
    failed; returns how many. Raises `MetabenchError` for a method without records, and while a run works on one."""
    records = store.records()
    known = {record.label for record in records} | {record.method.name for record in records if record.method}
    for name in methods:
        check_known(f"method in {store.path}", name, known)
    gone = [
        record
        for record in records
        if (not methods or {record.label, record.method and record.method.name} & set(methods))
        and (record.failed or not failed)
    ]
    for record in gone:
        try:
            with store.lock(record.key, wait=0):
                store.remove(record.key)
        except filelock.Timeout:
            raise MetabenchError(f"a run is at work on {record.label} ({record.key}): stop it first") from None
    return len(gone)


def _records(source: Store) -> list[Record]:
    """All records; raises `MetabenchError` where there are none."""
    if not (found := source.records()):
        raise MetabenchError(f"{source.path} has no records to copy")
    return found


def _worth(record: Record) -> tuple[bool, int, int]:
    return record.ok, len(record.files), -len(record.thinned)


def _copy(source: Store, target: Store, record: Record, scores: Any, arrays: Any, state: Any = None) -> None:
    if record.digest is not None:
        examples = source.episodes(record.digest)
        target.write_episodes(examples or _damaged(source, f"episodes/{record.digest}.npz", record))
    with target.lock(record.key):
        target.write(record, scores, arrays, state)


def _intact(kind: str, record: Record, store: Store) -> Any:
    """A file of the record, None if it has none of this kind; raises `MetabenchError` for a damaged one."""
    found = getattr(store, kind)(record)
    if found is None and kind in record.files:
        folder, suffix = FILES[kind]
        _damaged(store, f"{folder}/{record.key}{suffix}", record)
    return found


def _damaged(store: Store, file: str, record: Record) -> NoReturn:
    raise MetabenchError(f"{store.path}/{file} of {record.label} is damaged: delete the file, then run again")


def _same(record: Record, store: Store, other: Record, holder: Store) -> bool:
    """Whether two records of one key agree: failed ones always do, finished fits where all validations are equal, and
    finished evaluations where all scores are, of episodes where one is thinned."""
    if not (record.ok and other.ok):
        return True
    thinned = (*record.thinned, *other.thinned)
    if record.training and other.training:
        whole = "curve" not in thinned
        if _course(record.training, whole) != _course(other.training, whole):
            return False
    if record.cell != "evaluation" or record.files.get("scores") == other.files.get("scores"):
        return True
    import numpy as np

    one, two = store.scores(record) or {}, holder.scores(other) or {}
    if "queries" in thinned:
        one, two = ({name: episode_means(values) for name, values in each.items()} for each in (one, two))
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name], equal_nan=True) for name in one)


def _course(training: Training, whole: bool) -> tuple[Any, ...]:
    """How a fit went, without its times; whole: by all validations."""
    curve = [(point.step, point.score) for point in training.curve] if whole else []
    return training.meta_steps, training.best_step, curve


def _apart(sources: Iterable[Store], target: Store) -> None:
    for store in sources:
        if store.path.resolve() == target.path.resolve():
            raise MetabenchError(f"{target.path} is the store itself: name another folder for the copies")


def _withheld(record: Record, name: str) -> bool:
    """Whether an array holds pictures that may not be passed on; those of an unknown task may."""
    entry = registry.tasks().get(record.task.name) if record.task else None
    return name.endswith(PICTURES) and entry is not None and not getattr(entry.cls, "redistributable", True)
