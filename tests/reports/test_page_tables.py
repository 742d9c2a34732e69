"""Every number of a page is in the frame that it came from, and the frames hold what `benchmarks.stats` computes."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from page_reader import REFERENCE, Cell, Made, Page, assert_shown, made, shows, unknown

from benchmarks.commands import catalogue
from benchmarks.stats import Column, Row, Verdict, protocol_of, task_scores
from reports import readme, trend, words
from reports.cost import frames, worth
from reports.page.page import render
from reports.results import load
from reports.scores import across, heat, pairs, reproduced, tables
from reports.scores.verdict_sentences import CHIPS

every_store = pytest.mark.parametrize("store", ["quick", "standard", "gpu"])
scored_stores = pytest.mark.parametrize("store", ["quick", "standard"])


@every_store
def test_every_table_shows_its_frame(store: str) -> None:
    this = made(store)
    own = {words.slug(title) + "-csv" for title in this.shown["task"].unique()} if len(this.main) else set()
    costs = {"second-order-csv", "second-order-worth-csv", "implementations-csv", "costs-csv", "environment-costs-csv"}
    costs |= {"recurrent-costs-csv", "learner-costs-csv", "machines-csv", "failures-table", "overview-table", ""}
    expected = this.frames()
    assert {name for name in this.page.tables if not name.startswith("guesses")} - costs == own | set(expected)
    for name, frame in expected.items():
        head, *rows = this.page.tables[name]
        assert [cell.text for cell in head] == [column.replace("_", " ") for column in frame]
        for cells, row in zip(rows, frame.to_dict("records"), strict=True):
            for cell, (column, value) in zip(cells, row.items(), strict=True):
                assert_shown(cell, value, (name, column, row))


def test_the_page_of_quick_is_light() -> None:
    html = made("quick").html
    assert len(html.encode()) < 1_200_000
    assert len(re.findall(r"<[a-zA-Z]", html)) < 9_000, "elements"


@scored_stores
def test_the_table_of_each_test_shows_the_main_table(store: str) -> None:
    this = made(store)
    for title, group in this.shown.groupby("task", sort=False):
        head, *rows = this.page.tables[words.slug(str(title)) + "-csv"]
        plain = set(group["batch_norm"]) == {"none"}
        heads = {} if plain else {words.REGIME_TITLES[regime]: regime for regime in group["batch_norm"]}
        assert [cells[0].text for cells in rows] != []
        assert {cells[0].text for cells in rows} == set(group["method"])
        for cells in rows:
            own = group[group["method"] == cells[0].text]
            for cell, title_of in zip(cells, (cell.text for cell in head), strict=True):
                if title_of in ("rank", "groups"):
                    assert_shown(cell, own[title_of].iloc[0], (title, own))
                elif title_of in heads or (plain and "±" in cell.text):
                    assert_score(cell, own if plain else own[own["batch_norm"] == heads[title_of]])


def assert_score(cell: Cell, rows: pd.DataFrame) -> None:
    """``mean ± half-width`` with its mark."""
    if rows.empty:
        assert cell.text == words.MISSING
        return
    (row,) = rows.to_dict("records")
    mean, _, half = cell.text.partition(" ± ")
    assert shows(mean, row["mean"])
    assert not half or shows(half, row["half_width_95"])
    assert cell.text.endswith(words.UNDER_TRAINED) == row["under_trained"]


def leading(this: Made, row: Row) -> Column:
    """The column that ranks a row: its own, else the fullest of its test."""
    here = [column for column in this.columns if row in column.rows]
    return max(here, key=lambda column: (column.protocol == protocol_of(row.first), len(column.rows)))


@scored_stores
def test_the_overview_shows_the_main_table(store: str) -> None:
    """Every cell is a row of the main table, sorted by its exact mean, and bold where the verdict says so."""
    this = made(store)
    known = this.main.set_index(["method", "task", "batch_norm"])
    table = heat.heat(this.results)
    rows = {row[0].text: row[1:] for row in this.page.tables["overview-table"][1:] if len(row) > 1}
    assert set(rows) == {line.name for line in table.lines}
    for line in table.lines:
        for cell, shown_, test in zip(line.cells, rows[line.name], table.tests, strict=True):
            if cell.entry is None:
                assert shown_.text == words.MISSING
                assert cell.why
                continue
            own = cell.entry.result.column
            said = known.loc[(line.name, this.title(own), own.regime)]
            assert_shown(shown_, said["mean"], (line.name, test.test))
            assert shown_.text.endswith(words.UNDER_TRAINED) == said["under_trained"]
            assert cell.entry.top == (test.comparison is not None and line.name in test.comparison.bold)
            assert cell.heat is None or 0 <= cell.heat <= 1


@scored_stores
def test_the_main_table_is_what_the_statistics_say(store: str) -> None:
    this = made(store)
    assert len(this.main) == len(this.rows)
    for said in this.main.itertuples():
        row = this.rows[said.method, said.task, said.batch_norm]
        factor = words.factor(row.first.task.metric)
        assert said.mean == pytest.approx(factor * row.interval.estimate, rel=1e-12)
        if row.interval.known:
            assert said.half_width_95 == pytest.approx(factor * row.interval.half_width, rel=1e-12)
        assert (said.seeds, said.episodes) == row.values.shape[:2]
        assert said.under_trained == row.under_trained
        assert said.records.split() == [tested.record.key for tested in row.tested]
        judged = leading(this, row).comparison()
        ranked = tuple(shown.get(row.name) for shown in judged.ranking)
        assert tuple(None if pd.isna(value) else value for value in (said.rank, said.groups)) == ranked


def on_page(value: float, metric: str) -> float:
    """A difference on the scale of contrasts, in the unit shown."""
    return math.exp(value) if metric == "squared error" else words.factor(metric) * value


@scored_stores
def test_every_pair_is_what_the_statistics_say(store: str) -> None:
    this = made(store)
    table = pairs.pairs_table(this.results).set_index(["task", "first", "second"])
    seen = 0
    for column in this.columns:
        judged, test = column.comparison(), column.protocol.test
        if not this.results.own(test) or column.protocol != this.results.leading(test):
            continue
        for pair in pairs.chief(judged):
            title = this.title(column.protocol) + words.in_regime(column.protocol, this.results.columns)
            said = table.loc[(title, pair.first, pair.second)]
            ends = pair.contrast.estimate, pair.shown.low, pair.shown.high
            expected = [*(on_page(value, column.metric) for value in ends), pair.p_holm]
            np.testing.assert_allclose(said[["advantage", "low", "high", "p_holm"]].astype(float), expected, rtol=1e-9)
            assert said["verdict"] == pair.word
            seen += 1
    assert seen == len(table) > 0


def test_normalised_scores_are_those_of_the_floor_and_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a committed store, with fewer tasks and seeds than a page averages over."""
    monkeypatch.setattr(across, "TASKS", 2)
    monkeypatch.setattr(across, "SEEDS_FOR_METHODS", 1)
    this = made("quick")
    found = [one for one in across.groups(this.results) if one.across]
    assert found
    own = [column for column in this.columns if any(row.own for row in column.rows) and len(column.learners) > 1]
    for group in found:
        assert group.across is not None
        tasks = {this.title(c.protocol): one for c in own for one in task_scores([c], group.across.regime)[0]}
        for row in across.across_table(group.across).to_dict("records"):
            for name in group.across.found.tasks:
                runs = tasks[name].normalised(tasks[name].methods[row["method"]].mean(axis=1))
                assert row[name] == pytest.approx(runs.mean())
            assert row["low"] < row["interquartile_mean"] < row["high"]


