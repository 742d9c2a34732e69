"""Tables of the page: one per test, with scores by batch-norm regime and then their conditions."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

import pandas as pd
from markupsafe import Markup

from benchmarks.stats import Comparison
from reports import words
from reports.results import REGIMES, Result, Results
from reports.scores.tables import main_table, ordered
from reports.style import Look
from reports.words import slug

Row = Mapping[str, Any]  #: a row of `main_table`, with its ``result``
LONG = 60  #: longer cells may wrap


@dataclass(frozen=True)
class Cell:
    """A cell. value: to sort by. half_width: of a score's 95 % interval. mark: under-trained. look: of a method.
    links: text and address of each. command: what a button copies."""

    text: str
    value: Any = None
    half_width: float | None = None
    mark: bool = False
    look: Look | None = None
    note: str = ""
    links: tuple[tuple[str, str], ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Header:
    """A column. note: an explanation. descending: the first click sorts the largest to the top. screen: left out on
    paper."""

    title: str
    note: str = ""
    numeric: bool = True
    score: bool = False
    descending: bool = True
    screen: bool = False
    record: bool = False

    @property
    def classes(self) -> str:
        """Its CSS classes."""
        kinds = {"number": self.numeric, "score": self.score, "screen": self.screen, "record": self.record}
        return " ".join(name for name, true in kinds.items() if true)


@dataclass(frozen=True)
class Table:
    """name: of its CSV file. common: facts shared by all rows, printed once above the table. task: its name."""

    name: str
    title: str
    headers: list[Header]
    rows: list[list[Cell]]
    common: list[tuple[str, str]] = field(default_factory=list)
    task: str = ""

    @property
    def id(self) -> str:
        return slug(self.name)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The text of every cell."""
        rows = [[cell.text + (words.UNDER_TRAINED if cell.mark else "") for cell in row] for row in self.rows]
        return pd.DataFrame(rows, columns=[header.title for header in self.headers])

    def body(self) -> Markup:
        """Its rows as HTML, ten times as fast as by a template."""
        rows = []
        for place, row in enumerate(self.rows):
            cells: list[str] = []
            for header, cell in zip(self.headers, row, strict=True):
                kind = "td" if cells else "th"
                sorts = header.numeric or bool(cell.links) or cell.value != cell.text
                said = f' data-value="{"" if cell.value is None else escape(str(cell.value))}"' if sorts else ""
                said += "" if cell.half_width is None else f' data-half-width="{cell.half_width}"'
                said += f' title="{escape(cell.note)}"' if cell.note else ""
                said += f' data-command="{escape(cell.command)}"' if cell.command else ""
                shown = _content(header, cell) + words.UNDER_TRAINED * cell.mark
                looked = [cell.look.classes] if cell.look else []
                classes = " ".join([_classes(header, cell)] * bool(cells) + looked)
                how = ("" if cells else ' scope="row"') + (f' class="{classes}"' if classes else "")
                cells.append(f"<{kind}{how}{said}>{shown}</{kind}>")
            rows.append(f'<tr id="{self._row_id(place)}">{"".join(cells)}</tr>\n')
        return Markup("".join(rows))

    def _row_id(self, place: int) -> str:
        """The id of a row; the overview links to those of methods."""
        first = self.rows[place][0]
        method = first.look is not None and first.look.kind == "method"
        return f"row-{slug(f'{self.title} {first.text}')}" if method else f"{self.id}-{place + 1}"

    def markdown(self) -> str:
        """As a Markdown table."""
        rows = (map(str, row) for row in self.frame.itertuples(index=False))
        return words.pipe_table(self.frame.columns, (header.numeric for header in self.headers), rows)

    def latex(self) -> str:
        """As a tabular with booktabs' rules."""
        align = "".join("r" if header.numeric else "l" for header in self.headers)
        first, *rest = (
            " & ".join(words.latex(str(text)) for text in line) + r" \\"
            for line in [list(self.frame.columns), *self.frame.itertuples(index=False)]
        )
        return "\n".join(
            [rf"\begin{{tabular}}{{{align}}}", r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"]
        )


def _content(header: Header, cell: Cell) -> str:
    """The text of a cell, or its links."""
    text = escape(words.minus(cell.text) if header.numeric else cell.text)
    return " ".join(f'<a href="{escape(href)}">{escape(name)}</a>' for name, href in cell.links) or text


def _classes(header: Header, cell: Cell) -> str:
    """The CSS classes of a cell."""
    kinds = {"missing": cell.value is None, "text": len(cell.text) > LONG and not cell.links, "short": cell.mark}
    return " ".join(filter(None, (header.classes, *(name for name, true in kinds.items() if true))))


#: column of `main_table` -> (header, explanation, how a value is shown)
DETAILS: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "published": ("published", "the number that is published for this method and task", "{:.4g}".format),
    "reproduced": ("reproduced?", "only for fits with the published budget; see Published numbers", str),
    "seeds": ("seeds", "independent trainings averaged", str),
    "seed_deviation": ("sd over seeds", "standard deviation over seeds of the mean score", "{:.2g}".format),
    "headline_step": ("steps at test", "inner steps after which the score is taken", str),
    "training_inner_steps": ("steps in training", "inner steps that meta-training unrolls", str),
    "inner_rate_mean_loss": ("inner rate", "for the mean loss: the rate times the loss scale", "{:.3g}".format),
    "backbone": ("backbone", "the network", str),
    "settings": ("settings", "published, this suite's own (and what they were chosen on), or validation tasks", str),
    "failed": ("failed", "adaptations without a number, or with an error over 100 times the constant's", words.percent),
    "failed_validations": ("failed validations", "validations in which an adaptation failed", str),
    "meta_steps": ("meta-steps", "of training", words.grouped),
    "stood_still_at": ("stood still at", "the meta-step at which a standstill ended training", words.grouped),
    "share_of_budget": ("of budget", "share of the published budget; without one, of this suite's", words.percent),
    "training_seconds": ("training", "mean over seeds, validation not counted", words.duration),
    "pace": ("pace", "of the machine then: seconds for a fixed piece of work, idle laptop = 1", "{:.1f}".format),
    "examples_seen": ("examples", "seen in training, mean over seeds", "{:,.0f}".format),
    "environment_steps_seen": ("environment steps", "seen in training, mean over seeds", "{:,.0f}".format),
    "training_batch_norm": ("trained with", "batch-norm regime of meta-training", str),
    "episodes": ("episodes", "test episodes of each number", "{:,.0f}".format),
    "queries_per_class": ("queries", "per class", str),
    "profile": ("profile", "the budgets it was run with", str),
}
#: printed above the table where all rows agree
COMMON = ("seeds", "episodes", "queries_per_class", "backbone", "settings", "profile")
#: left out where all are zero: control tasks have no examples, all others no environment steps
COUNTS = ("examples_seen", "environment_steps_seen", "failed", "failed_validations")
#: left out on paper
ON_SCREEN = (
    *("published", "reproduced", "training_inner_steps", "inner_rate_mean_loss", "backbone", "meta_steps"),
    *("examples_seen", "environment_steps_seen", "training_batch_norm", "best_step", "pace"),
)
#: not told again where the same fits are tested under other conditions
OF_FITS = (
    *("training_inner_steps", "inner_rate_mean_loss", "backbone", "settings", "best_step", "failed_validations"),
    *("meta_steps", "stood_still_at", "share_of_budget", "training_seconds", "pace", "examples_seen"),
    *("environment_steps_seen", "training_batch_norm"),
)
TEXTS = ("reproduced", "backbone", "settings", "training_batch_norm", "profile")


