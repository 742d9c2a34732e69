"""Relation networks.

Sung, Yang, Zhang, Xiang, Torr and Hospedales, "Learning to Compare: Relation Network for Few-Shot Learning", CVPR 2018:
a small network, the relation module, scores how alike a query's feature map and a class's are, the class's being the
sum of its support maps. Both networks are trained together, by the squared error to 1 (same class) and 0.

The relation module has two 3 x 3 convolutions with batch-norm, ReLU and pooling, then two linear layers. A backbone
without maps (``conv4-64-strided``, ``resnet12``) gives maps of one pixel: the convolutions are 1 x 1, and nothing is
pooled. The first convolution of a concatenated pair is the sum of one of the class and one of the query, each computed
once.

Deviations from the paper and its code (floodsung/LearningToCompare_FSL):
- the network is the task's own; ``backbone=conv4-64-maps`` is the paper's but for padding: maps of 7 x 7 and 21 x 21,
  there 5 x 5 and 19 x 19;
- the code keeps the weights that do best on the classes of the test; here validation episodes choose;
- running statistics move by a tenth and are the default at test; the code's are those of the last batch, and it tests
  with the statistics of the query batch (regime "query");
- support set and queries share batch statistics in training; the code embeds them one after the other;
- gradients are not clipped; the code clips each network's norm at 0.5;
- no bias in the convolutions, since batch-norm would cancel it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from baselines.shared.similarity import class_sums
from benchmarks.api import LabelledSet, Parameters
from benchmarks.checks import check_fields
from benchmarks.models import Network, Statistics
from benchmarks.models.normalisation import batch_norm
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method

_PAPER = {"meta_batch": 1, "halve_every": 100_000}
_SOURCE = paper("Sung et al., section 4; floodsung/LearningToCompare_FSL")
_QUERIES = {"5w1s": 19, "5w5s": 15, "20w1s": 10, "20w5s": 5}
#: maps of fewer pixels a side are padded, as those of Omniglot in the paper's code: both convolutions must fit
PADDED_BELOW = 10


@register_method("relation-nets")
@dataclass(frozen=True)
class RelationNets(Episodic):
    """Learn to score how alike a query and a class are, by a network that sees both.

    filters, hidden: channels of the relation module's convolutions, and units of its first linear layer.

    All other fields: see `baselines.episodic.Episodic`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{
            f"omniglot/{variant}{split}": {**_PAPER, "training_queries": queries}
            for variant, queries in _QUERIES.items()
            for split in ("", "-lake")
        },
        "miniimagenet/5w1s": {**_PAPER, "training_queries": 15},
        "miniimagenet/5w5s": {**_PAPER, "training_queries": 10},
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"omniglot": 1_000_000, "miniimagenet": 500_000}
    origins: ClassVar[Mapping[str, Origin]] = {
        "omniglot": _SOURCE,
        "miniimagenet": _SOURCE,
        "": ours("16 episodes a meta-step at a constant rate; untried"),
    }

    filters: int = 64
    hidden: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "filters", "hidden")

    def regimes(self, network: Network) -> tuple[str, ...]:
        """Pairs of classes and queries have batch statistics; a support set alone has no pairs."""
        return ("running", "query")

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """The relation module, drawn as in the paper's code."""

        def normal(deviation: float, *shape: int) -> Tensor:
            return deviation * torch.randn(shape, generator=generator)

        channels, *size = network.map_shape
        window, parameters = 1 if min(size) == 1 else 3, {}
        for name, inputs in (("layer0", 2 * channels), ("layer1", self.filters)):
            deviation = math.sqrt(2 / (window**2 * self.filters))
            parameters[f"{name}.weight"] = normal(deviation, self.filters, inputs, window, window)
            parameters[f"{name}.scale"], parameters[f"{name}.shift"] = (
                torch.ones(self.filters),
                torch.zeros(self.filters),
            )
        inputs = self.filters * math.prod(size_after(size))
        parameters |= {"hidden.weight": normal(0.01, self.hidden, inputs), "hidden.bias": torch.ones(self.hidden)}
        return parameters | {"score.weight": normal(0.01, 1, self.hidden), "score.bias": torch.ones(1)}

    def extra_batch_norms(self, network: Network) -> dict[str, int]:
        return {"layer0": self.filters, "layer1": self.filters}

    def answer_with(
        self,
        network: Network,
        statistics: Statistics,
        parameters: Parameters,
        support: Tensor,
        query: Tensor,
        y: Tensor,
    ) -> Tensor:
        """The log-odds of the relation scores, ``[T, n, way]``."""
        classes = class_sums(support, y, network.outputs).unflatten(2, network.map_shape)
        return relations(parameters, classes, query.unflatten(2, network.map_shape), statistics)

    def loss(self, output: Tensor, query: LabelledSet) -> Tensor:
        return F.mse_loss(output.sigmoid(), F.one_hot(query.y, output.shape[-1]).to(output.dtype))


def size_after(size: list[int]) -> list[int]:
    """Height and width of a map after the two convolutions."""
    lost = 0 if min(size) < PADDED_BELOW else 2
    for _ in range(2):
        size = [side - lost for side in size]
        size = size if min(size) == 1 else [side // 2 for side in size]
    return size


def relations(parameters: Parameters, classes: Tensor, queries: Tensor, statistics: Statistics) -> Tensor:
    """How alike each query ``[T, n, channels, height, width]`` and each class ``[T, way, ...]`` are, ``[T, n, way]``.

    statistics: of all pairs of a task."""
    of_all_tasks = statistics.for_tasks(len(classes))
    smallest = min(classes.shape[3:])
    padding = 1 if 1 < smallest < PADDED_BELOW else 0

    def block(x: Tensor, name: str) -> Tensor:
        scale, shift = parameters[f"{name}.scale"], parameters[f"{name}.shift"]
        x = F.relu(batch_norm(x, scale, shift, of_all_tasks, f"extra.{name}"))
        return x if min(x.shape[2:]) == 1 else F.max_pool2d(x, 2)

    halves = parameters["layer0.weight"].chunk(2, dim=1)
    of_class, of_query = (
        F.conv2d(maps.flatten(0, 1), half, padding=padding).unflatten(0, maps.shape[:2])
        for maps, half in zip((classes, queries), halves, strict=True)
    )
    pairs = of_class.unsqueeze(1) + of_query.unsqueeze(2)
    x = block(pairs.flatten(0, 2), "layer0")
    x = block(F.conv2d(x, parameters["layer1.weight"], padding=padding), "layer1").flatten(1)
    x = F.relu(F.linear(x, parameters["hidden.weight"], parameters["hidden.bias"]))
    return F.linear(x, parameters["score.weight"], parameters["score.bias"]).view(pairs.shape[:3])
