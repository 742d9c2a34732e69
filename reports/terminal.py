"""The first screen and the main table in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import style, words
from reports.page import answers
from reports.results import Results, load
from reports.scores import findings, layout, tables

#: details shown beside the scores; the page and `main_table` have all of them
SHOWN = ("rank", "groups", "seeds", "of published", "training")

#: columns of a terminal from which details are shown
WIDE = 100

COLOURS = ("blue", "red", "green", "magenta", "yellow", "bright_black", "cyan", "bright_blue")


def show(store_path: Path | str | Iterable[Path | str], console: Console) -> None:
    """Print the table and verdict of each test, the answers of the first screen, and failures; raises `MetabenchError`
    without records."""
    results = load(store_path)
    looks = style.looks(results.labels)
    scores = {table.title: table for table in layout.score_tables(results, looks)} if results.results else {}
    for regimes in findings.findings(results):
        console.print(_table(scores[regimes[0].test], console.width))
        for finding in regimes:
            console.print(_sentence(finding))
        console.print(f"{regimes[0].context}\n", style="dim", markup=False, highlight=False)
    if not scores and results.records:
        console.print("No evaluation has finished yet.")
    for answer in answers.answers(results):
        console.print(Text(f"{answer.question} ", style="bold").append(" ".join(answer.said), style="not bold"))
    if any(result.under_trained for result in results.results):
        console.print(f"{words.UNDER_TRAINED} under-trained fit", style="dim")
    _failures(results, console)


def _sentence(finding: findings.Finding) -> Text:
    where = f" with {words.REGIME_TITLES[finding.regime].replace(':', '')}" if finding.regime != "none" else ""
    return Text(f"{finding.headline}{where}. ", style="bold").append(finding.sentence, style="not bold")


def _table(table: layout.Table, width: int) -> Table:
    common = ", ".join(f"{name} {value}" for name, value in table.common)
    output = Table(title=table.title, caption=common, title_justify="left", caption_justify="left", header_style="dim")
    details = SHOWN if width >= WIDE else ()
    kept = [index for index, header in enumerate(table.headers) if not index or header.score or header.title in details]
    for index in kept:
        header = table.headers[index]
        title = header.title.removeprefix("batch-norm: ")
        output.add_column(Text(title), justify="right" if header.numeric else "left", no_wrap=not index or header.score)
    for row in table.rows:
        output.add_row(*(_text(row[index]) for index in kept))
    return output


def _text(cell: layout.Cell) -> Text:
    text = Text(cell.text, style=COLOURS[cell.look.index % len(COLOURS)] if cell.look else "")
    return text.append(words.UNDER_TRAINED, style="yellow") if cell.mark else text


def _failures(results: Results, console: Console) -> None:
    for row in tables.failures_table(results).to_dict("records"):
        line = Text(f"{row['status']}: ", style="dim" if row["status"] == "skipped" else "bold red")
        console.print(line.append(f"{row['reason']} ", style="default").append(f"[{row['where']}]", style="dim"))
    for problem in results.problems:
        console.print(f"could not be read: {problem}", style="yellow", markup=False)