def score_tables(results: Results, looks: Mapping[str, Look], linked: bool = False) -> list[Table]:
    """One table per test: methods in rows, best first in the regime that most of them have.

    linked: with a last column of links to the records of a row."""
    frame = main_table(results).assign(result=ordered(results))
    frame = frame[[not results.repeated(result) for result in frame["result"]]]
    return [_score_table(title, group, results, looks, linked) for title, group in frame.groupby("task", sort=False)]


def _score_table(title: str, frame: pd.DataFrame, results: Results, looks: Mapping[str, Look], linked: bool) -> Table:
    told = [name for name in DETAILS if frame[name].notna().any() and not (name in COUNTS and not frame[name].any())]
    common = [name for name in COMMON if name in told and frame[name].nunique(dropna=False) == 1]
    own = results.own(frame["result"].iloc[0].column.test)
    details = [name for name in told if name not in common and (own or name not in OF_FITS)]
    counts = frame["batch_norm"].value_counts()
    regimes = sorted(counts.index, key=lambda name: (name == "none", -counts[name], REGIMES.index(name)))
    first: Result = frame["result"].iloc[0]
    # ten times as fast as a frame per method
    methods: dict[str, list[Row]] = {}
    for row in sorted(frame.to_dict("records"), key=lambda row: str(row["method"])):
        methods.setdefault(str(row["method"]), []).append(row)
    best_first = sorted(methods.items(), key=lambda item: _best(item[1], regimes, first.higher_is_better))
    leading = results.leading(first.column.test)
    plain = words.without_batch_norm(first.column, results.columns)
    where = "" if plain else f", {words.REGIME_TITLES.get(leading.regime, leading.regime)}"
    judged = results.verdicts[leading]
    ranked = judged if isinstance(judged, Comparison) and judged.about_methods else None
    headers = [
        Header("method", numeric=False),
        *(_ranked_headers(where) if ranked else []),
        *(
            Header(*_heading(name, plain, first.metric), numeric=True, score=True, descending=first.higher_is_better)
            for name in regimes
        ),
        *(Header(*DETAILS[name][:2], name not in TEXTS, screen=name in ON_SCREEN) for name in details),
        *([Header("record", numeric=False, screen=True, record=True)] if linked else []),
    ]
    rows = [
        [_method(name, rows[0]["result"].label, looks)]
        + (_rank(name, ranked) if ranked else [])
        + [_score([row for row in rows if row["batch_norm"] == regime]) for regime in regimes]
        + [_detail([row[detail] for row in rows], detail) for detail in details]
        + ([_record([row["result"] for row in rows], results)] if linked else [])
        for name, rows in best_first
    ]
    said = [(DETAILS[name][0], _detail(frame[name], name).text) for name in common]
    said += [("commit", words.listed(commits))] if linked and (commits := _commits(frame["result"])) else []
    task = first.first.task.name
    return Table(f"{slug(title)}.csv", title, headers, rows, [("score", words.axis(first.metric)), *said], task)


