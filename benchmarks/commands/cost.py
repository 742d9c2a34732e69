"""``metabench cost``: its options, the measurement that they ask for, and its table."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from typer import Option

from benchmarks.commands.options import DeviceOption, StoreOption


def cost(
    profile: Annotated[
        str, Option("--profile", "-p", metavar="NAME", help="smoke, quick, standard, learners or full.")
    ] = "quick",
    backbone: Annotated[
        list[str] | None, Option("-b", "--backbone", metavar="NAME", help="A network, as in mlp-40-40.")
    ] = None,
    implementation: Annotated[
        list[str] | None,
        Option("-i", "--implementation", metavar="NAME", help="ours, ours/PLAN, loop, learn2learn, jax ..."),
    ] = None,
    plan: Annotated[
        str | None, Option(metavar="NAME", help="Force a plan of our own engine: rule, eager, compiled, one ...")
    ] = None,
    order: Annotated[list[str] | None, Option(metavar="ORDER", help="second or first.")] = None,
    inner_steps: Annotated[list[int] | None, Option(metavar="N", min=1, help="Gradient steps.")] = None,
    meta_batch: Annotated[list[int] | None, Option(metavar="N", min=1, help="Tasks per meta-step.")] = None,
    work: Annotated[
        str | None, Option(metavar="NAME", help="meta-step (training), evaluation or learners. [default: all]")
    ] = None,
    learner: Annotated[
        list[str] | None, Option(metavar="NAME", help="Of work learners, as in anil; maml is both orders.")
    ] = None,
    device: DeviceOption = "cpu",
    memory: Annotated[
        float | None, Option(metavar="GB", help="Limit of each process. [default: 80 % of the machine's]")
    ] = None,
    seconds: Annotated[float | None, Option(metavar="S", min=1, help="Time limit; the same command resumes.")] = None,
    again: Annotated[bool, Option("--again", help="Measure settings that have a record, too.")] = False,
    store: StoreOption = None,
) -> None:
    """Measure second order against first: time, memory and operations of all implementations, interleaved.

    A setting that has a record is not measured again. A repeated option (--inner-steps 1 --inner-steps 5) replaces the
    profile's list."""
    from benchmarks.cost import PRELOAD
    from benchmarks.run import isolate

    isolate.warm(PRELOAD)  # imports there while this process imports
    from benchmarks.checks import check_budget, check_device
    from benchmarks.commands.console import screen
    from benchmarks.cost import grid, sweep
    from benchmarks.python_api import places
    from benchmarks.run.schedule import Machine
    from reports.cost import terminal

    check_budget("memory", memory)
    asked = grid.Choice(
        backbone or (),
        inner_steps or (),
        meta_batch or (),
        order or (),
        implementation or (),
        plan,
        work,
        learner or (),
    )
    settings = grid.settings(profile, asked)
    limit = Machine.default(check_device(device), 1, memory).memory_bytes
    files, began = places.target(store or places.home() / "runs" / profile), time.monotonic()
    records = sweep.run(settings, files, profile, device, typer.echo, limit, seconds, again)
    in_time = seconds is None or time.monotonic() - began < seconds
    if asked == grid.Choice() and device == "cpu" and in_time and grid.throughput(profile):
        records += sweep.throughputs(files, profile, typer.echo, again=again)
    terminal.show(records, screen(160))
