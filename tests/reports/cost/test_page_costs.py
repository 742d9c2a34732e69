"""The tables of costs on the committed pages show their frames, which hold what `benchmarks.stats` computes."""

from __future__ import annotations

import pandas as pd
import pytest
from page_reader import Cell, assert_shown, made, shows

from benchmarks.stats import timing
from reports.cost import frames

cost_stores = pytest.mark.parametrize("store", ["quick", "gpu"])


@cost_stores
def test_ratios_of_times_are_those_of_the_samples(store: str) -> None:
    records = made(store).results.costs
    rows = frames.rows(records)
    timed = rows[rows["status"] == "ok"].set_index([*frames.SETTING, "label", "order"])["samples_milliseconds"]
    for frame, upper, lower in (
        (frames.ratios(records).assign(second="second"), ("label", "second"), ("label", "first")),
        (frames.against(records), ("label", "order"), ("ours", "order")),
    ):
        assert len(frame)
        for row in frame.assign(first="first", ours=frames.OURS).to_dict("records"):
            place = tuple(row[name] for name in frames.SETTING)
            samples = [timed[(*place, *(row[name] for name in which))] for which in (upper, lower)]
            expected = timing.ratio(*samples)
            assert (row["time"], row["low"], row["high"]) == pytest.approx(
                (expected.value, expected.low, expected.high), nan_ok=True
            )


def assert_interval(cell: Cell, *numbers: float) -> None:
    """``1.50 [1.40, 1.60]``"""
    parts = cell.text.replace("[", " ").replace("]", " ").replace(", ", " ").split()
    assert all(shows(part, number) for part, number in zip(parts, numbers, strict=True)), (cell, numbers)


@cost_stores
def test_the_tables_of_costs_show_their_frames(store: str) -> None:
    page, records = made(store).page, made(store).results.costs
    ratios, speedups, rows = frames.ratios(records), frames.speedups(records), frames.rows(records)
    head, *shown = page.tables["second-order-csv"]
    place = {cell.text: index for index, cell in enumerate(head)}
    for cells, row in zip(shown, ratios.to_dict("records"), strict=True):
        assert_interval(cells[place["time"]], row["time"], row["low"], row["high"])
        for name, column in (("memory", "memory"), ("FLOPs", "flops"), ("operations", "operations")):
            assert_shown(cells[place[name]], row[column], row)
    for cells, row in zip(page.tables["implementations-csv"][1:], speedups.to_dict("records"), strict=True):
        if row["peer"] == row["peer"]:
            assert_interval(cells[3], row["peer"], row["low"], row["high"])
        assert cells[4].text == row["fastest"]
        assert_interval(cells[5], row["fastest_time"], row["fastest_low"], row["fastest_high"])
    head, *shown = page.tables["costs-csv"]
    place = {cell.text: index for index, cell in enumerate(head)}
    tried = rows[rows["status"] != "skipped"].to_dict("records")
    units = {"compile s": ("compile_seconds", 1), "peak MiB": ("peak_bytes", 2**20), "MFLOP": ("flops", 1e6),
             "operations": ("operations", 1), "launches": ("launches", 1), "error": ("gradient_error", 1),
             "adapt ms/task": ("adapt_milliseconds_per_task", 1), "of ceiling": ("share_of_ceiling", 1)}  # fmt: skip
    for cells, row in zip(shown, tried, strict=True):
        if row["status"] == "ok":
            samples = timing.median(row["samples_milliseconds"])
            assert (samples.value, samples.low, samples.high) == pytest.approx(
                (row["milliseconds"], row["low"], row["high"])
            )
            assert_interval(cells[place["ms"]], samples.value, samples.low, samples.high)
        for name, (column, unit) in units.items():
            if name in place:
                value = None if pd.isna(row[column]) else row[column] / unit
                assert_shown(cells[place[name]], value, (name, row["label"]))


@cost_stores
def test_the_overview_counts_settings(store: str) -> None:
    ratios = frames.ratios(made(store).results.costs)
    said = " ".join(made(store).page.sections["second-order"].split())
    for _, group in ratios[ratios["label"] == frames.OURS].groupby(["machine", "device"]):
        found = [frames.claim(row.low, row.high, row.stable) for row in group.itertuples()]
        told = [
            f"{'is ' * (word == 'undecided')}{word} at {found.count(word)}" for word in frames.OUTCOMES if word in found
        ]
        assert f") {', '.join(told)} of {len(group)} settings." in said


def test_nothing_is_timed_that_computes_something_else() -> None:
    for store in ("quick", "gpu"):
        errors = frames.rows(made(store).results.costs)["gradient_error"].dropna()
        assert (errors < 1e-6).all()
