"""The README's findings, table and pictures and docs/results.md, from committed records.

``python -m reports.readme`` writes them. Without arguments it takes every store in ``reports/reference/``; with
arguments, these stores, in this order. Only this module writes between the markers of these documents; no number there
is typed.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import MetabenchError
from reports import picture, plain, style, svg, words
from reports.cost import frames
from reports.cost.picture import drawn
from reports.cost.worth import worth_rows
from reports.page.answers import WORTH, answers
from reports.results import Results, load
from reports.scores import claims, heat, layout, reproduced, tables
from reports.scores.findings import Finding, findings_of

ROOT = Path(__file__).parents[1]
#: documents, from the top of the checkout
README, RESULTS = "README.md", "docs/results.md"
REFERENCE = ROOT / "reports" / "reference"

NOTHING = "No record is committed yet; `make bench` makes your own."

#: pictures: of the overview, by theme, and of the cost of second order
OVERVIEW, COST = "docs/overview-{}.svg", "docs/second-order.svg"

#: of the README's table and picture: tests and methods, at most
TESTS, METHODS = 10, 20

#: stores in the order of their budgets; others follow by name
ORDER = ("quick", "learners", "standard", "paper")
#: tests whose best mean the findings name, at most
LEADERS = 6
#: verdict on a test -> how its best mean stands
BEST = {
    "winner": "Better than every other",
    "tied": "Best mean, not alone",
    "starved": "Best mean, too early for a winner",
    "unstable": "Best mean, carried by a few episodes",
    "single": "Alone",
    "none": "Without a finite number",
}
#: verdicts on a published number
WAYS = ("agrees", "above", "below")
#: columns next to the scores
DETAILS = (
    *("rank", "groups", "sd over seeds", "steps at test", "meta-steps", "stood still at", "of budget", "examples"),
    *("environment steps", "training"),
)


def stores(folder: Path = REFERENCE) -> list[Path]:
    """The committed stores, smallest budget first."""
    found = [path.parent for path in folder.glob("*/records")]
    return sorted(found, key=lambda path: (ORDER.index(path.name) if path.name in ORDER else len(ORDER), path.name))


def table(results: Results | None) -> str:
    """The README's table: the overview of all committed stores; one sentence where there are no scores."""
    if results is None or not results.results:
        return NOTHING
    return (
        f"{plain.overview(results, TESTS, METHODS)} What it takes to be trained: [protocol](docs/protocol.md). "
        "Every test and condition: [results](docs/results.md)."
    )


def findings(results: Results | None) -> str:
    """The README's findings: the answers that the stores give, each with the evidence of one test."""
    evidence = {"findings": best, "second-order": worth, "claims": worth, "published": reproduced.farthest}
    said = []
    for answer in answers(results) if results else ():
        shown = evidence[answer.section](results) if results and answer.section in evidence else ""
        said.append(f"- **{answer.question} {answer.chip}.** {answer.said} {shown}".rstrip())
    return "\n".join(said) or NOTHING


def best(results: Results) -> str:
    """The verdict on the test with most trained methods, and the best means of the next ones by how they stand."""
    leading = [regimes[0] for regimes in findings_of(results) if regimes[0].own and regimes[0].leader]
    leading.sort(key=lambda one: -sum(bool(e.result.training) for e in one.entries))
    told: dict[str, list[str]] = {verdict: [] for verdict in BEST}
    for one in leading[1:LEADERS]:
        told[one.verdict].append(_lead(one))
    first = [f"On {_lead(one, '{test}: {headline} ({mean})')}." for one in leading[:1]]
    return " ".join([*first, *(f"{BEST[verdict]}: {words.listed(leads)}." for verdict, leads in told.items() if leads)])


def _lead(one: Finding, form: str = "{name} on {test} ({mean})") -> str:
    if one.leader is None:
        raise ValueError(f"{one.test} has no leader")
    mean = words.short(one.leader.interval, one.leader.metric)
    return form.format(name=one.leader.name, test=one.test, headline=one.headline, mean=mean)


def worth(results: Results) -> str:
    """MAML against FOMAML on one test: decided and priced, if any is; without a test the range of prices."""
    rows = [row for row in worth_rows(results) if row["leading"]]
    places = {verdict: place for place, verdict in enumerate(WORTH)}
    rows.sort(key=lambda row: (places.get(row["verdict"], len(places)), math.isnan(row["time"])))
    return str(rows[0]["sentence"]) if rows else " ".join(frames.overview(results.costs)[:1])


def section(found: Sequence[Results], root: Path) -> str:
    """The part of docs/results.md: every table of these stores, or one sentence where there are none.

    root: the folder that links are relative to."""
    return "\n\n".join(_store(results, root) for results in found) or NOTHING


def pictures(results: Results | None) -> dict[str, svg.Drawing]:
    """File -> a picture: the overview for light and dark pages, and the cost of second order."""
    found: dict[str, svg.Drawing] = {}
    if results is not None and results.results:
        shown = heat.fewer(heat.heat(results, further=False), TESTS, METHODS)
        found |= {OVERVIEW.format(theme): one for theme, one in picture.pictures(shown).items()}
    if results is not None and (cost := drawn(results.costs)) is not None:
        found[COST] = cost
    return found


def _store(results: Results, root: Path) -> str:
    """The tables of a store, a heading each, and where its records are."""
    (path,) = results.stores
    own = [result for result in results.results if result.row.own]
    if not own and not results.costs:
        raise MetabenchError(f"no finished evaluation in {path}")
    titles = {words.title(result.column, results.columns) for result in own}
    scores = layout.score_tables(results, style.looks(results.labels)) if own else []
    said = {regimes[0].test: regimes[0].headline for regimes in findings_of(results)} if own else {}
    parts = [_in_full(table, said[table.title]) for table in scores if table.title in titles] or [_costs(results)]
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


def _in_full(table: layout.Table, headline: str) -> str:
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


def current(text: str, name: str = "table") -> str:
    """The text between the markers of this name in a document."""
    begin, end = markers(name)
    _, opened, rest = text.partition(begin)
    inside, closed, _ = rest.partition(end)
    if not (opened and closed):
        raise MetabenchError(f"a document has no {begin.strip()} ... {end.strip()}")
    return inside


def markers(name: str) -> tuple[str, str]:
    """What stands before and after a part that this module writes."""
    return f"<!-- {name} -->\n", f"\n<!-- /{name} -->"


def parts(paths: Sequence[Path], root: Path) -> dict[tuple[str, str], str]:
    """(document, name of its markers) -> the text between them."""
    every = load(paths) if paths else None
    return {
        (README, "findings"): findings(every),
        (README, "table"): table(every),
        (RESULTS, "table"): section([load(path) for path in paths], (root / RESULTS).parent),
    }


def update(root: Path, paths: Sequence[Path]) -> None:
    """Write the parts of README and results, and the pictures, below a folder."""
    for (name, marker), new in parts(paths, root).items():
        document, (begin, end) = root / name, markers(marker)
        text = document.read_text(encoding="utf-8")
        document.write_text(text.replace(begin + current(text, marker) + end, begin + new + end), encoding="utf-8")
    for name, drawing in pictures(load(paths) if paths else None).items():
        (root / name).write_text(drawing + "\n", encoding="utf-8")


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
