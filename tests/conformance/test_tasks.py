"""Every task of the suite that needs no data keeps the contract, and the checks find one that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks import conformance, registry

#: environment steps of a trial up to which a variant is rolled out; longer variants differ in their length alone
STEPS = 200
Findings = Callable[[str], list[conformance.Finding]]

HEAD = """\
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import torch
from benchmarks import sampling
from benchmarks.api import Episodes, LabelledSet, TaskDistribution
from benchmarks.environments import ControlTasks
from benchmarks.images.distribution import ImageSet, ImageTasks
from benchmarks.registry import register_task
from benchmarks.tasks.bandit import Arms

"""
LINES = '''
@register_task("lines")
@dataclass(frozen=True)
class Lines(TaskDistribution):
    """Straight lines y = a x."""

    kind: ClassVar = "regression"
    variants: ClassVar = {"k5": {"shot": 5}}
    metric: ClassVar = "squared error"
    higher_is_better: ClassVar = False
    equivalence_margin: ClassVar = 1.1
    input_shape: ClassVar = (1,)
    outputs: ClassVar = 1
    backbone: ClassVar = "mlp-40-40"

    shot: int = 5
    queries: int = 4

    def episodes(self, split, indices, *, shots=None, queries=None):
        key, shots, queries = sampling.stream(self.id, split), shots or self.shot, queries or self.queries
        slope = sampling.uniform(key, indices, 1)
        x = sampling.uniform(key, indices, queries + shots, first=1)[..., None]
        x, y = (torch.from_numpy(v.astype(np.float32)) for v in (x, slope[..., None] * x))
        return Episodes(LabelledSet(x[:, queries:], y[:, queries:]), LabelledSet(x[:, :queries], y[:, :queries]))

    def score(self, predictor, query):
        return (self.predictions(predictor, query) - query.y).square().mean(-1)
'''
POOLED = (
    LINES.replace("    shot: int", '    offers: ClassVar = frozenset({"pooled"})\n\n    shot: int')
    + """
    def pooled(self, split, indices):
        drawn = sampling.uniform(sampling.stream(self.id, split, "pooled"), indices, 2).astype(np.float32)
        slope, x = torch.from_numpy(drawn.T.reshape(2, 1, -1, 1))
        return LabelledSet(x, slope * x)

    def pooled_outputs(self, split):
        return 1
"""
)
ARMS = '''
@register_task("slots")
@dataclass(frozen=True)
class Slots(ControlTasks):
    """A slot machine with three arms."""

    variants: ClassVar = {"three": {"shot": 3, "queries": 3}}
    equivalence_margin: ClassVar = 0.1
    trial_episodes: ClassVar = 9
    discount: float = 0.9

    @property
    def model(self):
        return Arms(3)

    def draw(self, key, indices):
        return sampling.uniform(key, indices, 3)
'''
BARE = '''
@register_task("bare")
@dataclass(frozen=True)
class Bare(TaskDistribution):
    """A control task that is nothing but its kind."""

    kind: ClassVar = "control"
    variants: ClassVar = {"short": {}}
    metric: ClassVar = "return"
    higher_is_better: ClassVar = True
    equivalence_margin: ClassVar = 0.1

    shot: int = 1
    queries: int = 1
'''
GUESSES = """

    def score(self, predictor, query):
        return (self.predictions(predictor, query).argmax(-1) == query.y).float()
"""
IMAGES = '''
@register_task("pictures")
@dataclass(frozen=True)
class Pictures(ImageTasks):
    """Noise in colour."""

    variants: ClassVar = {"5w1s": {"queries": 3}}
    equivalence_margin: ClassVar = 0.005
    image_shape: ClassVar = (3, 8, 8)
    backbone: ClassVar = "conv4-32"

    def image_set(self, split):
        return SETS[split]


SETS = {
    split: ImageSet(
        np.random.default_rng(seed).integers(256, size=(60, 8, 8, 3), dtype=np.uint8),
        np.full(6, 10), tuple(f"{split} {number}" for number in range(6)), split,
    )
    for seed, split in enumerate(("train", "validation", "test"))
}
'''

FAR = """def pooled(self, split, indices):
        found = super().pooled(split, indices)
        return LabelledSet(found.x, found.y + 99)
