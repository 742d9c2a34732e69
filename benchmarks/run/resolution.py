"""From a profile and the command line to what a run computes, as plain data.

`resolve` builds every task and method once and finds the mistakes; what it returns holds no class of a plug-in, so it
can come from another process (`benchmarks.run.own_files`).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import registry
from benchmarks.api import MetaLearner, TaskDistribution
from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.models.modules import own_factories
from benchmarks.records.plain import read
from benchmarks.records.record import Method, Task
from benchmarks.run.code_hash import code_of
from benchmarks.run.fitting import adaptation_fields
from benchmarks.run.profiles import Block, Profile


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
class Tasks:
    """A task distribution. id: without changed fields. identity: what stands for it in keys. way: classes of an
    episode, None for other kinds. files: of the user's own that define it."""

    id: str
    identity: Any
    facts: Task
    way: int | None
    files: tuple[str, ...] = ()

    @property
    def plain(self) -> dict[str, Any]:
        """The task as `benchmarks.registry.task_from` takes it."""
        return {"name": self.facts.name, "fields": self.facts.fields}


@dataclass(frozen=True)
class Learner:
    """A method with its settings for a task. cls: the name of its class. known: the names of all its fields.
    adaptation: of those that its fit does not depend on. tunable: whether it has a grid for validation tasks."""

    facts: Method
    cls: str
    known: tuple[str, ...]
    adaptation: tuple[str, ...]
    tunable: bool

    @property
    def plain(self) -> dict[str, Any]:
        """The method as `benchmarks.registry.method_from` takes it."""
        return {"name": self.facts.name, "fields": self.facts.fields}


@dataclass(frozen=True)
class Entry:
    """A method of a block. trainer: the learner whose fit it uses, None where nothing is fitted. scheduled: whether it
    has a schedule that ends with the budget. skip: why it can't be run on the task. codes: the hash of the code of its
    "fit" and of its evaluations, by the id of the task that is tested on. files: of the user's own that it needs."""

    name: str
    learner: Learner
    trainer: Learner | None = None
    meta_steps: int = 0
    scheduled: bool = False
    skip: str | None = None
    codes: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The tasks and methods of a block. tests: the task itself, and further variants to test on. of_papers: the task
    with other numbers of queries."""

    tasks: Tasks
    training: Tasks
    tests: tuple[Tasks, ...]
    entries: tuple[Entry, ...]
    of_papers: tuple[Tasks, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A block of the profile with all that it names. otherwise: what takes its place where the task's data are
    unavailable."""

    block: Block
    found: Found
    otherwise: Resolved | None = None

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Resolved:
        """Read a block from JSON of `dataclasses.asdict`; raises `Unreadable`."""
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in value["block"].items()}
        other = value["otherwise"]
        return cls(
            Block(**fields), read(Found, value["found"], "found"), None if other is None else cls.from_plain(other)
        )


@dataclass(frozen=True)
class Resolution:
    """A profile and a request, resolved: the blocks, and every task that they need, by id."""

    profile: str
    request: Request
    blocks: tuple[Resolved, ...]

    @property
    def alternatives(self) -> Iterator[Found]:
        """Every block, and what may take its place."""
        return (block.found for first in self.blocks for block in (first, first.otherwise) if block is not None)

    @property
    def tasks(self) -> dict[str, Tasks]:
        """Alternatives and further test variants included."""
        return {tasks.id: tasks for found in self.alternatives for tasks in found.tests}

    def trained_on(self, task: str) -> list[Entry]:
        """The entries that fit a learner on the task with this id."""
        every = [(found.tasks.id, entry) for found in self.alternatives for entry in found.entries]
        return [entry for trained, entry in every if trained == task and entry.trainer]


def resolve(profile: Profile, request: Request) -> Resolution:
    """Build what the profile and the request name; raises `MetabenchError` for what does not exist or has no effect."""
    found = Resolution(profile.name, request, resolved(profile, request))
    check_that_settings_matter(found)
    return found


def resolved(profile: Profile, request: Request, files: Sequence[str] = ()) -> tuple[Resolved, ...]:
    """The blocks; a setting may be without effect in them. files: of the user's own, imported before."""
    check_settings(request.settings)
    for block in profile.blocks:
        for name in block.meta_steps_of:
            check_known(f"method in meta_steps_of of {block.task}", name, registry.methods())
    return tuple(_resolved(block, request, files) for block in _chosen(profile, request))


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


def _resolved(block: Block, request: Request, files: Sequence[str]) -> Resolved:
    tasks = _task(block.task, request)
    tests = (tasks, *(_task(name, request) for name in block.also))
    entries = tuple(_entry(name, block, tests, request, files) for name in block.methods)
    described = tuple(describe_task(each, files) for each in tests)
    of_papers = tuple(describe_task(_task(block.task, request, queries=count), files) for count in block.queries)
    found = Found(described[0], describe_task(tasks.for_training(), files), described, entries, of_papers)
    other = block.otherwise and _resolved(
        dataclasses.replace(block, task=block.otherwise, otherwise=None, also=(), queries=()), request, files
    )
    return Resolved(block, found, other or None)


