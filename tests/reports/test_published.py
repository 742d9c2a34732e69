"""Published numbers: what the file may hold, and every outcome of the question "reproduced?"."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import made_up_records as made_up
import pytest

from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.models import BACKBONES
from benchmarks.records.store import Store
from benchmarks.run import profiles
from benchmarks.stats import TestProtocol as Protocol
from benchmarks.stats import columns
from reports import published
from reports.published import Ours, Published, anchors, load, reproduction
from reports.results import load as load_results
from reports.scores import reproduced

MAML = Published(
    *("maml", "miniimagenet-v1/5w1s", 5, 1, 1, "query", "conv4-32", 10, 600, "", "accuracy", 0.487, 0.0184, "primary"),
    *("", "", "a paper", ""),
)
MINE = Ours(
    *("maml", Protocol("miniimagenet-v1/5w1s", "d", 5, 1, 1, "test", "query"), "conv4-32", 10),
    *(0.48, 0.003, 0.004**2, True, False),
)


def changed(one: Ours, **protocol: object) -> Ours:
    return dataclasses.replace(one, protocol=dataclasses.replace(one.protocol, **protocol))


def test_every_row_is_of_a_task_and_a_method_that_is_here() -> None:
    numbers = load()
    assert len(numbers) > 50
    for one in numbers:
        tasks = registry.build_task(one.task)
        assert registry.incompatible(one.method, one.task) is None
        assert tasks.metric == one.metric
        assert one.shot in (None, tasks.config()["shot"])
        assert one.way == (tasks.outputs if tasks.kind == "classification" else None)
        assert one.source
        assert one.regime in ("", "query", "support", "single", "running", "none")
        assert one.metric == "return" or 0 < one.value < (1 if one.metric == "accuracy" else 5)
        assert one.half_width is None or 0 < one.half_width < 0.03


#: published rows without a cell in the profile "paper": (method, task) -> why
WITHOUT_CELL: dict[tuple[str, str], str] = {}


def test_every_published_cell_is_in_the_profile_paper() -> None:
    """With the paper's queries per class next to the suite's, where the paper has others."""
    cells, queries = set(), {}
    for block in profiles.load("paper").blocks:
        task = registry.build_task(block.task)
        cells |= {(method, task.id) for method in block.methods}
        queries[task.id] = {task.config().get("queries"), *block.queries}
    rows = load()
    reached = {(one.method, one.task) for one in rows}
    assert reached - cells == WITHOUT_CELL.keys()
    assert not cells & WITHOUT_CELL.keys()
    assert all(
        one.queries in {None, *queries[one.task]} for one in rows if one.kind == "primary" and one.method == "maml"
    )


def test_the_rows_of_the_maml_paper() -> None:
    found = {
        (one.method, one.task): one for one in load() if "Model-Agnostic" in one.source and "MLP" not in one.variant
    }
    assert found["maml", "omniglot-v1/5w1s"].value == pytest.approx(0.987)
    assert found["maml", "miniimagenet-v1/5w5s"].value == pytest.approx(0.6311)
    assert found["fomaml", "miniimagenet-v1/5w1s"].half_width == pytest.approx(0.0175)
    sinusoid = [one for one in load() if (one.method, one.task, one.kind) == ("maml", "sinusoid-v1/k5", "primary")]
    assert {one.steps: one.value for one in sinusoid} == {1: 0.67, 5: 0.38, 10: 0.35}


def test_agreement_is_the_z_of_the_formula() -> None:
    found = reproduction(MAML, MINE)
    error = math.sqrt(0.003**2 + (0.0184 / 1.959964) ** 2 + 0.004**2)
    assert found.distance is not None
    assert found.distance.z == pytest.approx((0.48 - 0.487) / error, rel=1e-6)
    assert (found.outcome, str(found)) == ("agrees", "agrees")
    assert reproduction(MAML, dataclasses.replace(MINE, mean=0.53)).outcome == "above"
    assert reproduction(MAML, dataclasses.replace(MINE, mean=0.45)).outcome == "below"


@pytest.mark.fault("V1", "V14")
def test_a_mean_that_one_episode_carries_agrees_with_nothing(tmp_path: Path) -> None:
    """Its standard error is as large as itself, so z was 1."""
    make = made_up.Maker(tmp_path)
    record = make.store.get(make.evaluation("maml", made_up.SINUSOID))
    scores = {name: values.copy() for name, values in make.store.scores(record).items()}
    scores["best/none/0"][7] = 1e20
    make.store.write(record, scores=scores)
    (column,) = columns(make.store, make.store.records("evaluation"))
    mine = dataclasses.replace(published.ours(column.rows[0]), full_budget=True, under_trained=False)
    found = reproduction(dataclasses.replace(MAML, value=0.5), mine)
    assert (found.outcome, found.why) == ("not run", "unstable: 1 of 60 episodes carries 100 % of our mean")


def test_one_seed_is_said() -> None:
    found = reproduction(MAML, dataclasses.replace(MINE, seed_variance=None))
    assert found.outcome == "agrees"
    assert "one seed" in str(found)


@pytest.mark.fault("V13")
def test_without_an_interval_the_spread_is_said() -> None:
    """With a number of test episodes the source's error follows from our deviation; else z has our error alone."""
    mine = dataclasses.replace(MINE, deviation=0.2)
    alone = published.distance(dataclasses.replace(MAML, half_width=None, episodes=None), mine)
    assert alone.z == pytest.approx(-0.007 / math.sqrt(0.003**2 + 0.004**2))
    assert alone.spread == "ours alone: the source gives no spread"
    counted = published.distance(dataclasses.replace(MAML, half_width=None), mine)
    assert counted.z == pytest.approx(-0.007 / math.sqrt(0.003**2 + 0.004**2 + 0.2**2 / 600))
    assert "its 600 test episodes" in counted.spread