@scored_stores
def test_under_trained_fits_are_those_of_the_records(store: str) -> None:
    records = made(store).results.records
    short = [r for r in records if r.ok and r.task and r.training and r.training.under_trained]
    fits = {(r.label, r.training.fit): r.training for r in short}
    table = tables.under_trained_table(made(store).results)
    told = table["training_seconds"] * [len(seeds.split(", ")) for seeds in table["seeds"]]
    assert told.sum() == pytest.approx(sum(training.seconds for training in fits.values()))


# --- sentences -------------------------------------------------------------------------------------------------------


def amounts(pair: Verdict, metric: str) -> list[float]:
    """All numbers that a sentence may say of a pair."""
    intervals = [pair.adjusted, pair.tight, *(pair.interval(scope) for scope in pair.contrast.scopes())]
    ends = [pair.contrast.estimate, pair.margin, *(end for one in intervals for end in (one.low, one.high))]
    return [abs(on_page(sign * end, metric)) for end in ends for sign in (1, -1)]


@scored_stores
def test_every_number_of_a_card_is_of_its_test(store: str) -> None:
    this = made(store)
    chips = sorted(CHIPS.values(), key=len, reverse=True)
    cards = {re.sub(f"^({'|'.join(chips)})", "", card.text.strip()): card for card in this.page.cards}
    names = [name for name, *_ in this.rows]
    for title, regimes in by_test(this).items():
        longer = tuple(f"{title}{sign}" for sign in ",[")
        (card,) = [one for text, one in cards.items() if text.startswith(title) and not text.startswith(longer)]
        values = [90.0, 95.0]
        for column in regimes:
            judged = column.comparison()
            factor, shares = words.factor(column.metric), [100 * one.share for one in trainings(column) if one.share]
            counts = {len(judged.names), len(judged.under_trained), *(row.values.shape[0] for row in column.rows)}
            values += [*counts, *shares, *(float(row.values.shape[1]) for row in column.rows)]
            values += [column.protocol.way, column.protocol.shots, *range(len(judged.starved))]
            values += [row.examples for row in column.rows if row.examples]
            if judged.names:
                best = next(row for row in column.rows if row.name == judged.names[0])
                values += [factor * best.interval.estimate, factor * best.interval.half_width]
            if judged.pairs:
                need = judged.pairs[0].need
                values += [*amounts(judged.pairs[0], column.metric), *numbers_of(need), len(judged.names) - 1.0]
                of_best = [pair for pair in judged.pairs if pair.first == judged.names[0]]
                values.append(float(sum(pair.kind == "better" or pair.outdone for pair in of_best)))
                values += [float(one) for pair in judged.unstable for one in re.findall(r"\d+", pair.unstable)]
                share = judged.pairs[0].contrast.won(judged.pairs[0].scope)
                values += [100 * side for end in (share.estimate, share.low, share.high) for side in (end, 1 - end)]
        assert unknown(card.text, values, [title, *names]) == [], (title, card.text)


