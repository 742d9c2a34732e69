"""Memory-augmented networks: what is written where, against the equations in numpy, and what a query leaves."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.memory_augmented import EMPTY, SHORTEST, LeastRecentlyUsed, least_used
from benchmarks import registry
from benchmarks.api import Parameters

CELL = LeastRecentlyUsed(hidden=6, slots=12, width=4, heads=2, usage_decay=0.9)


def parameters(gate: float | None = None, cell: LeastRecentlyUsed = CELL) -> Parameters:
    """Of a cell with 3 inputs, in double precision; gate: a fixed logit of writing where it has just read."""
    drawn = cell.initialise(3, torch.Generator().manual_seed(0))
    found = {name: value.double() for name, value in drawn.items()}
    if gate is not None:
        found["gate.weight"].zero_()
        found["gate.bias"].fill_(gate)
    return found


def sequence(steps: int, sequences: int = 2) -> Tensor:
    return torch.randn(sequences, steps, 3, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def memories(found: Parameters, x: Tensor, cell: LeastRecentlyUsed = CELL) -> list[Parameters]:
    """The memory before the first step and after each."""
    kept = [cell.start(found, len(x))]
    for now in x.unbind(1):
        kept.append(cell.step(found, kept[-1], now)[1])
    return kept


def by_hand(found: Parameters, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs, rows and usage of one sequence ``[k, 3]``: slot by slot and head by head."""
    p = {name: value.numpy() for name, value in found.items()}

    def sigmoid(value: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-value))

    h, c, read = np.zeros(6), np.zeros(6), np.zeros(8)
    rows, usage, last, outputs = np.full((12, 4), EMPTY), np.zeros(12), np.zeros((2, 12)), []
    for now in x:
        gates = p["lstm.input"] @ now + p["lstm.bias"] + p["lstm.recurrent"] @ np.concatenate((h, read))
        enter, keep, candidate, leave = np.split(gates, 4)
        c = sigmoid(keep) * c + sigmoid(enter) * np.tanh(candidate)
        h = sigmoid(leave) * np.tanh(c)
        keys = np.tanh(p["key.weight"] @ h + p["key.bias"]).reshape(2, 4)
        gate = sigmoid(p["gate.weight"] @ h + p["gate.bias"])
        least = sorted(range(12), key=lambda slot: (usage[slot], slot))[:2]
        written = gate[:, None] * last
        for head, slot in enumerate(least):
            written[head, slot] += 1 - gate[head]
            rows[slot] = 0
        rows = rows + sum(np.outer(written[head], keys[head]) for head in range(2))
        norms = np.linalg.norm(keys, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
        last = np.exp(keys @ rows.T / (norms + SHORTEST))
        last /= last.sum(1, keepdims=True)
        read = (last @ rows).flatten()
        usage = 0.9 * usage + last.sum(0) + written.sum(0)
        outputs.append(np.concatenate((h, read)))
    return np.stack(outputs), rows, usage


def test_it_is_the_equations_of_the_paper() -> None:
    found, x = parameters(), sequence(9)
    outputs, memory = CELL.read(found, x)
    for index in range(2):
        expected = by_hand(found, x[index].numpy())
        for ours, theirs in zip((outputs, memory["rows"], memory["usage"]), expected, strict=True):
            np.testing.assert_allclose(ours[index].numpy(), theirs, rtol=0, atol=1e-12)


def test_a_closed_gate_writes_to_the_least_used_slots_and_never_twice_to_one_until_all_are_full() -> None:
    found, x = parameters(gate=float("-inf")), sequence(6)
    kept, used = memories(found, x), torch.zeros(2, 12, dtype=torch.bool)
    for before, after in pairwise(kept):
        least = least_used(before["usage"], 2).sum(1).bool()
        assert torch.equal((before["rows"] != after["rows"]).any(-1), least)
        assert not bool((used & least).any())
        used |= least
        keys = torch.nn.functional.linear(after["output"], found["key.weight"], found["key.bias"]).tanh()
        own = least_used(before["usage"], 2) @ after["rows"]
        torch.testing.assert_close(own, keys.unflatten(1, (2, 4)), rtol=0, atol=1e-15)
    assert bool(used.all())


def test_an_open_gate_writes_where_it_has_just_read() -> None:
    found, x = parameters(gate=float("inf")), sequence(4)
    kept = memories(found, x)
    for before, after in pairwise(kept):
        keys = torch.nn.functional.linear(after["output"], found["key.weight"], found["key.bias"]).tanh()
        erased = least_used(before["usage"], 2).sum(1, keepdim=True).transpose(1, 2)
        expected = before["rows"] * (1 - erased) + before["weights"].transpose(1, 2) @ keys.unflatten(1, (2, 4))
        torch.testing.assert_close(after["rows"], expected, rtol=0, atol=1e-14)


def test_weights_sum_to_one_and_usage_decays_by_its_share() -> None:
    """Each step adds a read and, but for the first, a write weight of 1 for each head."""
    kept = memories(parameters(), sequence(5))
    totals = [memory["usage"].sum(1) for memory in kept]
    for step, memory in enumerate(kept[1:], start=1):
        torch.testing.assert_close(memory["weights"].sum(2), torch.ones(2, 2, dtype=torch.double))
        if step > 1:
            torch.testing.assert_close(totals[step], 0.9 * totals[step - 1] + 4)
    assert bool((totals[1] < 4).all())


def test_it_does_not_matter_where_a_slot_is() -> None:
    found, x = parameters(), sequence(1)
    memory = CELL.read(found, sequence(5))[1]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    axes = {"rows": 1, "weights": 2, "usage": 1}

    def moved(one: Parameters) -> Parameters:
        return {name: value.index_select(axes[name], order) if name in axes else value for name, value in one.items()}

    output, after = CELL.step(found, memory, x[:, 0])
    other, there = CELL.step(found, moved(memory), x[:, 0])
    torch.testing.assert_close(other, output)
    torch.testing.assert_close(there, moved(after))


def test_memory_is_in_the_gradient_and_usage_is_not() -> None:
    found, x = parameters(), sequence(5)
    x.requires_grad_()
    outputs, memory = CELL.read(found, x)
    assert not memory["usage"].requires_grad
    (gradient,) = torch.autograd.grad(outputs[:, -1, 6:].square().sum(), x)
    step = torch.zeros_like(x)
    step[0, 0, 0] = 1e-6
    with torch.no_grad():
        up, down = (CELL.read(found, x + sign * step)[0][:, -1, 6:].square().sum() for sign in (1, -1))
    assert float(gradient[0, 0, 0]) == pytest.approx(float(up - down) / 2e-6, rel=1e-5)


def test_it_learns_waves_better_than_a_constant() -> None:
    tasks = registry.build_task("sinusoid/k10")
    small = {"hidden": 24, "slots": 16, "width": 8, "heads": 2, "meta_batch": 16, "training_queries": 10}
    learner = registry.build_method("memory-augmented", tasks, **small, optimiser="adam", meta_lr=5e-3)
    state = next(islice(learner.fit(tasks, 0), 149, None)).copy()
    cut = tasks.episodes("test", range(100))
    errors = tasks.score(next(learner.adapt(state, cut.support, tasks)), cut.query)
    assert float(errors.mean()) < 0.85 * float(cut.query.y.square().mean())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"slots": 0}, "slots = 0 is not at least 1"),
        ({"usage_decay": 1.5}, "usage_decay = 1.5 is not between 0 and 1"),
        ({"heads": 5, "slots": 4}, "heads = 5: each writes to its own of slots = 4"),
        ({"optimiser": "sgd"}, "optimiser = 'sgd'; known: adam, rmsprop"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(fields: dict[str, object], said: str) -> None:
    with pytest.raises(registry.MetabenchError, match=said):
        registry.build_method("memory-augmented", **fields)
