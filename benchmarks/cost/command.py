"""``metabench cost``: its options, and what they ask for. The command line adds the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

RUNS = Path(__file__).parents[2] / "reports" / "runs"


def cost(
    profile: Annotated[
        str, typer.Option("--profile", "-p", metavar="NAME", help="smoke, quick or standard.")
    ] = "quick",
    backbone: Annotated[
        list[str] | None, typer.Option("-b", "--backbone", metavar="NAME", help="A network, as in mlp-40-40.")
    ] = None,
    implementation: Annotated[
        list[str] | None,
        typer.Option("-i", "--implementation", metavar="NAME", help="ours, ours/PLAN, loop, learn2learn, jax ..."),
    ] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="NAME", help="Force a plan of our own engine: rule, all or one.")
    ] = None,
    order: Annotated[list[str] | None, typer.Option(metavar="WHICH", help="second or first.")] = None,
    inner_steps: Annotated[list[int] | None, typer.Option(metavar="N", min=1, help="Gradient steps.")] = None,
    meta_batch: Annotated[list[int] | None, typer.Option(metavar="N", min=1, help="Tasks per meta-step.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")] = "cpu",
    memory: Annotated[
        float | None, typer.Option(metavar="GB", min=0.1, help="Limit of each process; default: 80 % of the machine's.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the records are; default: reports/runs/<profile>.")
    ] = None,
) -> list[dict[str, Any]]:
    """What second order costs against first: time, memory and operations, all implementations interleaved.

    A setting that has a record is not measured again. An option that can be given more than once, as in
    --inner-steps 1 --inner-steps 5, replaces the profile's list."""
    from benchmarks import isolate
    from benchmarks.cost import grid, sweep
    from benchmarks.schedule import Machine
    from benchmarks.store import Store

    asked = grid.Choice(backbone or (), inner_steps or (), meta_batch or (), order or (), implementation or (), plan)
    settings = grid.settings(profile, asked)
    isolate.warm(sweep.PRELOAD)
    limit = Machine.default(device, 1, memory).memory_bytes
    return sweep.run(settings, Store(store or RUNS / profile), profile, device, typer.echo, limit)
