"""The memory module: which slot an example goes to, what becomes of its key, its age, and what trains the embedding."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from baselines.memory_module import KeyMemory, MemoryModule, nearest_of_class, written
from benchmarks import registry
from benchmarks.api import LabelledSet, Parameters

CELL = KeyMemory(slots=3, key_size=2, outputs=4)


def at(*degrees: float) -> Tensor:
    """Unit vectors ``[n, 2]``."""
    angle = torch.tensor(degrees, dtype=torch.double) * math.pi / 180
    return torch.stack((angle.cos(), angle.sin()), 1)


def filled(*examples: tuple[float, int]) -> Parameters:
    """The memory of one task after examples at these angles, with these labels."""
    memory = CELL.start({"key.weight": torch.zeros(2, 5, dtype=torch.double)}, 1)
    for angle, label in examples:
        memory = written(memory, at(angle), torch.tensor([label]))
    return memory


def test_the_same_label_averages_and_normalises_and_another_takes_the_oldest_slot() -> None:
    memory = filled((0, 0), (90, 1))
    merged = written(memory, at(40), torch.tensor([0]))
    torch.testing.assert_close(merged["keys"][0, :2], at(20, 90))
    assert merged["labels"].tolist() == [[0, 1, -1]]
    assert merged["ages"][0, :2].tolist() == [0, 1]
    other = written(memory, at(40), torch.tensor([1]))
    torch.testing.assert_close(other["keys"][0], at(0, 90, 40))
    assert other["labels"].tolist() == [[0, 1, 1]]
    full = written(other, at(80), torch.tensor([2]))
    torch.testing.assert_close(full["keys"][0], at(80, 90, 40))
    assert full["labels"].tolist() == [[2, 1, 1]]


def test_a_merge_makes_a_slot_young_so_that_another_is_overwritten() -> None:
    memory = filled((0, 0), (90, 1), (180, 2), (10, 0))
    assert memory["ages"].tolist() == [[0, 2, 1]]
    assert written(memory, at(270), torch.tensor([3]))["labels"].tolist() == [[0, 3, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_ages_count_updates_since_the_last_write_and_keys_have_length_one(seed: int) -> None:
    drawn = random.Random(seed)
    memory, last = filled(), [0, 0, 0]
    for number in range(1, 13):
        angle, label = drawn.uniform(0, 360), drawn.randrange(4)
        answer = nearest_of_class(memory, at(angle).unsqueeze(1), 4).argmax(-1)
        right = bool(answer == label) and label in memory["labels"].tolist()[0]
        after = written(memory, at(angle), torch.tensor([label]))
        (slot,) = [place for place, age in enumerate(after["ages"][0].tolist()) if age == 0]
        last[slot] = number
        used = [int((one["labels"] >= 0).sum()) for one in (memory, after)]
        assert used[1] == (used[0] if right else min(3, used[0] + 1))
        memory = after
        seen = memory["labels"][0] >= 0
        assert [number - place for place in last if place] == memory["ages"][0][seen].tolist()
        lengths = memory["keys"][0].norm(dim=-1)[seen]
        torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-12)


def test_an_empty_slot_is_no_key_of_the_first_class() -> None:
    memory = filled((180, 2))
    assert nearest_of_class(memory, at(0).unsqueeze(1), 4).tolist() == [[[-1.0, -1.0, -1.0, -1.0]]]
    assert nearest_of_class(memory, at(170).unsqueeze(1), 4)[0, 0].argmax() == 2


def test_it_answers_an_example_before_it_knows_its_label() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = CELL.initialise(9, generator)
    x = torch.cat((torch.randn(3, 6, 5, generator=generator), torch.eye(4).repeat(3, 2, 1)[:, :6]), -1)
    changed = x.clone()
    changed[:, 3, 5:] = changed[:, 3, 5:].roll(1, -1)
    before, after = (CELL.read(parameters, each)[0] for each in (x, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before, after)


def test_only_the_query_has_a_gradient_and_none_where_the_margin_is_kept() -> None:
    learner = MemoryModule(slots=4, key_size=3)
    generator = torch.Generator().manual_seed(0)
    parameters = learner.cell(3).initialise(5 + 3, generator)
    support, query = (torch.randn(2, 3, 5, generator=generator, requires_grad=True) for _ in range(2))
    output = learner.answer(parameters, support, query, torch.arange(3).expand(2, 3), 3)
    of_query, of_support = torch.autograd.grad(output.sum(), (query, support), allow_unused=True)
    assert of_support is None
    assert bool(of_query.any())
    scores = torch.tensor([[[0.9, 0.3, 0.1], [0.5, 0.45, 0.1]]], requires_grad=True)
    loss = learner.loss(scores, LabelledSet(torch.empty(0), torch.tensor([[0, 0]])))
    assert float(loss.detach()) == pytest.approx(0.05 / 2)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.tolist() == [[[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0]]]


def test_one_example_of_each_class_makes_it_the_nearest_neighbour_in_any_order() -> None:
    learner = MemoryModule(key_size=3)
    generator = torch.Generator().manual_seed(0)
    parameters = learner.cell(4).initialise(5 + 4, generator)
    support, query = (torch.randn(2, n, 5, generator=generator) for n in (4, 6))
    y = torch.tensor([[2, 0, 3, 1], [0, 1, 2, 3]])
    answers = learner.answer(parameters, support, query, y, 4)
    keys, sought = (x @ parameters["key.weight"].T for x in (support, query))
    cosine = torch.cosine_similarity(sought.unsqueeze(2), keys.unsqueeze(1), dim=-1)
    torch.testing.assert_close(answers, cosine.gather(2, y.argsort(1).unsqueeze(1).expand(-1, 6, -1)))
    backwards = learner.answer(parameters, support.flip(1), query, y.flip(1), 4)
    torch.testing.assert_close(backwards, answers)
    alone = learner.answer(parameters, support, query[:, 2:3], y, 4)
    torch.testing.assert_close(alone, answers[:, 2:3])


@pytest.mark.parametrize(
    ("fields", "said"), [({"slots": 0}, "slots = 0 is not at least 1"), ({"margin": -1.0}, "margin = -1.0 is not")]
)
def test_settings_that_make_no_sense_are_one_line(fields: dict[str, object], said: str) -> None:
    with pytest.raises(registry.MetabenchError, match=said):
        registry.build_method("memory-module", **fields)


def test_it_is_for_classes_alone() -> None:
    said = registry.incompatible("memory-module", "sinusoid/k5")
    assert said == "memory-module is for classification, sinusoid is regression"
