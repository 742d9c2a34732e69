"""The frozen test episodes of a task as a table, so that anybody's scores on them can be compared with ours in pairs.

An episode is a pure function of (task id, split, number), so the list of the first n is the same everywhere; its digest
says that two score tables are about the same queries. For images it is the ``episodes_digest`` of the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.errors import MetabenchError
from benchmarks.records.formats import digest

#: columns that identify the query examples of images
_EXAMPLES = ("episode", "query", "class", "item")
#: episodes cut at a time
_AT_ONCE = 20


def export_episodes(
    task_id: str, episodes: int, shots: int | None = None, fields: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """The first test episodes of a task, one row per support and query example. fields: of the task, that are set.

    Columns task, episodes_digest (the same in all rows), episode, role ("support" or "query"), query (the number of the
    example within its role), label; for images class, class_name and item (numbers in the whole data set, as in the
    records); for regression x and y (float32). ``METABENCH_DATA`` or the cache must hold the data of the task. Raises
    `MetabenchError`."""
    from benchmarks import registry

    if episodes < 1:
        raise MetabenchError(f"{episodes} episodes can't be listed")
    tasks = registry.build_task(task_id, **(fields or {}))
    if "/" not in task_id and len(tasks.variants) > 1:
        variants = ", ".join(f"{tasks.name}/{variant}" for variant in tasks.variants)
        raise MetabenchError(f"{task_id} has several variants: name one of {variants}")
    if tasks.kind not in ("classification", "regression"):
        raise MetabenchError(f"{tasks.id}: episodes of {tasks.kind} are drawn while they run and can't be listed")
    tasks.prepare()
    parts = []
    for first in range(0, episodes, _AT_ONCE):
        numbers = np.arange(first, min(first + _AT_ONCE, episodes))
        cut = tasks.episodes("test", numbers, shots=shots)
        parts += [_rows(numbers, role, getattr(cut, role), tasks) for role in ("support", "query")]
    frame = pd.concat(parts, ignore_index=True).sort_values(["episode", "role", "query"], ignore_index=True)
    frame.insert(0, "episodes_digest", episodes_digest(frame[frame["role"] == "query"]))
    frame.insert(0, "task", tasks.title)
    return frame


def _rows(numbers: np.ndarray, role: str, examples: Any, tasks: Any) -> pd.DataFrame:
    count = examples.x.shape[1]
    frame = pd.DataFrame(
        {"episode": np.repeat(numbers, count), "role": role, "query": np.tile(np.arange(count), len(numbers))}
    )
    if examples.classes is None:
        for name in ("x", "y"):
            columns = getattr(examples, name).reshape(len(frame), -1).cpu().numpy().T
            names = [name] if len(columns) == 1 else [f"{name}{i}" for i in range(len(columns))]
            frame = frame.assign(**dict(zip(names, columns, strict=True)))
        return frame
    classes = examples.classes.cpu().numpy().reshape(-1)
    known = {number: tasks.class_name(int(number)) for number in np.unique(classes)}
    return frame.assign(
        label=examples.y.cpu().numpy().reshape(-1),
        **{"class": classes},
        class_name=[known[number] for number in classes],
        item=examples.items.cpu().numpy().reshape(-1),
    )


def episodes_digest(queries: pd.DataFrame) -> str:
    """16 hexadecimal digits that stand for the query examples of a list of episodes.

    For images of their episode, query, class and item; for regression of the bits of every x and y."""
    ordered = queries.sort_values(["episode", "query"])
    if set(_EXAMPLES) <= set(queries.columns):
        return digest({name: ordered[name].to_numpy() for name in _EXAMPLES})
    values = [name for name in queries.columns if name[0] in "xy" and name[1:].isdigit() | (len(name) == 1)]
    if not values:
        raise MetabenchError(f"no columns class and item, or x and y, among {', '.join(map(str, queries.columns))}")
    bits = {name: ordered[name].to_numpy(dtype="<f4").view("<i4") for name in values}
    return digest({"episode": ordered["episode"].to_numpy(), "query": ordered["query"].to_numpy(), **bits})
