"""From a profile and the command line to cells: fits and evaluations of fits, each with a content key or a reason to
skip it.

A key is a hash of all that determines the result: task, method, fields, seed, budget and the code that computes it. A
finished key is never computed again, and an evaluation never retrains.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import registry
from benchmarks.api import MetaLearner, TaskDistribution
from benchmarks.errors import MetabenchError
from benchmarks.models import network_for
from benchmarks.models.modules import own_factories
from benchmarks.records.store import content_key
from benchmarks.run.code_hash import program_hash
from benchmarks.run.profiles import Block, Profile


@dataclass(frozen=True)
class Cell:
    """One unit of work, plain data: what to run, under which key, after which other cell.

    kind: "fit" or "evaluation". spec: what the runner needs to build task and method again, and what the record shows.
    after: the key of the fit it needs. skip: why it is not run at all.
    """

    kind: str
    key: str
    label: str
    task: str
    seed: int
    spec: Mapping[str, Any]
    after: str | None = None
    skip: str | None = None
    seconds: float = math.inf

    def __str__(self) -> str:
        plan = self.spec.get("evaluation") or {}
        last = ", last model" if plan.get("model") == "last" else ""
        what = "fit" if self.kind == "fit" else f"test {plan['regime']}{last}"
        return f"{self.label} on {self.task}, seed {self.seed}: {what}"


@dataclass(frozen=True)
class Request:
    """What the command line asks for beside the profile.

    methods, tasks: names (empty: the profile's); seeds: numbers (empty: the profile's); settings: "method.field" or
    "task.field" -> value; digests: task id -> hash of its data; unavailable: task id -> why it can't be had;
    plan: the execution plan that is forced on fits.
    """

    methods: Sequence[str] = ()
    tasks: Sequence[str] = ()
    seeds: Sequence[int] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    shots: Sequence[int] = ()
    digests: Mapping[str, str | None] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    plan: str = ""


def blocks(profile: Profile, request: Request) -> list[Block]:
    """The blocks that are asked for; a task which the profile does not list takes the profile's common settings."""
    for name in request.methods:
        registry.method_entry(name)
    chosen = list(profile.blocks)
    if request.tasks:
        chosen = []
        for wanted in request.tasks:
            exact = registry.build_task(wanted)
            listed = [b for b in profile.blocks if _is_asked(wanted, exact, b.task)]
            chosen += listed or [dataclasses.replace(profile.other, task=exact.id)]
    if request.methods:
        chosen = [dataclasses.replace(block, methods=tuple(request.methods)) for block in chosen]
    return chosen


def _is_asked(wanted: str, exact: TaskDistribution, task: str) -> bool:
    """A bare task name asks for every variant that the profile lists, "task/variant" for that one."""
    other = registry.build_task(task)
    return other.id == exact.id if "/" in wanted else other.name == exact.name


def needed_tasks(blocks: Iterable[Block]) -> list[str]:
    """The ids of all tasks that these blocks use, alternatives and further test variants included."""
    ids = [name for block in blocks for name in (block.task, block.otherwise, *block.also) if name]
    return list(dict.fromkeys(registry.build_task(name).id for name in ids))


