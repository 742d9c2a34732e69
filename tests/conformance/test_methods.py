"""Every method of the suite keeps the contract, and the checks find one that breaks it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import conformance, registry
from benchmarks.conformance import Finding
from benchmarks.registry import Entry

METHODS = [entry for name, first in sorted(registry.methods().items()) for entry in first.all]
#: fields that make a meta-step cheap and change no property
SMALL = {"meta_batch": 4, "trajectories": 4}

GOOD = """
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
HEAD = """\
import random, sys, warnings
import numpy as np
import torch
from dataclasses import dataclass
from typing import ClassVar
from benchmarks.api import MetaLearner, State
from benchmarks.registry import register_method

LEFT = {}

@register_method('%s')
@dataclass(frozen=True)
class Mine(MetaLearner):"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_methods", "_tasks"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: f"{entry.name}-{min(entry.cls.kinds)}")
def test_every_method_holds_the_contract(entry: Entry) -> None:
    small = {name: value for name, value in SMALL.items() if name in entry.known_fields}
    assert conformance.complaints(conformance.check_method(entry, **small)) == []


def findings(path: Path, text: str) -> list[Finding]:
    path.write_text(text)
    return list(conformance.check_file(path))


def test_a_small_honest_method_passes_and_what_was_tried_is_told(tmp_path: Path) -> None:
    found = findings(tmp_path / "mine.py", HEAD % "mine" + GOOD)
    assert conformance.complaints(found) == []
    assert [str(each) for each in found if each.kind == "tried"] == [
        "import",
        "mine: class data",
        "mine on sinusoid-v1/k5: 2 meta-steps, adaptation up to step 0 on 3 test episodes (regression)",
    ]
    notes = [str(each) for each in found if each.kind == "note"]
    assert notes[0] == "mine on sinusoid-v1/k5: only 2 meta-steps were tried"


def test_a_result_below_chance_is_a_note(tmp_path: Path) -> None:
    found = findings(tmp_path / "mine.py", HEAD % "mine" + GOOD.replace("w.expand", "99 + w.expand"))
    assert conformance.complaints(found) == []
    assert any("scores worse than predicting 0 after 2 meta-steps: squared error" in str(each) for each in found)


BROKEN = [
    ("'''Predicts a constant that it trains to be 0.'''", "", "docstring"),
    ('"regression"', '"guessing"', "kinds"),
    ("state.examples += 1", "pass", "counts neither examples"),
    ("state.step += 1", "state.step += 2", "one after each meta-step"),
    ("yield state\n", "yield state\n            return\n", "fit ends after 1 meta-steps"),
    ('"train"', '"test"', "fit reads the test split (episodes): train on 'train' alone"),
    ("start or State", "None or State", "does not resume bit for bit"),
    ("0.5 *", "LEFT.setdefault('rate', 0.5) ** len(LEFT) *", ""),
    ("0.5 *", "LEFT.__setitem__(len(LEFT), 0) or len(LEFT) *", "another state for the same seed"),
    # what fit left behind, in place of the state
    ("state.step += 1", "state.step += 1; LEFT['w'] = state.parameters['w']", ""),
    (
        ("state.step += 1", 'state.parameters["w"].clone()'),
        ("state.step += 1; LEFT['w'] = state.parameters['w']", "LEFT['w'].clone()"),
        "adapt answers otherwise when called again",
    ),
    ("w.expand", "LEFT.__setitem__(len(LEFT), 0) or len(LEFT) * w.expand", "adapt answers otherwise"),
    (
        "        yield lambda",
        "        state.parameters['w'] = torch.zeros(1)\n        yield lambda",
        "changes the state",
    ),
    ("        yield lambda", "        state.parameters['w'].add_(1)\n        yield lambda", "changes the state"),
    ("        yield lambda", "        tasks.episodes('test', [0])\n        yield lambda", "adapt reads the test split"),
    ("        yield lambda", "        return\n        yield lambda", "adapt yields no predictor"),
    ("tasks.outputs)", "tasks.outputs)[..., 0]", "step 0 predicts shape (3, 2), expected (3, 2, 1)"),
    ("w.expand(*x.shape[:2], tasks.outputs)", "torch.zeros(3)", "step 0 predicts shape (3,), expected (3, 2, 1)"),
    ("w.expand", "float('nan') * w.expand", "not finite"),
    ("w.expand", "w.requires_grad_().expand", "keeps a graph"),
    ("w.expand(*x.shape[:2], tasks.outputs)", "x - x.mean((0, 1))", "depend on the other tasks of the batch"),
    ("w.expand(*x.shape[:2], tasks.outputs)", "x - x.mean(1, keepdim=True)", "depends on the other queries"),
    ("w.expand(*x.shape[:2], tasks.outputs)", "torch.rand(*x.shape[:2], 1)", "global random generator (torch)"),
    ("        yield lambda", "        np.random.rand()\n        yield lambda", "global random generator (numpy)"),
    ("        yield lambda", "        random.random()\n        yield lambda", "global random generator (random)"),
    ("    def adapt", "    def reported_steps(self):\n        return (1,)\n\n    def adapt", "ends after step 0"),
    ("        yield lambda", "        torch.set_default_dtype(torch.float64)\n        yield lambda", "default dtype"),
    (
        "        yield lambda",
        "        raise OverflowError('too\\nmuch')\n        yield lambda",
        "raises OverflowError: too much",
    ),
    ("        yield lambda", "        sys.exit(0)\n        yield lambda", "raises SystemExit: 0"),
]


@pytest.mark.parametrize(("old", "new", "said"), BROKEN)
def test_a_broken_promise_is_one_sentence(tmp_path: Path, old: Any, new: Any, said: str) -> None:
    text = HEAD % "mine" + GOOD
    for before, after in [(old, new)] if isinstance(old, str) else zip(old, new, strict=True):
        assert before in text
        text = text.replace(before, after)
    try:
        found = conformance.complaints(findings(tmp_path / "mine.py", text))
    finally:
        torch.set_default_dtype(torch.float32)
    assert any(said in line for line in found) if said else found == []
    assert all("\n" not in line for line in found)


def test_an_exception_has_the_innermost_line_of_the_file(tmp_path: Path) -> None:
    body = GOOD.replace("        yield lambda", "        self.fails(support.x)\n        yield lambda")
    body += textwrap.indent("\ndef fails(self, x):\n    return torch.cat([x, 1])\n", "    ")
    text = HEAD % "mine" + body
    (line,) = conformance.complaints(findings(tmp_path / "mine.py", text))
    number = text[: text.index("torch.cat")].count("\n") + 1
    assert line.startswith(f"{tmp_path / 'mine.py'}:{number}: mine on sinusoid-v1/k5: raises TypeError")


def test_a_method_that_fits_no_task_at_hand_is_told_so(tmp_path: Path) -> None:
    body = GOOD.replace("    kinds", "    needs: ClassVar = frozenset({'classes'})\n    kinds")
    (line,) = conformance.complaints(findings(tmp_path / "mine.py", HEAD % "mine" + body))
    assert "fits no task that is at hand (mine needs classes, which sinusoid does not offer)" in line
