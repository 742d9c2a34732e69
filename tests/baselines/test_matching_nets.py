"""The parts of matching networks: attention, the sum under it, and full context embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.matching_nets import MatchingNets, log_attention, query_in_context, support_in_context, weighted_sum
from benchmarks.api import Parameters
from benchmarks.models import lstm
from benchmarks.registry import build_task


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def cells(size: int) -> Parameters:
    generator = torch.Generator().manual_seed(0)
    cell = [lstm.initialise(name, size, size, size, generator) for name in ("forward", "backward")]
    cell.append(lstm.initialise("attention", size, size, 2 * size, generator))
    return {name: value.double() for part in cell for name, value in part.items()}


def test_attention_is_the_softmax_of_scaled_cosines() -> None:
    query, support = drawn(1, 4, 6), drawn(1, 3, 6, seed=1)
    cosines = torch.cosine_similarity(query.unsqueeze(2), support.unsqueeze(1), dim=-1)
    torch.testing.assert_close(log_attention(query, support, 7.0).exp(), (7.0 * cosines).softmax(-1))


def test_class_shares_are_sums_of_attention_with_the_same_gradient() -> None:
    scores, y = drawn(2, 4, 10).requires_grad_(), torch.arange(10).expand(2, 10) % 5
    ours = weighted_sum(scores.log_softmax(-1), y, 5)
    plain = torch.stack([scores.softmax(-1)[..., y[0] == label].sum(-1) for label in range(5)], -1).log()
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(output[..., 2].sum(), scores)[0] for output in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_a_class_far_behind_still_has_a_gradient() -> None:
    scores = torch.tensor([[[200.0, 0.0]]], requires_grad=True)
    share = weighted_sum(scores.log_softmax(-1), torch.tensor([[0, 1]]), 2)[0, 0, 1]
    assert share.item() == pytest.approx(-200.0)
    torch.testing.assert_close(torch.autograd.grad(share, scores)[0][0, 0], torch.tensor([-1.0, 1.0]))


def test_regression_is_the_mean_of_the_targets_under_the_attention() -> None:
    weights, y = drawn(2, 4, 3).log_softmax(-1), drawn(2, 3, 1, seed=1)
    expected = torch.stack([sum(weights[:, :, i, None].exp() * y[:, i, None] for i in range(3))])[0]
    torch.testing.assert_close(weighted_sum(weights, y, 1), expected)


def test_regression_stays_between_the_support_targets() -> None:
    waves = build_task("sinusoid/k5")
    learner = MatchingNets(meta_batch=2)
    state = next(learner.fit(waves, seed=0))
    cut = waves.episodes("test", range(5))
    values = next(learner.adapt(state, cut.support, waves))(cut.query.x)[0]
    low, high = cut.support.y.amin(1, keepdim=True), cut.support.y.amax(1, keepdim=True)
    assert bool(((values >= low - 1e-5) & (values <= high + 1e-5)).all())


def test_lstm_is_that_of_torch() -> None:
    parameters = lstm.initialise("cell", 6, 4, 4, torch.Generator().manual_seed(0))
    theirs = torch.nn.LSTM(6, 4, batch_first=True)
    names = {"weight_ih_l0": "input", "weight_hh_l0": "recurrent", "bias_ih_l0": "bias"}
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            value.copy_(parameters[f"cell.{names[name]}"] if name in names else torch.zeros_like(value))
    sequence = drawn(3, 7, 6).float()
    outputs, (output, memory) = lstm.read(parameters, "cell", sequence)
    expected, (last, kept) = theirs(sequence)
    torch.testing.assert_close(outputs, expected.detach())
    torch.testing.assert_close((output, memory), (last[0].detach(), kept[0].detach()))
    by_hand = memory = torch.zeros(len(sequence), 4)
    for gates in lstm.gates_of(parameters, "cell", sequence).unbind(1):
        by_hand, memory = lstm.cell(parameters, "cell", gates, by_hand, memory)
    torch.testing.assert_close(outputs[:, -1], by_hand)


def test_reading_the_support_set_the_other_way_round_swaps_the_two_directions() -> None:
    parameters, support = cells(6), drawn(2, 5, 6)
    swapped = {
        name.replace("forward", "x").replace("backward", "forward").replace("x", "backward"): value
        for name, value in parameters.items()
    }
    there, back = support_in_context(parameters, support), support_in_context(swapped, support.flip(1)).flip(1)
    torch.testing.assert_close(there, back)
    assert not torch.allclose(there, support_in_context(parameters, support.flip(1)).flip(1))


def test_one_step_of_the_attention_lstm_reads_the_mean_of_the_support_set() -> None:
    parameters, query, support = cells(6), drawn(2, 3, 6), drawn(2, 5, 6, seed=1)
    read_out = support.mean(1, keepdim=True).expand(-1, 3, -1)
    fed_back = torch.cat((torch.zeros_like(query), read_out), -1)
    gates = lstm.gates_of(parameters, "attention", query)
    output, _ = lstm.cell(parameters, "attention", gates, fed_back, torch.zeros_like(query))
    torch.testing.assert_close(query_in_context(parameters, query, support, 1), query + output)


def test_the_order_of_the_support_set_does_not_matter_to_the_query_alone() -> None:
    parameters, query, support = cells(6), drawn(2, 3, 6), drawn(2, 5, 6, seed=1)
    given = query_in_context(parameters, query, support, 5)
    torch.testing.assert_close(query_in_context(parameters, query, support.flip(1), 5), given)
    assert not torch.allclose(query_in_context(parameters, query, support, 4), given)