@pytest.mark.fault("V14")
def test_differences_of_the_protocol_stand_next_to_the_outcome() -> None:
    found = reproduction(MAML, changed(dataclasses.replace(MINE, backbone="conv4-64", steps=5), queries=15))
    assert found.outcome == "agrees"
    said = "queries per class 1, here 15; backbone conv4-32, here conv4-64; inner steps at test 10, here 5"
    assert str(found) == f"agrees ({said})"
    regime = reproduction(MAML, changed(MINE, regime="support", queries=15))
    assert regime.differences == ("batch-norm query, here support",)
    tuned = reproduction(MAML, dataclasses.replace(MINE, selection="validation"))
    assert tuned.differences == ("rates and steps chosen on validation tasks here only",)
    split = reproduction(dataclasses.replace(MAML, differs="another split"), MINE)
    assert str(split) == "agrees (another split)"
    unknown = reproduction(dataclasses.replace(MAML, regime="", steps=None), MINE)
    assert str(unknown) == "agrees (not stated: batch-norm, inner steps at test)"


@pytest.mark.fault("V14")
def test_maml_without_convolutions_agrees() -> None:
    """90.30 ± 0.15 on 10,000 episodes with 15 queries, against 89.7 ± 1.1 with one."""
    mine = Ours(
        *("maml", Protocol("omniglot-v1/5w1s", "d", 5, 1, 15, "test", "query"), "mlp-256-128-64-64", 3),
        *(0.9030, 0.0015 / published.Z95, None, True, False),
    )
    (there,) = anchors(load(), mine)
    assert there.value == pytest.approx(0.897)
    found = reproduction(there, mine)
    assert found.outcome == "agrees"
    assert found.remarks == "queries per class 1, here 15; one seed: the variance between runs is unknown"


