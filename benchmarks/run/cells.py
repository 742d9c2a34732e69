"""From a profile and the command line to cells: fits, and evaluations of fits.

`resolve` builds every task and method once and finds the mistakes; `expand` is then a product of plain data. A key
hashes all that determines the result: task, data, method, fields, seed, budget, code. A finished key stays finished.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import registry
from benchmarks.api import MetaLearner, TaskDistribution
from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.records.plain import content_key
from benchmarks.records.record import Kind
from benchmarks.run.code_hash import code_of
from benchmarks.run.fitting import fit_config
from benchmarks.run.profiles import Block, Profile


@dataclass(frozen=True)
class Cell:
    """One unit of work: what to run, under which key, after which other cell.

    spec: plain data from which the worker builds task and method again, and of which the record is made.
    after: the key of the fit it needs. skip: why it is not run at all. seconds: its process is killed after so long."""

    kind: Kind
    key: str
    label: str
    task: str
    seed: int | None
    spec: Mapping[str, Any]
    after: str | None = None
    skip: str | None = None
    seconds: float = math.inf

    def __str__(self) -> str:
        test = self.spec.get("test")
        what = "fit" if test is None else f"test, {test['shots']} shots" if test["shots"] else "test"
        return f"{self.label} on {self.task}{'' if self.seed is None else f', seed {self.seed}'}: {what}"


@dataclass(frozen=True)
class Request:
    """The command line's requests on top of the profile.

    methods, tasks: names (empty: the profile's); seeds: numbers (empty: the profile's); settings: "method.field" or
    "task.field" -> value; shots: further test conditions; plan: the execution plan that is forced on fits."""

    methods: Sequence[str] = ()
    tasks: Sequence[str] = ()
    seeds: Sequence[int] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    shots: Sequence[int] = ()
    plan: str = ""


@dataclass(frozen=True)
class Entry:
    """A method of a block, built for its task. trainer: the learner whose fit it uses, None where nothing is fitted.
    skip: why it can't be run on the task."""

    name: str
    learner: MetaLearner
    trainer_name: str = ""
    trainer: MetaLearner | None = None
    meta_steps: int = 0
    skip: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A block with everything built. tests: the task itself, and further variants to test on. of_papers: the task with
    other numbers of queries. otherwise: what takes its place where the data of the task are unavailable."""

    block: Block
    tasks: TaskDistribution
    tests: tuple[TaskDistribution, ...]
    entries: tuple[Entry, ...]
    of_papers: tuple[TaskDistribution, ...] = ()
    otherwise: Resolved | None = None


@dataclass(frozen=True)
class Resolution:
    """A profile and a request, resolved: the blocks, and every task that they need, by id."""

    profile: str
    request: Request
    blocks: tuple[Resolved, ...]

    @property
    def tasks(self) -> dict[str, TaskDistribution]:
        """Alternatives and further test variants included."""
        found = [block for first in self.blocks for block in (first, first.otherwise) if block is not None]
        return {tasks.id: tasks for block in found for tasks in block.tests}


def resolve(profile: Profile, request: Request) -> Resolution:
    """Build what the profile and the request name; raises `MetabenchError` for what does not exist or has no effect."""
    check_settings(request.settings)
    found = Resolution(profile.name, request, tuple(_resolved(block, request) for block in _chosen(profile, request)))
    _check_that_settings_matter(found)
    return found


def _chosen(profile: Profile, request: Request) -> list[Block]:
    """The blocks that are asked for; a task which the profile does not list takes the profile's common settings."""
    for name in request.methods:
        registry.method_entry(name)
    chosen = list(profile.blocks)
    if request.tasks:
        chosen = []
        for wanted in request.tasks:
            exact = registry.build_task(wanted)
            listed = [block for block in profile.blocks if _is_asked(wanted, exact, block.task)]
            chosen += listed or [dataclasses.replace(profile.other, task=exact.id)]
    if request.methods:
        chosen = [dataclasses.replace(block, methods=tuple(request.methods)) for block in chosen]
    return chosen


def _is_asked(wanted: str, exact: TaskDistribution, task: str) -> bool:
    """A bare task name asks for every variant that the profile lists, "task/variant" for that one."""
    other = registry.build_task(task)
    return other.id == exact.id if "/" in wanted else other.name == exact.name


