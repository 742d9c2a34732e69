"""Siamese networks: what follows from comparing absolute differences, and the weights of pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.siamese_nets import SiameseNets, log_odds, pair_weights
from benchmarks.api import LabelledSet

D = 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


PARAMETERS = {"weight": drawn(D, seed=7), "bias": torch.tensor(0.3, dtype=torch.double)}


def test_a_pair_is_symmetric_and_an_example_is_itself() -> None:
    left, right = drawn(2, 4, D), drawn(2, 3, D, seed=1)
    assert torch.equal(log_odds(PARAMETERS, left, right), log_odds(PARAMETERS, right, left).mT)
    itself = log_odds(PARAMETERS, left, left).diagonal(dim1=1, dim2=2).sigmoid()
    assert torch.equal(itself, PARAMETERS["bias"].sigmoid().expand(2, 4))


def test_equal_negative_weights_rank_by_the_l1_distance() -> None:
    support, query, y = drawn(2, 3, D), drawn(2, 40, D, seed=1), torch.tensor([[2, 0, 1], [0, 1, 2]])
    equal = {"weight": torch.full((D,), -0.7, dtype=torch.double), "bias": PARAMETERS["bias"]}
    found = SiameseNets().answer(equal, support, query, y, 3).argsort(-1, descending=True)
    distances = torch.cdist(query, support, p=1)
    expected = y.unsqueeze(1).expand(-1, 40, -1).gather(2, distances.argsort(-1))
    assert torch.equal(found, expected)


def test_a_class_has_the_mean_of_its_examples() -> None:
    support, query, y = drawn(1, 4, D), drawn(1, 6, D, seed=1), torch.tensor([[1, 0, 1, 1]])
    pairs = log_odds(PARAMETERS, query, support)[0]
    expected = torch.stack((pairs[:, 1], pairs[:, [0, 2, 3]].mean(1)), 1)
    torch.testing.assert_close(SiameseNets().answer(PARAMETERS, support, query, y, 2)[0], expected)


@pytest.mark.parametrize("way", [2, 5, 20])
def test_pairs_of_both_kinds_weigh_the_same_and_1_in_the_mean(way: int) -> None:
    same = F.one_hot(torch.arange(way).repeat(3), way).double().unsqueeze(0)
    weights = pair_weights(same)
    assert float(weights.mean()) == pytest.approx(1)
    assert float((weights * same).sum()) == pytest.approx(float((weights * (1 - same)).sum()))


def test_the_loss_is_the_weighted_cross_entropy_of_pairs() -> None:
    odds, y = drawn(1, 6, 4), torch.tensor([[0, 1, 2, 3, 0, 1]])
    chance = odds.sigmoid()[0]
    right = torch.stack([chance[query, label] for query, label in enumerate(y[0])])
    wrong = torch.stack([chance[query, label] for query in range(6) for label in range(4) if label != y[0, query]])
    by_hand = -(right.log().mean() + (1 - wrong).log().mean()) / 2
    torch.testing.assert_close(SiameseNets().loss(odds, LabelledSet(odds, y)), by_hand)