def _task(task_id: str, request: Request, **fields: Any) -> TaskDistribution:
    name = registry.build_task(task_id).name
    return registry.build_task(task_id, device=request.device, **{**_settings_of(name, request.settings), **fields})


def _entry(name: str, block: Block, tests: Sequence[TaskDistribution], request: Request, files: Sequence[str]) -> Entry:
    tasks = tests[0]
    learner = _learner(name, tasks, request)
    if reason := registry.mismatch(learner, name, tasks):
        own = dict(registry.method_entry(name, tasks.kind).fields)
        return Entry(name, _described(name, learner, tasks, fields=own), skip=reason)
    used = learner.fit_method()
    trainer = learner if used is None else _learner(used, tasks, request)
    codes, meta_steps, trained, scheduled = {}, 0, None, False
    if trainer.fits:
        training = tasks.for_training()
        meta_steps = _meta_steps(block, used or name, trainer, training)
        scheduled = (trainer := (plain := trainer).for_budget(meta_steps)) != plain
        learner = trainer if used is None else learner
        trained = _described(used or name, trainer, training, meta_steps)
        codes["fit"] = code_of("fit", trainer, training)
    codes |= {test.id: code_of("evaluation", learner, test) for test in tests}
    needed = _files_of([learner, trainer], files)
    budget = meta_steps if used is None else 0
    return Entry(
        name, _described(name, learner, tasks, budget), trained, meta_steps, scheduled, codes=codes, files=needed
    )


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
        check_known("method or task in settings", name, [*registry.methods(), *registry.tasks()])
        if name in registry.methods():
            registry.check_method_setting(name, field_name, value)
        else:
            registry.build_task(name, **{field_name: value})


def check_that_settings_matter(found: Resolution) -> None:
    """Refuse ``--set`` for a method or task that the run has nothing to do with: it would be a silent misspelling."""
    fields: dict[str, set[str]] = {}
    for block in found.alternatives:
        for entry in block.entries:
            for learner in filter(None, (entry.learner, entry.trainer)):
                fields.setdefault(learner.facts.name, set()).update(learner.known)
    tasks = dict.fromkeys(each.facts.name for each in found.tasks.values())
    for key in found.request.settings:
        name, _, field_name = key.partition(".")
        if name not in fields and name not in tasks:
            raise MetabenchError(f"setting {key}: this run has no {name}; it has {', '.join([*fields, *tasks])}")
        if name in fields and field_name not in fields[name]:
            raise MetabenchError(f"setting {key}: on the tasks of this run, {name} has no {field_name}")


def _meta_steps(block: Block, name: str, learner: MetaLearner, tasks: TaskDistribution) -> int:
    """Those of the method's own budget; else those in which it sees the block's examples; else the block's."""
    if name not in block.meta_steps_of and block.examples and (each := learner.examples_per_step(tasks)):
        return max(1, round(block.examples / each))
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


# --- from what is built to plain data ---


def describe_task(tasks: TaskDistribution, files: Sequence[str] = ()) -> Tasks:
    """A task distribution as records have it, without the hash of its data. files: of the user's own to look in."""
    names = ("name", "version", "variant", "kind", "metric", "higher_is_better", "equivalence_margin")
    facts = Task(tasks.title, **{name: getattr(tasks, name) for name in names}, fields=tasks.config())
    way = tasks.outputs if tasks.kind == "classification" else None
    return Tasks(tasks.id, tasks.identity(), facts, way, _files_of([tasks], files))


def describe_method(
    name: str, fields: dict[str, Any], learner: MetaLearner, tasks: TaskDistribution, meta_steps: int = 0
) -> Method:
    """A method as records have it. fields: those that the record names. meta_steps: as for `registry.origin`."""
    facts: dict[str, Any] = {"role": learner.role}
    if tasks.kind in learner.kinds:
        facts |= {**learner.describe(tasks), "settings": str(registry.origin(learner, name, tasks, meta_steps))}
    return Method(name, fields, facts)


def _described(
    name: str,
    learner: MetaLearner,
    tasks: TaskDistribution,
    meta_steps: int = 0,
    fields: dict[str, Any] | None = None,
) -> Learner:
    facts = describe_method(name, learner.config() if fields is None else fields, learner, tasks, meta_steps)
    known = tuple(field.name for field in dataclasses.fields(learner))
    return Learner(facts, type(learner).__qualname__, known, adaptation_fields(learner), bool(learner.grid))


def _files_of(built: Sequence[MetaLearner | TaskDistribution], files: Sequence[str]) -> tuple[str, ...]:
    """Those of the user's own files that define these, or their networks."""
    if not files:
        return ()
    modules = {type(each).__module__ for each in built}
    modules |= {factory.__module__ for each in built for factory in own_factories(_backbone(each))}
    paths = {str(Path(sys.modules[name].__file__ or "").resolve()) for name in modules}
    return tuple(path for path in files if path in paths)


def _backbone(built: MetaLearner | TaskDistribution) -> str | None:
    try:
        return getattr(built, "backbone", None)
    except NotImplementedError:  # a task without
        return None
