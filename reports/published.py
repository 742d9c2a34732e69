"""Does this implementation reach the published numbers, under the same protocol?

``reports/published.csv`` holds them, each with its source and the protocol as far as the source states it; blank means
"not stated". Only fits with the published budget are compared. "Agrees" needs a protocol whose decisive parts are
stated and equal ours.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.stats import Row, TestProtocol, protocol_of

FILE = Path(__file__).with_name("published.csv")
KINDS = ("primary", "quoted", "reproduction", "leaderboard")
OUTCOMES = (
    "agrees",
    "above",
    "below",
    "no published interval",
    "protocol differs",
    "protocol unknown",
    "not run",
)
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
    differs: a stated part of the protocol that this suite does differently.
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

    @property
    def standard_error(self) -> float | None:
        return None if self.half_width is None else self.half_width / Z95


@dataclass(frozen=True)
class Ours:
    """Our number: the score over seeds and episodes at one inner step, with its protocol and budget.

    standard_error: over episodes and, with two or more seeds, over seeds.
    seed_variance: between training runs; None for one seed.
    full_budget: whether the fit had the published number of meta-steps.
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


@dataclass(frozen=True)
class Reproduction:
    """Our number compared with a published one.

    outcome: one of `OUTCOMES`.
    why: how the protocol differs, which part is not stated, or why it was not run.
    difference, z: ours minus published, in score units and in standard errors; given whatever the outcome.
    """

    published: Published
    outcome: str
    why: str = ""
    difference: float | None = None
    z: float | None = None

    def __str__(self) -> str:
        return f"{self.outcome} ({self.why})" if self.why else self.outcome


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
    return Published(**text, **rest, **whole, value=value, half_width=half_width)  # type: ignore[arg-type]


def ours(row: Row, step: int | None = None) -> Ours:
    """Our number for a row of the tables, at its headline step."""
    first, means = row.first, row.values.mean(axis=2)
    seeds, episodes = means.shape
    error = float(means.mean(axis=0).var(ddof=1)) / episodes if episodes > 1 else math.nan
    seed_variance = float(means.mean(axis=1).var(ddof=1)) if seeds > 1 and row.trained else None
    shares = [tested.record.training.share for tested in row.tested if tested.record.training]
    full = all(share >= 1 if share is not None else first.record.profile == "paper" for share in shares)
    return Ours(
        first.method.name,
        protocol_of(first),
        str(first.method.facts.get("backbone") or ""),
        first.test.headline_step if step is None else step,
        float(means.mean()),
        math.sqrt(error + (seed_variance or 0.0) / seeds),
        seed_variance if row.trained else 0.0,
        full,
        row.under_trained,
        first.conditions.selection,
    )


def reproduction(published: Published, mine: Ours | None) -> Reproduction:
    """Compare by z = (ours - published) / sqrt(SE_ours^2 + SE_published^2 + seed variance).

    The published number is of one training run, so it has the full variance between runs."""
    if mine is None:
        return Reproduction(published, "not run", "no result here")
    if mine.under_trained or not mine.full_budget:
        why = "under-trained" if mine.under_trained else "not at the published budget"
        return Reproduction(published, "not run", why)
    if not math.isfinite(mine.mean):
        return Reproduction(published, "not run", "our scores are not numbers")
    difference = mine.mean - published.value
    z = None
    if published.standard_error is not None and math.isfinite(mine.standard_error):
        variance = mine.standard_error**2 + published.standard_error**2 + (mine.seed_variance or 0.0)
        z = difference / math.sqrt(variance) if variance > 0 else None
    if differences := protocol_differences(published, mine):
        return Reproduction(published, "protocol differs", "; ".join(differences), difference, z)
    if unknown := not_stated(published, mine):
        return Reproduction(published, "protocol unknown", f"not stated: {', '.join(unknown)}", difference, z)
    if z is None:
        return Reproduction(published, "no published interval", "", difference)
    why = "one seed: the variance between runs is unknown" if mine.seed_variance is None else ""
    outcome = "agrees" if abs(z) <= Z95 else "above" if z > 0 else "below"
    return Reproduction(published, outcome, why, difference, z)


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
        found.append(f"{called.get(name, name)} {stated}, here {value if value not in (None, '') else 'unknown'}")
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


def anchor(numbers: Iterable[Published], mine: Ours) -> Published | None:
    """The published number to compare ours with: of this method, task and (if a source has several) number of inner
    steps; the same backbone first, then by kind of evidence, then in the order of the file."""
    candidates = [one for one in numbers if (one.method, one.task) == (mine.method, mine.protocol.task)]
    candidates = [one for one in candidates if one.metric == "accuracy" or one.steps in (None, mine.steps)]
    ranked: Sequence[Published] = sorted(
        candidates, key=lambda one: (one.backbone != mine.backbone, KINDS.index(one.kind))
    )
    return ranked[0] if ranked else None


def spread(numbers: Iterable[Published], method: str, task: str) -> tuple[float, float] | None:
    """The lowest and the highest reported value of a method on a task; None without any."""
    values = [one.value for one in numbers if (one.method, one.task) == (method, task)]
    return (float(np.min(values)), float(np.max(values))) if values else None
