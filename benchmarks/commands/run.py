"""``metabench run`` and ``metabench prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands import options
from benchmarks.commands.options import MethodsOption, ProfileOption, StoreOption, TasksOption


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
    from benchmarks.python_api import run as runs  # first, since it starts the server that imports torch

    try:
        done = runs.run(
            options.names(method),
            options.names(task),
            profile=profile,
            seeds=options.seeds(seeds) or None,
            meta_steps=meta_steps,
            episodes=episodes,
            seconds=seconds,
            shots=options.whole(shots, "--shots", 1, 1_000),
            settings=options.settings(setting),
            plan=plan,
            device=device,
            jobs=jobs,
            threads=threads,
            memory=options.above_zero(memory, "--memory"),
            only=only,
            store=store,
            verbose=True,
        )
    except KeyboardInterrupt:
        typer.echo("interrupted: run the same command again to resume", err=True)
        raise typer.Exit(130) from None
    from benchmarks.commands import console
    from benchmarks.records.store import Store

    console.scores(Store(done.store), done.cells)
    _next(done.store, profile, store, len(done.failed), len(done.outcomes))
    if done.failed:
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
    from benchmarks.python_api.names import named

    tasks = named([], options.names(task))[1]
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
