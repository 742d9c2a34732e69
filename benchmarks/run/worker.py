"""One fit or one evaluation, from plain arguments to a record in the store.

These functions run in a process of their own (`benchmarks.run.isolate`), which builds task and method again from names
and fields. They alone hold the clock, the device, the seed and the files.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import registry
from benchmarks.api import Diverged, MetaLearner, Predictor, State, TaskDistribution, in_regime
from benchmarks.clock import Clock, PeakMemory
from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store
from benchmarks.records.tables import episode_table, score_table, summary
from benchmarks.records.under_training import under_trained
from benchmarks.run.fitting import Progress, episodes_at_once, planned, still_improving, train

#: the first so many test episodes are scored after every inner step, for the curves
CURVE_EPISODES = 100
#: the curves go at least this far for learners that take steps on labelled sets
CURVE_STEPS = 10

Report = Callable[[dict[str, Any]], None]


def prepare(progress: Report, task: str, plugins: Sequence[str]) -> dict[str, Any]:
    """Make the data of a task ready and return their hash."""
    registry.discover(plugins)
    tasks = registry.build_task(task)
    tasks.prepare(lambda line: progress({"line": line}))
    return {"digest": tasks.data_digest()}


def run_fit(
    progress: Report, key: str, spec: dict[str, Any], store: str, context: dict[str, Any], plugins: Sequence[str]
) -> dict[str, Any]:
    """Train, validate, keep the best state, and write the record."""
    started = _now()
    files = Store(store)
    with files.lock(key):
        if _is_finished(files, key):
            return {"status": "known"}
        tasks, learner = _build(spec, plugins)
        memory = PeakMemory(tasks.device)
        saved = files.checkpoint(key)
        fitted = Progress.from_plain(saved) if saved else Progress()
        if fitted.state is not None:
            fitted.state = fitted.state.to(tasks.device)
        learner = planned(learner, tasks, spec["budget"]["meta_steps"], spec.get("plan", ""), fitted)
        train(
            learner,
            tasks,
            spec["seed"],
            spec["budget"],
            fitted,
            progress,
            lambda p: files.write_checkpoint(key, p.plain()),
        )
        if fitted.best_state is None:
            raise Diverged("no validation score was finite")
        record = header(key, "fit", spec, tasks, context, started)
        record["training"] = _training(key, fitted, learner, tasks, spec)
        record["memory"] = {"peak_bytes": memory.bytes()}
        record["plan"] = {**(fitted.plan or record["plan"]), "seconds": fitted.planning_seconds}
        arrays = {"step_seconds": np.array(fitted.step_seconds), "loss": np.array(fitted.losses)}
        assert fitted.state is not None
        states = {"best": fitted.best_state, "last": fitted.state}
        files.write(record, arrays=arrays, state={model: vars(state.to("cpu")) for model, state in states.items()})
        files.remove_checkpoint(key)
    return {"status": "ok"}


def run_evaluation(
    progress: Report, key: str, spec: dict[str, Any], store: str, context: dict[str, Any], plugins: Sequence[str]
) -> dict[str, Any]:
    """Adapt a fit's state to every test episode, keep every score, and write the record."""
    started = _now()
    files = Store(store)
    with files.lock(key):
        if _is_finished(files, key):
            return {"status": "known"}
        trained_on, learner = _build(spec, plugins)
        plan = spec["evaluation"]
        tasks = _task(plan["task"], spec["device"])
        if (twin := _finished_twin(files, spec)) is not None:
            _write_as_twin(files, twin, header(key, "evaluation", spec, tasks, context, started), plan["model"])
            return {"status": "ok"}
        memory = PeakMemory(tasks.device)
        state = _fitted(files, spec["fit"], plan["model"]).to(tasks.device) if spec["fit"] else State()
        trials = 0
        if plan["selection"] == "validation":
            state, trials = learner.choose(state, trained_on, plan["validation_episodes"])
        evaluated = evaluate(learner, state, tasks, plan, progress, exhibited=spec["seed"] == 0)
        record = header(key, "evaluation", spec, tasks, context, started)
        record["training"] = (files.get(spec["fit"]) or {}).get("training") if spec["fit"] else None
        record["evaluation"] = {
            **{name: plan[name] for name in ("split", "regime", "model", "episodes", "selection")},
            "way": tasks.outputs if tasks.kind == "classification" else None,
            "shots": plan["shots"] or tasks.config().get("shot"),
            "queries": tasks.config().get("queries"),
            "reported_steps": evaluated["reported"],
            "headline_step": evaluated["reported"][-1],
            "curve_episodes": min(CURVE_EPISODES, plan["episodes"]),
            "trials": trials,
            "chosen": state.chosen,
            "seconds_per_task": evaluated["seconds"] / plan["episodes"],
            "task_id": tasks.id,
            "trained_on": trained_on.id,
            "same_as": None,
        }
        record["label"] = spec["method"]["name"] + (" [tuned]" if plan["selection"] == "validation" else "")
        record["method"]["facts"] = {"role": learner.role, **_chosen(learner, state).describe(tasks)}
        record["plan"]["tasks"] = episodes_at_once(tasks, plan["regime"])
        record["summary"] = summary(evaluated["scores"], evaluated["environment_steps"])
        record["memory"] = {"peak_bytes": memory.bytes()}
        record["evaluation"]["episodes_digest"] = None
        if evaluated["items"] is not None:
            record["evaluation"]["episodes_digest"] = files.write_episodes(episode_table(evaluated["items"]))
        files.write(record, scores=score_table(evaluated["scores"], tasks.metric), arrays=evaluated["exhibit"])
    return {"status": "ok"}