def expand(profile: Profile, request: Request) -> list[Cell]:
    """All cells, each once, a fit before what depends on it."""
    check_settings(request.settings)
    chosen = blocks(profile, request)
    _check_that_settings_matter(chosen, request)
    cells: dict[str, Cell] = {}
    for block in chosen:
        for cell in _block_cells(profile.name, _with_alternative(block, request), request):
            cells.setdefault(cell.key, cell)
    return list(cells.values())


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse ``--set`` for names, fields or types that do not exist."""
    for key, value in settings.items():
        name, _, field_name = key.partition(".")
        if name in registry.methods():
            registry.check_method_setting(name, field_name, value)
        elif name in registry.tasks():
            registry.build_task(name, **{field_name: value})
        else:
            raise registry.unknown("method or task in --set", name, [*registry.methods(), *registry.tasks()])


def _check_that_settings_matter(chosen: Sequence[Block], request: Request) -> None:
    """Refuse ``--set`` for a method or task that the run has nothing to do with: it would be a silent misspelling."""
    methods = [name for block in chosen for name in block.methods]
    fits = [used for name in methods if (used := registry.build_method(name).fit_method())]
    known = dict.fromkeys([*methods, *fits, *(registry.build_task(task).name for task in needed_tasks(chosen))])
    kinds = {registry.build_task(task).kind for task in needed_tasks(chosen)}
    for key in request.settings:
        name, _, field_name = key.partition(".")
        if name not in known:
            raise MetabenchError(f"--set {key}: this run has no {name}; it has {', '.join(known)}")
        if name in registry.methods() and not any(
            field_name in registry.method_entry(name, kind).known_fields for kind in kinds
        ):
            raise MetabenchError(f"--set {key}: on the tasks of this run, {name} has no {field_name}")


def _with_alternative(block: Block, request: Request) -> Block:
    task = registry.build_task(block.task)
    if block.otherwise is None or task.id not in request.unavailable:
        return block
    return dataclasses.replace(block, task=block.otherwise, also=())


def _settings_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in settings.items() if key.partition(".")[0] == name}


def _task(task_id: str, request: Request) -> TaskDistribution:
    plain = registry.build_task(task_id)
    return registry.build_task(task_id, device=request.device, **_settings_of(plain.name, request.settings))


def _block_cells(profile: str, block: Block, request: Request) -> Iterator[Cell]:
    tasks = _task(block.task, request)
    tests = [_task(name, request) for name in block.also]
    for name in block.methods:
        reason = registry.incompatible(name, tasks.id) or request.unavailable.get(tasks.id)
        if reason:
            # One record says that the pair does not fit; it would say the same for each seed.
            yield _skipped(profile, name, tasks, request, reason)
            continue
        learner = _learner(name, tasks, request)
        twins: dict[str, str] = {}
        for seed in request.seeds or range(block.seeds):
            fit = _fit(profile, block, name, learner, tasks, seed, request)
            if fit is not None:
                yield fit
            for cell in _evaluations(profile, block, name, learner, tasks, tests, seed, fit, request):
                yield _with_twin(cell, twins)


def _with_twin(cell: Cell, twins: dict[str, str]) -> Cell:
    """An evaluation with the key of an earlier one that may have the same result: of another state of the fit, or where
    there is no fit of another seed, since only fits know seeds. ``twins`` takes in the first of each kind."""
    conditions = {name: value for name, value in cell.spec["evaluation"].items() if name != "model"}
    first = twins.setdefault(content_key([cell.after, cell.label, conditions]), cell.key)
    return dataclasses.replace(cell, spec={**cell.spec, "twin": first if first != cell.key else None})


def _learner(name: str, tasks: TaskDistribution, request: Request) -> MetaLearner:
    """The method with its settings; one that uses another's fit takes over what is set for that fit."""
    known = registry.method_entry(name, tasks.kind).known_fields
    own = {key: value for key, value in _settings_of(name, request.settings).items() if key in known}
    learner = registry.build_method(name, tasks, **own)
    used = learner.fit_method()
    if used is None:
        return learner
    fields = learner.config()
    shared = {key: value for key, value in _settings_of(used, request.settings).items() if key in fields}
    return registry.build_method(name, tasks, **{**shared, **own})


def _fit(
    profile: str, block: Block, name: str, learner: MetaLearner, tasks: TaskDistribution, seed: int, request: Request
) -> Cell | None:
    used = learner.fit_method()
    if used is not None:
        name, learner = used, _learner(used, tasks, request)
    if not learner.fits:
        return None
    trained_on = tasks.for_training()
    budget = {
        "meta_steps": _meta_steps(block, name, learner, trained_on),
        "seconds": block.seconds,
        "validation_episodes": block.validation_episodes,
        "validations": block.validations,
    }
    essence = {
        "cell": "fit",
        "task": _task_essence(trained_on, request),
        "method": [type(learner).__qualname__, _fit_fields(learner)],
        "seed": seed,
        "budget": budget,
        "code": program_hash(type(learner), type(trained_on), *own_factories(getattr(learner, "backbone", None))),
        "device": request.device.partition(":")[0],
    }
    spec = {
        "profile": profile,
        "task": {"id": trained_on.id, "fields": trained_on.config()},
        "method": {"name": name, "fields": learner.config()},
        "seed": seed,
        "budget": budget,
        "device": request.device,
        "plan": request.plan,
    }
    return Cell("fit", content_key(essence), name, trained_on.id, seed, spec, seconds=block.limit)


