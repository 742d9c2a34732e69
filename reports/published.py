"""Does this implementation reach the published numbers?

``reports/published.csv`` holds them, each with its source and the protocol as far as the source states it; blank means
"not stated". Only fits with the published budget are compared. The answer is "agrees", "above" or "below", with the
differences of the protocol next to it.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record
from benchmarks.stats import Row, TestProtocol, protocol_of
from benchmarks.stats.contrasts import instability

FILE = Path(__file__).with_name("published.csv")
KINDS = ("primary", "quoted", "reproduction", "leaderboard")
OUTCOMES = ("agrees", "above", "below", "not run")
#: a difference of more standard errors is flagged
FAR = 3.0
#: two-sided 95 % of the normal distribution
Z95 = 1.959963984540054

_WHOLE = ("way", "shot", "queries", "steps", "episodes")
_COLUMNS = (
    *(
        "method",
        "task",
        *_WHOLE[:3],
        "regime",
        "backbone",
        *_WHOLE[3:],
        "selection",
        "metric",
        "value",
        "half_width_95",
        "unit",
    ),
    *("kind", "variant", "differs", "source", "notes"),
)


@dataclass(frozen=True)
class Published:
    """One published number. None and "" mean "not stated".

    method, task: names in this suite.
    value, half_width: in score units (accuracy from 0 to 1); half_width is of the 95 % interval.
    selection: "validation" if the source chose rates and steps on validation tasks.
    kind: one of `KINDS`.
    differs: a part of the protocol that this suite does differently, or a choice that the source leaves open.
    rounding: the unit of the last printed digit.
    """

    method: str
    task: str
    way: int | None
    shot: int | None
    queries: int | None
    regime: str
    backbone: str
    steps: int | None
    episodes: int | None
    selection: str
    metric: str
    value: float
    half_width: float | None
    kind: str
    variant: str
    differs: str
    source: str
    notes: str
    rounding: float = 0.0


@dataclass(frozen=True)
class Ours:
    """Our number: the score over seeds and episodes at one inner step, with its protocol and budget.

    standard_error: over episodes and, with two or more seeds, over seeds.
    deviation: between episodes, of the mean over seeds.
    seed_variance: between training runs; None for one seed.
    full_budget: whether the fit had the published number of meta-steps, or stood still before.
    carried: the few episodes that carry the mean, in words; empty where none do.
    """

    method: str
    protocol: TestProtocol
    backbone: str
    steps: int
    mean: float
    standard_error: float
    seed_variance: float | None
    full_budget: bool
    under_trained: bool
    selection: str = "published"
    deviation: float = math.nan
    carried: str = ""


@dataclass(frozen=True)
class Distance:
    """Ours minus published, in score units and in standard errors ``z`` (None if unknown). spread: the standard errors
    that z has."""

    difference: float
    z: float | None
    spread: str


@dataclass(frozen=True)
class Reproduction:
    """Our number compared with a published one.

    outcome: one of `OUTCOMES`. why: why it was not run.
    differences: of the protocol. unknown: decisive parts of the protocol that the source leaves out.
    distance: None if it was not run.
    """

    published: Published
    mine: Ours | None
    outcome: str
    why: str = ""
    differences: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    distance: Distance | None = None

    @property
    def far(self) -> bool:
        """Whether the difference is flagged: more than `FAR` standard errors."""
        return self.distance is not None and abs(self.distance.z or 0.0) > FAR

    @property
    def remarks(self) -> str:
        """Differences of the protocol, what is not stated, and what z leaves out; empty without any."""
        said = [*self.differences]
        said += [f"not stated: {', '.join(self.unknown)}"] if self.unknown else []
        if self.mine is not None and self.mine.seed_variance is None:
            said.append("one seed: the variance between runs is unknown")
        return "; ".join(said)

    def __str__(self) -> str:
        said = self.why or self.remarks
        return f"{self.outcome} ({said})" if said else self.outcome


def load(path: Path = FILE) -> list[Published]:
    """All published numbers, in the order of the file; raises `MetabenchError` for a line that can't be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise MetabenchError(f"{path} can't be read: {error.strerror}") from None
    if not lines or set(_COLUMNS) - set(lines[0]):
        missing = sorted(set(_COLUMNS) - set(lines[0] if lines else ()))
        raise MetabenchError(f"{path} has no columns {', '.join(missing)}")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=2)]


