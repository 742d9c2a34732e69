"""Every method of the suite keeps the contract, and the checks find one that breaks it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from baselines.shared.pictures import MAPS, encoder
from benchmarks import conformance, registry
from benchmarks.models import BACKBONES
from benchmarks.models.modules import OwnBackbone
from benchmarks.registry import Entry

METHODS = [entry for name, first in sorted(registry.methods().items()) for entry in first.all]
#: fields that make a meta-step cheap and change no property; no field is raised
SMALL = {"meta_batch": 2, "trajectories": 4, "training_way": 2, "inner_steps": 2, "cg_steps": 2}
#: the same for what learns from examples; steps of control are numbers of trajectories
SUPERVISED = {"test_steps": (1, 2), "hidden": 8, "context": 8, "filters": 8, "keys": (8, 8, 8)}
#: of rules with a memory for every number of the network
SMALLER = {"backbone": "mlp-40-40"}
OF_METHODS = {"meta-learner-lstm": SMALLER, "learned-optimiser": SMALLER, "mb-mpo": {"updates": 2, "model_steps": 9}}
Findings = Callable[[str], list[conformance.Finding]]

HONEST = """\
import random, sys, warnings
import numpy as np
import torch
from dataclasses import dataclass
from typing import ClassVar
from benchmarks.api import MetaLearner, State
from benchmarks.registry import register_method

LEFT = {}

@register_method('mine')
@dataclass(frozen=True)
class Mine(MetaLearner):
    '''Predicts a constant that it trains to be 0.'''
    kinds: ClassVar = frozenset({"regression"})

    def fit(self, tasks, seed, start=None):
        state = start or State(parameters={"w": torch.ones(1)})
        while True:
            batch = tasks.episodes("train", [state.step])
            state.parameters["w"] = 0.5 * state.parameters["w"]
            state.step += 1
            state.examples += 1
            yield state

    def adapt(self, state, support, tasks):
        w = state.parameters["w"].clone()
        yield lambda x, memory=None: (w.expand(*x.shape[:2], tasks.outputs), None)
