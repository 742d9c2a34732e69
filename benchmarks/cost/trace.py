"""Where the time of one step goes: a trace for Perfetto or chrome://tracing, and a summary of its operators.

    python -m benchmarks.cost.trace trace.json --backbone conv4-64-strided --implementation ours/rule

The work is that of a setting of `metabench cost`, after the same warm-up; torch's profiler slows it down, so times here
are for comparison with each other and never for a table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

#: rows of the summary
OPERATORS = 20
#: steps before the one that is traced
WARM_UP = 4


def main(
    output: Annotated[Path, typer.Argument(help="The trace, JSON; a name that ends in .gz is compressed.")],
    backbone: Annotated[str, typer.Option("-b", "--backbone", metavar="NAME")] = "conv4-64-strided",
    implementation: Annotated[str, typer.Option("-i", "--implementation", metavar="NAME")] = "ours/rule",
    order: Annotated[str, typer.Option(metavar="WHICH", help="second or first.")] = "second",
    inner_steps: Annotated[int, typer.Option(metavar="N", min=1)] = 1,
    meta_batch: Annotated[int, typer.Option(metavar="N", min=1)] = 4,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Trace one meta-step of an implementation and print the operators that it spends most time in."""
    import torch

    from benchmarks.cost import grid
    from benchmarks.cost.measurement import Contest, limit_threads
    from benchmarks.errors import MetabenchError
    from benchmarks.workloads import WORKLOADS

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MetabenchError(f"device {device!r} is not here: torch {torch.__version__} finds no CUDA device")
    choice = grid.Choice([backbone], [inner_steps], [meta_batch], [order], [implementation])
    (setting,) = grid.settings("full", choice)
    if len(setting.variants) > 1:
        typer.echo(f"tracing {setting.variants[0]}, the first plan of {implementation}")
    limit_threads(WORKLOADS[backbone].threads)
    contest = Contest(setting, WORKLOADS[backbone], device, lambda line: None)
    contest.contestants = contest.contestants[:1]
    contest.enter()
    contest.warm_up()
    (only,) = contest.contestants
    if only.step is None:
        raise MetabenchError(f"{only.variant}: {only.row['reason']}")
    typer.echo(f"{setting}: {only.variant} on {device}")
    typer.echo(summary(only.step, output, device))
    typer.echo(f"wrote {output}")


def summary(step: Any, output: Path, device: str) -> str:
    """Trace one step into a file; the operators with most time of their own, as a table."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    for _ in range(WARM_UP):
        step()
    with profile(activities=activities, record_shapes=True) as profiler:
        step()
        if cuda:
            torch.cuda.synchronize(device)
    output.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(output))
    by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=by, row_limit=OPERATORS, max_name_column_width=40))


if __name__ == "__main__":
    from benchmarks.errors import MetabenchError

    try:
        typer.run(main)
    except MetabenchError as error:
        sys.exit(f"metabench: {error}")