"""


@pytest.mark.parametrize(
    "name", ["sinusoid", "glyphs", "navigation-2d", "cartpole", "visual-maze", "bandit", "tabular-mdp"]
)
def test_every_task_that_needs_no_data_holds_the_contract(name: str) -> None:
    entry = registry.task_entry(name)
    every = [registry.build_task(f"{name}/{variant}") for variant in entry.cls.variants]
    short = [tasks.variant for tasks in every if getattr(tasks, "trial_steps", 0) <= STEPS]
    assert conformance.complaints(conformance.check_task(entry, short)) == []


@pytest.mark.parametrize("text", [LINES, POOLED, ARMS, IMAGES], ids=["lines", "pooled", "arms", "images"])
def test_a_small_honest_task_passes(findings: Findings, text: str) -> None:
    assert conformance.complaints(findings(HEAD + text)) == []


@pytest.mark.fault("U1", "U2")
@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (LINES, '"""Straight lines y = a x."""', "", "docstring"),
        (LINES, 'kind: ClassVar = "regression"', 'kind: ClassVar = "counting"', "kind = 'counting'; known"),
        (LINES, 'metric: ClassVar = "squared error"', "", "no class data 'metric'"),
        (LINES, "    queries: int = 4\n", "    queries: ClassVar = 4\n", "has no field 'queries'"),
        (LINES, "slope = sampling", "slope = len(indices) + sampling", "depend on the others of the batch"),
        (LINES, "slope = sampling", "np.random.rand()\n        slope = sampling", "global random generator (numpy)"),
        (LINES, "sampling.stream(self.id, split)", "sampling.stream(self.id)", "the test episodes are the training"),
        (LINES, "(x[:, queries:], y[:, queries:])", "(x[:, 1:], y[:, 1:])", "is a query of the same"),
        (LINES, "LabelledSet(x[:, :queries]", "LabelledSet(x[:, shots:]", "change with the number of shots"),
        (LINES, "input_shape: ClassVar = (1,)", "input_shape: ClassVar = (2,)", "input_shape says (2,)"),
        (LINES, "y[:, queries:])", "y[:, queries:, 0])", "targets are torch.float32 (3, 5)"),
        (LINES, "np.float32", "np.int64", "not finite: give finite floats"),
        (LINES, "self.predictions(predictor, query)", "predictor(query.x)[0]", "call self.predictions(predictor"),
        (LINES, ".square().mean(-1)", ".square().mean()", "not one score per query (3, 4)"),
        (LINES, ".square().mean(-1)", ".square().mean(-1) + 1", "a perfect predictor scores 1, not 0"),
        (LINES, "key, shots, queries =", "raise KeyError(split)\n        key, shots, queries =", ": raises KeyError"),
        (POOLED, "def pooled(", "def pool(", "raises NotImplementedError"),
        (POOLED, "def pooled_outputs", "def pool_outputs", "raises NotImplementedError"),
        (POOLED, "return 1", "return 7", "pooled_outputs = 7, not the dimension of the target, 1"),
        (POOLED, "(x, slope * x)", "(x[0], slope[0])", "pooled inputs have shape (3, 1), not one task of one example"),
        (POOLED, "(x, slope * x)", "(x, x[..., 0])", "pooled targets are torch.float32 (1, 3)"),
        (POOLED, "(x, slope * x)", "(x, x + len(indices))", "pooled examples depend on the other indices"),
        (IMAGES, "def image_set", f"{FAR}\n    def image_set", "aren't class numbers below pooled_outputs, 6"),
        (BARE, "", "", "has no discount; a control task declares one"),
        (BARE, "    shot: int", "    discount: float = 2.0\n    shot: int", "discount = 2.0: give it a number from 0"),
        (ARMS, "uniform(key, indices, 3)", "uniform(key, [0 for _ in indices], 3)", ""),
        (ARMS, "uniform(key, indices, 3)", "uniform(key, range(len(indices)), 3)", "depend on the other tasks"),
        (LINES, "query.y).square().mean(-1)", "query.y).nan_to_num(1).square().mean(-1)", "not a number score 1"),
        (IMAGES, '"conv4-32"', '"conv4-32"' + GUESSES, "predictions that are not a number score 0.2"),
        (IMAGES, "size=(60, 8, 8, 3)", "size=(60, 3, 8, 8)", "are stored as [8, 8, 3] (height, width, channels)"),
        (IMAGES, "image_shape: ClassVar = (3, 8, 8)", "image_shape: ClassVar = (8, 8, 3)", "channels last"),
    ],
)
def test_a_broken_promise_is_one_sentence(findings: Findings, text: str, old: str, new: str, said: str) -> None:
    assert old in text
    found = conformance.complaints(findings(HEAD + text.replace(old, new)))
    assert any(said in line for line in found) if said else found == [], found


@pytest.mark.fault("S4")
@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 5, 1, 1), (5, 1), (2, 4, 1)])
@pytest.mark.parametrize("task", ["sinusoid/k5", "glyphs/5w1s"])
def test_predictions_of_another_shape_get_no_score(task: str, shape: tuple[int, ...]) -> None:
    tasks = registry.build_task(task)
    query = tasks.episodes("test", [0, 1], queries=5 if tasks.kind == "regression" else 1).query
    with pytest.raises(registry.MetabenchError, match="predictions have shape"):
        tasks.score(lambda x, memory=None: (torch.zeros(shape), None), query)


def test_a_picture_twice_under_two_numbers_is_a_note(findings: Findings) -> None:
    found = findings(HEAD + IMAGES.replace("integers(256, size", "integers(200, 201, size"))
    notes = [each.text for each in found if each.kind == "note"]
    assert any("has the same input as an example of its support set" in note for note in notes)
