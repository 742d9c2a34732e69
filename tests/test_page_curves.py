"""The curves of the page's figures, computed again from the committed records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page_numbers import Page, Store, rendered, titles_of, unit

from reports import words

REFERENCE = Path(__file__).parents[1] / "reports" / "reference" / "quick"


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(REFERENCE)


@pytest.fixture(scope="module")
def made() -> tuple[Page, list]:
    return rendered(REFERENCE)


def test_curves_are_drawn_through_the_means_of_the_records(store: Store, made: tuple[Page, list]) -> None:
    panels = {panel.name: panel for panel in made[1]}
    for title, test in titles_of(store).items():
        for regime in {r["evaluation"]["regime"] for r in store.done if store.test(r) == test}:
            panel = panels.get(words.slug(f"steps {title} {regime}"))
            if panel is None:
                continue
            _, factor, _ = unit(store, test)
            drawn = [line.get_ydata() for line in panel.svg.figure.axes[0].lines if len(line.get_ydata()) > 2]
            stepping = [
                r
                for r in store.column(test, regime)
                if len(r["summary"]) > 2 and r["evaluation"]["regime"] == regime and store.test(r) == test
            ]
            shown_on = [store.scores(test, r["label"], regime, 0).shape[1] for r in stepping]
            assert len(drawn) == len(stepping)
            for record in stepping:
                last = len(record["summary"])
                curve = [
                    factor * store.scores(test, record["label"], regime, step)[:, : min(shown_on)].mean()
                    for step in range(last)
                ]
                assert any(len(line) == last and np.allclose(line, curve) for line in drawn), record["label"]
    for name, panel in panels.items():
        if name.startswith("learning"):
            fits = [r for r in store.records if r["cell"] == "fit" and words.slug(r["task"]["id"]) in name]
            points = {
                round(point["score"] * (100 if r["task"]["metric"] == "accuracy" else 1), 9)
                for r in fits
                for point in r["training"]["curve"]
            }
            thin = [line for line in panel.svg.figure.axes[0].lines if line.get_alpha() == 0.35]
            assert len(thin) == len(fits)
            assert {round(float(y), 9) for line in thin for y in line.get_ydata()} == points
