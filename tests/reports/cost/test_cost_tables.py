"""Costs on planted samples: ratios, sentences, tables and figures."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_costs import CPU, record, row, untimed
from made_up_records import SINUSOID, Maker
from rich.console import Console

from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record
from benchmarks.stats import timing
from reports import style
from reports.cost import figures, sections, terminal, worth
from reports.cost import frames as tables
from reports.page.page import write_report
from reports.results import load


def variants(second: float, first: float, label: str = "ours/rule") -> list[dict[str, Any]]:
    """Both orders of an implementation, unstable, with these times times 1, 1.1, 1.2 ... in the same rounds."""
    return [
        row(order, label, scale, peak_bytes=peak, stable=False)
        for order, scale, peak in (("second", second, 4_000_000), ("first", first, 3_000_000))
    ]


def planted(steps: int, second: float, first: float, *more: dict[str, Any], **changes: Any) -> Record:
    """A setting on the CPU: our variants, and more rows."""
    return record("mlp-40-40", 25, steps, [*variants(second, first), *more], gpu=False, **changes)


def test_ratios_and_sentences_come_from_the_samples() -> None:
    records = [planted(1, 3.0, 2.0), planted(5, 8.0, 4.0)]
    found = tables.ratios(records)
    assert list(found["time"]) == pytest.approx([1.5, 2.0])
    # a round that is slow is slow for both orders, so the ratio is known exactly
    assert list(found["low"]) == pytest.approx([1.5, 2.0])
    assert list(found["memory"]) == pytest.approx([4 / 3, 4 / 3])
    table = sections.ratio_table(records)
    assert table is not None
    assert table.frame["time"].tolist() == ["1.50 [1.50, 1.50]", "2.00 [2.00, 2.00]"]
    assert table.frame["33 %"].tolist() == ["undecided", "undecided"], "timing is noisy"
    first, second = tables.sentences(records)
    assert "1.50 times [1.50, 1.50] as fast" in first
    assert "25 % less memory at 1 inner step on mlp-40-40" in first
    assert first.endswith("; the paper's roughly 33 %: undecided.")
    assert "2.00 times" in second
    assert "5 inner steps" in second
    assert "unstable" in first


def test_the_newest_record_of_a_setting_counts_and_machines_never_mix() -> None:
    old, new = planted(1, 3.0, 1.0), planted(1, 2.0, 1.0, key="1" * 16)
    other = planted(1, 5.0, 1.0, key="2" * 16, machine=dataclasses.replace(CPU, id="other"))
    found = tables.ratios([old, new, other])
    assert list(zip(found["machine"], found["time"], strict=True)) == [("aaaa", 2.0), ("other", 5.0)]


def test_the_fastest_of_the_others_is_marked() -> None:
    others = [
        each
        for name, scale in (("learn2learn", 10), ("jax", 2), ("ours/one", 1))
        for each in variants(3.0 * scale, 2.0 * scale, name)
    ]
    found = tables.against([planted(1, 3.0, 2.0, *others)])
    marked = found[found["fastest"]]
    assert set(marked["label"]) == {"jax"}
    assert list(marked["time"]) == pytest.approx([2.0, 2.0])


def test_the_terminal_shows_numbers_and_what_failed() -> None:
    absent = untimed("first", "jax", "skipped", "jax is not installed")
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show([planted(1, 3.0, 2.0, absent), planted(5, 8.0, 4.0)], console)
    text = console.export_text()
    assert "3.6 [3, 4.2]" in text
    assert "first jax: skipped: jax is not installed" in text
    assert " ".join(text.split()).count("the paper's roughly 33 %") == 2
    assert "to 2.00 times (mlp-40-40, 5 steps) as long as one of first order" in " ".join(text.split())


def test_no_costs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetabenchError, match="run `metabench cost` first"):
        tables.load(tmp_path)


def test_intervals_of_paired_rounds_are_narrower() -> None:
    random = np.random.default_rng(0)
    disturbance = random.lognormal(0, 0.3, 40)
    first, second = disturbance * random.lognormal(0, 0.01, 40), 2 * disturbance * random.lognormal(0, 0.01, 40)
    paired, apart = timing.ratio(second, first), timing.ratio(second, first[:39])
    assert paired.low <= 2.0 <= paired.high
    assert paired.high - paired.low < apart.high - apart.low
    assert timing.median([1.0, 2.0]).low != timing.median([1.0, 2.0]).low  # NaN: two samples have no interval


# --- the page ------------------------------------------------------------------------------------------------------


def competition() -> list[Record]:
    """Two settings with three implementations, an evaluation, one that ran out of memory and one that is absent."""
    absent = untimed("first", "higher", "skipped", "higher is not installed (make peers)")
    records = [
        planted(steps, second, first, *variants(50 * 3.0, 50 * 2.0, "learn2learn"), *variants(3.75, 2.5, "jax"), absent)
        for steps, second, first in ((1, 3.0, 2.0), (5, 8.0, 4.0))
    ]
    rows = [row("first", "ours/rule", 40.0), row("first", "learn2learn", 60.0)]
    evaluation = record("mlp-40-40", 100, 10, rows, gpu=False, work="evaluation")
    large = record("mlp-40-40", 25, 10, [], gpu=False, status="out-of-memory", reason="used 9 GB")
    return [*records, evaluation, large]


def test_overview_says_how_often_the_paper_is_right() -> None:
    (said,) = tables.overview(competition())
    assert said.startswith("On the CPU a meta-step of second order takes 1.50 times (mlp-40-40, 1 step) to 2.00 times")
    assert "(2 of 2 settings are unstable" in said
    assert "(1.33 times if it means speed or 1.5 times if it means time saved) is undecided at 2 of 2 settings" in said


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1.4, 1.6, "holds"), (1.0, 1.2, "fails"), (1.2, 1.4, "undecided"), (float("nan"), float("nan"), "undecided")],
)
def test_the_claim_is_judged_by_the_whole_interval(low: float, high: float, word: str) -> None:
    assert tables.claim(low, high) == word
    assert tables.claim(low, high, stable=False) == "undecided"


def test_the_fastest_other_stands_beside_learn2learn() -> None:
    table = sections.speedup_table(competition())
    assert table is not None
    shown = table.frame
    found = shown[(shown["setting"] == "mlp-40-40, 25 tasks, 1 inner step") & (shown["order"] == "second")].iloc[0]
    assert found["learn2learn"].startswith("50.00 [")
    assert found["fastest other"] == "jax"
    assert found["its time over ours"].startswith("1.25 [")
    evaluation = shown[shown["setting"] == "mlp-40-40, 100 episodes evaluated, 10 inner steps"].iloc[0]
    assert (evaluation["order"], evaluation["learn2learn"][:5]) == ("first", "1.50 ")


def test_every_variant_is_a_row_and_what_failed_says_why() -> None:
    table = sections.full_table(tables.rows(competition()))
    assert len(table.rows) == 2 * 6 + 2 + 1
    last = table.frame[table.frame["status"].str.startswith("out-of-memory")].iloc[0]
    assert last["status"] == "out-of-memory: used 9 GB"
    assert last["ms"] == "–"
    first = table.frame.iloc[0]
    assert (first["implementation"], first["ms"], first["peak MiB"]) == ("ours/rule", "3.6 [3, 4.2]", "3.81")


def test_figures_need_two_numbers_of_steps_or_two_implementations() -> None:
    records = competition()
    (ratio,), (memory,) = figures.ratio_panels(records), figures.memory_panels(records)
    assert ratio.labels == memory.labels == ("ours/rule", "learn2learn", "jax")
    assert len(figures.time_panels(records)) == 3
    assert "var(--cost-0, #0173b2)" in ratio.svg
    assert figures.ratio_panels(records[:1]) == figures.memory_panels(records[:1]) == []
    assert figures.time_panels([planted(1, 3.0, 2.0)]) == []


def test_implementations_keep_their_colour_and_plans_share_it() -> None:
    looks = [style.implementation(name) for name in style.IMPLEMENTATIONS]
    assert len({look.light for look in looks}) == len(looks)
    ours, plan = style.implementation("ours/rule"), style.implementation("ours/all")
    assert (ours.light, ours.variable) == (plan.light, plan.variable)
    assert (ours.marker, ours.dash) != (plan.marker, plan.dash)
    plans = [style.implementation(f"ours/{name}") for name in style.PLANS]
    assert len({look.marker for look in plans}) == len(style.PLANS)
    assert style.implementation("gymnasium").light == style.implementation("another").light
    assert all(f"{look.variable}:{look.dark};" in style.css_variables({}, dark=True) for look in looks)


def test_what_second_order_brings_and_its_price(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    for label, level in (("maml", 0.3), ("fomaml", 0.6)):
        make.evaluation(label, SINUSOID, level=level)
    for rows, batch, steps in ((variants(3.0, 2.0), 25, 1), (variants(9.0, 2.0), 1000, 1), (variants(8.0, 2.0), 25, 5)):
        make.store.write(record("mlp-40-40", batch, steps, rows, gpu=False))
    (found,) = [one for one in worth.worth_rows(load(tmp_path / "store")) if one["leading"]]
    assert (found["verdict"], found["steps"], found["backbone"]) == ("better", 1, "mlp-40-40")
    # the means' ratio, from the side of second order
    assert found["advantage"] > 1.5
    assert found["advantage_low"] < found["advantage"] < found["advantage_high"]
    # as many inner steps, and the nearest meta-batch
    assert (found["time"], found["memory"]) == pytest.approx((1.5, 4 / 3))
    text = write_report(tmp_path / "store", tmp_path / "page.html", tmp_path / "figures").read_text()
    assert "a meta-step of second order takes 1.50 [1.50, 1.50] times as long and 1.33 times the memory." in text
    assert (tmp_path / "figures" / "cost-worth-squared-error.png").exists()
    assert 'id="implementations"' in text


def test_a_price_that_was_not_measured_is_said_to_be_missing(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    for label in ("maml", "fomaml"):
        make.evaluation(label, SINUSOID, level=0.5)
    make.store.write(record("conv4-32", 4, 1, variants(3.0, 2.0), gpu=False))
    (found,) = worth.worth_rows(load(tmp_path / "store"))
    assert "The cost of second order at 1 inner step on mlp-40-40 on the CPU was not measured." in found["sentence"]
    assert worth.worth_panels([found], {}) == []
