"""``metabench compare``, ``metabench power`` and ``metabench episodes``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands import options
from benchmarks.commands.options import MethodsOption, ProfileOption, StoreOption, store_of
from benchmarks.errors import MetabenchError

if TYPE_CHECKING:
    import pandas as pd

#: of a list of test episodes; one of Omniglot 5-way 1-shot with so many takes minutes
MOST_EPISODES = 100_000

FileOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", parser=options.folder, help="Write the whole table as CSV, for programs."
    ),
]


def compare(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="A store, a commit, a method, or a parquet file with your scores.")
    ],
    second: Annotated[
        str | None, typer.Argument(metavar="[SECOND]", help="Another of the same kind; left out for a parquet file.")
    ] = None,
    profile: ProfileOption = "quick",
    store: StoreOption = None,
    output: FileOption = None,
) -> None:
    """Compare two stores, commits or methods on the same test episodes; or your own scores with ours.

    All pairs of a test are one family: intervals are adjusted, and verdicts are those of Holm's test."""
    from benchmarks.compare import stores

    where = store_of(store, profile)
    theirs = second is None
    frame = stores.compare_foreign(Path(first), where) if theirs else stores.compare(first, str(second), where)
    shown = [
        {
            "test": _test(line),
            "first": line["first"],
            "second": line.get("second"),
            "first is better by": _advantage(line),
            "verdict": line["verdict"],
            "about": line.get("scope"),
            "note": line.get("note"),
        }
        for line in frame.to_dict("records")
        if isinstance(line.get("second"), str)
    ]
    _show(shown, "The first against the second, at this budget", frame, output)
    for text in _alone(frame.to_dict("records")):
        typer.echo(text)


def power(
    delta: Annotated[
        float,
        typer.Option(
            metavar="SIZE",
            help="The difference: points of accuracy, percent of the mean squared error, or units of the return.",
        ),
    ],
    method: MethodsOption = None,
    profile: ProfileOption = "quick",
    store: StoreOption = None,
    output: FileOption = None,
) -> None:
    """The power to find a difference, and the episodes or seeds that a power of 80 % needs.

    Computed from the variances of seed, class, episode and query in the records, for a test of one pair at 5 %."""
    from benchmarks.compare import stores

    frame = stores.power_table(store_of(store, profile), _checked(delta), options.names(method))
    shown = [
        {
            "test": _test(line),
            "pair": f"{line['first']} - {line['second']}",
            "about": line["scope"],
            "difference": _difference(delta, line),
            "seeds": line["seeds"],
            "episodes": line["episodes"],
            "power": f"{line['power']:.0%}",
            "episodes needed": _count(line["episodes_needed"]),
            "seeds needed": _count(line["seeds_needed"]),
        }
        for line in frame.to_dict("records")
    ]
    _show(shown, "Power to find a difference", frame, output)


def episodes(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task with its variant, as in omniglot-v1/5w1s.")],
    count: Annotated[int, typer.Option("-n", "--episodes", metavar="N", help="How many, from the first on.")] = 600,
    shots: Annotated[int | None, typer.Option(metavar="N", help="Test shots. [default: the task's]")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", parser=options.folder, help="A parquet file. [default: TASK-N.parquet]"
        ),
    ] = None,
) -> None:
    """Export the frozen test episodes of a task with their digest, to score them with any other method.

    The file goes into the current folder unless --output names another."""
    from benchmarks.compare import stores

    if count > MOST_EPISODES:
        raise MetabenchError(f"--episodes {count}: {MOST_EPISODES:,} is the most")
    frame = stores.export_episodes(task, count, shots)
    path = output or Path(f"{task.replace('/', '-')}-{count}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    typer.echo(f"wrote {path.absolute()}: {count:,} episodes, digest {frame['episodes_digest'].iloc[0]}")


def _test(line: dict[str, Any]) -> str:
    regime = "" if line["batch_norm"] == "none" else f", batch-norm {line['batch_norm']}"
    last = ", last checkpoint" if line["model"] == "last" else ""
    return f"{line['task']}, {line['shots']}-shot{regime}{last}"


def _alone(lines: list[dict[str, Any]]) -> list[str]:
    """``only in mine: maml, fomaml (sinusoid-v1/k10, 10-shot)``: rows of one side only, by test."""
    places: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if not isinstance(line.get("second"), str):
            places.setdefault((str(line["note"]), _test(line)), []).append(str(line["first"]))
    return [f"{note}: {', '.join(names)} ({test})" for (note, test), names in sorted(places.items())]


def _advantage(line: dict[str, Any]) -> str:
    """The advantage of the first in the unit of the scale: points of accuracy, or a factor of mean errors."""
    values = [line.get(name) for name in ("advantage", "low", "high")]
    if values[0] is None or math.isnan(values[0]):
        return ""
    known = values[1] is not None and not math.isnan(values[1])  # one shared episode gives no interval
    if line["scale"] == "log ratio":
        size, low, high = (f"{math.exp(value):.3f}" for value in values if value is not None)
        return f"factor {size}" + (f" [{low}, {high}]" if known else "")
    factor, unit = (100, " points") if line["metric"] == "accuracy" else (1, "")
    size, low, high = (f"{factor * value:+.2f}" for value in values if value is not None)
    return f"{size}{unit}" + (f" [{low}, {high}]" if known else "")


def _checked(delta: float) -> float:
    """The difference; raises `MetabenchError` unless it is a finite number above 0."""
    options.above_zero(delta, "--delta")
    return delta


def _difference(delta: float, line: dict[str, Any]) -> str:
    """The difference in its unit, which depends on the test: points of accuracy, percent of an error, or return."""
    if line["scale"] == "log ratio":
        return f"{delta:g} % of the error"
    return f"{delta:g} points" if not math.isclose(delta, line["delta"]) else f"{delta:g}"


def _count(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:,.0f}"


def _show(lines: list[dict[str, Any]], title: str, frame: pd.DataFrame, output: Path | None) -> None:
    """Print the lines as a table without its empty columns, and write the whole frame to a file if one is named."""
    from rich.table import Table
    from rich.text import Text

    from benchmarks.commands import console

    if output is not None:
        frame.to_csv(output, index=False)
    table = Table(title=title, title_justify="left", header_style="dim")
    texts = [{name: "" if value is None or value != value else str(value) for name, value in l.items()} for l in lines]
    names = [name for name in texts[0] if any(text[name] for text in texts)]
    for name in names:
        table.add_column(name, overflow="fold")
    for text in texts:
        table.add_row(*(Text(text[name]) for name in names))
    console.plain().print(table)
    if output is not None:
        typer.echo(f"wrote {output}")
