"""The README's tables and picture: ``python -m reports.readme [STORE ...]`` writes them from committed records.

The default is every store in ``reports/reference/``. Only this module writes between the markers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import MetabenchError
from reports import style, svg, words
from reports.cost import frames
from reports.cost.picture import drawn
from reports.results import Result, Results, load
from reports.scores import layout, tables

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "reports" / "reference"

BEGIN, END = "<!-- table -->\n", "\n<!-- /table -->"
NOTHING = "No record is committed yet; `make bench` makes your own."

#: the picture, relative to the README, with its title and a note
PICTURE = "docs/second-order.svg"
PICTURE_TITLE = "Time of a meta-step of second order over one of first order, by inner steps"
PICTURE_MORE = "The paper's roughly 33 % may mean either dotted line ([performance](docs/performance.md))."

#: stores in the order of their budgets; others follow by name
ORDER = ("quick", "standard", "paper")
#: columns next to the scores
DETAILS = ("rank", "groups", "steps at test", "meta-steps", "of published", "training")


def stores(folder: Path = REFERENCE) -> list[Path]:
    """The committed stores, smallest budget first."""
    found = [path.parent for path in folder.glob("*/records")]
    return sorted(found, key=lambda path: (ORDER.index(path.name) if path.name in ORDER else len(ORDER), path.name))


def section(paths: Sequence[Path], root: Path = ROOT) -> str:
    """The text between the markers: the tables of these stores, or one sentence without any.

    root: the folder that links are relative to."""
    parts = [_store(Path(path), root) for path in paths]
    if picture(paths) is not None:
        parts.append(f"![{PICTURE_TITLE}]({PICTURE})\n\n{PICTURE_TITLE}; bands are 95 % intervals. {PICTURE_MORE}")
    return "\n\n".join(parts) or NOTHING


def picture(paths: Sequence[Path]) -> svg.Drawing | None:
    """The cost of second order in these stores; None without costs to draw."""
    return drawn([record for path in paths for record in load(path).costs])


def _store(path: Path, root: Path) -> str:
    results = load(path)
    own = [result for result in results.results if result.row.own]
    if not own and results.costs:
        return f"{_costs(results)}\n\n{_origin(results, path, root)}"
    if not own:
        raise MetabenchError(f"no finished evaluation in {path}")
    looks = style.looks(results.labels)
    titles = {words.title(result.column, results.columns) for result in own}
    parts = [_table(table) for table in layout.score_tables(results, looks) if table.title in titles]
    return "\n\n".join([*parts, _footnote(results, own, path, root)])


def _table(table: layout.Table) -> str:
    kept = [
        index
        for index, header in enumerate(table.headers)
        if index == 0 or header.score or (header.title in DETAILS and any(_said(row[index]) for row in table.rows))
    ]
    headers = [table.headers[index] for index in kept]
    rows = [[_text(row[index]) for index in kept] for row in table.rows]
    text = words.pipe_table((one.title for one in headers), (one.numeric for one in headers), rows)
    common = "; ".join(f"{name}: {value}" for name, value in table.common if value != words.MISSING)
    return f"**{table.title}** ({common})\n\n{text}"


def _said(cell: layout.Cell) -> bool:
    return cell.text != words.MISSING


def _text(cell: layout.Cell) -> str:
    return cell.text + (words.UNDER_TRAINED if cell.mark else "")


def _footnote(results: Results, own: Sequence[Result], path: Path, root: Path) -> str:
    """What the numbers mean and where they come from."""
    lines = ["Mean ± 95 % (Student's t) over test episodes, of the mean over seeds."]
    if any(result.under_trained for result in own):
        lines.append(f"{words.UNDER_TRAINED} under-trained fit ([protocol](docs/protocol.md)).")
    return " ".join([*lines, _origin(results, path, root)])


def _costs(results: Results) -> str:
    """Sentences for a store of costs alone; docs/performance.md has the tables."""
    profiles = words.listed(sorted({record.profile for record in results.costs if record.profile}))
    told = [f"**Second order against first** ({words.count(len(results.costs), 'setting')}; profile: {profiles})"]
    return "\n\n".join([*told, *frames.overview(results.costs)])


def _origin(results: Results, path: Path, root: Path) -> str:
    """The place of the records, their machine and commit."""
    machines = tables.machines_table(results.records or results.costs)
    where = "; ".join(dict.fromkeys(str(row["gpu"] or row["processor"]) for row in machines.to_dict("records")))
    commits = ", ".join(dict.fromkeys(map(str, machines["commit"])))
    link = Path(os.path.relpath(path, root)).as_posix()
    return f"Records: [{link}]({link}); machine: {where}; commit: {commits}."


def current(text: str) -> str:
    """The text between the markers of a README."""
    _, begin, rest = text.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    if not (begin and end):
        raise MetabenchError(f"the README has no {BEGIN.strip()} ... {END.strip()}")
    return inside


def update(readme: Path, paths: Sequence[Path]) -> None:
    """Write the tables of these stores between the markers of a README, and the picture."""
    text, root = readme.read_text(encoding="utf-8"), readme.resolve().parent
    old, new = current(text), section(paths, root)
    if (drawing := picture(paths)) is not None:
        (root / PICTURE).parent.mkdir(exist_ok=True)
        (root / PICTURE).write_text(drawing + "\n", encoding="utf-8")
    readme.write_text(text.replace(BEGIN + old + END, BEGIN + new + END), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The command: a mistake is one line and exit code 2."""
    paths = [Path(argument).resolve() for argument in arguments] or stores()
    try:
        update(README, paths)
    except MetabenchError as error:
        print(f"reports.readme: {error}", file=sys.stderr)
        return 2
    print(f"wrote the table of {README.name} from {', '.join(map(str, paths)) or 'no records'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
