"""From what a run resolves to cells: fits, and evaluations of fits.

`expand` is a product of plain data. A key hashes all that determines the result: task, data, method, fields, seed,
budget, code. A finished key stays finished.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.records.plain import content_key
from benchmarks.records.record import Budget, Evaluation, Kind, Record
from benchmarks.run.evaluation import CURVE_EPISODES
from benchmarks.run.resolution import Entry, Learner, Request, Resolution, Resolved, Tasks


@dataclass(frozen=True)
class Cell:
    """One unit of work: what to run, under which key, after which other cell.

    spec: plain data from which the worker builds task and method again. draft: its record as far as it is known before.
    files: of the user's own that its process imports. after: the key of the fit it needs. skip: why it is not run at
    all. seconds: its process is killed after so long."""

    kind: Kind
    key: str
    label: str
    task: str
    seed: int | None
    spec: Mapping[str, Any]
    draft: Record
    files: tuple[str, ...] = ()
    after: str | None = None
    skip: str | None = None
    seconds: float = math.inf

    def __str__(self) -> str:
        test = self.spec.get("test")
        what = "fit" if test is None else f"test, {test['shots']} shots" if test["shots"] else "test"
        return f"{self.label} on {self.task}{'' if self.seed is None else f', seed {self.seed}'}: {what}"


def expand(
    found: Resolution,
    digests: Mapping[str, str | None] | None = None,
    unavailable: Mapping[str, str] | None = None,
) -> list[Cell]:
    """All cells, each once: the first seed of all before second seeds, a fit before what depends on it.

    digests: task id -> hash of its data. unavailable: task id -> why its data are."""
    digests, unavailable = digests or {}, unavailable or {}
    cells: dict[str, Cell] = {}
    for block in found.blocks:
        if block.otherwise is not None and block.found.tasks.id in unavailable:
            block = block.otherwise
        where = _Where(found.profile, found.request, digests, block, unavailable.get(block.found.tasks.id))
        for cell in where.cells():
            cells.setdefault(cell.key, cell)
    return sorted(cells.values(), key=lambda cell: cell.seed or 0)


@dataclass(frozen=True)
class _Where:
    """A block and all that its cells have in common. absent: why its task is unavailable."""

    profile: str
    request: Request
    digests: Mapping[str, str | None]
    block: Resolved
    absent: str | None

    def cells(self) -> Iterator[Cell]:
        for entry in self.block.found.entries:
            if reason := entry.skip or self.absent:
                # One record says that the pair does not fit; it would say the same for each seed.
                yield self._skipped(entry, reason)
                continue
            if entry.trainer is None:
                yield from self._evaluations(entry, None, None)
                continue
            for seed in self.request.seeds or range(self.block.block.seeds):
                fit = self._fit(entry, entry.trainer, seed)
                yield fit
                yield from self._evaluations(entry, seed, fit)

    def _fit(self, entry: Entry, trainer: Learner, seed: int) -> Cell:
        block = self.block.block
        budget = {
            "meta_steps": entry.meta_steps,
            "seconds": block.seconds,
            "validation_episodes": block.validation_episodes,
            "validations": block.validations,
        } | ({} if block.patience is None or entry.scheduled else {"patience": block.patience})
        fields = trainer.facts.fields
        essential = {name: value for name, value in fields.items() if name not in trainer.adaptation}
        code, details = entry.codes["fit"], {"budget": budget}
        return self._cell("fit", trainer, self.block.found.training, seed, essential, code, details, entry.files)

    def _evaluations(self, entry: Entry, seed: int | None, fit: Cell | None) -> Iterator[Cell]:
        block, found = self.block.block, self.block.found
        conditions: list[tuple[Tasks, int | None]] = [(test, None) for test in found.tests]
        conditions += [(found.tasks, shots) for shots in dict.fromkeys((*block.shots, *self.request.shots))]
        of_papers: list[tuple[Tasks, int | None]] = [(test, None) for test in found.of_papers]
        learner = entry.learner
        for selection in block.selections:
            if selection != "published" and not learner.tunable:
                continue
            for test, shots in [*conditions, *(of_papers if selection == "published" else [])]:
                details = {
                    "fit": fit.key if fit else None,
                    "budget": fit.spec["budget"] if fit else None,
                    "test": {
                        "split": "test",
                        "shots": shots,
                        "episodes": block.episodes,
                        "models": block.models if fit else ("best",),
                        "regimes": block.regimes,
                        "selection": selection,
                        "validation_episodes": block.validation_episodes,
                        "trained_on": found.tasks.plain,
                    },
                }
                fields, code = learner.facts.fields, entry.codes[test.id]
                yield self._cell("evaluation", learner, test, seed, fields, code, details, entry.files)

    def _cell(
        self,
        kind: Kind,
        learner: Learner,
        tasks: Tasks,
        seed: int | None,
        essential: Mapping[str, Any],
        code: str,
        details: Mapping[str, Any],
        files: tuple[str, ...],
    ) -> Cell:
        """essential: the fields that matter here. details: what only this kind of cell has, for spec and key alike."""
        common = {"seed": seed, "data": self.digests.get(tasks.id), "code": code, **details}
        essence = {
            "cell": kind,
            "task": tasks.identity,
            "method": [learner.cls, essential],
            "device": self.request.device.partition(":")[0],
            **common,
        }
        if "test" in details:
            essence["test"] = {**details["test"], "trained_on": self.block.found.tasks.identity}
        tuned = (details.get("test") or {}).get("selection") == "validation"
        label = f"{learner.facts.name} [tuned]" if tuned else learner.facts.name
        cell = self._of(kind, content_key(essence), label, learner, tasks, common)
        needed = tuple(dict.fromkeys((*files, *tasks.files, *self.block.found.tasks.files)))
        return dataclasses.replace(cell, files=needed, after=details.get("fit"), seconds=self.block.block.limit)

    def _skipped(self, entry: Entry, reason: str) -> Cell:
        tasks = self.block.found.tasks
        key = skip_key(entry.name, tasks.facts.id)
        cell = self._of("evaluation", key, entry.name, entry.learner, tasks, {"seed": None, "data": None})
        return dataclasses.replace(cell, skip=reason)

    def _of(self, kind: Kind, key: str, label: str, learner: Learner, tasks: Tasks, common: Mapping[str, Any]) -> Cell:
        request, facts, seed = self.request, learner.facts, common["seed"]
        method = {"name": facts.name, "fields": facts.fields}
        place: dict[str, Any] = {"profile": self.profile, "device": request.device}
        spec = {**place, "plan": request.plan, "method": method, "task": tasks.plain, "label": label, **common}
        draft = Record(
            *(key, kind, label),
            method=facts,
            task=dataclasses.replace(tasks.facts, data=common["data"]),
            seed=seed,
            budget=Budget(**common["budget"]) if common.get("budget") else None,
            evaluation=conditions(common["test"], tasks, self.block.found.tasks) if "test" in common else None,
            code=common.get("code"),
            **place,
        )
        return Cell(kind, key, label, tasks.facts.id, seed, spec, draft)


def conditions(
    test: Mapping[str, Any],
    tasks: Tasks,
    trained_on: Tasks,
    digest: str | None = None,
    constant_error: float | None = None,
) -> Evaluation:
    """The conditions of an evaluation. test: of the cell's spec. digest: of the test examples."""
    fields = tasks.facts.fields
    return Evaluation(
        split=test["split"],
        task_id=tasks.facts.id,
        trained_on=trained_on.facts.id,
        way=tasks.way,
        shots=test["shots"] or fields.get("shot"),
        queries=fields.get("queries"),
        episodes=test["episodes"],
        selection=test["selection"],
        validation_episodes=test["validation_episodes"],
        curve_episodes=min(CURVE_EPISODES, test["episodes"]),
        episodes_digest=digest,
        constant_error=constant_error,
    )


def skip_key(method: str, task: str) -> str:
    """The key of the record which says that a pair of method and task was skipped."""
    return content_key({"cell": "evaluation", "skipped": [method, task]})
