"""``metabench cost``: its options, and the measurement that they ask for. The command line prints the table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.commands import options


def cost(
    profile: Annotated[
        str, typer.Option("--profile", "-p", metavar="NAME", help="smoke, quick, standard or full.")
    ] = "quick",
    backbone: Annotated[
        list[str] | None, typer.Option("-b", "--backbone", metavar="NAME", help="A network, as in mlp-40-40.")
    ] = None,
    implementation: Annotated[
        list[str] | None,
        typer.Option("-i", "--implementation", metavar="NAME", help="ours, ours/PLAN, loop, learn2learn, jax ..."),
    ] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="NAME", help="Force a plan of our own engine: rule, eager, compiled, one ...")
    ] = None,
    order: Annotated[list[str] | None, typer.Option(metavar="ORDER", help="second or first.")] = None,
    inner_steps: Annotated[list[int] | None, typer.Option(metavar="N", min=1, help="Gradient steps.")] = None,
    meta_batch: Annotated[list[int] | None, typer.Option(metavar="N", min=1, help="Tasks per meta-step.")] = None,
    work: Annotated[
        str | None, typer.Option(metavar="NAME", help="meta-step (training) or evaluation; default: both.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")] = "cpu",
    memory: Annotated[
        float | None, typer.Option(metavar="GB", min=0.1, help="Limit of each process; default: 80 % of the machine's.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=1, help="Time limit; the same command resumes."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure settings that have a record, too.")] = False,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the records are; default: reports/runs/<profile>.")
    ] = None,
) -> list[Any]:
    """Measure second order against first: time, memory and operations of all implementations, interleaved.

    A setting that has a record is not measured again. A repeated option (--inner-steps 1 --inner-steps 5) replaces the
    profile's list."""
    from benchmarks.cost import PRELOAD
    from benchmarks.run import isolate

    isolate.warm(PRELOAD)  # imports there while this process imports
    from benchmarks.cost import grid, sweep
    from benchmarks.records.store import Store
    from benchmarks.run.schedule import Machine

    asked = grid.Choice(
        backbone or (), inner_steps or (), meta_batch or (), order or (), implementation or (), plan, work
    )
    settings = grid.settings(profile, asked)
    limit = Machine.default(device, 1, memory).memory_bytes
    files, began = Store(store or options.default_store(profile)), time.monotonic()
    records = sweep.run(settings, files, profile, device, typer.echo, limit, seconds, again)
    in_time = seconds is None or time.monotonic() - began < seconds
    if asked == grid.Choice() and device == "cpu" and in_time and grid.environments(profile):
        records += sweep.environments(files, profile, typer.echo, again=again)
    return records
