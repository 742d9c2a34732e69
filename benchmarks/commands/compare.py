"""``metabench compare``, ``metabench power`` and ``metabench episodes``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from benchmarks.checks import check_output
from benchmarks.commands import options
from benchmarks.commands.options import MethodsOption, ProfileOption, SettingsOption, StoreOption
from benchmarks.errors import MetabenchError
from benchmarks.python_api.places import store_of
from benchmarks.records import formats

if TYPE_CHECKING:
    import pandas as pd

#: the longest list of test episodes; for Omniglot 5-way 1-shot that many take minutes
MOST_EPISODES = 100_000

#: a heading, the name of a row, its texts by title, and a note
Line = tuple[str, str, dict[str, str], str]

TableOption = Annotated[Path | None, options.table_option("Write the whole table, .csv or .parquet.")]


def compare(
    first: Annotated[
        str, Argument(metavar="FIRST", help="A store, a commit, a method, or a parquet file with your scores.")
    ],
    second: Annotated[
        str | None, Argument(metavar="[SECOND]", help="Another of the same kind; left out for a parquet file.")
    ] = None,
    profile: ProfileOption = "quick",
    store: StoreOption = None,
    output: TableOption = None,
) -> None:
    """Compare two stores, commits or methods on the same test episodes; or your own scores with ours.

    All pairs of a test are one family: intervals are adjusted, and verdicts are those of Holm's test."""
    from benchmarks.compare import stores

    where = store_of(store, profile)
    frame = stores.compare_foreign(Path(first), where) if second is None else stores.compare(first, second, where)
    lines = frame.to_dict("records")
    shown = [
        (
            line["test"],
            f"{line['first']} - {line['second']}",
            {"first is better by": _advantage(line), "verdict": line["verdict"], "about": line.get("scope") or ""},
            line["note"],
        )
        for line in lines
        if isinstance(line["second"], str)
    ]
    _show("The first against the second, at this budget", shown, frame, output)
    for text in _alone(lines):
        typer.echo(text)


def power(
    delta: Annotated[
        float,
        Option(
            metavar="SIZE",
            help="The difference: points of accuracy, percent of the mean squared error, or units of the return.",
        ),
    ],
    method: MethodsOption = None,
    everything: Annotated[bool, Option("--all", help="Every pair of methods, not a line per test.")] = False,
    profile: ProfileOption = "quick",
    store: StoreOption = None,
    output: TableOption = None,
) -> None:
    """The power to find a difference, and the episodes or seeds that a power of 80 % needs.

    Computed from the variances of seed, class, episode and query in the records, for a test of one pair at 5 %."""
    from benchmarks.compare import stores

    named = options.names(method)
    frame = stores.power_table(store_of(store, profile), delta, named)
    whole, lines = bool(named) or everything, frame.to_dict("records")
    shown = [
        (
            f"{line['test']}: {_difference(line, delta)}",
            f"{line['first']} - {line['second']}",
            {
                "about": line["scope"],
                "seeds": str(line["seeds"]),
                "episodes": str(line["episodes"]),
                "power": f"{line['power']:.0%}",
                "episodes needed": _count(line["episodes_needed"]),
                "seeds needed": _count(line["seeds_needed"]),
            },
            "",
        )
        for line in lines
    ]
    title = "Power to find a difference, and what a power of 80 % needs"
    _show(title, shown if whole else _by_test(frame, delta), frame, output)
    if not whole:
        typer.echo("Every pair: --all, or -m with two methods.")


def _difference(line: Mapping[str, Any], delta: float) -> str:
    """With its unit: ``0.5 points of accuracy``."""
    many = "" if delta == 1 else "s"
    units = {"accuracy": f"point{many} of accuracy", "squared error": "% of the error"}
    return f"{delta:g} {units.get(line['metric'], f'unit{many} of ' + line['metric'])}"


