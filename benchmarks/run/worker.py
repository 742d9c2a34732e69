"""One fit or one evaluation, from plain arguments to a record in the store.

These functions run in a process of their own (`benchmarks.run.isolate`), which builds task and method from names and
fields. Its caller holds the lock of the key. They alone hold the clock, the device, the seed and the files. Machine,
versions, commit, code and data of a record are measured here, where the numbers are computed.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine, registry
from benchmarks.api import Diverged, MetaLearner, State, TaskDistribution
from benchmarks.clock import PeakMemory
from benchmarks.errors import MetabenchError
from benchmarks.models.network import network_for
from benchmarks.records import plain as records_plain
from benchmarks.records.record import (
    Budget,
    CurvePoint,
    Git,
    Kind,
    Machine,
    Record,
    Test,
    Training,
)
from benchmarks.records.sharing import look_again
from benchmarks.records.store import Store
from benchmarks.run.cells import conditions
from benchmarks.run.code_hash import ENTRIES, code_hash, code_of
from benchmarks.run.evaluation import Evaluated, evaluate, regimes_for
from benchmarks.run.fitting import Progress, fit_config, planned, still_improving, train
from benchmarks.run.resolution import describe_method, describe_task
from benchmarks.run.selection import Choice, choose

ROOT = Path(__file__).parents[2]
#: fields of learners whose training episodes are not those of the task
TRAINING_EPISODES = ("training_way", "training_shot", "training_queries")

Report = Callable[[dict[str, Any]], None]


def prepare(
    progress: Report,
    task: Mapping[str, Any],
    plugins: Sequence[str],
    learners: Sequence[Mapping[str, Any]] = (),
    shots: Sequence[int] = (),
) -> dict[str, Any]:
    """Make the data of a task ready; return their hash, and why they are too few for learners that train on them or for
    the further numbers of shots that are tested."""
    registry.discover(plugins)
    tasks = registry.task_from(task)
    tasks.prepare(lambda line: progress({"line": line}))
    refused = []
    for plain in learners:
        try:
            registry.method_from(plain, tasks.kind).check_data(tasks.for_training())
            _check_backbone(tasks, plain["fields"].get("backbone"))
        except MetabenchError as reason:
            given = {name: plain["fields"].get(name) for name in TRAINING_EPISODES}
            own = ", ".join(f"{plain['name']}.{name} = {value}" for name, value in given.items() if value)
            refused.append(f"{plain['name']} can't be trained: {reason}{own and f' ({own})'}")
    for number in shots:
        try:
            tasks.episodes("test", [0], shots=number)
        except MetabenchError as reason:
            refused.append(str(reason))
    return {"digest": tasks.data_digest(), "refused": refused}


def _check_backbone(tasks: TaskDistribution, name: str | None) -> None:
    """Refuse an unknown backbone, and one for inputs of another shape; policies have networks of their own."""
    if not name or tasks.kind == "control":
        return
    network = network_for(tasks, name)
    try:
        dict(network.backbone.shapes(network.input_shape))
        network.backbone.embedding_size(network.input_shape)
    except (IndexError, TypeError, ValueError):
        raise MetabenchError(f"backbone = {name!r} takes no inputs of shape {list(network.input_shape)}") from None


def run_fit(progress: Report, key: str, spec: dict[str, Any], store: str, plugins: Sequence[str]) -> dict[str, Any]:
    """Train, validate, keep the best and the last state, and write the record."""
    started, files = now(), Store(store)
    tasks, learner = _built("fit", spec, plugins)
    memory = PeakMemory(tasks.device)
    saved = files.checkpoint(key)
    fitted = Progress.from_plain(saved) if saved else Progress()
    if fitted.state is not None:
        fitted.state = fitted.state.to(tasks.device)
    budget = spec["budget"]
    learner = planned(learner, tasks, budget["meta_steps"], spec.get("plan", ""), fitted)
    keep = lambda progress: files.write_checkpoint(key, progress.plain())  # noqa: E731
    train(learner, tasks, spec["seed"], budget, fitted, progress, keep)
    if fitted.best_state is None or fitted.state is None:
        raise Diverged("no validation score was finite")
    record = _record(
        *(key, "fit", spec, tasks, started),
        training=_training(key, fitted, learner, tasks, spec),
        plan={"name": "eager", "compiled": False, **fitted.plan, "seconds": fitted.planning_seconds},
        peak_bytes=memory.bytes(),
    )
    arrays = {"step_seconds": np.array(fitted.step_seconds), "loss": np.array(fitted.losses)}
    states = {"best": fitted.best_state, "last": fitted.state}
    files.write(record, arrays=arrays, state={model: vars(state.to("cpu")) for model, state in states.items()})
    files.remove_checkpoint(key)
    return {}


def run_evaluation(
    progress: Report, key: str, spec: dict[str, Any], store: str, plugins: Sequence[str]
) -> dict[str, Any]:
    """Adapt the states of a fit to every test episode, keep every score, and write the record."""
    started, files = now(), Store(store)
    tasks, learner = _built("evaluation", spec, plugins)
    test = spec["test"]
    trained_on = registry.task_from(test["trained_on"], spec["device"])
    trained_on.prepare()
    memory = PeakMemory(tasks.device)
    fit = look_again(files.path / "records", lambda: files.get(spec["fit"])) if spec["fit"] else None
    states = _states(files, fit, spec["fit"], test["models"], tasks.device)
    choices = _choices(learner, states, trained_on, test)
    evaluated = evaluate(learner, states, choices, tasks, test, progress, exhibited=spec["seed"] in (0, None))
    for model in set(test["models"]) - states.keys():  # the best checkpoint is the last one: one test serves both
        evaluated.tests.update({(model, regime): tested for (_, regime), tested in [*evaluated.tests.items()]})
    digest = None if evaluated.items is None else files.write_episodes(evaluated.items)
    record = _record(
        *(key, "evaluation", spec, tasks, started),
        training=fit.training if fit else None,
        evaluation=conditions(test, describe_task(tasks), describe_task(trained_on), digest, evaluated.constant_error),
        tests=_tests(learner, tasks, evaluated, test["episodes"]),
        plan={"name": "eager", "compiled": False, "tasks": evaluated.tasks_at_once},
        peak_bytes=memory.bytes(),
    )
    files.write(record, _scores(record, evaluated, tasks.metric), evaluated.exhibit or None)
    return {}


def write_failure(store: Store, draft: Record, outcome: Mapping[str, Any]) -> None:
    """The record of a cell that was skipped or that failed. outcome: status, reason, the end of its output (stderr),
    the most memory it used (peak_bytes), and the facts of the machine where it was another one."""
    store.write(_measured(draft, now(), **outcome))


def facts(progress: Report, device: str) -> dict[str, Any]:
    """The facts of this machine, for the record of a failure that is written on another one."""
    found: dict[str, Any] = records_plain.plain(_facts(device))
    return found


def as_recorded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `facts` has found as a record has it; without versions and commit where no machine is known."""
    if "machine" not in facts:
        return {}
    known = {"versions": {}, "git": None, **facts}
    here, git = known["machine"], known["git"]
    return {**known, "machine": Machine(**here) if here else None, "git": Git(**git) if git else None}