def _parse(line: dict[str, str], where: str) -> Published:
    scale = 0.01 if line["unit"] == "%" else 1.0
    try:
        whole = {name: int(line[name]) if line[name] else None for name in _WHOLE}
        value = scale * float(line["value"])
        half_width = scale * float(line["half_width_95"]) if line["half_width_95"] else None
    except ValueError as error:
        raise MetabenchError(f"{where}: {error}") from None
    if line["kind"] not in KINDS:
        raise MetabenchError(f"{where}: kind {line['kind']!r}; known: {', '.join(KINDS)}")
    text = {name: line[name] for name in ("method", "task", "regime", "backbone", "metric", "kind", "variant")}
    rest = {name: line[name] for name in ("selection", "differs", "source", "notes")}
    rounding = scale * 10.0 ** -len(line["value"].partition(".")[2])
    numbers = {**whole, "value": value, "half_width": half_width, "rounding": rounding}
    return Published(**text, **rest, **numbers)  # type: ignore[arg-type]


def ours(row: Row, step: int | None = None, scores: np.ndarray | None = None) -> Ours:
    """Our number for a row of the tables at its headline step; or after ``step`` inner steps, from the score of each
    episode ``[seeds, episodes]``."""
    first, means = row.first, row.values.mean(axis=2) if scores is None else scores
    seeds, episodes = means.shape
    variance = float(means.mean(axis=0).var(ddof=1)) if episodes > 1 else math.nan
    seed_variance = float(means.mean(axis=1).var(ddof=1)) if seeds > 1 and row.trained else None
    return Ours(
        first.method.name,
        dataclasses.replace(protocol_of(first), task=first.conditions.trained_on),
        str(first.method.facts.get("backbone") or ""),
        first.test.headline_step if step is None else step,
        float(means.mean()),
        math.sqrt(variance / episodes + (seed_variance or 0.0) / seeds),
        seed_variance if row.trained else 0.0,
        all(_full(tested.record) for tested in row.tested),
        row.under_trained,
        first.conditions.selection,
        math.sqrt(variance),
        "" if first.task.metric == "accuracy" else instability(means),
    )


def _full(record: Record) -> bool:
    """Whether the fit had the published number of meta-steps, or stood still before; where none is published, whether
    it had its budget."""
    training = record.training
    if training is None:
        return True
    if training.stopped_by == "standstill" and not training.under_trained:
        return True
    if training.published_meta_steps:
        return training.meta_steps >= training.published_meta_steps
    return record.profile == "paper" or (training.share or 0.0) >= 1


def reproduction(published: Published, mine: Ours | None) -> Reproduction:
    """Compare our number with a published one: "agrees" if z is within the 95 % interval."""
    if mine is None:
        return Reproduction(published, None, "not run", "no result here")
    said = Reproduction(
        published,
        mine,
        "not run",
        differences=tuple(protocol_differences(published, mine)),
        unknown=tuple(not_stated(published, mine)),
    )
    if mine.under_trained or not mine.full_budget:
        why = "under-trained" if mine.under_trained else "not at the published budget"
        return dataclasses.replace(said, why=why)
    if mine.carried:
        return dataclasses.replace(said, why=f"unstable: {mine.carried} of our mean")
    found = distance(published, mine)
    if found.z is None:
        return dataclasses.replace(said, why="our scores have no spread")
    outcome = "agrees" if abs(found.z) <= Z95 else "above" if found.z > 0 else "below"
    return dataclasses.replace(said, outcome=outcome, distance=found)


