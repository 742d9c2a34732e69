"""SNAIL: no output knows what comes after it or another query, and what the convolutions look back on."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor

from baselines.sequence import Cell
from baselines.snail import Attention, CausalNetwork, Convolution, Snail
from benchmarks import registry
from benchmarks.api import Parameters

NETWORK = CausalNetwork(length=5, filters=4, keys=(4, 6), outputs=3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def parameters(network: CausalNetwork = NETWORK) -> Parameters:
    return {name: value.double() for name, value in network.initialise(7, torch.Generator().manual_seed(0)).items()}


def test_an_output_is_independent_of_later_inputs_and_of_no_earlier_one() -> None:
    x = drawn(1, 9, 7).requires_grad_()
    outputs, _ = NETWORK.read(parameters(), x)
    for t in range(9):
        (gradient,) = torch.autograd.grad(outputs[0, t].sum(), x, retain_graph=True)
        assert gradient[0].any(-1).tolist() == [position <= t for position in range(9)]


def test_convolutions_look_back_a_power_of_two_that_covers_the_length() -> None:
    dilations = [layer.dilation for _, layer in NETWORK.layers() if isinstance(layer, Convolution)]
    assert dilations == [1, 2, 4]
    x = drawn(1, 12, 2).requires_grad_()
    seen = x
    for dilation in dilations:
        added = Convolution(dilation, 4)(drawn(8, 2 * seen.shape[-1]), drawn(8), seen, None)
        seen = torch.cat((seen, added), -1)
    (gradient,) = torch.autograd.grad(seen[0, -1].sum(), x)
    assert gradient[0].any(-1).tolist() == [position >= 12 - 8 for position in range(12)]


def test_a_convolution_is_that_of_torch() -> None:
    x, weight, bias = drawn(2, 9, 3), drawn(8, 6, seed=1), drawn(8, seed=2)
    kernel = torch.stack(weight.split(3, 1), -1)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (2, 0))
    signal, gate = torch.nn.functional.conv1d(padded, kernel, bias, dilation=2).transpose(1, 2).chunk(2, -1)
    torch.testing.assert_close(Convolution(2, 4)(weight, bias, x, None), signal.tanh() * gate.sigmoid())


@pytest.mark.parametrize("past", [None, drawn(2, 4, 3, seed=3)])
def test_attention_weights_sum_to_one(past: Tensor | None) -> None:
    """Values that are all 1 are read as 1."""
    weight, bias = drawn(2 * 4 + 2, 3, seed=1), torch.zeros(10, dtype=torch.double)
    weight[8:], bias[8:] = 0, 1
    read = Attention(4)(weight, bias, drawn(2, 5, 3), past)
    torch.testing.assert_close(read, torch.ones(2, 5, 2, dtype=torch.double))


def test_attention_is_that_of_torch() -> None:
    x, weight, bias = drawn(2, 5, 3), drawn(10, 3, seed=1), drawn(10, seed=2)
    parts = torch.nn.functional.linear(x, weight, bias).split((4, 4, 2), -1)
    expected = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(Attention(4)(weight, bias, x, None), expected)


@pytest.mark.parametrize("k", [0, 1, 3, 9])
def test_a_query_after_the_past_is_the_end_of_a_sequence_of_its_own(k: int) -> None:
    """Also past the length that the convolutions cover."""
    found, seen, asked = parameters(), drawn(2, k, 7), drawn(2, 4, 7, seed=1)
    memory = NETWORK.read(found, seen)[1] if k else NETWORK.start(found, 2)
    answers = NETWORK.answer(found, memory, asked)
    for query in range(4):
        whole = NETWORK.read(found, torch.cat((seen, asked[:, query : query + 1]), 1))[0]
        torch.testing.assert_close(answers[:, query], whole[:, -1])
    torch.testing.assert_close(answers, Cell.answer(NETWORK, found, memory, asked))


def test_the_order_of_the_past_does_not_matter_to_one_block_of_attention() -> None:
    """It does to convolutions."""
    seen, asked = drawn(2, 5, 7), drawn(2, 4, 7, seed=1)
    for keys, same in (((4,), True), ((4, 6), False)):
        network = CausalNetwork(length=5, filters=4, keys=keys, outputs=3)
        found = parameters(network)
        pasts = (network.read(found, each)[1] for each in (seen, seen.flip(1)))
        first, second = (network.answer(found, past, asked) for past in pasts)
        assert torch.allclose(first, second, rtol=0, atol=1e-12) == same


def test_reading_a_sequence_is_its_steps_one_after_another() -> None:
    found, x = parameters(), drawn(2, 6, 7)
    torch.testing.assert_close(NETWORK.read(found, x), Cell.read(NETWORK, found, x))


def test_labels_of_the_support_set_enter_with_their_own_example() -> None:
    learner = Snail(length=4, filters=4, keys=(4, 4))
    found = learner.cell(3).initialise(5 + 3, torch.Generator().manual_seed(0))
    support, query, y = drawn(1, 3, 5).float(), drawn(1, 2, 5, seed=1).float(), torch.tensor([[2, 0, 1]])
    answers = learner.answer(found, support, query, y, 3)
    pairs = torch.cat((support, torch.eye(3)[y]), -1)
    asked = torch.cat((query[:, 1:], torch.zeros(1, 1, 3)), -1)
    outputs, _ = learner.cell(3).read(found, torch.cat((pairs, asked), 1))
    torch.testing.assert_close(answers[:, 1], outputs[:, -1])


def test_it_learns_waves_better_than_a_constant() -> None:
    tasks = registry.build_task("sinusoid/k10")
    learner = registry.build_method("snail", tasks, length=11, filters=16, keys=(16, 32), meta_lr=3e-3)
    learner = learner.replace(meta_batch=16, training_queries=10)
    state = next(islice(learner.fit(tasks, 0), 199, None)).copy()
    cut = tasks.episodes("test", range(100))
    errors = tasks.score(next(learner.adapt(state, cut.support, tasks)), cut.query)
    assert float(errors.mean()) < 0.6 * float(cut.query.y.square().mean())


@pytest.mark.parametrize("fields", [{"length": 1}, {"filters": 0}, {"keys": (1,)}])
def test_settings_that_make_no_sense_are_one_line(fields: dict[str, object]) -> None:
    with pytest.raises(registry.MetabenchError, match=next(iter(fields))):
        registry.build_method("snail", **fields)


def test_another_training_way_is_refused() -> None:
    tasks = registry.build_task("glyphs/5w1s")
    learner = registry.build_method("snail", tasks, training_way=7)
    assert registry.mismatch(learner, "snail", tasks) == "training_way = 7: labels of 5 classes enter the network"
