"""Published numbers: what the file may hold, and every outcome of the question "reproduced?"."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import made_up_records as made_up
import pytest

from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store
from benchmarks.stats import TestProtocol as Protocol
from benchmarks.stats import columns
from reports import published
from reports.published import Ours, Published, anchor, load, reproduction

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
    assert found.z == pytest.approx((0.48 - 0.487) / error, rel=1e-6)
    assert (found.outcome, found.why) == ("agrees", "")
    assert reproduction(MAML, dataclasses.replace(MINE, mean=0.53)).outcome == "above"
    assert reproduction(MAML, dataclasses.replace(MINE, mean=0.45)).outcome == "below"


def test_one_seed_is_said() -> None:
    found = reproduction(MAML, dataclasses.replace(MINE, seed_variance=None))
    assert found.outcome == "agrees"
    assert "one seed" in found.why


def test_no_interval() -> None:
    found = reproduction(dataclasses.replace(MAML, half_width=None), MINE)
    assert (found.outcome, found.z) == ("no published interval", None)
    assert found.difference == pytest.approx(-0.007)


def test_a_protocol_that_differs_is_said_in_what() -> None:
    found = reproduction(MAML, changed(dataclasses.replace(MINE, backbone="conv4-64", steps=5), queries=15))
    assert found.outcome == "protocol differs"
    assert found.why == "queries per class 1, here 15; backbone conv4-32, here conv4-64; inner steps at test 10, here 5"
    assert found.z is not None
    assert str(found).startswith("protocol differs (queries")
    regime = reproduction(MAML, changed(MINE, regime="support", queries=15))
    assert regime.why == "batch-norm query, here support"
    tuned = reproduction(MAML, dataclasses.replace(MINE, selection="validation"))
    assert tuned.why == "rates and steps chosen on validation tasks here only"
    split = reproduction(dataclasses.replace(MAML, differs="another split"), MINE)
    assert (split.outcome, split.why) == ("protocol differs", "another split")


def test_a_protocol_that_is_not_stated_is_unknown() -> None:
    found = reproduction(dataclasses.replace(MAML, regime="", steps=None), MINE)
    assert found.outcome == "protocol unknown"
    assert found.why == "not stated: batch-norm, inner steps at test"


def test_only_the_published_budget_is_compared() -> None:
    assert reproduction(MAML, None).outcome == "not run"
    short = reproduction(MAML, dataclasses.replace(MINE, full_budget=False))
    assert (short.outcome, short.why, short.z) == ("not run", "not at the published budget", None)
    assert reproduction(MAML, dataclasses.replace(MINE, under_trained=True)).why == "under-trained"


def test_the_anchor_is_of_our_backbone_then_the_first_source() -> None:
    numbers = load()
    best = anchor(numbers, MINE)
    assert best is not None
    assert (best.kind, best.value) == ("primary", pytest.approx(0.487))
    wide = anchor(numbers, dataclasses.replace(MINE, backbone="conv4-64"))
    assert wide is not None
    assert wide.backbone == "conv4-64"
    sinusoid = dataclasses.replace(changed(MINE, task="sinusoid-v1/k5", regime="none"), backbone="mlp-40-40", steps=5)
    found = anchor(numbers, sinusoid)
    assert found is not None
    assert found.value == 0.38
    assert anchor(numbers, dataclasses.replace(MINE, method="nobody")) is None
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