# --- from plain arguments to task and method ---


def _built(kind: Kind, spec: Mapping[str, Any], plugins: Sequence[str]) -> tuple[TaskDistribution, MetaLearner]:
    """Task and method, after a look at whether data and code are still those that the key was made of."""
    registry.discover(plugins)
    tasks = registry.task_from(spec["task"], spec["device"])
    tasks.prepare()
    learner = registry.method_from(spec["method"], tasks.kind)
    if tasks.data_digest() != spec["data"]:
        raise MetabenchError(
            f"the data of {tasks.id} on this machine are not those that the run began with: start it again"
        )
    if code_of(kind, learner, tasks) != spec["code"]:
        raise MetabenchError("the code on this machine is not that which the run began with: start it again")
    return tasks, learner


def _states(store: Store, fit: Record | None, key: str | None, models: Sequence[str], device: str) -> dict[str, State]:
    """The states to be tested, by checkpoint; a further checkpoint that is the first one again is left out."""
    if key is None:
        return {"best": State()}
    found = store.state(fit) if fit else None
    if found is None:
        raise MetabenchError(f"the state of fit {key} is not in {store.path}: forget the fit, then run again")
    first = models[0]
    wanted = [first, *(model for model in models[1:] if found[model]["step"] != found[first]["step"])]
    return {model: State(**found[model]).to(device) for model in wanted}


def _choices(
    learner: MetaLearner, states: Mapping[str, State], trained_on: TaskDistribution, test: Mapping[str, Any]
) -> dict[tuple[str, str], Choice]:
    """The settings to test, by checkpoint and regime: those published, or those that validation tasks choose."""
    choices: dict[tuple[str, str], Choice] = {}
    for model, state in states.items():
        regimes = regimes_for(learner, state, trained_on, test["regimes"])
        if test["selection"] == "validation":
            chosen = choose(learner, state, trained_on, test["validation_episodes"], regimes)
        else:
            chosen = dict.fromkeys(regimes, Choice())
        choices |= {(model, regime): chosen[regime] for regime in regimes}
    return choices