def _by_test(frame: pd.DataFrame, delta: float) -> list[Line]:
    """A line per test and kind of difference, over all pairs of its methods: the median."""
    from benchmarks.stats.power import ENOUGH

    found = []
    for (test, scope), group in frame.groupby(["test", "scope"], sort=False):
        texts = {
            "about": scope,
            "pairs": str(len(group)),
            "median power": f"{group['power'].median():.0%}",
            f"pairs above {100 * ENOUGH:.0f} %": str(int((group["power"] >= ENOUGH).sum())),
            "episodes needed": _count(group["episodes_needed"].astype(float).fillna(math.inf).median()),
        }
        found.append(("", f"{test}: {_difference(group.iloc[0].to_dict(), delta)}", texts, ""))
    return found


def episodes(
    task: Annotated[str, Argument(metavar="TASK", help="A task with its variant, as in omniglot-v1/5w1s.")],
    count: Annotated[int, Option("-n", "--episodes", metavar="N", help="How many, from the first on.")] = 600,
    shots: Annotated[int | None, Option(metavar="N", help="Test shots. [default: the task's]")] = None,
    setting: SettingsOption = None,
    output: Annotated[Path | None, options.table_option("A .parquet or .csv file. [default: TASK-N.parquet]")] = None,
) -> None:
    """Export the frozen test episodes of a task with their digest, to score them with any other method.

    The file goes into the current folder unless --output names another."""
    from benchmarks.compare import episode_lists

    if count > MOST_EPISODES:
        raise MetabenchError(f"--episodes {count}: {MOST_EPISODES:,} is the most")
    path = output or Path(f"{task.replace('/', '-')}-{count}.parquet")
    check_output(path)
    fields = options.of_tasks(options.settings(setting), [task])
    frame = episode_lists.export_episodes(task, count, shots, fields.get(task))
    formats.write_table(path, [frame])
    typer.echo(f"wrote {path.absolute()}: {count:,} episodes, digest {frame['episodes_digest'].iloc[0]}")


def _alone(lines: list[dict[str, Any]]) -> Iterator[str]:
    """``only in mine: maml, fomaml (sinusoid-v1/k10, 10-shot)``: rows of one side only, by test."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if not isinstance(line["second"], str):
            found.setdefault((line["note"], line["test"]), []).append(line["first"])
    for (note, test), names in sorted(found.items()):
        yield f"{note}: {', '.join(names)} ({test})"


def _advantage(line: dict[str, Any]) -> str:
    """The advantage of the first in the unit of the scale: points of accuracy, or a factor of mean errors; none where a
    few episodes carry a mean."""
    if line.get("verdict") == "unstable":
        return ""
    values = [math.nan if line.get(name) is None else line[name] for name in ("advantage", "low", "high")]
    if line.get("scale") == "log ratio":
        size, *interval = (f"{math.exp(value):.3f}" for value in values)
        text = f"factor {size}"
    else:
        accuracy = line["metric"] == "accuracy"
        size, *interval = (f"{100 * value if accuracy else value:+.2f}" for value in values)
        text = f"{size} points" if accuracy else size
    if math.isnan(values[1]):  # one shared episode gives no interval
        return "" if math.isnan(values[0]) else text
    return f"{text} [{', '.join(interval)}]"


def _count(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return "none suffices" if math.isinf(value) else f"{value:,.0f}"


def _show(title: str, lines: Sequence[Line], frame: pd.DataFrame, output: Path | None) -> None:
    """Print a table per heading, and notes below it, and write the whole frame to a file if one is named."""
    from rich.text import Text

    from benchmarks.commands.console import screen
    from reports import columns

    if output is not None:
        formats.write_table(output, [frame])
    console = screen(160)
    console.print(Text(title, style="bold"), "")
    for heading, group in itertools.groupby(lines, key=lambda line: line[0]):
        members = list(group)
        if heading:
            console.print(Text(heading, style="bold"))
        for table in columns.tables("", [(name, texts) for _, name, texts, _ in members], console.width):
            console.print(table)
        for _, name, _, note in members:
            if note:
                console.print(Text(f"{f'{name}: ' if len(members) > 1 else ''}{note}", style="dim"))
        if heading:
            console.print()
    if output is not None:
        typer.echo(f"wrote {output}")
