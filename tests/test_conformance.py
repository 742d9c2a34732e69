"""Every method on every kind of task keeps the contract, and the checks find a plug-in that does not."""

import textwrap

import pytest

from benchmarks import conformance, registry
from benchmarks.errors import MetabenchError

METHODS = [entry for name, first in sorted(registry.methods().items()) for entry in first.all]


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: f"{entry.name}-{min(entry.cls.kinds)}")
def test_every_method_holds_the_contract(entry):
    assert conformance.check(entry) == []


@pytest.mark.parametrize("name", ["sinusoid", "glyphs", "navigation-2d", "bandit", "tabular-mdp"])
def test_every_task_that_needs_no_data_holds_the_contract(name):
    assert conformance.check(registry.task_entry(name)) == []


def plugin(tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from benchmarks.api import MetaLearner, State\n"
        "from benchmarks.registry import register_method\n\n"
        f"@register_method('mine-{tmp_path.name}')\n@dataclass(frozen=True)\nclass Mine(MetaLearner):\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
    )
    return path


GOOD = """
'''Predicts zeros.'''
kinds: ClassVar = frozenset({"regression"})
def fit(self, tasks, seed, start=None):
    state = start or State()
    while True:
        state.step += 1
        state.examples += 1
        yield state
def adapt(self, state, support, tasks):
    yield lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None)
"""


def complaints(tmp_path, body):
    path = plugin(tmp_path, body)
    return [line for entry in registry.load_file(path) for line in conformance.check(entry)]


def test_a_small_honest_plugin_passes(tmp_path):
    assert complaints(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("'''Predicts zeros.'''", "", "docstring"),
        ('"regression"', '"guessing"', "kinds"),
        ("state.examples += 1", "pass", "count the examples"),
        ("state.step += 1", "state.step += 2", "one state after each meta-step"),
        ("tasks.outputs)", "tasks.outputs + 1)", "shape"),
        ("x.new_zeros(*x.shape[:2], tasks.outputs)", "torch.rand(*x.shape[:2], tasks.outputs)", "global random"),
        ("x.new_zeros(*x.shape[:2], tasks.outputs)", "x - x.mean((0, 1))", "depend"),
        ("yield lambda", "state.step += 1\n    yield lambda", "changes the state"),
        ("yield lambda", "raise OverflowError('too much')\n    yield lambda", "OverflowError: too much"),
    ],
)
def test_a_broken_promise_is_said_in_words(tmp_path, old, new, said):
    assert old in GOOD
    if said == "changes the state":
        new = "state.parameters['w'] = torch.ones(1)\n    yield lambda"
    found = complaints(tmp_path, GOOD.replace(old, new))
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "registers no method"),
        ("import nothing_of_that_name", "can't be imported"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_plugin_is_one_line(tmp_path, text, said):
    path = tmp_path / "odd.py"
    path.write_text(text)
    with pytest.raises(MetabenchError, match=said):
        registry.load_file(path)