def _method(name: str, label: str, looks: Mapping[str, Look]) -> Cell:
    return Cell(name, name, look=looks[label], links=((name, f"#method-{slug(label)}"),))


def _record(found: Sequence[Result], results: Results) -> Cell:
    """The files of a row's records, a link per training seed (and regime), and the command that makes them."""
    records = {tested.record.key: (result, tested.record) for result in found for tested in result.tested}
    several = len(found) > 1
    links = tuple(
        (
            f"{result.column.regime} {record.seed}" if several and record.seed is not None
            else result.column.regime if several
            else "record" if record.seed is None
            else f"seed {record.seed}",
            results.file(record),
        )
        for result, record in records.values()
    )  # fmt: skip
    return Cell(" ".join(name for name, _ in links), " ".join(records), links=links, command=_command(found))


def _command(found: Sequence[Result]) -> str:
    """``metabench run --profile quick -m maml -t sinusoid-v1/k10 --seeds 0,1``: makes the records of a row."""
    first = found[0].first
    record, task = first.record, first.conditions.trained_on or first.task.id
    seeds = sorted({one for result in found for one in result.seeds if one is not None})
    parts = ["metabench", "run", *(["--profile", record.profile] if record.profile else [])]
    parts += ["-m", first.method.name, "-t", task]
    parts += ["--seeds", ",".join(map(str, seeds)) + "," * (len(seeds) == 1)] if seeds else []
    parts += ["--device", record.device] if record.device != "cpu" else []
    return shlex.join(parts)


