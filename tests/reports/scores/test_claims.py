"""Claims on made-up records: each new one in each outcome, on the same episodes, from equal training."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks import registry
from benchmarks.records.record import Method, Task
from reports.results import load
from reports.scores.claims import claims_table
from reports.scores.paper_claims import BY_TASKS, CARRY_OVER, FIRST_ORDER, HALVED, METRIC, PAIRED, Paired

RUN = Task("navigation-2d-v1/quick", "navigation-2d", 1, "quick", "control", "return", True, 5.0, {"shot": 10})
PAIRS = (Paired(FIRST_ORDER, "", ("fomaml",), ("maml",), True), *PAIRED)
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


def of_claim(folder: Path, claim: str) -> pd.DataFrame:
    table = claims_table(load(folder))
    return table[table["claim"] == claim]


def trained(make: Maker, label: str, task: Task, level: float, examples: int = 500_000, **changes: Any) -> str:
    """An evaluation after a fit that saw these examples. fields: of the method."""
    fields, short = {"inner_steps": 1, **changes.pop("fields", {})}, changes.get("under_trained", False)
    training = dataclasses.replace(make.training(label, task, 0, short), examples=examples)
    return make.evaluation(label, task, level=level, training=training, method=Method(label, fields, {}), **changes)


def place_of(claim: Paired) -> Task:
    if "sinusoid" in claim.where:
        return SINUSOID
    if "control" in claim.where:
        return dataclasses.replace(RUN, id=f"navigation-2d-v1/{PAIRS.index(claim)}", equivalence_margin=0.002)
    return dataclasses.replace(GLYPHS, id=f"glyphs-v1/{PAIRS.index(claim)}")


@pytest.mark.parametrize(
    ("better", "examples", "short", "outcome"),
    [
        ("first", 500_000, False, "holds"),
        ("second", 500_000, False, "fails"),
        ("first", 1_000_001, False, "undecided"),
        ("first", 1_000_001, True, "undecided"),
        # the one with fewer examples leads all the same
        ("second", 1_000_001, False, "fails"),
        # an under-trained leader leads all the same
        ("first", 1_000_000, True, "holds"),
        ("second", 1_000_000, True, "fails at this budget"),
    ],
)
def test_every_claim_on_two_methods(tmp_path: Path, better: str, examples: int, short: bool, outcome: str) -> None:
    make, keys = Maker(tmp_path, episodes=20), {}
    for claim in PAIRS:
        task = place_of(claim)
        level = 0.9 if (better == "first") == task.higher_is_better else 0.3
        one = trained(make, claim.first[0], task, level, examples, under_trained=short)
        keys[claim.text] = {one, trained(make, claim.second[0], task, 1.2 - level)}
    table = claims_table(load(tmp_path)).set_index("claim")
    assert set(table.index) == set(keys)
    assert set(table["outcome"]) == {outcome}
    for claim, row in table.iterrows():
        assert set(row["records"].split()) == keys[str(claim)]
        unequal = re.search(r" trained on 500,000 (examples|environment steps) and ", row["finding"]) is not None
        assert unequal == (outcome == "undecided")
        assert not short or outcome == "holds" or "under-trained" in row["finding"] or unequal


def test_claims_name_methods_that_are_here() -> None:
    named = {label for claim in PAIRED for label in (*claim.first, *claim.second)} | {*METRIC}
    assert named <= set(registry.methods())


def test_a_row_without_batch_norm_meets_every_regime(tmp_path: Path) -> None:
    make = Maker(tmp_path, episodes=20)
    trained(make, "memory-augmented", GLYPHS, 0.4)
    for regime in ("query", "support"):
        trained(make, "maml", GLYPHS, 0.9, regime=regime)
        trained(make, "siamese-nets", GLYPHS, 0.5, regime=regime)
    found = of_claim(tmp_path, "MAML is better than MANN")
    assert len(found) == len(set(found["test"])) == 2
    assert set(found["outcome"]) == {"holds"}


@pytest.mark.parametrize(
    ("maml", "recurrent", "batches", "outcome"),
    [
        (0.9, 0.3, (4, 4), "holds"),
        (0.9, 0.3, (4, 64), "holds"),
        (0.9, 0.3, (64, 4), "undecided"),
        (0.3, 0.9, (4, 64), "undecided"),
        (0.3, 0.9, (64, 4), "fails"),
    ],
)
def test_recurrent_learners_are_compared_by_tasks(
    tmp_path: Path, maml: float, recurrent: float, batches: tuple[int, int], outcome: str
) -> None:
    """The examples of a task do not count, nor the meta-steps alone."""
    make = Maker(tmp_path, episodes=20)
    trained(make, "maml", GLYPHS, maml, 10**6, fields={"meta_batch": batches[0]}, regime="query")
    trained(make, "recurrent", GLYPHS, recurrent, 10**8, fields={"meta_batch": batches[1]})
    ((_, row),) = of_claim(tmp_path, BY_TASKS).iterrows()
    assert row["outcome"] == outcome
    assert bool(re.search(r"trained on 8,000 tasks and \w+ on 128,000$", row["finding"])) == (outcome == "undecided")


@pytest.mark.parametrize(("level", "outcome"), [(1.0, "holds"), (0.1, "fails"), (0.5, "undecided")])
def test_a_metric_learner_is_refused_or_worse(tmp_path: Path, level: float, outcome: str) -> None:
    make = Maker(tmp_path, episodes=20)
    trained(make, "maml", SINUSOID, 0.3 if outcome != "undecided" else 0.5)
    trained(make, "matching-nets", SINUSOID, level)
    trained(make, "matching-nets", GLYPHS, 0.3)
    for label, task, why in (
        ("siamese-nets", RUN, "siamese-nets is for classification, navigation-2d is control"),
        ("relation-nets", dataclasses.replace(SINUSOID, id="sinusoid-v1/k5"), "no pictures at hand"),
        ("recurrent", RUN, "recurrent is for classification and regression, navigation-2d is control"),
    ):
        make.unfinished(label, task, "skipped", why)
    found = of_claim(tmp_path, CARRY_OVER)
    assert list(zip(found["test"], found["outcome"], strict=True)) == [(SINUSOID.id, outcome), (RUN.id, "holds")]
    refusal = make.store.get(found.iloc[1]["records"])
    assert (refusal.label, refusal.reason) == ("siamese-nets", found.iloc[1]["finding"])


@pytest.mark.parametrize(("halved", "outcome"), [(-2.8, "holds"), (-0.5, "fails"), (-2.01, "undecided")])
def test_half_the_rate_after_the_first_step(tmp_path: Path, halved: float, outcome: str) -> None:
    make = Maker(tmp_path, episodes=20)
    plain = make.scores
    for rate, slope, inner_lr in ((1.0, -2.0, 0.1), (0.5, halved, 0.1), (0.5, -2.9, 0.2)):
        # other noise for each
        make.scores = lambda task, label, *rest, own=slope: plain(task, f"{label}{own}", *rest)  # type: ignore[method-assign]
        fields = {"later_rate": rate, "inner_lr": inner_lr}
        trained(make, "maml", SINUSOID, 3.0, fields=fields, slope=slope, steps=4)
    ((_, row),) = of_claim(tmp_path, HALVED).iterrows()
    assert row["outcome"] == outcome
    assert len(row["records"].split()) == 2
    assert "inner_lr=0.2" not in row["finding"]


@pytest.mark.parametrize(("slope", "outcome"), [(-2.5, "holds"), (2.5, "fails"), (0.0, "undecided")])
def test_any_number_of_examples_is_about_other_shots(tmp_path: Path, slope: float, outcome: str) -> None:
    make = Maker(tmp_path, episodes=20)
    for task, shots, model in ((SINUSOID, 5, "best"), (RUN, 10, "last"), (SINUSOID, 10, "best")):
        task = dataclasses.replace(task, fields={"shot": 10})
        make.evaluation("maml", task, level=3.0, slope=slope, steps=2, shots=shots, model=model)
    ((_, row),) = of_claim(tmp_path, "MAML adapts to any number of examples").iterrows()
    assert (row["outcome"], row["test"]) == (outcome, "sinusoid-v1/k10, 5-shot test")
