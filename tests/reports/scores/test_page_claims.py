"""The numbers of the page's claims, computed again from the committed records."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from page_numbers import Page, Store, difference, digits_between, family, on_page, rendered, titles_of, unit

REFERENCE = Path(__file__).parents[3] / "reports" / "reference" / "quick"


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(REFERENCE)


@pytest.fixture(scope="module")
def page() -> Page:
    return rendered(REFERENCE)[0]


def test_every_claim(store: Store, page: Page) -> None:
    table = page.frame("claims-csv")
    table = table[~table["claim"].str.startswith("Leaving the second derivatives out")]  # tests/test_page_costs.py
    factor = re.compile(r"by (?:a factor of )?([\d.]+)(?: points)?.* \(adjusted interval ([−+\d.]+) to ([−+\d.]+)\)")
    sides = re.compile(r"(.+?) is ahead of (.+?) by ")
    for claim, rows in table.groupby("claim", sort=False):
        numbers, differences, metrics = [], [], []
        for row in rows.to_dict("records"):
            regime = re.search(r"batch-norm: (\w+)", row["test"])
            here = regime[1] if regime else "none"
            title = row["test"].split(", batch-norm")[0]
            test = titles_of(store).get(title) or next(t for name, t in titles_of(store).items() if t[0] == title)
            test = (test[0], 10, test[2]) if title == "sinusoid-v1/k10" else test
            metric = unit(store, test)[0]
            ahead, behind = (_side(store, side, test, here) for side in sides.search(row["finding"]).groups())
            count = min(ahead.shape[1], behind.shape[1])
            differences.append(difference(ahead[:, :count], behind[:, :count], metric))
            metrics.append(metric)
            numbers.append([float(one.replace("−", "-")) for one in factor.search(row["finding"]).groups()])
            assert set(row["records"].split()) <= {record["key"] for record in store.done}
        for (size, low, high), row, metric in zip(numbers, family(differences).itertuples(), metrics, strict=True):
            digits = {"accuracy": {"abs": 0.0051}, "squared error": {"abs": 0.00051}}.get(metric, {"rel": 0.0051})
            assert size == pytest.approx(on_page(row.estimate, metric), **digits), claim
            ends = on_page(row.low, metric), on_page(row.high, metric)
            if metric == "return":
                digits = {"abs": 0.51 * 10 ** -digits_between(*ends)}
            assert (low, high) == pytest.approx(ends, **digits), claim


def _side(store: Store, side: str, test: tuple[str, int, str], regime: str) -> np.ndarray:
    """The scores that a side of a claim names."""
    if side.startswith("half of the error"):
        return 0.5 * store.scores(test, "maml", regime, 0)
    if side.endswith("with all of it"):
        return store.scores((test[0].removesuffix("-half"), *test[1:]), "maml", regime)
    label, _, rest = side.partition(" ")
    if rest == "before adaptation":
        return store.scores(test, label, regime, 0)
    step = re.search(r"after (\d+) step", rest)
    return store.scores(test, label, regime, int(step[1]) if step else None)