def _evaluations(
    profile: str,
    block: Block,
    name: str,
    learner: MetaLearner,
    tasks: TaskDistribution,
    tests: Sequence[TaskDistribution],
    seed: int,
    fit: Cell | None,
    request: Request,
) -> Iterator[Cell]:
    regimes = [r for r in _regimes(learner, tasks) if not block.regimes or r in block.regimes]
    selections = [s for s in block.selections if s == "published" or learner.grid]
    conditions: list[tuple[TaskDistribution, int | None]] = [(tasks, None), *((test, None) for test in tests)]
    conditions += [(tasks, shots) for shots in dict.fromkeys((*block.shots, *request.shots))]
    models = block.models if fit is not None else ("best",)
    for regime, model, selection, (test, shots) in itertools.product(
        regimes or _regimes(learner, tasks)[:1], models, selections, conditions
    ):
        plan = {
            "split": "test",
            "task": {"id": test.id, "fields": test.config()},
            "regime": regime,
            "model": model,
            "shots": shots,
            "episodes": block.episodes,
            "selection": selection,
            "validation_episodes": block.validation_episodes,
        }
        cell = _evaluation(profile, name, learner, tasks, test, seed, fit, plan, request)
        yield dataclasses.replace(cell, seconds=block.limit)


def _regimes(learner: MetaLearner, tasks: TaskDistribution) -> tuple[str, ...]:
    """The regimes of the learner's predictors, for as long as each of them is tested by a cell of its own."""
    if not hasattr(learner, "backbone") or not network_for(tasks, learner.backbone).normalised:
        return ("none",)
    return (*(() if hasattr(learner, "train_regime") else ("running",)), "query", "support", "single")


def _evaluation(
    profile: str,
    name: str,
    learner: MetaLearner,
    tasks: TaskDistribution,
    test: TaskDistribution,
    seed: int,
    fit: Cell | None,
    plan: Mapping[str, Any],
    request: Request,
) -> Cell:
    essence = {
        "cell": "evaluation",
        "fit": fit.key if fit else None,
        "task": _task_essence(test, request),
        "method": [type(learner).__qualname__, learner.config()],
        "seed": seed,
        "evaluation": {key: value for key, value in plan.items() if key != "task"},
        "code": program_hash(type(learner), type(test), *own_factories(getattr(learner, "backbone", None))),
        "device": request.device.partition(":")[0],
    }
    spec = {
        "profile": profile,
        "task": {"id": tasks.id, "fields": tasks.config()},
        "method": {"name": name, "fields": learner.config()},
        "seed": seed,
        "budget": fit.spec["budget"] if fit else None,
        "device": request.device,
        "fit": fit.key if fit else None,
        "evaluation": plan,
    }
    label = name if plan["selection"] == "published" else f"{name} [tuned]"
    return Cell("evaluation", content_key(essence), label, test.id, seed, spec, fit.key if fit else None)


def _skipped(profile: str, name: str, tasks: TaskDistribution, request: Request, reason: str) -> Cell:
    spec = {
        "profile": profile,
        "task": {"id": tasks.id, "fields": tasks.config()},
        "method": {"name": name, "fields": dict(registry.method_entry(name, tasks.kind).fields)},
        "seed": 0,
        "budget": None,
        "device": request.device,
        "fit": None,
        "evaluation": {"regime": "none"},
    }
    return Cell("evaluation", skip_key(name, tasks.id), name, tasks.id, 0, spec, skip=reason)


def skip_key(method: str, task_id: str) -> str:
    """The key of the record which says that a pair of method and task was skipped."""
    return content_key({"cell": "evaluation", "skipped": [method, task_id]})


def _meta_steps(block: Block, name: str, learner: MetaLearner, tasks: TaskDistribution) -> int:
    steps = block.meta_steps_of.get(name, block.meta_steps)
    if isinstance(steps, int):
        return steps
    if steps != "published":
        raise MetabenchError(
            f"meta_steps = {steps!r} in the profile's block {block.task}; known: a number, 'published'"
        )
    published = registry.for_task(learner.published_meta_steps, tasks)
    # A method whose paper states no budget gets that of MAML, so that nobody is trained more than the others.
    maml = registry.method_entry("maml", tasks.kind).cls
    return published or registry.for_task(maml.published_meta_steps, tasks) or 60_000


def _fit_fields(learner: MetaLearner) -> dict[str, Any]:
    adaptation = {f.name for f in dataclasses.fields(learner) if f.metadata.get("stage") == "adaptation"}
    return {name: value for name, value in learner.config().items() if name not in adaptation}


def _task_essence(tasks: TaskDistribution, request: Request) -> list[Any]:
    return [tasks.id, tasks.config(), request.digests.get(tasks.id)]
