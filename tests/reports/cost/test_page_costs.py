"""The tables of costs on the committed pages, computed again from the samples in the records with numpy and scipy."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from page_numbers import Page, rendered
from scipy import stats

REFERENCE = Path(__file__).parents[3] / "reports" / "reference"
Row = dict[str, Any]


class Costs:
    """What a store measured: the newest record of each setting, a row per variant, and the tables of its page."""

    def __init__(self, folder: Path) -> None:
        records = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "records").glob("*.json")]
        records = [
            record for record in records if record["cell"] == "cost" and record["setting"]["work"] != "environment"
        ]
        records.sort(key=lambda record: (record["finished"], record["key"]))
        newest = {json.dumps([r["machine"]["id"], r["device"], self.place(r)]): r for r in records}
        self.rows: list[Row] = [
            {
                **row,
                **{n: record[n] for n in ("device", "key")},
                "place": self.place(record),
                "machine": record["machine"]["id"],
            }
            for record in newest.values()
            for row in record["rows"]
        ]
        self.timed = [row for row in self.rows if row["status"] == "ok"]
        self.page: Page = rendered(folder)[0]

    @staticmethod
    def place(record: dict[str, Any]) -> tuple[str, str, int, int]:
        setting = record["setting"]
        return setting.get("work", "meta-step"), setting["backbone"], setting["meta_batch"], setting["inner_steps"]

    def group(self, *names: str) -> dict[tuple[Any, ...], list[Row]]:
        key = lambda row: tuple(row[name] for name in names)  # noqa: E731
        return {known: list(rows) for known, rows in itertools.groupby(sorted(self.timed, key=key), key)}


@pytest.fixture(scope="module", params=["quick", "gpu"])
def costs(request: pytest.FixtureRequest) -> Costs:
    found = Costs(REFERENCE / request.param)
    if not found.rows:
        pytest.skip(f"reports/reference/{request.param} holds no costs")
    return found


def ends(text: str) -> tuple[float, float, float]:
    """The number and the interval of a cell as "1.50 [1.40, 1.60]"."""
    value, low, high = (float(part.replace(",", "")) for part in text.replace("[", ", ").replace("]", "").split(", "))
    return value, low, high


def assert_shown(text: str, statistic: Any, *samples: list[float]) -> None:
    """A cell holds the statistic of the samples and, as near as another bootstrap comes, its interval over rounds."""
    value, low, high = ends(text)
    resampled = stats.bootstrap(
        samples, statistic, paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=1
    ).bootstrap_distribution
    value_place, *places = (max(10.0 ** (np.floor(np.log10(each)) - 2), 0.01) for each in (value, low, high))
    assert value == pytest.approx(statistic(*samples), abs=value_place)  # three digits are shown, or two decimals
    # medians of few rounds jump from one value to the next, so what is near is the share of resamples beyond an end;
    # two bootstraps of 2,000 and 4,000 differ in it by 0.004 (one standard error), and a page has hundreds of ends
    for end, level, place in zip((low, high), (0.025, 0.975), places, strict=True):
        assert np.mean(resampled < end - place) - 0.018 <= level <= np.mean(resampled <= end + place) + 0.018


def over(upper: Any, lower: Any) -> float:
    return float(np.median(upper) / np.median(lower))


def test_second_order_over_first(costs: Costs) -> None:
    shown = costs.page.frame("second-order-csv")
    both = {}
    for place, rows in costs.group("place", "device", "label").items():
        orders = {row["order"]: row for row in rows}
        if {"first", "second"} <= orders.keys():
            both[place] = orders
    assert len(shown) == len(both) > 0
    for _, cells in shown.iterrows():
        where = ("meta-step", cells["backbone"], int(cells["tasks"]), int(cells["inner steps"]))
        orders = both.pop((where, cells["device"], cells["implementation"]))
        samples = [orders[order]["samples_milliseconds"] for order in ("second", "first")]
        assert_shown(cells["time"], over, *samples)
        for header, column in (("memory", "peak_bytes"), ("FLOPs", "flops"), ("operations", "operations")):
            counted = [orders[order][column] for order in ("second", "first")]
            assert cells[header] == ("–" if None in counted else f"{counted[0] / counted[1]:.2f}"), header
        _, low, high = ends(cells["time"])
        for header, number in (("33 % speed", 1.33), ("33 % time saved", 1.5)):
            edge = min(abs(low - number), abs(high - number)) < 0.006  # the cell shows two decimals
            told = "more" if low > number else "less" if high < number else "agrees"
            assert edge or cells[header] == told
        assert cells["stable"] == ("yes" if all(order["stable"] for order in orders.values()) else "no")
    assert not both


def test_what_is_claimed_of_first_order(costs: Costs) -> None:
    claims = costs.page.frame("claims-csv")
    claims = claims[claims["claim"].str.startswith("Leaving the second derivatives out")]
    groups = costs.group("place", "device", "label")
    both = [rows for (_, _, label), rows in groups.items() if label == "ours/rule" and len(rows) == 2]
    assert len(claims) == len(both) > 0
    for rows in both:
        (_, backbone, batch, steps), device = rows[0]["place"], rows[0]["device"]
        test = f"{backbone}, {steps} inner step{'s' * (steps > 1)}, {batch} tasks, {device}"
        (claim,) = claims[claims["test"] == test].to_dict("records")
        said = re.search(
            r"takes ([\d.]+) times as long as first \(95 % interval ([\d.]+) to ([\d.]+)\)", claim["finding"]
        )
        assert said is not None
        orders = {row["order"]: row["samples_milliseconds"] for row in rows}
        assert_shown("{} [{}, {}]".format(*said.groups()), over, orders["second"], orders["first"])
        assert claim["records"] == rows[0]["key"]
        stable = all(row["stable"] for row in rows)
        assert stable or (claim["outcome"] == "undecided" and "unstable" in claim["finding"])


def test_the_overview_counts_settings(costs: Costs) -> None:
    shown = costs.page.frame("second-order-csv")
    ours = shown[shown["implementation"] == "ours/rule"]
    times = ours["time"].map(lambda text: ends(text)[0])
    text = " ".join(costs.page.text.split())
    assert f"a meta-step of second order takes {times.min():.2f} times" in text
    assert f"to {times.max():.2f} times" in text
    for header, number in (("33 % speed", "1.33"), ("33 % time saved", "1.5")):
        counts = ours[header].value_counts()
        named = ", ".join(f"{word} in {counts[word]}" for word in ("more", "agrees", "less") if word in counts)
        assert f"{number} times if it means {header[5:]} (here: {named} of {len(ours)} settings)" in text


def rival(label: str) -> bool:
    """Whether it is somebody else's, in float32 as ours is."""
    return not label.startswith("ours") and not label.endswith("tf32")


