"""A method that lacks a training seed is compared over the seeds that both of a pair have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_up_records import SINUSOID, Maker
from page_numbers import Store, all_pairs, paired, titles_of

from reports import results
from reports.scores import pairs


def test_pairs_are_over_the_shared_seeds(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    seeds = {"maml": (0, 1, 2), "fomaml": (0, 2), "finetune": (1,), "chance": (0,), "late": (2,)}
    for number, (label, own) in enumerate(seeds.items()):
        for seed in own:
            level = 0.4 + 0.1 * number + 0.3 * (seed == 1)
            make.evaluation(label, SINUSOID, seed, level=level, fits=label != "chance", role="learner")
    store = Store(tmp_path)
    test = titles_of(store)[SINUSOID["id"]]
    again = all_pairs(store, test, "none").set_index(["first", "second"])
    table = pairs.pairs_table(results.load(tmp_path)).set_index(["first", "second"])
    shared = {couple: set(seeds[couple[0]]) & set(seeds[couple[1]]) for couple in table.index if "chance" not in couple}
    assert set(table.index) == set(again.index)
    assert all(shared.values())
    assert not any({"finetune", other} == {*couple} for couple in table.index for other in ("fomaml", "late"))
    for couple, row in table.iterrows():
        expected = again.loc[couple]
        count = len(shared.get(couple, seeds[next(name for name in couple if name != "chance")]))
        assert row["seeds"] == count == len(paired(store, test, "none", couple)[0])
        found = [row["advantage"], row["low"], row["high"]]
        np.testing.assert_allclose(found, np.exp(expected[["estimate", "low", "high"]].astype(float)), rtol=1e-9)
        np.testing.assert_allclose(row["p_holm"], expected["p_holm"], rtol=1e-6)
        told = {"ahead": "better", "behind": "worse"}.get(row["verdict"], row["verdict"])
        assert told == (expected["verdict"] if row["advantage"] > 1 or not expected["apart"] else "worse"), couple
