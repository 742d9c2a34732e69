"""The numbers of the page's control section, computed again from the committed records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_numbers import Page, Store, half_width, rendered, shown, titles_of

REFERENCE = Path(__file__).parents[3] / "reports" / "reference" / "quick"


@pytest.fixture(scope="module")
def store() -> Store:
    found = Store(REFERENCE)
    if not any(record["task"]["kind"] == "control" for record in found.done):
        pytest.skip("the committed records hold no control tasks")
    return found


@pytest.fixture(scope="module")
def page(store: Store) -> Page:
    return rendered(REFERENCE)[0]


def test_returns_by_step_and_the_environment_steps_they_take(store: Store, page: Page) -> None:
    text, values = page.frame("returns-csv"), page.values("returns-csv")
    for said, row in zip(text.to_dict("records"), values.to_dict("records"), strict=True):
        test = titles_of(store)[said["task"]]
        records = [r for r in store.of(test, said["method"], "none") if store.test(r) == test]
        count = store.scores(test, said["method"], "none", 0).shape[1]
        steps = [one["step"] for one in records[0]["summary"]]
        assert len(steps) > 1
        for step in steps:
            episodes = store.scores(test, said["method"], "none", step)[:, :count].mean(axis=0)
            assert said[f"after {step}"] == f"{episodes.mean():.2f} ± {half_width(episodes):.2f}"
        taken = np.mean([[one["environment_steps"] for one in r["summary"]] for r in records], axis=0)
        assert row["environment steps each"] == pytest.approx(np.diff(taken).mean())
        fits = [r["training"]["environment_steps"] for r in records if r["training"]]
        if fits:
            assert row["meta training environment steps"] == pytest.approx(np.mean(fits))
        assert said["seeds"] == str(len(records))


def test_totals_beside_published_ones_and_regrets(store: Store, page: Page) -> None:
    numbers = pd.read_csv(REFERENCE.parents[1] / "published.csv")
    means = numbers[(numbers["metric"] == "return") & numbers["episodes"].notna()]
    anchored = set(zip(means["method"], means["task"], strict=True))
    expected = {
        (r["label"], store.test(r))
        for r in store.done
        if r["task"]["metric"] == "return"
        and store.test(r)[2] == "best"
        and ("bayes_optimum" in r["method"]["facts"] or (r["label"], store.test(r)[0]) in anchored)
    }
    if not expected:
        assert "totals-csv" not in page.tables
        pytest.skip("the committed records hold no task with published totals or a known optimum")
    text, values = page.frame("totals-csv"), page.values("totals-csv")
    assert {(said["method"], titles_of(store)[said["task"]]) for said in text.to_dict("records")} == expected
    for said, row in zip(text.to_dict("records"), values.to_dict("records"), strict=True):
        test = titles_of(store)[said["task"]]
        assert said["ours"] == shown(store, test, said["method"], "none")
        totals = store.scores(test, said["method"], "none").mean(axis=0)
        known = numbers[(numbers["method"] == said["method"]) & (numbers["task"] == test[0])]
        if said["published"] != "–":
            anchor = known[known["value"] == row["published"]].iloc[0]
            variance = totals.var(ddof=1)
            spread = variance / len(totals) + variance / anchor["episodes"] + 0.01 / 12
            assert row["z"] == pytest.approx((totals.mean() - anchor["value"]) / np.sqrt(spread))
        facts = store.of(test, said["method"], "none")[0]["method"]["facts"]
        if "bayes_optimum" in facts:
            assert row["regret"] == pytest.approx(facts["bayes_optimum"] - totals.mean())
            if said["method"] == "rl2":
                assert f"{abs(row['regret']):.2f}" in page.text.partition("rl2 earns ")[2][:200]
