"""The README's table and picture and docs/results.md, from committed records; ``python -m reports.readme`` writes them.

Without arguments it takes every store in ``reports/reference/``; with arguments, these stores, in this order. Only this
module writes between the markers of these documents; no number there is typed.
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
from reports.results import Results, load
from reports.scores import claims, findings, layout, reproduced, tables
from reports.scores.verdict_sentences import UNNAMED, about

ROOT = Path(__file__).parents[1]
#: documents, from the top of the checkout
README, RESULTS = "README.md", "docs/results.md"
REFERENCE = ROOT / "reports" / "reference"

BEGIN, END = "<!-- table -->\n", "\n<!-- /table -->"
NOTHING = "No record is committed yet; `make bench` makes your own."

#: the picture of the README, and its caption
PICTURE = "docs/second-order.svg"
PICTURE_TITLE = "Time of a meta-step of second order over one of first order, by inner steps"
PICTURE_MORE = "The paper's roughly 33 % may mean either dotted line ([performance](docs/performance.md))."

#: trained methods that a test needs to be a column of the README's table
TRAINED = 2

#: stores in the order of their budgets; others follow by name
ORDER = ("quick", "standard", "paper")
#: verdicts on a published number
WAYS = ("agrees", "above", "below")
#: columns next to the scores
DETAILS = (
    *("rank", "groups", "sd over seeds", "steps at test", "meta-steps", "of budget", "examples"),
    *("environment steps", "training"),
)


def stores(folder: Path = REFERENCE) -> list[Path]:
    """The committed stores, smallest budget first."""
    found = [path.parent for path in folder.glob("*/records")]
    return sorted(found, key=lambda path: (ORDER.index(path.name) if path.name in ORDER else len(ORDER), path.name))


def overview(found: Sequence[Results]) -> str:
    """The README's part: a table of methods and tests from the first store with scores, and the picture of the costs;
    one sentence where there are no records."""
    parts = [_overview(results) for results in [one for one in found if one.results][:1]]
    if picture(found) is not None:
        parts.append(f"![{PICTURE_TITLE}]({PICTURE})\n\n{PICTURE_TITLE}; bands are 95 % intervals. {PICTURE_MORE}")
    return "\n\n".join(parts) or NOTHING


def section(found: Sequence[Results], root: Path) -> str:
    """The part of docs/results.md: every table of these stores, or one sentence where there are none.

    root: the folder that links are relative to."""
    return "\n\n".join(_store(results, root) for results in found) or NOTHING


def _overview(results: Results) -> str:
    """Methods in rows, the tests that several methods were trained for in columns."""
    leading = [regimes[0] for regimes in findings.findings_of(results) if regimes[0].own]
    columns = [one for one in leading if sum(bool(entry.result.training) for entry in one.entries) >= TRAINED]
    places = [{entry.result.name: entry for entry in finding.entries} for finding in columns]
    rows = [
        [name, *(_score(column.get(name)) for column in places)]
        for name in dict.fromkeys(name for column in places for name in column)
    ]
    titles = ["method", *map(_column_title, columns)]
    table = words.pipe_table(titles, (bool(index) for index, _ in enumerate(titles)), rows)
    profiles = words.listed(sorted({result.first.record.profile for result in results.results}))
    return (
        f"{table}\n\nMean ± 95 % over test episodes, profile `{profiles}`. {_bold(columns)}. "
        f"{words.UNDER_TRAINED}: under-trained at this budget ([protocol](docs/protocol.md)). "
        "Every test and condition: [results](docs/results.md)."
    )


def _bold(columns: Sequence[findings.Finding]) -> str:
    """What bold means, or why nothing is, in the words of the verdicts."""
    judged = [one.comparison for one in columns if one.comparison]
    abouts = words.listed(list(dict.fromkeys(about(one) for one in judged if one.bold)))
    named = [f"Bold: none is significantly better, {abouts}"] if abouts else []
    unnamed = words.listed(list(dict.fromkeys(UNNAMED[one.state] for one in judged if one.state in UNNAMED)))
    return ". ".join([*named, *([f"No bold where no winner is named ({unnamed})"] if unnamed else [])])


def _column_title(finding: findings.Finding) -> str:
    regime = "" if finding.regime == "none" else f", {words.REGIME_TITLES[finding.regime]}"
    return f"{finding.test}<br>{words.axis(finding.entries[0].result.metric)}{regime}"


def _score(entry: findings.Entry | None) -> str:
    """A score: bold as the verdict on its column says; empty where there is none."""
    if entry is None:
        return ""
    text = f"**{entry.number}**" if entry.top else entry.number
    return text + (words.UNDER_TRAINED if entry.result.under_trained else "")


def picture(found: Sequence[Results]) -> svg.Drawing | None:
    """The cost of second order in these stores; None without costs to draw."""
    return drawn([record for results in found for record in results.costs])


def _store(results: Results, root: Path) -> str:
    """The tables of a store, a heading each, and where its records are."""
    (path,) = results.stores
    own = [result for result in results.results if result.row.own]
    if not own and not results.costs:
        raise MetabenchError(f"no finished evaluation in {path}")
    titles = {words.title(result.column, results.columns) for result in own}
    scores = layout.score_tables(results, style.looks(results.labels)) if own else []
    said = {regimes[0].test: regimes[0].headline for regimes in findings.findings_of(results)} if own else {}
    parts = [_table(table, said[table.title]) for table in scores if table.title in titles] or [_costs(results)]
    judged = [_published(results), _claims(results, path, root)]
    notes = ["Mean ± 95 % (Student's t) over test episodes, of the mean over seeds."] if own else []
    if any(result.under_trained for result in own):
        notes.append(f"{words.UNDER_TRAINED} rests on an under-trained fit ([protocol](protocol.md)).")
    return "\n\n".join(
        [f"## {path.name}", *parts, *filter(None, judged), " ".join([*notes, _origin(results, path, root)])]
    )


def _published(results: Results) -> str:
    """Our numbers next to those of the papers, with the differences of the protocol where the two disagree."""
    frame = reproduced.published_table(results)
    if frame.empty:
        return ""
    frame["protocol_differs"] = frame["protocol_differs"].fillna("none known")
    rows = [
        [row.method, row.task, _regime(row.batch_norm), str(row.step), row.published, row.ours]
        + ([f"{row.z:+.1f}".replace("-", "−"), row.reproduced] if row.reproduced in WAYS else ["", row.reproduced])
        + [row.protocol_differs if row.reproduced in ("above", "below") else ""]
        for row in frame.itertuples()
    ]
    titles = ["method", "test", "batch-norm", "steps", "published", "ours", "z", "verdict", "why it may differ"]
    table = words.pipe_table(titles, (3 < place < 7 for place, _ in enumerate(titles)), rows)
    return f"**Published numbers** (z: difference in standard errors)\n\n{table}"


def _regime(name: str) -> str:
    return "–" if name == "none" else name


def _claims(results: Results, path: Path, root: Path) -> str:
    """How often each claim of a paper holds; the page has each case with its records."""
    if (table := claims.claims_table(results)).empty:
        return ""
    page = path.parent / f"{path.name}.html"
    link = f" ([each case and its records]({Path(os.path.relpath(page, root)).as_posix()}#claims))" * page.is_file()
    lines = "\n".join(f"- {claim}: {said}." for claim, said in claims.summary(table))
    return f"**Claims of the papers**{link}\n\n{lines}"


def _table(table: layout.Table, headline: str) -> str:
    shown = [
        [one.numeric, one.title, *(cell.text + (words.UNDER_TRAINED if cell.mark else "") for cell in column)]
        for one, column in zip(table.headers, zip(*table.rows, strict=True), strict=True)
        if one.score or (one.title in ("method", *DETAILS) and any(cell.text != words.MISSING for cell in column))
    ]
    numeric, titles, *rows = zip(*shown, strict=True)
    text = words.pipe_table(titles, numeric, rows)
    common = "; ".join(f"{name}: {value}" for name, value in table.common if value != words.MISSING)
    return f"**{table.title}** ({common})\n\n{headline}.\n\n{text}"


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
    """The text between the markers of a document."""
    _, begin, rest = text.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    if not (begin and end):
        raise MetabenchError(f"a document has no {BEGIN.strip()} ... {END.strip()}")
    return inside


def update(root: Path, paths: Sequence[Path]) -> None:
    """Write the parts of README and results, and the picture, below a folder."""
    found = [load(path) for path in paths]
    for name, new in ((README, overview(found)), (RESULTS, section(found, (root / RESULTS).parent))):
        document = root / name
        text = document.read_text(encoding="utf-8")
        document.write_text(text.replace(BEGIN + current(text) + END, BEGIN + new + END), encoding="utf-8")
    if (drawing := picture(found)) is not None:
        (root / PICTURE).write_text(drawing + "\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The command: a mistake is one line and exit code 2."""
    paths = [Path(argument).resolve() for argument in arguments] or stores()
    try:
        update(ROOT, paths)
    except MetabenchError as error:
        print(f"reports.readme: {error}", file=sys.stderr)
        return 2
    print(f"wrote the tables of {README} and {RESULTS} from {', '.join(map(str, paths)) or 'no records'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
