"""Every score of a store as one table for pandas, R or polars: one row per query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.records import formats
from benchmarks.records.record import Tested
from benchmarks.records.store import Store
from benchmarks.stats.columns import grouped

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("task", "method", "seed", "checkpoint", "regime", "shots", "step", "headline", "episode", "query", "score"),
    *("class", "item", "key", "commit"),
)


def results(store: str | Path) -> pd.DataFrame:
    """Every score of a store, one row per query.

    ========== ======== ==========================================================================================
    column     type     content
    ========== ======== ==========================================================================================
    task       category the task that was tested on, ``omniglot-v1/5w1s``
    method     category the method as `metabench show` names it; settings are in the name where they differ
    seed       int32    of the fit; 0 for a method without a fit
    checkpoint category the state of the fit: "best" on validation episodes, or "last"
    regime     category batch-norm regime ("none" without batch-norm), see docs/protocol.md
    shots      int32    support examples per class, or per task of regression; 0 where the task has none
    step       int32    inner steps taken before the prediction
    headline   bool     whether the tables report this step; other steps have the first 100 episodes only
    episode    int32    number of the test episode, the same for every method and seed
    query      int32    number of the query (or of the trajectory) in its episode; -1 in a copy by ``metabench keep``,
                        whose scores are means over queries
    score      float32  1 or 0 (right or wrong), squared error in squared units of the target, or return
    class      int32    class of the query in the whole data set, item: its number there; -1 where there is none
    key        category of the record
    commit     category the checked-out commit of the suite
    ========== ======== ==========================================================================================

    Results of older code are left out where a method has run with newer code since. An episode's score is the mean of
    its queries, a method's score the mean over episodes and seeds. Accuracy of each method on each task::

        frame = mb.results("reports/runs/quick")
        reported = frame[frame.headline & (frame.checkpoint == "best")]
        reported.pivot_table("score", "method", ["task", "shots", "regime"], observed=True)

    Two methods share their episodes, so subtract before you average: the standard error of the mean of a - b is much
    smaller than that of either mean.

    Raises `MetabenchError` where there is no store or no finished test."""
    if not isinstance(store, (str, Path)):
        raise MetabenchError(f"store = {store!r} is no path of one store")
    return frame(Store.existing(store))


def frame(store: Store, keys: frozenset[str] | None = None) -> pd.DataFrame:
    """All scores (or those of the records with these keys) in one frame with `COLUMNS`; see `results`."""
    import pandas as pd

    return pd.concat(list(_pieces(store, keys)), ignore_index=True)


def export(store: Store, path: Path) -> int:
    """Write the same table to a file, one record at a time, as CSV or parquet; returns the number of rows."""
    return formats.write_table(path, _pieces(store))


def _pieces(store: Store, keys: frozenset[str] | None = None) -> Iterator[pd.DataFrame]:
    """The rows of one record after the other, ordered by task, method and seed; text has the same categories in all.

    Damaged scores leave their record out. Raises `MetabenchError` where there are no scores at all."""
    import pandas as pd

    records = [record for record in store.records("evaluation") if keys is None or record.key in keys]
    named = [(name, tested) for name, group in grouped(records) for tested in group]
    named.sort(key=lambda each: (each[1].conditions.task_id, each[0], each[1].seed))
    by_record: dict[str, list[int]] = {}
    for number, (_, tested) in enumerate(named):
        by_record.setdefault(tested.record.key, []).append(number)
    tests = pd.DataFrame([_facts(name, tested) for name, tested in named])
    tests = tests.astype({name: "int32" if name in ("seed", "shots") else "category" for name in tests})
    empty = True
    for numbers in by_record.values():
        found = _scores(store, numbers, [named[number][1] for number in numbers])
        if found:
            empty = False
            rows = tests.iloc[found.pop("test")].reset_index(drop=True)
            yield rows.assign(**found)[list(COLUMNS)]
    if empty:
        raise MetabenchError(f"no finished evaluation in {store.path}: run `metabench run` first")


def _facts(name: str, tested: Tested) -> dict[str, Any]:
    """The columns that all queries of a test share."""
    return {
        "task": tested.conditions.task_id,
        "method": name,
        "seed": tested.seed,
        "checkpoint": tested.test.model,
        "regime": tested.test.regime,
        "shots": tested.conditions.shots or 0,
        "key": tested.record.key,
        "commit": tested.record.git.commit if tested.record.git else "",
    }


def _scores(store: Store, numbers: Sequence[int], tests: Sequence[Tested]) -> dict[str, np.ndarray]:
    """The other columns, of these tests of one record; "test" repeats their numbers. Empty where there are none."""
    record, digest = tests[0].record, tests[0].conditions.episodes_digest
    scores = store.scores(record) or {}
    examples = store.episodes(digest) if digest else None
    found: dict[str, list[np.ndarray]] = {}
    for number, tested in zip(numbers, tests, strict=True):
        for row in tested.test.summary:
            values = scores.get(tested.test.scores_name(row.step))
            if values is None:
                continue
            episode, query = np.indices(values.shape, "int32")
            whole, none = "queries" not in record.thinned, np.full(values.shape, -1, "int32")
            block = {
                "test": np.full(values.shape, number),
                "step": np.full(values.shape, row.step, "int32"),
                "headline": np.full(values.shape, row.step == tested.test.headline_step),
                "episode": episode,
                "query": query if whole else none,
                "score": values.astype("float32"),
                "class": examples["classes"][: len(values)] if examples and whole else none,
                "item": examples["items"][: len(values)] if examples and whole else none,
            }
            for name, array in block.items():
                found.setdefault(name, []).append(array.reshape(-1))
    return {name: np.concatenate(arrays) for name, arrays in found.items()}
