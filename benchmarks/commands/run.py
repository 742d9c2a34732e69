"""``metabench run`` and ``metabench prepare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from benchmarks.commands import options
from benchmarks.commands.options import (
    DeviceOption,
    MethodsOption,
    ProfileOption,
    SettingsOption,
    StoreOption,
    TasksOption,
)

if TYPE_CHECKING:
    from benchmarks.python_api.run import Run
    from benchmarks.records.record import Tested


def run(
    profile: ProfileOption = "quick",
    method: MethodsOption = None,
    task: TasksOption = None,
    seeds: Annotated[str | None, Option(metavar="N", help="How many (3), or which (0,2,5).")] = None,
    meta_steps: Annotated[int | None, Option(metavar="N", help="Budget of each fit. [default: the profile's]")] = None,
    episodes: Annotated[int | None, Option(metavar="N", help="Test episodes. [default: the profile's]")] = None,
    seconds: Annotated[
        float | None, Option(metavar="S", help="Time limit of each training. [default: the profile's]")
    ] = None,
    shots: Annotated[str | None, Option(metavar="N", help="Further test shots, as in 1,5,10.")] = None,
    setting: SettingsOption = None,
    plan: Annotated[
        str, Option(metavar="WORDS", help="Execution plan of fits, as in compiled or eager,tasks=4. [default: a rule]")
    ] = "",
    device: DeviceOption = "cpu",
    jobs: Annotated[int | None, Option(metavar="N", help="Processes at a time. [default: cores / threads]")] = None,
    threads: Annotated[
        int | None,
        Option(metavar="N", help="CPU threads of each process. [default: OMP_NUM_THREADS, else cores / jobs]"),
    ] = None,
    memory: Annotated[
        float | None,
        Option(metavar="GB", help="Memory limit of each process. [default: its share of 80 % of the memory]"),
    ] = None,
    only: Annotated[str, Option(metavar="WHICH", help="all, failed or missing.")] = "all",
    executor: Annotated[
        str, Option(metavar="WHERE", help="local, local:gpus=4,per=2, ray:HOST:PORT or slurm:workers=16,partition=gpu.")
    ] = "local",
    store: StoreOption = None,
    page: Annotated[
        Path | None,
        Option(metavar="FILE", parser=options.output, help="Write the page here every 4 minutes and at the end."),
    ] = None,
) -> None:
    """Train methods and test them on tasks.

    An interrupted run resumes with the same command. Exit code: 0 when every cell finished, 1 when some failed (`show`
    and `report` name them), 2 for a mistake in the command, 130 when it was interrupted."""
    from benchmarks.python_api import run as runs  # first, since it starts the server that imports torch

    # isort: split
    from benchmarks.commands import pages
    from benchmarks.commands.console import screen
    from benchmarks.python_api import places
    from reports import terminal

    with pages.refreshed(page, places.store_of(store, profile)):
        done = runs.run(
            options.names(method),
            options.names(task),
            profile=profile,
            seeds=options.seeds(seeds),
            meta_steps=meta_steps,
            episodes=episodes,
            seconds=seconds,
            shots=options.whole(shots, "--shots"),
            settings=options.settings(setting),
            plan=plan,
            device=device,
            jobs=jobs,
            threads=threads,
            memory=memory,
            only=only,
            executor=executor,
            store=store,
            verbose=True,
        )
    where = options.where([store] if store else None, profile)
    if done.cells:
        try:
            terminal.show(done.store, screen(), where=where)
        except ModuleNotFoundError as missing:  # intervals take scipy, which training does not need
            typer.echo(f"no table of scores: it needs {missing.name}, which is not installed here")
    for line in failed_adaptations(_evaluations(done)):
        typer.echo(line)
    failed = f"; {len(done.failed)} of {len(done.outcomes)} cells failed" if done.failed else ""
    typer.echo(f"records in {options.near(done.store)}{failed}")
    typer.echo(f"next: metabench show{where}, metabench report{where}")
    if done.failed:
        raise typer.Exit(1)


def _evaluations(done: Run) -> list[tuple[str, tuple[Tested, ...]]]:
    """The tests of a run by row."""
    from benchmarks.records.store import Store
    from benchmarks.stats.grouping import grouped

    store = Store(done.store, read_only=True)
    found = (store.get(cell.key) for cell in done.cells if cell.kind == "evaluation" and cell.skip is None)
    return grouped(filter(None, found))


def failed_adaptations(found: Sequence[tuple[str, Sequence[Tested]]]) -> Iterator[str]:
    """A line per row whose adaptations failed, with a smaller inner rate to try where the method has one."""
    from benchmarks.stats.grouping import protocol_of
    from reports.words import percent

    for name, tests in found:
        failed = sum((row.failed or 0) if (row := one.test.at(one.test.headline_step)) else 0 for one in tests)
        if not failed:
            continue
        method, episodes = tests[0].method, sum(one.conditions.episodes for one in tests)
        rate = next((rate for field in ("test_lr", "inner_lr") if (rate := method.fields.get(field))), None)
        advice = f": try --set {method.name}.inner_lr={rate / 10:g}" if isinstance(rate, float) else ""
        test = protocol_of(tests[0]).title
        yield f"{percent(failed / episodes)} of the adaptations of {name} failed on {test}{advice}"


def prepare(task: TasksOption = None, setting: SettingsOption = None) -> None:
    """Find, download and decode the data of tasks; by default of all of them."""
    from benchmarks import registry
    from benchmarks.errors import Unavailable
    from benchmarks.python_api.names import imported

    names = imported([], options.names(task))[1] or [*registry.tasks()]
    fields = options.of_tasks(options.settings(setting), names)
    for name in names:
        try:
            prepare_one(name, fields.get(name, {}))
        except Unavailable as reason:
            if task:
                raise
            typer.echo(f"{name}: {reason}")
        else:
            typer.echo(f"{name}: ready")


def prepare_one(name: str, fields: Mapping[str, Any] = {}) -> None:
    """Prepare the data of a task with these field values, with a line for each step."""
    from benchmarks import registry

    registry.build_task(name, **fields).prepare(lambda line: typer.echo(f"{name}: {line}"))