def _resolved(block: Block, request: Request) -> Resolved:
    tasks = _task(block.task, request)
    tests = (tasks, *(_task(name, request) for name in block.also))
    entries = tuple(_entry(name, block, tasks, request) for name in block.methods)
    alternative = dataclasses.replace(block, task=block.otherwise or "", otherwise=None, also=(), queries=())
    other = block.otherwise and _resolved(alternative, request)
    of_papers = tuple(_task(block.task, request, queries=queries) for queries in block.queries)
    return Resolved(block, tasks, tests, entries, of_papers, other or None)


def _task(task_id: str, request: Request, **fields: Any) -> TaskDistribution:
    name = registry.build_task(task_id).name
    return registry.build_task(task_id, device=request.device, **{**_settings_of(name, request.settings), **fields})


def _entry(name: str, block: Block, tasks: TaskDistribution, request: Request) -> Entry:
    learner = _learner(name, tasks, request)
    if reason := registry.mismatch(learner, name, tasks):
        return Entry(name, learner, skip=reason)
    used = learner.fit_method()
    trainer = learner if used is None else _learner(used, tasks, request)
    if not trainer.fits:
        return Entry(name, learner)
    meta_steps = _meta_steps(block, used or name, trainer, tasks.for_training())
    trainer = trainer.for_budget(meta_steps)
    return Entry(name, trainer if used is None else learner, used or name, trainer, meta_steps)


def _learner(name: str, tasks: TaskDistribution, request: Request) -> MetaLearner:
    """The method with its settings; one that uses another's fit takes over what is set for that fit."""
    known = registry.method_entry(name, tasks.kind).known_fields
    own = {key: value for key, value in _settings_of(name, request.settings).items() if key in known}
    learner = registry.build_method(name, tasks, **own)
    used = learner.fit_method()
    if used is None:
        return learner
    shared = {key: value for key, value in _settings_of(used, request.settings).items() if key in learner.config()}
    return registry.build_method(name, tasks, **{**shared, **own})