def _finished_twin(files: Store, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a finished evaluation whose result is this one's, too: of a method without a fit, which knows no
    seed, or of the best state of a fit where that is the last one."""
    twin = files.get(spec["twin"]) if spec.get("twin") else None
    if twin is None or twin["status"] != "ok" or (spec["seed"] == 0 and twin["seed"] != 0):  # 0 has the exhibit
        return None
    if spec["fit"]:
        states = files.state(spec["fit"])
        if states is None or states["best"]["step"] != states["last"]["step"]:
            return None
    return twin


def _write_as_twin(files: Store, twin: Mapping[str, Any], record: dict[str, Any], model: str) -> None:
    """Write a record with the result of another evaluation: its scores and all that was measured."""
    for name in ("label", "training", "summary", "memory", "plan"):
        record[name] = twin[name]
    record["method"]["facts"] = twin["method"]["facts"]
    record["evaluation"] = {**twin["evaluation"], "model": model, "same_as": twin["key"]}
    arrays = files.arrays(twin["key"]) or {}
    files.write(record, scores=files.score_columns(twin["key"]), arrays=arrays if record["seed"] == 0 else {})


def write_failure(
    store: Store, cell_kind: str, key: str, spec: dict[str, Any], context: dict[str, Any], outcome: Mapping[str, Any]
) -> None:
    """The record of a cell that was skipped or that failed: status, reason and the end of its output."""
    tasks = _task((spec.get("evaluation") or {}).get("task") or spec["task"], "cpu", prepare=False)
    record = header(key, cell_kind, spec, tasks, context, _now()) | dict(outcome)
    record["evaluation"] = spec.get("evaluation")
    if record["evaluation"]:
        record["evaluation"] = {**record["evaluation"], "task_id": tasks.id}
    store.write(record)


def header(
    key: str, cell: str, spec: Mapping[str, Any], tasks: TaskDistribution, context: Mapping[str, Any], started: str
) -> dict[str, Any]:
    """What every record has: identity, configuration, machine."""
    facts = {name: getattr(tasks, name) for name in ("name", "version", "variant", "kind", "metric")}
    margin = {"higher_is_better": tasks.higher_is_better, "equivalence_margin": tasks.equivalence_margin}
    return {
        "schema": 1,
        "key": key,
        "cell": cell,
        "status": "ok",
        "reason": None,
        "stderr": "",
        "label": spec["method"]["name"],
        "method": {**spec["method"], "facts": {}},
        "task": {"id": tasks.id, **facts, "fields": tasks.config(), **margin, "data": context["digests"].get(tasks.id)},
        **{name: spec[name] for name in ("seed", "profile", "budget", "device")},
        "training": None,
        "evaluation": None,
        "summary": [],
        "threads": torch.get_num_threads(),
        "plan": {"name": "eager", "compiled": False},
        **{name: context[name] for name in ("machine", "versions", "git")},
        "started": started,
        "finished": _now(),
    }


def evaluate(
    learner: MetaLearner,
    state: State,
    tasks: TaskDistribution,
    plan: Mapping[str, Any],
    progress: Report,
    exhibited: bool = True,
) -> dict[str, Any]:
    """Every score on the test episodes: ``scores`` maps a number of steps to ``[episodes, queries]``.

    exhibited: whether the arrays for the figures are made, too."""
    chosen = _chosen(learner, state)
    reported = [state.chosen["steps"]] if "steps" in state.chosen else list(chosen.reported_steps())
    goes_on = max(reported) > 0 and tasks.kind != "control"  # where each step costs new environment steps
    furthest = max(*reported, CURVE_STEPS) if goes_on else max(reported)
    scores: dict[int, list[np.ndarray]] = {}
    played: dict[int, list[int]] = {}
    items: list[dict[str, np.ndarray]] = []
    exhibit: dict[str, np.ndarray] = {}
    clock = Clock(tasks.device)
    for first, indices in _chunks(plan["episodes"], tasks, plan["regime"]):
        wanted = set(range(furthest + 1)) if first < CURVE_EPISODES else set(reported)
        episodes = tasks.episodes(plan["split"], indices, shots=plan["shots"])
        for step, predictor in timed(chosen.adapt(state, episodes.support, tasks), clock, reported[-1], max(wanted)):
            if step in wanted:
                if (steps := getattr(episodes.support, "environment_steps", None)) is not None:
                    played.setdefault(step, []).append(steps)
                with torch.no_grad():
                    tested = in_regime(predictor, plan["regime"])
                    scores.setdefault(step, []).append(tasks.score(tested, episodes.query).cpu().numpy())
        if getattr(episodes.query, "classes", None) is not None:
            items.append({name: getattr(episodes.query, name).cpu().numpy() for name in ("classes", "items")})
        if first == 0 and exhibited:
            cut = tasks.episodes(plan["split"], indices[: tasks.exhibited], shots=plan["shots"])
            shown = {0, 1, reported[-1]}
            adapted = timed(chosen.adapt(state, cut.support, tasks), Clock(tasks.device), 0, max(shown))
            predictors = {step: in_regime(predictor, plan["regime"]) for step, predictor in adapted if step in shown}
            exhibit = tasks.exhibit(predictors, cut)
        progress({"step": first + len(indices), "steps": plan["episodes"], "loss": None, "left": None})
    return {
        "scores": {step: np.concatenate(parts) for step, parts in scores.items()},
        "environment_steps": {step: sum(parts) for step, parts in played.items()},
        "items": {name: np.concatenate([part[name] for part in items]) for name in ("classes", "items")}
        if items
        else None,
        "exhibit": exhibit,
        "reported": [step for step in reported if step in scores],
        "seconds": clock.total,
    }


def _build(spec: Mapping[str, Any], plugins: Sequence[str]) -> tuple[TaskDistribution, MetaLearner]:
    registry.discover(plugins)
    tasks = _task(spec["task"], spec["device"])
    entry = registry.method_entry(spec["method"]["name"], tasks.kind)
    return tasks, entry.cls(**_values(spec["method"]["fields"]))


def _task(plain: Mapping[str, Any], device: str, prepare: bool = True) -> TaskDistribution:
    entry = registry.task_entry(plain["id"].partition("/")[0].rpartition("-v")[0])
    tasks: TaskDistribution = entry.cls(**_values(plain["fields"]), device=device)
    if prepare:
        tasks.prepare()
    return tasks


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _chosen(learner: MetaLearner, state: State) -> MetaLearner:
    return learner.replace(**{name: value for name, value in state.chosen.items() if name != "steps"})


def _chunks(episodes: int, tasks: TaskDistribution, regime: str) -> Iterator[tuple[int, range]]:
    chunk = episodes_at_once(tasks, regime)
    bounds = sorted({*range(0, episodes, chunk), min(CURVE_EPISODES, episodes), episodes})
    for first, end in itertools.pairwise(bounds):
        yield first, range(first, end)


def timed(predictors: Iterator[Predictor], clock: Clock, until: int, last: int) -> Iterator[tuple[int, Predictor]]:
    """Number the predictors from 0 to ``last`` (or to the learner's end), with the clock running up to ``until``."""
    for step in range(last + 1):
        with clock if step <= until else contextlib.nullcontext():
            predictor = next(predictors, None)
        if predictor is None:
            return
        yield step, predictor


def _training(
    key: str, fitted: Progress, learner: MetaLearner, tasks: TaskDistribution, spec: Mapping[str, Any]
) -> dict[str, Any]:
    assert fitted.state is not None
    published = registry.for_task(learner.published_meta_steps, tasks)
    share = fitted.state.step / published if published else None
    improving = still_improving(fitted, tasks.higher_is_better)
    facts = {
        "fit": key,
        "method": spec["method"]["name"],
        "meta_steps": fitted.state.step,
        "published_meta_steps": published,
        "share": share,
        "still_improving": improving,
        "seconds": fitted.seconds,
        "examples": fitted.state.examples,
        "environment_steps": fitted.state.environment_steps,
        "stopped_by": fitted.stopped_by,
        "best_step": fitted.best["step"],
        "best_validation": fitted.best["score"],
        "curve": fitted.curve,
        "parameters": sum(value.numel() for value in fitted.state.parameters.values()),
        "regime": learner.describe(tasks).get("train_regime"),
    }
    return facts | {"under_trained": under_trained(facts)}


def _fitted(store: Store, key: str, model: str) -> State:
    states = store.state(key)
    if states is None:
        raise MetabenchError(f"the state of fit {key} is not in {store.path}: run again without the record of the fit")
    return State(**states[model])


def _is_finished(store: Store, key: str) -> bool:
    record = store.get(key)
    return record is not None and record["status"] == "ok"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
