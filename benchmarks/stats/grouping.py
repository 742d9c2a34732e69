"""Which tests make a row, what the row is called, and which column it belongs to."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.records.record import Record, Tested


@dataclass(frozen=True, order=True)
class TestProtocol:
    """The conditions that the numbers of a column share. control: its shots are trajectories of a task."""

    task: str
    data: str
    way: int
    shots: int
    queries: int
    split: str
    regime: str
    model: str = "best"
    control: bool = False

    __test__ = False  # not a test case of pytest's

    @property
    def test(self) -> tuple[Any, ...]:
        """Everything but the regime."""
        return self.task, self.data, self.way, self.shots, self.queries, self.split, self.model

    @property
    def support(self) -> str:
        """``5-shot``; ``20 trajectories`` of a control task; empty where a task has none."""
        if not self.control:
            return f"{self.shots}-shot" if self.shots else ""
        return f"{self.shots} trajector{'y' if self.shots == 1 else 'ies'}" if self.shots else ""

    @property
    def title(self) -> str:
        """``omniglot-v1/5w1s, 1-shot, batch-norm: query``."""
        parts = [self.task, self.support]
        parts += ["" if self.regime == "none" else f"batch-norm: {self.regime}"]
        return ", ".join(filter(None, [*parts, "last checkpoint" if self.model == "last" else ""]))

    def __str__(self) -> str:
        shots = self.support if self.control or not self.shots else f"{self.support} test"
        parts = [shots, f"batch-norm: {self.regime}", "last checkpoint" if self.model == "last" else ""]
        return f"{self.task} ({', '.join(filter(None, parts))})"


def protocol_of(tested: Tested) -> TestProtocol:
    """The column that a test belongs to."""
    where = tested.conditions
    return TestProtocol(
        task=where.task_id,
        data=tested.task.data or "",
        way=where.way or 0,
        shots=where.shots or 0,
        queries=where.queries or 0,
        split=where.split,
        regime=tested.test.regime,
        model=tested.test.model,
        control=tested.task.kind == "control",
    )


def grouped(records: Iterable[Record], older: bool = False) -> list[tuple[str, tuple[Tested, ...]]]:
    """The tests that make one row, lowest seed first, with the name of the row.

    They differ in the seed only; the newest counts where a seed is there twice. older: records that newer code has
    replaced make rows of their own."""
    ordered = _by_age(records)
    gone = set() if older else superseded(ordered)
    groups: dict[str, dict[int, Tested]] = {}
    for record in ordered:
        for tested in record.tested if record.key not in gone else ():
            groups.setdefault(_identity(tested), {})[tested.seed] = tested
    members = [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]
    return list(zip(_names(members), members, strict=True))


def superseded(records: Iterable[Record]) -> set[str]:
    """The keys of records, finished or failed, that newer code has replaced.

    The newer one is of the same method, task, budget and conditions. A field that only one of both versions has makes
    no difference."""
    groups: dict[str, list[Record]] = {}
    for record in reversed(_by_age(records)):
        groups.setdefault(_run(record), []).append(record)
    return {
        record.key
        for group in groups.values()
        for record in group
        if record.code != next(newest for newest in group if _agree(newest, record)).code
    }


def fullest(records: Sequence[Record]) -> list[Record]:
    """The records without the tests that another one repeats with more training, or else with more episodes.

    For several stores: the same method on the same test, once with a small budget and once with a large one."""
    sizes: dict[str, tuple[int, int]] = {}
    where: dict[str, str] = {}
    for record in records:
        if record.ok and record.evaluation is not None:
            where[record.key] = _test_of(record)
            sizes[where[record.key]] = max(_size(record), sizes.get(where[record.key], (0, 0)))
    return [one for one in records if one.key not in where or _size(one) == sizes[where[one.key]]]


def _size(record: Record) -> tuple[int, int]:
    assert record.evaluation is not None
    return record.budget.meta_steps if record.budget else 0, record.evaluation.episodes


def _test_of(record: Record) -> str:
    """The method, its fields and its test, without the sizes."""
    assert record.evaluation is not None
    assert record.method is not None
    names = ("split", "task_id", "trained_on", "way", "shots", "queries", "selection")
    where = [getattr(record.evaluation, name) for name in names]
    return json.dumps([record.label, record.method.fields, where], sort_keys=True)


def _by_age(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.started, record.key))


def _run(record: Record) -> str:
    """The identity, besides the fields, that a record shares with the older ones it replaces."""
    where = record.evaluation and dataclasses.replace(record.evaluation, episodes_digest=None)
    task = record.task.id if record.task else None
    return json.dumps([record.cell, record.label, task, _plain(record.budget), _plain(where)], sort_keys=True)


def _agree(one: Record, other: Record) -> bool:
    fields = [record.method.fields if record.method else {} for record in (one, other)]
    return all(fields[0][name] == fields[1][name] for name in fields[0].keys() & fields[1].keys())


def _identity(tested: Tested) -> str:
    """All that decides a number except the seed."""
    record, test = tested.record, [tested.test.model, tested.test.regime]
    method = [tested.method.name, tested.method.fields, record.code]
    budget, task, where = (_plain(each) for each in (record.budget, tested.task, tested.conditions))
    return json.dumps([record.label, method, task, budget, where, test], sort_keys=True)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if value is not None else None


# --- names ---


def _names(groups: Sequence[Sequence[Tested]]) -> list[str]:
    """The label of each row, and the settings that differ where one test has several rows of a label.

    The tests of one fit under several regimes and of several checkpoints have the same name."""
    names = [group[0].record.label for group in groups]
    for settings in _SETTINGS:
        _tell_apart(names, groups, settings, lambda tested: protocol_of(tested).test[:-1])
    for settings in (_fields, lambda tested: {"code": str(tested.record.code)[:6]}):
        _tell_apart(names, groups, settings, lambda tested: protocol_of(tested).test[:-1], lacking=True)
    _tell_apart(names, groups, lambda tested: {"record": tested.record.key[:6]}, protocol_of)
    return names


def _tell_apart(
    names: list[str],
    groups: Sequence[Sequence[Tested]],
    settings: Callable[[Tested], dict[str, Any]],
    place: Callable[[Tested], Any],
    lacking: bool = False,
) -> None:
    """Append the settings that differ to names that stand in one place several times.

    A value that more than half of them share goes without saying: of an ablation, each row names its own switch.
    lacking: whether a setting that some lack, as records of older code do, tells them apart."""
    places = [(name, place(group[0])) for name, group in zip(names, groups, strict=True)]
    for crowded in [where for where, count in Counter(places).items() if count > 1]:
        told = {number: settings(groups[number][0]) for number, where in enumerate(places) if where == crowded}
        known = dict.fromkeys(name for one in told.values() for name in one)
        values = {name: [str(one[name]) for one in told.values() if name in one] for name in known}
        differ = [name for name in known if len(set(values[name])) > 1 or (lacking and len(values[name]) < len(told))]
        distinct = list({str(one): one for one in told.values()}.values())
        usual = {name: _usual([str(one[name]) if name in one else None for one in distinct]) for name in differ}
        for number, one in told.items():
            own = [f"{name}={one[name]}" for name in differ if name in one]
            if own := [text for text in own if text.partition("=")[2] != usual[text.partition("=")[0]]]:
                names[number] += f" ({', '.join(own)})"


def _usual(values: Sequence[str | None]) -> str | None:
    """The value of more than half, where none is missing."""
    value, count = Counter(values).most_common(1)[0]
    return value if None not in values and len(values) < 2 * count else None


def _fields(tested: Tested) -> dict[str, Any]:
    return dict(tested.method.fields)


#: settings of a test, in the order in which names tell them
_SETTINGS: tuple[Callable[[Tested], dict[str, Any]], ...] = (
    _fields,
    lambda tested: {"meta_steps": tested.record.budget.meta_steps if tested.record.budget else 0},
    lambda tested: _plain(tested.record.budget) or {},
    lambda tested: {
        name.replace("_", " "): getattr(tested.conditions, name)
        for name in ("trained_on", "episodes", "validation_episodes", "episodes_digest")
    },
)