def _settings_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in settings.items() if key.partition(".")[0] == name}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse ``--set`` for names, fields or types that do not exist."""
    for key, value in settings.items():
        name, _, field_name = key.partition(".")
        instead = {"device": f"--device {value}", "variant": f"-t {name}/{value}"}.get(field_name)
        if instead or (isinstance(value, float) and not math.isfinite(value)):
            hint = f"the run itself takes it, as in {instead}" if instead else "it is not finite"
            raise MetabenchError(f"{key} = {value!r} is no setting: {hint}")
        check_known("method or task in --set", name, [*registry.methods(), *registry.tasks()])
        if name in registry.methods():
            registry.check_method_setting(name, field_name, value)
        else:
            registry.build_task(name, **{field_name: value})


def _check_that_settings_matter(found: Resolution) -> None:
    """Refuse ``--set`` for a method or task that the run has nothing to do with: it would be a silent misspelling."""
    entries = [entry for block in found.blocks for entry in block.entries]
    methods = dict.fromkeys([*(e.name for e in entries), *(e.trainer_name for e in entries if e.trainer_name)])
    tasks = dict.fromkeys(each.name for each in found.tasks.values())
    kinds = {each.kind for each in found.tasks.values()}
    for key in found.request.settings:
        name, _, field_name = key.partition(".")
        if name not in methods and name not in tasks:
            raise MetabenchError(f"--set {key}: this run has no {name}; it has {', '.join([*methods, *tasks])}")
        if name in methods and not any(field_name in registry.method_entry(name, k).known_fields for k in kinds):
            raise MetabenchError(f"--set {key}: on the tasks of this run, {name} has no {field_name}")


def _meta_steps(block: Block, name: str, learner: MetaLearner, tasks: TaskDistribution) -> int:
    steps = block.meta_steps_of.get(name, block.meta_steps)
    if isinstance(steps, int):
        return steps
    if steps != "published":
        raise MetabenchError(
            f"meta_steps = {steps!r} in the profile's block {block.task}; known: a number, 'published'"
        )
    published = registry.for_task(learner.published_meta_steps, tasks)
    # A method whose paper states no budget gets that of MAML, so that none is trained more than the others.
    maml = registry.method_entry("maml", tasks.kind).cls
    return published or registry.for_task(maml.published_meta_steps, tasks) or 60_000


# --- from what is resolved to cells ---


def expand(
    found: Resolution,
    digests: Mapping[str, str | None] | None = None,
    unavailable: Mapping[str, str] | None = None,
) -> list[Cell]:
    """All cells, each once, a fit before what depends on it.

    digests: task id -> hash of its data. unavailable: task id -> why its data are."""
    digests, unavailable = digests or {}, unavailable or {}
    cells: dict[str, Cell] = {}
    for block in found.blocks:
        if block.otherwise is not None and block.tasks.id in unavailable:
            block = block.otherwise
        where = _Where(found.profile, found.request, digests, block, unavailable.get(block.tasks.id))
        for cell in where.cells():
            cells.setdefault(cell.key, cell)
    return list(cells.values())


@dataclass(frozen=True)
class _Where:
    """A block and all that its cells have in common. absent: why its task is unavailable."""

    profile: str
    request: Request
    digests: Mapping[str, str | None]
    block: Resolved
    absent: str | None

    def cells(self) -> Iterator[Cell]:
        for entry in self.block.entries:
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

    def _fit(self, entry: Entry, trainer: MetaLearner, seed: int) -> Cell:
        block, tasks = self.block.block, self.block.tasks.for_training()
        budget = {
            "meta_steps": entry.meta_steps,
            "seconds": block.seconds,
            "validation_episodes": block.validation_episodes,
            "validations": block.validations,
        }
        return self._cell("fit", entry.trainer_name, trainer, tasks, seed, fit_config(trainer), {"budget": budget})

    def _evaluations(self, entry: Entry, seed: int | None, fit: Cell | None) -> Iterator[Cell]:
        block, tasks = self.block.block, self.block.tasks
        conditions: list[tuple[TaskDistribution, int | None]] = [(test, None) for test in self.block.tests]
        conditions += [(tasks, shots) for shots in dict.fromkeys((*block.shots, *self.request.shots))]
        of_papers = [(test, None) for test in self.block.of_papers]
        for selection in block.selections:
            if selection != "published" and not entry.learner.grid:
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
                        "trained_on": plain_task(tasks),
                    },
                }
                yield self._cell("evaluation", entry.name, entry.learner, test, seed, entry.learner.config(), details)

    def _cell(
        self,
        kind: Kind,
        name: str,
        learner: MetaLearner,
        tasks: TaskDistribution,
        seed: int | None,
        essential: Mapping[str, Any],
        details: Mapping[str, Any],
    ) -> Cell:
        """essential: the fields that matter here. details: what only this kind of cell has, for spec and key alike."""
        common = {"seed": seed, "data": self.digests.get(tasks.id), "code": code_of(kind, learner, tasks), **details}
        essence = {
            "cell": kind,
            "task": tasks.identity(),
            "method": [type(learner).__qualname__, essential],
            "device": self.request.device.partition(":")[0],
            **common,
        }
        if "test" in details:
            essence["test"] = {**details["test"], "trained_on": self.block.tasks.identity()}
        tuned = (details.get("test") or {}).get("selection") == "validation"
        spec = self._spec(name, learner.config(), tasks, {"label": f"{name} [tuned]" if tuned else name, **common})
        where = (spec["label"], tasks.title, seed, spec, details.get("fit"))
        return Cell(kind, content_key(essence), *where, seconds=self.block.block.limit)

    def _skipped(self, entry: Entry, reason: str) -> Cell:
        tasks, fields = self.block.tasks, dict(registry.method_entry(entry.name, self.block.tasks.kind).fields)
        spec = self._spec(entry.name, fields, tasks, {"label": entry.name, "seed": None, "data": None})
        return Cell("evaluation", skip_key(entry.name, tasks.title), entry.name, tasks.title, None, spec, skip=reason)

    def _spec(self, name: str, fields: Mapping[str, Any], tasks: TaskDistribution, more: Mapping[str, Any]) -> Any:
        method, request = {"name": name, "fields": fields}, self.request
        common = {"profile": self.profile, "device": request.device, "plan": request.plan}
        return {**common, "method": method, "task": plain_task(tasks), **more}


def plain_task(tasks: TaskDistribution) -> dict[str, Any]:
    """The task as `benchmarks.registry.task_from` takes it."""
    return {"name": tasks.name, "fields": tasks.config()}


def skip_key(method: str, task: str) -> str:
    """The key of the record which says that a pair of method and task was skipped."""
    return content_key({"cell": "evaluation", "skipped": [method, task]})
