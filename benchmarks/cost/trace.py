"""Where the time of one step goes: a trace for Perfetto or chrome://tracing, and a summary of its operators.

    python -m benchmarks.cost.trace trace.json --backbone conv4-64-strided --implementation ours/rule

The step and its warm-up are those of `metabench cost`. torch's profiler slows it down, so compare these times with each
other and with nothing else.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

#: rows of the summary
OPERATORS = 8
#: steps before the traced ones, and traced steps, of which the shortest counts: a disturbance only makes steps longer
WARM_UP, TRACED = 4, 10


def main(
    output: Annotated[Path, typer.Argument(help="The trace, JSON; a name that ends in .gz is compressed.")],
    backbone: Annotated[str, typer.Option("-b", "--backbone", metavar="NAME")] = "conv4-64-strided",
    implementation: Annotated[str, typer.Option("-i", "--implementation", metavar="NAME")] = "ours/rule",
    order: Annotated[str, typer.Option(metavar="WHICH", help="second or first.")] = "second",
    inner_steps: Annotated[int, typer.Option(metavar="N", min=1)] = 1,
    meta_batch: Annotated[int, typer.Option(metavar="N", min=1)] = 4,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Trace one meta-step of an implementation and print the operators that take most of its time."""
    import torch

    from benchmarks.cost import grid
    from benchmarks.cost.measurement import Measurement, limit_threads
    from benchmarks.cost.workloads import WORKLOADS
    from benchmarks.errors import MetabenchError

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MetabenchError(f"device {device!r} is missing: torch {torch.__version__} finds no CUDA device")
    choice = grid.Choice([backbone], [inner_steps], [meta_batch], [order], [implementation])
    (setting,) = grid.settings("full", choice)
    if len(setting.variants) > 1:
        typer.echo(f"tracing {setting.variants[0]}, the first plan of {implementation}")
    limit_threads(WORKLOADS[backbone].threads)
    measurement = Measurement(setting, WORKLOADS[backbone], device, lambda line: None)
    (entry, *_) = measurement.entries
    for stage in (measurement.importing, measurement.warming_up):
        measurement.each("preparing", stage, [entry] if entry.running else [])
    if not entry.running:
        raise MetabenchError(f"{entry.variant}: {entry.row['reason']}")
    typer.echo(f"{setting}: {entry.variant} on {device}")
    typer.echo(summary(entry.step, output, device))
    typer.echo(f"wrote {output}")


def summary(step: Any, output: Path, device: str) -> str:
    """Trace steps and write the shortest one to a file. Returns the operators with most time of their own as a Markdown
    table; time in no operator is Python, autograd and waiting."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.clock import Clock

    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    for _ in range(WARM_UP):
        step()
    total, profiler = math.inf, None
    for _ in range(TRACED):
        clock = Clock(device)
        with profile(activities=activities, record_shapes=True) as each, clock:
            step()
        if clock.total < total:
            total, profiler = clock.total, each
    assert profiler is not None
    output.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(output))
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    averages = profiler.key_averages()
    # on a GPU an operator's own time is that of its kernels, which are events of their own
    events = [event for event in averages if not cuda or event.device_type == DeviceType.CUDA]
    rows = [(event.key, event.count, getattr(event, own) / 1e3) for event in events if getattr(event, own)]
    return table(rows, None if cuda else 1e3 * total)


def table(rows: list[tuple[str, int, float]], total: float | None) -> str:
    """A Markdown table of operators, calls and milliseconds of their own: the longest first, the others in one row.

    total: milliseconds of the step, for a row of the time in no operator; None: no such row."""
    rows = sorted(rows, key=lambda row: -row[2])
    shown, rest = rows[:OPERATORS], rows[OPERATORS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(row[1] for row in rest), sum(row[2] for row in rest)))
    inside = sum(row[2] for row in rows)
    if total is not None:
        shown.append(("in no operator", 0, total - inside))
    shown.append(("all", sum(row[1] for row in rows), inside if total is None else total))
    lines = [f"| {name} | {calls or ''} | {milliseconds:.2f} |" for name, calls, milliseconds in shown]
    return "\n".join(["| operator | calls | ms |", "| --- | ---: | ---: |", *lines])


if __name__ == "__main__":
    from benchmarks.errors import MetabenchError

    try:
        typer.run(main)
    except MetabenchError as error:
        sys.exit(f"metabench: {error}")