def distance(published: Published, mine: Ours) -> Distance:
    """z = (ours - published) / sqrt(SE_ours^2 + SE_published^2 + seed variance).

    The published number is of one training run, so it has the full variance between runs. Without an interval its
    standard error is that of its number of test episodes (if stated) with our deviation between episodes."""
    difference = mine.mean - published.value
    theirs, spread = published.rounding**2 / 12, "ours alone: the source gives no spread"
    if published.half_width is not None:
        theirs, spread = (published.half_width / Z95) ** 2, "both"
    elif published.episodes:
        theirs += mine.deviation**2 / published.episodes
        spread = f"both; the source's from its {published.episodes:,} test episodes and our deviation"
    variance = mine.standard_error**2 + theirs + (mine.seed_variance or 0.0)
    known = math.isfinite(difference) and math.isfinite(variance) and variance > 0
    return Distance(difference, difference / math.sqrt(variance) if known else None, spread)


def protocol_differences(published: Published, mine: Ours) -> list[str]:
    """Each stated part of the published protocol that differs from ours, as text. The number of test episodes does not
    count: the standard errors hold it."""
    here = {
        "way": mine.protocol.way or None,
        "shot": mine.protocol.shots,
        "queries": mine.protocol.queries,
        "regime": mine.protocol.regime,
        "backbone": mine.backbone,
        "steps": mine.steps,
    }
    called = {"queries": "queries per class", "regime": "batch-norm", "steps": "inner steps at test"}
    found = []
    for name, value in here.items():
        stated = getattr(published, name)
        if stated in (None, "") or stated == value or (name == "queries" and not _queries_matter(mine)):
            continue
        found.append(f"{called.get(name, name)} {stated}, here {'unknown' if value in (None, '') else value}")
    if (published.selection == "validation") != (mine.selection == "validation"):
        where = "there" if published.selection == "validation" else "here"
        found.append(f"rates and steps chosen on validation tasks {where} only")
    return found + [published.differs] * bool(published.differs)


def not_stated(published: Published, mine: Ours) -> list[str]:
    """The decisive parts of the protocol that the source leaves out."""
    decisive = {"backbone": published.backbone} if mine.backbone else {}
    if mine.protocol.regime != "none":
        decisive["batch-norm"] = published.regime
    if mine.steps:
        decisive["inner steps at test"] = str(published.steps or "")
    if _queries_matter(mine):
        decisive["queries per class"] = str(published.queries or "")
    return [name for name, stated in decisive.items() if not stated]


def _queries_matter(mine: Ours) -> bool:
    """The number of queries matters only where queries share batch statistics."""
    return mine.protocol.regime == "query"


def anchors(numbers: Iterable[Published], mine: Ours) -> list[Published]:
    """The published numbers to compare a row with: those of one source for this method and task, one for each number
    of inner steps that it prints.

    The source with our backbone comes first, then by kind of evidence, then those of our batch-norm regime, then by the
    order of the file."""
    candidates = [one for one in numbers if (one.method, one.task) == (mine.method, mine.protocol.task)]
    here = mine.backbone, mine.protocol.regime
    ranked = sorted(
        candidates, key=lambda one: (one.backbone != here[0], KINDS.index(one.kind), one.regime not in ("", here[1]))
    )
    chosen: dict[int | None, Published] = {}
    for one in ranked:
        if _table(one) == _table(ranked[0]):
            chosen.setdefault(one.steps, one)
    return list(chosen.values())


def _table(one: Published) -> tuple[str, ...]:
    return one.source, one.variant, one.backbone, one.regime


def spread(
    numbers: Iterable[Published], method: str, task: str, steps: int | None = None
) -> tuple[float, float] | None:
    """The lowest and the highest reported value of a method on a task, after these inner steps where a source says how
    many; None without any."""
    own = [one for one in numbers if (one.method, one.task) == (method, task)]
    values = [one.value for one in own if steps is None or one.metric == "accuracy" or one.steps in (None, steps)]
    return (min(values), max(values)) if values else None
