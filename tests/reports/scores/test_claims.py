"""Claims compare both sides on the same episodes, and say on how many."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
from made_up_records import SINUSOID, Maker

from reports.results import load
from reports.scores.claims import claims_table

HALF = dataclasses.replace(SINUSOID, id=f"{SINUSOID.id}-half")
CLAIM = "Half of the range suffices: MAML infers the other half"


@pytest.mark.fault("V3")
def test_a_claim_about_the_start_names_the_first_episodes_that_both_sides_have(tmp_path: Path) -> None:
    make = Maker(tmp_path, episodes=60)
    key = make.evaluation("maml", HALF, level=3.0, slope=-2.5, steps=2, trained_on=SINUSOID.id, curve_episodes=20)
    scores = {name: values.mean(1).astype(float) for name, values in make.store.scores(make.store.get(key)).items()}
    before, after = scores["best/none/0"], scores["best/none/1"]
    assert (len(before), len(after)) == (20, 60)
    table = claims_table(load(tmp_path))
    (finding,) = table.loc[table["claim"] == CLAIM, "finding"]
    assert re.search(r"\b20 episodes\b", finding)
    factor = float(re.search(r"a factor of ([\d.]+)", finding).group(1))  # type: ignore[union-attr]
    assert factor == pytest.approx(0.5 * before.mean() / after[:20].mean(), abs=0.001)
    assert not math.isclose(factor, 0.5 * before.mean() / after.mean(), abs_tol=0.001)