"""
YIELD = "        yield lambda"
ANSWER = "w.expand(*x.shape[:2], tasks.outputs)"


@pytest.fixture
def small_statistician(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MAPS:
        monkeypatch.setitem(MAPS, name, (4, 6, 8))
        monkeypatch.setitem(BACKBONES, name, OwnBackbone(name, lambda shape: encoder(shape, (4, 6, 8))))


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: f"{entry.name}-{min(entry.cls.kinds)}")
def test_every_method_holds_the_contract(entry: Entry, narrow: None, small_statistician: None) -> None:
    usual = {field.name: field.default for field in dataclasses.fields(entry.cls)}
    cheap = SMALL if "control" in entry.cls.kinds else SMALL | SUPERVISED
    small = {name: min(value, usual[name]) for name, value in cheap.items() if name in usual}
    small |= OF_METHODS.get(entry.name, {})
    assert conformance.complaints(conformance.check_method(entry, **small)) == []


def test_a_small_honest_method_passes_and_what_was_tried_is_told(findings: Findings) -> None:
    found = findings(HONEST)
    assert conformance.complaints(found) == []
    assert [str(each) for each in found if each.kind == "tried"] == [
        "import",
        "mine: class data",
        "mine on sinusoid-v1/k5: 2 meta-steps, adaptation up to step 0 on 3 test episodes (regression)",
    ]
    notes = [str(each) for each in found if each.kind == "note"]
    assert notes[0] == "mine on sinusoid-v1/k5: only 2 meta-steps were tried"


def test_a_result_below_chance_is_a_note(findings: Findings) -> None:
    found = findings(HONEST.replace("w.expand", "99 + w.expand"))
    assert conformance.complaints(found) == []
    assert any("scores worse than predicting 0 after 2 meta-steps: squared error" in str(each) for each in found)


def first(statement: str) -> dict[str, str]:
    """A statement of `adapt` before it yields."""
    return {YIELD: f"        {statement}\n{YIELD}"}


LEAVING = {"state.step += 1": "state.step += 1; LEFT['w'] = state.parameters['w']"}
COUNTING = "LEFT.__setitem__(len(LEFT), 0) or len(LEFT) *"
#: what is changed in the honest method, and what is said ("": nothing, since nothing is broken)
BROKEN = [
    ({"'''Predicts a constant that it trains to be 0.'''": ""}, "docstring"),
    ({'"regression"': '"guessing"'}, "kinds"),
    ({"state.examples += 1": "pass"}, "counts neither examples"),
    ({"state.step += 1": "state.step += 2"}, "one after each meta-step"),
    ({"yield state\n": "yield state\n            return\n"}, "fit ends after 1 meta-steps"),
    ({'"train"': '"test"'}, "fit reads the test split (episodes): train on 'train' alone"),
    ({"start or State": "None or State"}, "does not resume bit for bit"),
    ({"0.5 *": "LEFT.setdefault('rate', 0.5) ** len(LEFT) *"}, ""),
    ({"0.5 *": COUNTING}, "another state for the same seed"),
    (LEAVING, ""),
    # what fit left behind, in place of the state
    (LEAVING | {'state.parameters["w"].clone()': "LEFT['w'].clone()"}, "adapt answers otherwise when called again"),
    ({"w.expand": f"{COUNTING} w.expand"}, "adapt answers otherwise"),
    (first("state.parameters['w'] = torch.zeros(1)"), "changes the state"),
    (first("state.parameters['w'].add_(1)"), "changes the state"),
    (first("tasks.episodes('test', [0])"), "adapt reads the test split"),
    (first("return"), "adapt yields no predictor"),
    ({"tasks.outputs)": "tasks.outputs)[..., 0]"}, "step 0 predicts shape (3, 2), expected (3, 2, 1)"),
    ({ANSWER: "torch.zeros(3)"}, "step 0 predicts shape (3,), expected (3, 2, 1)"),
    ({"w.expand": "float('nan') * w.expand"}, "not finite"),
    ({"w.expand": "w.requires_grad_().expand"}, "keeps a graph"),
    ({ANSWER: "x - x.mean((0, 1))"}, "depend on the other tasks of the batch"),
    ({ANSWER: "x - x.mean(1, keepdim=True)"}, "depends on the other queries"),
    ({ANSWER: "torch.rand(*x.shape[:2], 1)"}, "global random generator (torch)"),
    (first("np.random.rand()"), "global random generator (numpy)"),
    (first("random.random()"), "global random generator (random)"),
    ({"    def adapt": "    def reported_steps(self):\n        return (1,)\n\n    def adapt"}, "ends after step 0"),
    (first("torch.set_default_dtype(torch.float64)"), "default dtype"),
    (first("raise OverflowError('too\\nmuch')"), "raises OverflowError: too much"),
    (first("sys.exit(0)"), "raises SystemExit: 0"),
]


@pytest.mark.fault("U2", "S4")
@pytest.mark.parametrize(("changes", "said"), BROKEN)
def test_a_broken_promise_is_one_sentence(findings: Findings, changes: dict[str, str], said: str) -> None:
    text = HONEST
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    try:
        found = conformance.complaints(findings(text))
    finally:
        torch.set_default_dtype(torch.float32)
    assert any(said in line for line in found) if said else found == []
    assert all("\n" not in line for line in found)


@pytest.mark.fault("U2")
def test_an_exception_has_the_innermost_line_of_the_file(findings: Findings, tmp_path: Path) -> None:
    text = HONEST.replace(YIELD, f"        self.fails(support.x)\n{YIELD}")
    text += textwrap.indent("\ndef fails(self, x):\n    return torch.cat([x, 1])\n", "    ")
    (line,) = conformance.complaints(findings(text))
    number = text[: text.index("torch.cat")].count("\n") + 1
    assert line.startswith(f"{tmp_path / 'mine.py'}:{number}: mine on sinusoid-v1/k5: raises TypeError")


def test_a_method_that_fits_no_task_at_hand_is_told_so(findings: Findings) -> None:
    text = HONEST.replace("    kinds", "    needs: ClassVar = frozenset({'classes'})\n    kinds")
    (line,) = conformance.complaints(findings(text))
    assert "fits no task that is at hand (mine needs classes, which sinusoid does not offer)" in line


COLUMNS = """\
from dataclasses import dataclass
import torch
import torch.nn.functional as F
from baselines.episodic import Episodic
from benchmarks.registry import register_method

@register_method("mine")
@dataclass(frozen=True)
class Mine(Episodic):
    '''Answers with similarities.'''

    def answer(self, parameters, support, query, y, outputs):
        near = -torch.cdist(query, support)
        return ANSWER
"""


@pytest.mark.parametrize(("answer", "holds"), [("near", False), ("near @ F.one_hot(y, outputs).to(near)", True)])
def test_a_column_per_example_is_caught_where_there_are_as_many_as_classes(
    findings: Findings, answer: str, holds: bool
) -> None:
    said = conformance.complaints(findings(COLUMNS.replace("ANSWER", answer)))
    assert (said == []) == holds
    if not holds:
        (complaint,) = said
        assert "predicts shape (3, 10, 10) from 10 support examples, expected (3, 10, 5)" in complaint