def by_test(this: Made) -> dict[str, list[Column]]:
    """Title -> the columns of the test, the fullest first."""
    found: dict[str, list[Column]] = {}
    for column in sorted(this.columns, key=lambda column: -len(column.rows)):
        found.setdefault(this.title(column.protocol), []).append(column)
    return found


def trainings(column: Column) -> list[Any]:
    return [tested.record.training for row in column.rows for tested in row.tested if tested.record.training]


def numbers_of(need: Any) -> list[float]:
    return [float(part.replace(",", "")) for part in str(need).split() if part.replace(",", "").isdigit()]


@every_store
def test_every_number_of_the_sentences_is_of_a_frame(store: str) -> None:
    this = made(store)
    ratios, gains = frames.ratios(this.results.costs), pd.DataFrame(worth.worth_rows(this.results))
    values = [33.0, 90.0, 95.0, *frames.READINGS.values(), float(len(ratios))]
    for frame in (ratios, gains):
        values += [abs(float(v)) for column in frame.select_dtypes("number") for v in frame[column].dropna()]
    values += [100 * abs(1 - 1 / v) for v in ratios["memory"].dropna()]
    ours = ratios[ratios["label"] == frames.OURS]
    for _, group in ours.groupby(["machine", "device"]):
        values += range(len(group) + 1)
    published = reproduced.published_table(this.results)
    values += range(len(published) + 1)
    for found in reproduced.reproductions(this.results).values():
        values += [abs(one.distance.z) for one in found if one.distance and one.distance.z]
        values += [abs(one.published.value) * words.factor(one.published.metric) for one in found]
    fits = [training for result in this.results.results for training in result.training]
    values += [100 * training.share for training in fits if training.share]
    for column in this.columns:
        judged = column.comparison()
        values += [end for pair in judged.pairs if {"maml", "fomaml"} == {pair.first, pair.second}
                   for end in [*amounts(pair, column.metric), *numbers_of(pair.need)]]  # fmt: skip
    machines = [
        machine
        for r in this.results.measured
        if r.machine
        for machine in (r.machine.cpu, (r.machine.gpu or {}).get("name"))
    ]
    names = [*this.main["task"], *this.main["method"]] if len(this.main) else []
    names += [
        what for text in published.get("protocol_differs", pd.Series(dtype=str)).dropna() for what in text.split("; ")
    ]
    names += [*ratios["backbone"], *gains.get("backbone", []), *machines, "learn2learn"]
    if latest := trend.counted(this.results.stores):
        values.append(latest.steps)
        names += [latest.commit[:7], latest.when[:10]]
    said = [this.page.sections[name] for name in ("answers", "second-order", "published") if name in this.page.sections]
    assert said
    for text in said:
        assert unknown(" ".join(text.split()), values, [name for name in names if name]) == []


def test_right_answers_of_the_sample_episodes() -> None:
    found = [table for name, table in made("quick").page.tables.items() if name.startswith("guesses")]
    assert found
    rows = [row for table in found for row in table if row]
    truth: list[Cell] = []
    for row in rows:
        if row[0].text == "Queries":
            truth = row[1:-1]
            continue
        right = sum(guess.text == true.text for guess, true in zip(row[1:-1], truth, strict=True))
        assert row[-1].text == f"{right} of {len(truth)}"


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    page, described = REFERENCE / "index.html", catalogue.load()
    results = load(sorted(readme.stores()))
    results.page = page.parent
    again = Page(render(results, described["methods"], described["tasks"])[0])
    committed = Page(page.read_text(encoding="utf-8"))
    texts = [{name: text.split() for name, text in one.sections.items()} for one in (committed, again)]
    assert texts[0] == texts[1], "make it again with `make readme`"
    tables_ = [
        {n: [[c.text for c in row] for row in rows] for n, rows in one.tables.items()} for one in (committed, again)
    ]
    assert tables_[0] == tables_[1]
