"""Siamese networks.

Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", ICML deep learning workshop
2015: two images are of the same class with probability sigmoid(sum_j a_j |h_j(x) - h_j(x')| + b), trained to verify
pairs by binary cross-entropy. A query takes the class of the support example that it is most probably the same as.

Deviations and choices:
- h is the task's own network; the paper's has 105 x 105 inputs and 4,096 sigmoid units;
- pairs are those of every query with every support example of an episode. Same and different pairs weigh the same in
  sum, and 1 in the mean; the paper draws as many of both;
- with several shots the logits of a class are averaged;
- a is drawn with the paper's deviation of 0.2; b starts at 0. It learns faster than a constant a of -1, -1 / sqrt(d) or
  -4 / sqrt(d), a nearest neighbour by the L1 distance (Omniglot 5-way 1-shot, 400 meta-steps, 100 validation episodes:
  68.5 against 65.2, 65.9 and 64.9 %);
- Adam, without the paper's layer-wise rates, L2 penalties and affine distortions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from baselines.shared.similarity import class_means
from benchmarks.api import LabelledSet, Parameters
from benchmarks.models import Network
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


@register_method("siamese-nets")
@dataclass(frozen=True)
class SiameseNets(Episodic):
    """Learn whether two examples are of the same class; a query takes the class that it is most probably of.

    Fields: see `baselines.episodic.Episodic`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"omniglot": {"training_way": 20, "meta_batch": 1}}
    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("start of the weights: best of 4 on Omniglot 5-way 1-shot, 400 meta-steps; all else untried")
    }

    training_shot: int = 1

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """The weight of each feature's difference, and the bias."""
        return {"weight": 0.2 * torch.randn(network.embedding_size, generator=generator), "bias": torch.zeros(())}

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """The log-odds that query and class are the same, ``[T, n, way]``: the mean over the class's examples."""
        return class_means(log_odds(parameters, query, support).mT, y, outputs).mT

    def loss(self, output: Tensor, query: LabelledSet) -> Tensor:
        same = F.one_hot(query.y, output.shape[-1]).to(output.dtype)
        return F.binary_cross_entropy_with_logits(output, same, pair_weights(same))


def log_odds(parameters: Mapping[str, Tensor], left: Tensor, right: Tensor) -> Tensor:
    """The log-odds ``[T, n, k]`` that embeddings ``[T, n, d]`` and ``[T, k, d]`` are of the same class."""
    return (left.unsqueeze(2) - right.unsqueeze(1)).abs() @ parameters["weight"] + parameters["bias"]


def pair_weights(same: Tensor) -> Tensor:
    """Weights of pairs ``[T, n, way]``, 1 for the same class and 0 for others: 1 in the mean, half of the sum each."""
    way = same.shape[-1]
    return torch.where(same > 0, way / 2, way / (2 * (way - 1)))
