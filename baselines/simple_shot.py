"""SimpleShot: the nearest class mean, after centring and normalising embeddings.

Wang, Chao, Weinberger and van der Maaten, "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot
Learning", 2019: a network that classifies all training classes embeds, and a query takes the class with the
nearest mean of transformed support embeddings, by Euclidean distance. UN leaves an embedding x as it is; L2N takes
x/||x||; CL2N takes (x - m)/||x - m||, where m is the mean embedding of the training data.

Deviations:
- the network is that of `finetune`; the paper's has SGD with steps of the rate, weight decay and augmented images;
- m is the running mean of training batches, each embedded by the network of its step, with batch-norm in training
  mode. The paper embeds all training data with the trained network. On Omniglot (5-way 1-shot, 2,500 meta-steps, 200
  validation episodes) the two means give 92.1 % each;
- in other regimes than "running", embeddings take other batch-norm statistics than those that m was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from baselines.pooled_embedding import PooledEmbedding
from baselines.shared.similarity import SHORTEST, class_means, similarity
from benchmarks.api import Parameters, TaskDistribution, adaptation_field
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

Transform = Literal["UN", "L2N", "CL2N"]


@register_method("simple-shot-un", transform="UN")
@register_method("simple-shot-l2n", transform="L2N")
@register_method("simple-shot")
@dataclass(frozen=True)
class SimpleShot(PooledEmbedding):
    """Answer with the class whose mean is nearest in the centred and normalised embedding that `finetune` trains.

    transform: of embeddings: "UN" for none, "L2N" for unit length, "CL2N" for unit length after centring.
    backbone: that of the fine-tuned network; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification"})
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("the paper's transform; the fit of finetune")}

    transform: Transform = adaptation_field("CL2N")

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """Minus the distance to the class means."""
        support, query = (transformed(x, self.transform, parameters["mean"]) for x in (support, query))
        return similarity(query, class_means(support, y, outputs), "l2")

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"metric": "l2", "transform": self.transform}


def transformed(embedded: Tensor, transform: Transform, mean: Tensor) -> Tensor:
    """Embeddings ``[T, n, d]`` under a transform; mean: that of training data, ``[d]``."""
    if transform == "UN":
        return embedded
    return F.normalize(embedded - mean if transform == "CL2N" else embedded, dim=-1, eps=SHORTEST)
