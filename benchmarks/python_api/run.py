"""`run`: train methods and test them on tasks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.checks import check_budget, check_device, check_known, check_type
from benchmarks.errors import MetabenchError, one_line
from benchmarks.python_api import places
from benchmarks.records import sharing
from benchmarks.records.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.python_api.names import Names
    from benchmarks.run.cells import Cell
    from benchmarks.run.isolate import Outcome

#: what the options of `run` may be; names, seeds and stores are checked where they are read
TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("profile", "plan", "device", "only", "executor"), str),
    **dict.fromkeys(("meta_steps", "episodes", "jobs", "threads"), int | None),
    **dict.fromkeys(("seconds", "memory"), float | None),
    "settings": Mapping | None,
    "verbose": bool,
}

#: cells to run: all that are not finished, those that failed, those without a record
ONLY = ("all", "failed", "missing")


@dataclass(frozen=True)
class Run:
    """The outcome of `run`.

    store: the folder of the records. failed, skipped: one line per cell with the reason.
    cells: all that belong to the run, also those finished before. outcomes: of those that ran now, by key."""

    store: Path
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    cells: Sequence[Cell] = field(repr=False)
    outcomes: Mapping[str, Outcome] = field(repr=False)

    def results(self) -> pd.DataFrame:
        """Every score of this run's cells, as `results` has those of a whole store."""
        from benchmarks.python_api.results import frame

        return frame(Store.existing(self.store), frozenset(cell.key for cell in self.cells))


def run(
    methods: Names = (),
    tasks: Names = (),
    *,
    profile: str = "quick",
    seeds: int | Sequence[int] | None = None,
    meta_steps: int | None = None,
    episodes: int | None = None,
    seconds: float | None = None,
    shots: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
    plan: str = "",
    device: str = "cpu",
    jobs: int | None = None,
    threads: int | None = None,
    memory: float | None = None,
    only: str = "all",
    executor: str = "local",
    store: str | Path | None = None,
    verbose: bool = False,
) -> Run:
    """Train methods and test them on tasks, each training and each test in a process of its own.

    methods, tasks: names, or paths of your own files; none: those of the profile.
    profile: "smoke", "quick", "standard", "paper" or your own file. It has the budgets, and the methods and
        tasks where none are named.
    seeds: how many training seeds, or which, as in (0, 2, 5).
    meta_steps, episodes, seconds: budget of each training, test episodes, and time limit of each training in seconds.
    shots: further numbers of support examples to test with.
    settings: hyper-parameters, ``{"maml.inner_lr": 0.1}``.
    plan: execution plan of trainings, as in "compiled"; "": a rule decides.
    device: "cpu", "cuda" or "cuda:N".
    jobs, threads, memory: processes at a time, CPU threads of each, and memory limit of each in GB (10^9 bytes).
    only: "all" cells that are not finished, the "failed" or the "missing" ones.
    executor: where cells are computed: "local", "local:gpus=4,per=2", "ray:HOST:PORT" or "slurm:workers=16,...".
    store: the folder of the records; None: that of `metabench run`, ``reports/runs/<profile>``.
    verbose: print what `metabench run` prints.

    Finished cells are never computed again, so an interrupted run resumes with the same call, and a file that has
    changed since the last call is imported again. No ``if __name__ == "__main__":`` is needed. In a notebook, write a
    method to a file (``%%writefile mine.py``), since other processes can't import a cell::

        done = mb.run(methods=["./mine.py", "maml"], tasks=["omniglot/5w1s"], seeds=3, meta_steps=500)
        assert not done.failed, done.failed
        done.results().query("headline").groupby(["method", "regime"], observed=True).score.mean()

    A failing cell doesn't end the run; ``failed`` names it. Raises `MetabenchError` for unknown names, fields and
    values before anything is written."""
    given = dict(locals())
    from benchmarks.run import isolate

    isolate.warm(isolate.SUITE)  # imports while this process imports as well
    from benchmarks.execution import plans
    from benchmarks.python_api import names
    from benchmarks.python_api.view import RunView
    from benchmarks.run import executors, own_files, profiles, schedule
    from benchmarks.run.resolution import Request

    _check_types(given)
    chosen = profiles.override(profiles.load(profile), meta_steps, episodes, seconds)
    for what, number in (("jobs", jobs), ("threads", threads), ("memory", memory)):
        check_budget(what, number)
    place = executors.Place.parse(executor)
    place.check(jobs)
    if place.here:
        schedule.check_threads("threads", threads)
        schedule.check_threads(f"plan {plan!r}: threads", plans.parse(plan).get("threads"))
    machine = schedule.Machine.default(device, place.slots(device) or jobs, memory, threads)
    method_names, task_names, own = names.named(methods, tasks, machine.memory_bytes)
    if not (chosen.blocks or task_names):
        raise MetabenchError(f"profile {chosen.name!r} lists no tasks: name some")
    check_known("value of only", only, ONLY)
    check_budget("shots", list(shots), 1_000)
    plans.check_device(plan, check_device(device, place.here))
    here = device if place.here else "cpu"  # what is described on a login node needs no GPU there
    request = Request(method_names, task_names, names.seeds(seeds), settings or {}, here, tuple(shots), plan)
    found = own_files.resolve_with(own, chosen, request, machine.memory_bytes)
    found = dataclasses.replace(found, request=dataclasses.replace(request, device=device))
    target = places.target(places.store_of(store, profile))
    if sender := os.environ.get("METABENCH_SENDER"):
        sharing.greet(str(target.path), sender)
    needed = executors.Needed(target, machine.jobs, device, machine.threads, memory, given)
    with executors.opened(place, needed) as crew, RunView() if verbose else contextlib.nullcontext() as view:
        watcher = schedule.Watcher(view.line, view.event, view.plan) if view else schedule.Watcher()
        data = schedule.prepare(found, machine, watcher)
        todo = schedule.plan(found, data, target, only)  # type: ignore[arg-type]
        if not (todo.to_run or todo.done):
            raise MetabenchError(f"nothing ran: {'; '.join(todo.skips) or f'no cell is among the {only} ones'}")
        watcher.plan(todo)
        outcomes = schedule.run(todo, target, machine, watcher, crew)
    ended = [(cell, outcomes[cell.key]) for cell in todo.to_run]
    lines = [
        (end.status, f"{cell}: {end.status} ({one_line(end.reason)})") for cell, end in ended if end.status != "ok"
    ]
    lines += [
        ("skipped", f"{cell.label} on {cell.task}: {one_line(cell.skip)}")
        for cell in todo.cells
        if cell.skip is not None
    ]
    return Run(
        target.path,
        failed=tuple(line for status, line in lines if status != "skipped"),
        skipped=tuple(line for status, line in lines if status == "skipped"),
        cells=(*todo.done, *todo.cells),
        outcomes=outcomes,
    )


def _check_types(given: Mapping[str, Any]) -> None:
    """Refuse options of `run` of another type."""
    for name, expected in TYPES.items():
        check_type(name, given[name], expected)
    shots = given["shots"]
    if isinstance(shots, (int, str)) or not all(isinstance(shot, int) for shot in shots):
        raise MetabenchError(f"shots = {shots!r} is no list of whole numbers: write shots=[5]")