@pytest.mark.fault("V14")
def test_each_published_step_of_navigation_is_compared() -> None:
    """-36.9, -9.6, -3.9, -3.7 after 0 to 3 steps against -40.41, -11.68, -3.33, -3.23, on the paper's 40 tasks."""
    protocol = Protocol("navigation-2d-v1/maml2017", "", 0, 40, 20, "test", "none")
    error, outcomes = 0.4, []
    for step, mean in enumerate((-36.9, -9.6, -3.9, -3.7)):
        mine = Ours("maml", protocol, "mlp-100-100-relu", step, mean, error, None, True, False)
        there = {one.steps: one for one in anchors(load(), mine)}
        assert list(there) == [0, 1, 2, 3]
        found = reproduction(there[step], mine)
        assert found.differences == (
            "the source reports the best iteration of training; here validation tasks choose it",
        )
        assert found.distance is not None
        assert found.distance.spread.startswith("ours alone")
        outcomes.append(found.outcome)
    assert outcomes == ["above", "above", "agrees", "agrees"]


@pytest.mark.fault("V13")
@pytest.mark.parametrize(
    ("method", "mean", "sign"), [("mdp-greedy", 151.0, 1), ("mdp-epsilon-greedy", 149.4, 1), ("opsrl", 135.3, -1)]
)
def test_a_difference_of_many_standard_errors_is_flagged_with_its_reason(method: str, mean: float, sign: int) -> None:
    protocol = Protocol("tabular-mdp-v1/n10", "", 0, 0, 2, "test", "none")
    mine = Ours(method, protocol, "", 0, mean, 0.7, 0.0, True, False, deviation=0.7 * math.sqrt(1000))
    (there,) = anchors(load(), mine)
    found = reproduction(there, mine)
    assert found.far
    assert found.outcome == ("above" if sign > 0 else "below")
    assert "the source does not say" in str(found)


def test_only_the_published_budget_is_compared() -> None:
    assert reproduction(MAML, None).outcome == "not run"
    short = reproduction(MAML, dataclasses.replace(MINE, full_budget=False))
    assert (short.outcome, short.why, short.distance) == ("not run", "not at the published budget", None)
    assert reproduction(MAML, dataclasses.replace(MINE, under_trained=True)).why == "under-trained"


def test_the_source_with_our_backbone_comes_first() -> None:
    numbers = load()
    (best,) = anchors(numbers, MINE)
    assert (best.kind, best.value) == ("primary", pytest.approx(0.487))
    wide, *_ = anchors(numbers, dataclasses.replace(MINE, backbone="conv4-64"))
    assert wide.backbone == "conv4-64"
    sinusoid = dataclasses.replace(changed(MINE, task="sinusoid-v1/k5", regime="none"), backbone="mlp-40-40", steps=5)
    assert {one.steps: one.value for one in anchors(numbers, sinusoid)} == {1: 0.67, 5: 0.38, 10: 0.35}
    assert anchors(numbers, dataclasses.replace(MINE, method="nobody")) == []
    least, most = published.spread(numbers, "maml", "miniimagenet-v1/5w1s") or (0, 0)
    assert 0.43 < least < 0.45
    assert 0.49 < most < 0.5


def test_ours_comes_from_the_records(tmp_path: Path) -> None:
    make = made_up.Maker(tmp_path)
    for seed in range(3):
        make.evaluation("maml", made_up.SINUSOID, seed, level=0.5)
    store = Store(tmp_path)
    (row,) = (row for column in columns(store, store.records()) for row in column.rows)
    mine = published.ours(row)
    means = row.values.mean(2)
    assert mine.mean == pytest.approx(means.mean())
    assert mine.seed_variance == pytest.approx(means.mean(1).var(ddof=1))
    assert mine.standard_error**2 == pytest.approx(means.mean(0).var(ddof=1) / 60 + mine.seed_variance / 3)
    assert not mine.full_budget
    assert mine.backbone == "mlp-40-40"


