"""``metabench run`` and ``metabench prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands import options
from benchmarks.commands.options import MethodsOption, ProfileOption, StoreOption, TasksOption
from benchmarks.errors import MetabenchError

#: cells to run: all that are not finished, those that failed, those without a record
ONLY = ("all", "failed", "missing")


def run(
    profile: ProfileOption = "quick",
    method: MethodsOption = None,
    task: TasksOption = None,
    seeds: Annotated[str | None, typer.Option(metavar="N", help="How many (3), or which (0,2,5).")] = None,
    meta_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Training budget of each fit. [default: the profile's]")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(metavar="N", help="Test episodes of each evaluation. [default: the profile's]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Time limit of each training. [default: the profile's]")
    ] = None,
    shots: Annotated[str | None, typer.Option(metavar="N", help="Further test shots, as in 1,5,10.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.FIELD=VALUE", help="A hyper-parameter, as in maml.inner_lr=0.1."),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            metavar="WORDS", help="Execution plan of fits, as in compiled or eager,tasks=4. [default: a rule]"
        ),
    ] = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")] = "cpu",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Processes at a time. [default: cores / threads]", min=1)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="CPU threads of each process. [default: OMP_NUM_THREADS, else cores / jobs]", min=1
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Memory limit of each process. [default: its share of 80 % of the memory]"),
    ] = None,
    only: Annotated[str, typer.Option(metavar="WHICH", help="all, failed or missing.")] = "all",
    store: StoreOption = None,
) -> None:
    """Train methods and test them on tasks.

    An interrupted run resumes with the same command. Exit code: 0 when every cell finished, 1 when some failed (`show`
    and `report` name them), 2 for a mistake in the command, 130 when it was interrupted."""
    from benchmarks.run import isolate

    isolate.warm((*isolate.PRELOAD, "benchmarks.run.warm_imports"))  # imports while this process imports as well
    from benchmarks import registry
    from benchmarks.commands import console
    from benchmarks.execution import plans
    from benchmarks.records.store import Store
    from benchmarks.run import profiles, schedule
    from benchmarks.run.cells import Request, resolve

    chosen = profiles.override(profiles.load(profile), meta_steps, episodes, seconds)
    methods, tasks, plugins = _plugins(options.names(method), options.names(task))
    if not (chosen.blocks or tasks):
        raise MetabenchError(f"profile {chosen.name!r} lists no tasks: name some with -t")
    if only not in ONLY:
        raise registry.unknown("value of --only", only, ONLY)
    request = Request(
        methods,
        tasks,
        options.seeds(seeds),
        options.settings(setting),
        options.device(device),
        options.whole(shots, "--shots", 1, 1_000),
        plan=plan,
    )
    plans.check_device(plan, request.device)
    found = resolve(chosen, request)
    files = Store(options.store_of(store, profile))
    machine = schedule.Machine.default(device, jobs, options.above_zero(memory, "--memory"), threads)

    try:
        with console.RunView(console.plain()) as view:
            watcher = schedule.Watcher(view.line, view.event)
            data = schedule.prepare(found, machine, plugins, watcher)
            todo = schedule.plan(found, data, files, only)  # type: ignore[arg-type]
            view.plan(todo)
            outcomes = schedule.run(todo, files, machine, plugins, watcher)
    except KeyboardInterrupt:
        typer.echo("interrupted: run the same command again to resume", err=True)
        raise typer.Exit(130) from None
    failed = [outcome for outcome in outcomes.values() if outcome.status not in ("ok", "skipped")]
    console.scores(files, todo.cells)
    _next(files.path, profile, store, len(failed), len(outcomes))
    if failed:
        raise typer.Exit(1)


def _next(path: Path, profile: str, store: Path | None, failed: int, total: int) -> None:
    """Say where the records are, and the command that shows them."""
    typer.echo(f"records in {options.near(path)}" + (f"; {failed} of {total} cells failed" if failed else ""))
    where = f" --store {store}" if store else "" if profile == "quick" else f" --profile {profile}"
    typer.echo(f"next: metabench show{where}, metabench report{where}")


def prepare(task: TasksOption = None) -> None:
    """Find, download and decode the data of tasks; by default of all of them."""
    from benchmarks import registry
    from benchmarks.errors import Unavailable

    _, tasks, _ = _plugins([], options.names(task))
    for name in tasks or registry.tasks():
        built = registry.build_task(name)
        try:
            built.prepare(lambda line, name=name: typer.echo(f"{name}: {line}"))  # type: ignore[misc]
        except Unavailable as reason:
            if task:
                raise
            typer.echo(f"{name}: {reason}")
        else:
            typer.echo(f"{name}: ready")


def _plugins(methods: list[str], tasks: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Names of methods and tasks, where a file stands for those that it registers, and the paths of these files."""
    from benchmarks import registry

    files = [name for name in (*methods, *tasks) if name.endswith(".py")]
    registry.discover(files)

    def names(given: list[str], table: dict[str, registry.Entry], kind: str) -> list[str]:
        found = []
        for name in given:
            path = Path(name).resolve() if name.endswith(".py") else None
            own = [entry.name for entry in table.values() if path and entry.path == path]
            if path and not own and path not in registry.other_files:
                raise MetabenchError(f"{name} registers no {kind}")
            found += own or ([] if path else [name])
        return found

    own_tasks = names(tasks, registry.tasks(), "task")
    return names(methods, registry.methods(), "method"), own_tasks, [str(Path(name).resolve()) for name in files]
