"""The learners in the cost benchmark: the same gradient by our plans and by learn2learn, and counted costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from benchmarks.cost import counting, grid, learners, peers
from benchmarks.cost.comparison import relative_error
from benchmarks.cost.grid import Choice, Variant
from benchmarks.cost.measurement import Measurement
from benchmarks.cost.peers.adapter import Settings
from benchmarks.cost.workloads import Workload
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.models import BACKBONES, Network
from benchmarks.models.backbones import Conv4

SMALL = {
    "mlp-40-40": Workload("mlp-40-40", (1,), 0, 4, 6, 0.02),
    "narrow": Workload("narrow", (1, 12, 12), 3, 1, 2, 0.1),
}
LEARNERS = [name for name in learners.LEARNERS if name != "maml"]
SHARED = peers.learners("learn2learn")


@pytest.fixture(autouse=True)
def narrow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "narrow", Conv4(6, strided=True))


def given(learner: str, backbone: str = "mlp-40-40", steps: int = 2, dtype: Any = torch.float64) -> Any:
    """Parameters, episodes and settings."""
    workload = SMALL[backbone]
    parameters = Network(BACKBONES[backbone], workload.input_shape, workload.outputs).initialise(3)
    parameters = {name: value.to(dtype) for name, value in parameters.items()}
    settings = Settings(workload, steps, learners.orders(learner)[0] == "second", learner)
    return parameters, workload.episodes(2, dtype), settings


def stepper(learner: str, backbone: str, steps: int) -> Any:
    step = peers.load("ours", "all").stepper(*given(learner, backbone, steps, torch.float32))
    step()
    return step


# --- the same gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_learner_has_the_same_gradient_task_by_task(learner: str, backbone: str) -> None:
    arguments = given(learner, backbone)
    one, together = peers.load("ours", "one"), peers.load("ours", "all")
    if learner == "learned-rule" and backbone == "narrow":
        with pytest.raises(Unavailable, match=r"^learned-rule is for fully connected layers"):
            one.meta_gradient(*arguments)
        return
    found, expected = together.meta_gradient(*arguments), one.meta_gradient(*arguments)
    assert relative_error(found, expected) < 1e-8
    assert expected.keys() >= arguments[0].keys()
    assert together.adapt(*arguments).shape == (2, *arguments[1].query.x.shape[1:2], arguments[2].workload.outputs)


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("learner", SHARED)
def test_learn2learn_computes_the_same(learner: str, backbone: str) -> None:
    try:
        other = peers.load("learn2learn")
    except Unavailable as reason:
        pytest.skip(str(reason))
    arguments, ours = given(learner, backbone), peers.load("ours", "all")
    expected = ours.meta_gradient(*arguments)
    assert any(name.startswith("rule.") for name in expected) == (learner == "meta-sgd")
    assert relative_error(other.meta_gradient(*arguments), expected) < 1e-8
    stepped = other.first_gradient(other.stepper(*arguments)(), arguments[0])
    assert relative_error(stepped, expected) < 1e-6


# --- costs -----------------------------------------------------------------------------------------------------------


def test_a_step_of_anil_adds_hardly_any_operations() -> None:
    counts = {
        learner: [counting.flops(stepper(learner, "narrow", steps)) for steps in (1, 5)] for learner in ("maml", "anil")
    }
    assert counts["anil"][0] < counts["maml"][0]
    grown = {learner: last - first for learner, (first, last) in counts.items()}
    assert 0 < grown["anil"] < 0.01 * grown["maml"]


def test_the_memory_of_implicit_maml_is_constant_in_the_steps() -> None:
    peaks = {
        learner: [counting.peak_bytes(stepper(learner, "narrow", steps)) for steps in (2, 8)]
        for learner in ("maml", "implicit-maml")
    }
    assert peaks["maml"][1] > 2 * peaks["maml"][0]
    assert peaks["implicit-maml"][1] == pytest.approx(peaks["implicit-maml"][0], rel=0.01)


def test_a_row_of_a_learner_has_time_memory_and_operations() -> None:
    variants = grid.variants(["ours/eager", "learn2learn"], grid.ORDERS, None, ["maml", "anil"])
    setting = grid.Setting("mlp-40-40", 2, 1, variants, 1, 0.0, 60, "learners")
    measurement = Measurement(setting, SMALL["mlp-40-40"], "cpu", lambda line: None)
    for part in (measurement.prepare, measurement.time_rounds, measurement.count):
        part()
    rows = {(row["learner"], row["order"], row["label"]): row for row in measurement.result()["rows"]}
    assert {key[:2] for key in rows} == {("maml", "second"), ("maml", "first"), ("anil", "second")}
    for row in rows.values():
        assert row["status"] in ("ok", "skipped"), row["reason"]
        assert row["status"] == "skipped" or (row["milliseconds"] and row["peak_bytes"] and row["flops"])
    flops = {key: row["flops"] for key, row in rows.items() if key[2] == "ours/eager"}
    assert flops["anil", "second", "ours/eager"] < flops["maml", "second", "ours/eager"]


# --- the grid --------------------------------------------------------------------------------------------------------


def test_each_learner_comes_in_its_own_order() -> None:
    found = grid.variants(["ours/one", "learn2learn", "loop"], grid.ORDERS, None, ["maml", "reptile", "cavia"])
    of = {name: {(v.order, v.implementation) for v in found if v.learner == name} for name in ("reptile", "cavia")}
    assert of == {"reptile": {("first", "ours"), ("first", "learn2learn")}, "cavia": {("second", "ours")}}
    assert str(Variant("first", "loop")) == "first loop"
    assert str(Variant("first", "ours", "one", "reptile")) == "reptile first ours/one"


def test_the_command_line_chooses_among_the_learners() -> None:
    every = {variant.learner for setting in grid.settings("learners") for variant in setting.variants}
    assert every == set(learners.LEARNERS)
    assert {setting.work for setting in grid.settings("learners", Choice(inner_steps=[1]))} == {"learners"}
    chosen = grid.settings("learners", Choice(["mlp-40-40"], [1], learners=["anil"]))
    assert {variant.learner for setting in chosen for variant in setting.variants} == {"anil"}
    with pytest.raises(MetabenchError, match=r"unknown learner 'anl' \(did you mean 'anil'\?\); known: "):
        grid.settings("learners", Choice(learners=["anl"]))


def test_settings_of_maml_have_no_other_learner() -> None:
    for profile in ("smoke", "quick", "standard", "full"):
        assert {variant.learner for setting in grid.settings(profile) for variant in setting.variants} == {"maml"}
    assert dataclasses.replace(grid.settings("smoke")[0], work="learners") != grid.settings("smoke")[0]