# --- from what was computed to the record ---


def _record(
    key: str, kind: Kind, spec: Mapping[str, Any], tasks: TaskDistribution, started: str, **found: Any
) -> Record:
    """A record with what every one has: identity, configuration, machine."""
    learner = registry.method_from(spec["method"], tasks.kind)
    budget = Budget(**spec["budget"]) if spec.get("budget") else None
    meta_steps = budget.meta_steps if budget else 0
    known = Record(
        *(key, kind, spec["label"]),
        method=describe_method(**spec["method"], learner=learner, tasks=tasks, meta_steps=meta_steps),
        task=dataclasses.replace(describe_task(tasks).facts, data=spec["data"]),
        seed=spec["seed"],
        profile=spec["profile"],
        device=spec["device"],
        budget=budget,
        code=spec.get("code"),
    )
    return _measured(known, started, **found)


def _measured(known: Record, started: str, **found: Any) -> Record:
    """The record with what was found, the machine and the time."""
    here = {} if "machine" in found else _facts(known.device)
    facts = {"threads": torch.get_num_threads(), **here, "started": started, "finished": now()}
    return dataclasses.replace(known, **facts, **found)


def _tests(learner: MetaLearner, tasks: TaskDistribution, evaluated: Evaluated, episodes: int) -> tuple[Test, ...]:
    return tuple(
        Test(
            *where,
            reported_steps=tested.reported_steps,
            summary=tested.summary(evaluated.constant_error),
            seconds_per_task=tested.seconds / episodes,
            trials=tested.choice.trials,
            chosen=tested.choice.plain,
            facts=learner.replace(**tested.choice.fields).describe(tasks),
        )
        for where, tested in evaluated.tests.items()
    )


def _scores(record: Record, evaluated: Evaluated, metric: str) -> dict[str, np.ndarray]:
    """Every score as it is stored: right or wrong as bool, all else as float32."""
    kind = bool if metric == "accuracy" else np.float32
    return {
        test.scores_name(step): values.astype(kind)
        for test in record.tests
        for step, values in evaluated.tests[test.model, test.regime].scores.items()
    }


def _training(
    key: str, fitted: Progress, learner: MetaLearner, tasks: TaskDistribution, spec: Mapping[str, Any]
) -> Training:
    assert fitted.state is not None
    published = registry.for_task(learner.published_meta_steps, tasks)
    return Training(
        fit=key,
        method=spec["method"]["name"],
        meta_steps=fitted.state.step,
        published_meta_steps=published,
        share=_share(fitted.state, learner, tasks, spec["method"]["name"]),
        still_improving=still_improving(fitted, tasks.higher_is_better),
        seconds=fitted.seconds,
        examples=fitted.state.examples,
        environment_steps=fitted.state.environment_steps,
        stopped_by=fitted.stopped_by,
        best_step=fitted.best["step"],
        best_validation=fitted.best["score"],
        curve=tuple(CurvePoint(**row) for row in fitted.curve),
        parameters=sum(value.numel() for value in fitted.state.parameters.values()),
        regime=learner.describe(tasks).get("train_regime"),
        threads=torch.get_num_threads(),
        pace=machine.pace(),
    )


def _share(state: State, learner: MetaLearner, tasks: TaskDistribution, name: str) -> float | None:
    """The share of the budget: of the published meta-steps, if the settings are the usual ones; else of the examples or
    environment steps that the task states for every learner. None where neither is stated."""
    published, budget = registry.for_task(learner.published_meta_steps, tasks), tasks.budgets.get(tasks.variant)
    usual = fit_config(learner) == fit_config(registry.build_method(name, tasks))
    if budget and not (published and usual):
        return (state.examples or state.environment_steps) / budget
    return state.step / published if published else None


@functools.cache
def _constants(device: str) -> tuple[Machine, dict[str, str], Git | None]:
    """Machine, versions and commit. The server that cells are forked from measures them once, when it imports the
    code that the cells then run."""
    git = machine.git_state(ROOT)
    return Machine(**machine.fingerprint(device)), machine.versions(), Git(**git) if git else None


def _facts(device: str) -> dict[str, Any]:
    here, versions, git = _constants(device)
    return {"machine": dataclasses.replace(here, threads=machine.thread_settings()), "versions": versions, "git": git}


def remember() -> None:
    """Measure what stays the same for all cells that are forked from this process, and hash the code."""
    _constants("cpu")
    for table, kind in ((registry.methods(), "fit"), (registry.tasks(), "evaluation")):
        for entry in table.values():
            code_hash([each.cls for each in entry.all], ENTRIES[kind])


def now() -> str:
    """The time, UTC, as records have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
