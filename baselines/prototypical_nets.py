"""Prototypical networks.

Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017: a class is the mean of its
support embeddings (equation 1), and a query's class probabilities are the softmax of minus its squared Euclidean
distances to these prototypes (equation 2). Training episodes have more classes than those of the test.

Deviations from the paper and its code (jakesnell/prototypical-networks):
- the network is the task's own; the paper's is ``backbone=conv4-64``;
- Omniglot's training characters are the task's; the paper has 1,200;
- validation episodes of the test's way choose the state; the code stops early, then trains again on the classes of
  training and validation together;
- batch-norm in training: see `baselines.episodic`.

`prototypical-nets-5way` trains with 5 classes, as the paper does for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baselines.episodic import Episodic
from baselines.shared.similarity import class_means, similarity
from benchmarks.api import Parameters
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method

_PAPER = {"meta_batch": 1, "halve_every": 2000}
_SOURCE = paper("Snell et al., section 3; jakesnell/prototypical-networks")


@register_method("prototypical-nets-5way", training_way=5)
@register_method("prototypical-nets")
@dataclass(frozen=True)
class PrototypicalNets(Episodic):
    """Learn an embedding in which a query belongs to the class with the nearest mean.

    Fields: see `baselines.episodic.Episodic`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "omniglot": {**_PAPER, "training_way": 60},
        "miniimagenet/5w1s": {**_PAPER, "training_way": 30, "training_queries": 15},
        "miniimagenet/5w5s": {**_PAPER, "training_way": 20, "training_queries": 15},
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        "omniglot": _SOURCE,
        "miniimagenet": _SOURCE,
        "": ours("episodes of the task's own way, 16 a meta-step; untried"),
    }

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """Minus the squared distances to the prototypes, ``[T, n, way]``."""
        return -similarity(query, class_means(support, y, outputs), "l2").square()