def test_others_against_ours(costs: Costs) -> None:
    shown = costs.page.frame("implementations-csv")
    expected = {}
    for (place, device, order), rows in costs.group("place", "device", "order").items():
        samples = {row["label"]: row["samples_milliseconds"] for row in rows}
        if "ours/rule" not in samples:
            continue  # it has no time, and its row says why
        others = {label: over(taken, samples["ours/rule"]) for label, taken in samples.items() if rival(label)}
        if others:
            work, backbone, batch, steps = place
            batched = f"{batch} {'episodes evaluated' if work == 'evaluation' else 'tasks'}"
            said = f"{backbone}, {batched}, {steps} inner step{'s' * (steps > 1)}"
            expected[said, order, device] = samples, min(others, key=lambda label: others[label])
    assert len(shown) == len(expected) > 0
    for _, cells in shown.iterrows():
        samples, fastest = expected.pop((cells["setting"], cells["order"], cells["device"]))
        assert cells["fastest other"] == fastest
        assert_shown(cells["its time over ours"], over, samples[fastest], samples["ours/rule"])
        if "learn2learn" in samples:
            assert_shown(cells["learn2learn"], over, samples["learn2learn"], samples["ours/rule"])
        else:
            assert cells["learn2learn"] == "–"
    assert not expected


#: header -> column of a record's row, unit, how it is shown
COLUMNS = {
    "compile s": ("compile_seconds", 1, "{:.1f}"),
    "peak MiB": ("peak_bytes", 2**20, "{:.2f}"),
    "MFLOP": ("flops", 1e6, "{:,.1f}"),
    "operations": ("operations", 1, "{:,.0f}"),
    "launches": ("launches", 1, "{:,.0f}"),
    "adapt ms/task": ("adapt_milliseconds_per_task", 1, "{:.3g}"),
    "of ceiling": ("share_of_ceiling", 1, "{:.1%}"),
    "error": ("gradient_error", 1, "{:.0e}"),
}


def test_every_variant_and_column(costs: Costs) -> None:
    shown = costs.page.frame("costs-csv")
    facts = ("work", "backbone", "meta batch", "inner steps", "order", "implementation", "device")
    here = {(*map(str, row["place"]), row["order"], row["label"], row["device"]): row for row in costs.rows}
    here = {place: row for place, row in here.items() if row["status"] != "skipped"}
    assert len(shown) == len(here)
    known = {*facts, "ms", "status", *COLUMNS}
    assert {*shown.columns} <= known, "a column that no test computes"
    for _, cells in shown.iterrows():
        row = here.pop(tuple(cells[name] for name in facts))
        if row["status"] != "ok":
            assert cells["status"] == f"{row['status']}: {row['reason']}"
            continue
        samples = row["samples_milliseconds"]
        assert_shown(cells["ms"], lambda taken: float(np.median(taken)), samples)
        quartiles = np.quantile(samples, [0.25, 0.75])
        calm = bool(np.diff(quartiles)[0] <= 0.1 * np.median(samples))
        assert cells["status"] == ("ok" if calm else "unstable")
        for header, (column, unit, form) in COLUMNS.items():
            if header in shown:
                value = row[column]
                assert cells[header] == ("–" if value is None or pd.isna(value) else form.format(value / unit)), header
    assert not here


def test_nothing_is_timed_that_computes_something_else(costs: Costs) -> None:
    assert all(row["gradient_error"] < 1e-6 for row in costs.timed if row["gradient_error"] is not None)
