"""What is said of costs: ratios, sentences, tables and figures, recomputed from made-up samples."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import SINUSOID, Maker
from rich.console import Console

from benchmarks.cost import entry
from benchmarks.cost.grid import Variant
from benchmarks.errors import MetabenchError
from benchmarks.stats import timing
from reports import style
from reports.cost import figures, sections, terminal, worth
from reports.cost import frames as tables
from reports.page.page import write_report
from reports.results import load


def planted(steps: int, second: float, first: float, label: str = "ours/rule", **changes: Any) -> dict[str, Any]:
    """A record with times of 5 rounds that are second (first) times 1, 1.1, 1.2 ... in every order alike."""
    noise = [1.0, 1.1, 1.2, 1.3, 1.4]
    blank = entry.empty_row
    rows = []
    for order, scale, peak in (("second", second, 4_000_000), ("first", first, 3_000_000)):
        samples = [scale * each for each in noise]
        facts = {"samples_milliseconds": samples, "milliseconds": scale * 1.2, "low": scale, "high": 1.4 * scale}
        counted = {"peak_bytes": peak, "flops": 150 * scale, "operations": 100, "spread": 0.16, "stable": False}
        name, _, plan = label.partition("/")
        rows.append({**blank(Variant(order, name, plan)), **facts, **counted})
    place = {"backbone": "mlp-40-40", "meta_batch": 25, "inner_steps": steps}
    return {
        "key": f"{steps:016d}", "cell": "cost", "status": "ok", "reason": None, "setting": place, "rows": rows,
        "machine": {"id": "abcd"}, "device": "cpu", "finished": "2026-01-01T00:00:00+00:00", **changes,
    }  # fmt: skip


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
    assert table.frame["33 % speed"].tolist() == ["more", "more"]
    assert table.frame["33 % time saved"].tolist() == ["agrees", "more"]
    first, second = tables.sentences(records)
    assert "1.50 times [1.50, 1.50] as fast" in first
    assert "25 % less memory at 1 inner step on mlp-40-40" in first
    read = (
        "roughly 33 %, which is 1.33 times if it means speed (here: more) and 1.5 times if it means time saved (here: "
    )
    assert first.endswith(f"{read}agrees).")
    assert second.endswith(f"{read}more).")
    assert "2.00 times" in second
    assert "5 inner steps" in second
    assert "unstable" in first


def test_the_newest_record_of_a_setting_counts_and_machines_never_mix() -> None:
    old, new = planted(1, 3.0, 1.0), planted(1, 2.0, 1.0, key="1" * 16)
    other = planted(1, 5.0, 1.0, key="2" * 16, machine={"id": "other"})
    found = tables.ratios([old, new, other])
    assert list(zip(found["machine"], found["time"], strict=True)) == [("abcd", 2.0), ("other", 5.0)]


def test_the_fastest_of_the_others_is_marked() -> None:
    record = planted(1, 3.0, 2.0)
    for name, scale in (("learn2learn", 10), ("jax", 2), ("ours/one", 1)):
        record["rows"] += planted(1, 3.0 * scale, 2.0 * scale, name)["rows"]
    found = tables.against([record])
    marked = found[found["fastest"]]
    assert set(marked["label"]) == {"jax"}
    assert list(marked["time"]) == pytest.approx([2.0, 2.0])


def test_the_terminal_shows_numbers_and_what_failed() -> None:
    record = planted(1, 3.0, 2.0)
    record["rows"].append(
        {**entry.empty_row(Variant("first", "jax")), "status": "skipped", "reason": "jax is not installed"}
    )
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show([record, planted(5, 8.0, 4.0)], console)
    text = console.export_text()
    assert "3.6 [3, 4.2]" in text
    assert "first jax: skipped: jax is not installed" in text
    assert text.count("the paper: roughly 33 %") == 2
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


def competition() -> list[dict[str, Any]]:
    """Two settings with three implementations, an evaluation, one that ran out of memory and one that is absent."""
    records = [planted(1, 3.0, 2.0), planted(5, 8.0, 4.0)]
    for record, steps in zip(records, (1, 5), strict=True):
        for name, scale in (("learn2learn", 50), ("jax", 1.25)):
            record["rows"] += planted(steps, 3.0 * scale, 2.0 * scale, name)["rows"]
        absent = {"status": "skipped", "reason": "higher is not installed (make peers)"}
        record["rows"] += [{**entry.empty_row(Variant("first", "higher")), **absent}]
    evaluation = planted(10, 1.0, 40.0, key="e" * 16)
    evaluation["setting"] |= {"work": "evaluation", "meta_batch": 100}
    evaluation["rows"] = [evaluation["rows"][1], *planted(10, 1.0, 60.0, "learn2learn")["rows"][1:]]
    large = planted(10, 1.0, 1.0, key="f" * 16, status="out-of-memory", reason="used 9 GB")
    return [*records, evaluation, {**large, "rows": []}]


def test_overview_says_how_often_the_paper_is_right() -> None:
    (said,) = tables.overview(competition())
    assert said.startswith("On the CPU a meta-step of second order takes 1.50 times (mlp-40-40, 1 step) to 2.00 times")
    assert "(2 of 2 settings are unstable" in said
    assert "1.33 times if it means speed (here: more in 2 of 2 settings)" in said
    assert "1.5 times if it means time saved (here: more in 1, agrees in 1 of 2 settings)" in said


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1.4, 1.6, "more"), (1.2, 1.3, "less"), (1.2, 1.4, "agrees"), (float("nan"), float("nan"), "unknown")],
)
def test_a_number_is_judged_by_the_whole_interval(low: float, high: float, word: str) -> None:
    assert tables.judged(low, high, 1.33) == word


def test_the_fastest_other_stands_beside_learn2learn() -> None:
    table = sections.speedup_table(competition())
    assert table is not None
    shown = table.frame
    row = shown[(shown["setting"] == "mlp-40-40, 25 tasks, 1 inner step") & (shown["order"] == "second")].iloc[0]
    assert row["learn2learn"].startswith("50.00 [")
    assert row["fastest other"] == "jax"
    assert row["its time over ours"].startswith("1.25 [")
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
    assert len(figures.bar_panels(records)) == 3
    assert "var(--cost-0, #0173b2)" in ratio.svg
    assert figures.ratio_panels(records[:1]) == figures.memory_panels(records[:1]) == []
    assert figures.bar_panels([planted(1, 3.0, 2.0)]) == []


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


def test_what_second_order_brings_stands_beside_its_price(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    for label, level in (("maml", 0.3), ("fomaml", 0.6)):
        make.evaluation(label, SINUSOID, level=level)
    setting = {"backbone": "mlp-40-40", "meta_batch": 25, "inner_steps": 1}
    for number, (record, batch, steps) in enumerate(
        [(planted(1, 3.0, 2.0), 25, 1), (planted(1, 9.0, 2.0), 1000, 1), (planted(5, 8.0, 2.0), 25, 5)]
    ):
        header = make.header("cost", "cost", SINUSOID, number)
        make.store.write(
            {**header, "setting": {**setting, "meta_batch": batch, "inner_steps": steps}, "rows": record["rows"]}
        )
    (row,) = [row for row in worth.worth_rows(load(tmp_path / "store")) if row["leading"]]
    assert (row["verdict"], row["steps"], row["backbone"]) == ("better", 1, "mlp-40-40")
    # the means' ratio, from the side of second order
    assert row["advantage"] > 1.5
    assert row["advantage_low"] < row["advantage"] < row["advantage_high"]
    # as many inner steps, and the meta-batch that is nearest
    assert (row["time"], row["memory"]) == pytest.approx((1.5, 4 / 3))
    text = write_report(tmp_path / "store", tmp_path / "page.html", tmp_path / "figures").read_text()
    assert "a meta-step of second order takes 1.50 [1.50, 1.50] times as long and 1.33 times the memory." in text
    assert (tmp_path / "figures" / "cost-worth-squared-error.png").exists()
    assert 'id="implementations"' in text


def test_a_price_that_was_not_measured_is_said_to_be_missing(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    for label in ("maml", "fomaml"):
        make.evaluation(label, SINUSOID, level=0.5)
    header = make.header("cost", "cost", SINUSOID, 0)
    setting = {"backbone": "conv4-32", "meta_batch": 4, "inner_steps": 1}
    make.store.write({**header, "setting": setting, "rows": planted(1, 3.0, 2.0)["rows"]})
    (row,) = worth.worth_rows(load(tmp_path / "store"))
    assert "What second order costs at 1 inner step on mlp-40-40 was not measured." in row["sentence"]
    assert worth.worth_panels([row], {}) == []