def _commits(found: Iterable[Result]) -> list[str]:
    """The commits of the records, in short."""
    gits = (tested.record.git for result in found for tested in result.tested)
    return list(dict.fromkeys(git.commit[:8] + "+" * git.dirty for git in gits if git))


def _heading(regime: str, plain: bool, metric: str) -> tuple[str, str]:
    """Title and explanation of a column of scores: its batch-norm regime, or (plain) its metric where no method of the
    test has batch-norm."""
    if plain:
        return words.axis(metric), "mean over test tasks ± the half-width of its 95 % interval"
    return words.REGIME_TITLES[regime], words.REGIME_MEANINGS[regime]


def _ranked_headers(where: str) -> list[Header]:
    """Rank and groups are about methods: only tables with enough seeds have them."""
    return [
        Header("rank", f"1 + the number of significantly better methods{where}", descending=False),
        Header("groups", f"methods that share a letter can't be told apart{where}", numeric=False),
    ]


def _rank(name: str, judged: Comparison) -> list[Cell]:
    """Rank and groups; none for floor and ceiling, which are not compared."""
    if name not in judged.names:
        return [Cell(words.MISSING), Cell(words.MISSING)]
    rank, groups = judged.ranks[name], judged.letters[name]
    return [Cell(str(rank), rank), Cell(groups, groups)]


def _best(rows: Sequence[Row], regimes: Sequence[str], higher_is_better: bool) -> tuple[int, float]:
    """The place of a method in its table: by its first regime in this order, then by its mean there."""
    place = min(regimes.index(row["batch_norm"]) for row in rows)
    mean = float(next(row["mean"] for row in rows if row["batch_norm"] == regimes[place]))
    return place, math.inf if math.isnan(mean) else -mean if higher_is_better else mean


def _score(rows: Sequence[Row]) -> Cell:
    if not rows:
        return Cell(words.MISSING)
    row, result = rows[0], rows[0]["result"]
    note = "" if result.interval.known else "one episode: no interval"
    text = words.short(result.interval, result.metric)
    half_width = float(row["half_width_95"]) if result.interval.known else None
    return Cell(text, float(row["mean"]), half_width, result.under_trained, note=note)


def _detail(given: Iterable[Any], name: str) -> Cell:
    """The value of a row; all values where the regimes of a row differ."""
    values = [value for value in dict.fromkeys(given) if value is not None and value == value]
    if not values:
        return Cell(words.MISSING)
    return Cell(", ".join(DETAILS[name][2](_whole(value)) for value in values), values[0])


def _whole(value: Any) -> Any:
    """Undo pandas' turning of integers into floats in columns with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def frame_table(name: str, title: str, frame: pd.DataFrame, shown: Mapping[str, Callable[[Any], str]] = {}) -> Table:
    """Any frame as a table: column names as headers, None as a dash."""
    numeric = {column: all(isinstance(value, (int, float)) for value in frame[column].dropna()) for column in frame}
    headers = [Header(str(column).replace("_", " "), numeric=numeric[column]) for column in frame]
    rows = [[_plain(value, shown.get(column)) for column, value in row.items()] for row in frame.to_dict("records")]
    return Table(name, title, headers, rows)


def _plain(value: Any, form: Callable[[Any], str] | None) -> Cell:
    if value is None or value != value or value == "":
        return Cell(words.MISSING)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", str(value))
    value = _whole(value)
    if form is not None:
        return Cell(form(value), value)
    return Cell(
        words.digits(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value),
        value,
    )