@pytest.mark.fault("V14")
def test_the_test_with_the_papers_queries_is_compared(tmp_path: Path) -> None:
    """Of two tests of one fit, the one without a difference of the protocol; it is no result of the task's own."""
    make = made_up.Maker(tmp_path)
    omniglot = dataclasses.replace(made_up.GLYPHS, id="omniglot-v1/5w1s", name="omniglot", fields={"queries": 10})
    few = dataclasses.replace(omniglot, id="omniglot-v1/5w1s[queries=1]", fields={"queries": 1})
    whole = dataclasses.replace(make.training("maml", omniglot, 0), meta_steps=7000, share=1.0)
    for task, queries in ((omniglot, 10), (few, 1)):
        make.evaluation(
            *("maml", task), regime="query", level=0.98, queries=queries, trained_on=omniglot.id, training=whole
        )
    results = load_results(tmp_path)
    ((result, (found,)),) = reproduced.reproductions(results).items()
    assert result.column.queries == 1
    assert found.outcome in ("agrees", "below")
    assert not any("queries" in said for said in found.differences)
    assert [one.row.own for one in sorted(results.results, key=lambda one: one.column.queries)] == [False, True]
    assert reproduced.sentences(results)[0].startswith("Of 1 published number: 1 ")
    judged, waiting = reproduced.counts(results)
    assert (sum(judged.values()), waiting) == (1, 0)


@pytest.mark.parametrize(
    ("text", "match"),
    [("", "has no columns"), ("method,task\nmaml,x\n", "has no columns backbone")],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(text)
    with pytest.raises(MetabenchError, match=match):
        load(path)
    lines = published.FILE.read_text(encoding="utf-8").splitlines()[:2]
    path.write_text("\n".join([lines[0], lines[1].replace("98.7", "ninety")]))
    with pytest.raises(MetabenchError, match="line 2: could not convert"):
        load(path)
    path.write_text("\n".join([lines[0], lines[1].replace("primary", "rumour", 1)]))
    with pytest.raises(MetabenchError, match="line 2: kind 'rumour'"):
        load(path)
    with pytest.raises(MetabenchError, match="can't be read"):
        load(tmp_path / "absent.csv")


def test_methods_whose_protocol_differs_are_named(tmp_path: Path) -> None:
    make = made_up.Maker(tmp_path)
    omniglot = dataclasses.replace(made_up.GLYPHS, id="omniglot-v1/5w1s", name="omniglot", fields={"shot": 1})
    whole = dataclasses.replace(make.training("maml", omniglot, 0), meta_steps=7000, share=1.0)
    make.evaluation("maml", omniglot, regime="query", level=0.987, training=whole)
    (said,) = (one for one in reproduced.sentences(load_results(tmp_path)) if one.startswith("Protocols differ"))
    assert said.startswith("Protocols differ. maml: queries per class 1, here 10")


@pytest.mark.parametrize(("regime", "value"), [("query", 0.9768), ("single", 0.9539)])
def test_the_number_of_our_regime_is_compared(regime: str, value: float) -> None:
    """Reptile's tables have both; the other one's differences would be those of the regime."""
    protocol = Protocol("omniglot-v1/5w1s", "d", 5, 1, 1, "test", regime)
    mine = Ours("reptile", protocol, "conv4-64-strided", 50, 0.96, 0.001, 0.001**2, True, False)
    (there,) = anchors(load(), mine)
    assert there.value == pytest.approx(value)
    assert published.protocol_differences(there, mine) == ["features keep 2 x 2 places; here their mean"]


def test_every_learner_is_compared_and_another_network_is_named() -> None:
    numbers = load()
    for name, task in dict.fromkeys((one.method, one.task) for one in numbers):
        tasks = registry.build_task(task)
        network = str(registry.build_method(name, tasks).describe(tasks).get("backbone") or "")
        protocol = Protocol(task, "d", 5, 1, 15, "test", "query")
        mine = Ours(name, protocol, network, 0, 0.5, 0.01, None, True, False, deviation=0.1)
        there = anchors(numbers, mine)[0]
        named = f"backbone {there.backbone}, here {network}" in published.protocol_differences(there, mine)
        assert named == (there.backbone not in ("", network)), name
        assert reproduction(there, mine).outcome != "not run"
    # a name that no learner records would never be ours
    elsewhere = {"conv4-128", "conv4-512"}
    policies = {"mlp-100-100-relu"}
    assert {one.backbone for one in numbers} <= {"", *BACKBONES, *elsewhere, *policies}
