"""How alike two examples are, and what that says about a query's class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["cosine", "l2"]

#: vectors shorter than this have no direction
SHORTEST = 1e-8


def similarity(query: Tensor, support: Tensor, metric: Metric) -> Tensor:
    """``[T, n, k]`` of vectors ``[T, n, d]`` and ``[T, k, d]``: the cosine, or minus the Euclidean distance."""
    if metric == "cosine":
        query, support = F.normalize(query, dim=-1, eps=SHORTEST), F.normalize(support, dim=-1, eps=SHORTEST)
        return query @ support.transpose(1, 2)
    # Distances by way of a matrix product would lose the nearest neighbour among near ones.
    return -torch.cdist(query, support, compute_mode="donot_use_mm_for_euclid_dist")


def highest_of_class(scores: Tensor, labels: Tensor, way: int) -> Tensor:
    """The highest score of any support example of each class, ``[T, n, way]``; minus infinity where there is none.

    scores: ``[T, n, k]``; labels: ``[T, k]``."""
    tasks, queries, _ = scores.shape
    lowest = scores.new_full((tasks, queries, way), float("-inf"))
    return lowest.scatter_reduce(2, labels.unsqueeze(1).expand_as(scores), scores, "amax")


def class_sums(values: Tensor, labels: Tensor, way: int) -> Tensor:
    """The sum of each class's examples, ``[T, way, d]``. values: ``[T, k, d]``; labels: ``[T, k]``."""
    return F.one_hot(labels, way).to(values.dtype).mT @ values


def class_means(values: Tensor, labels: Tensor, way: int) -> Tensor:
    """The mean of each class's examples, ``[T, way, d]``. values: ``[T, k, d]``; labels: ``[T, k]``."""
    return class_sums(values, labels, way) / F.one_hot(labels, way).sum(1).unsqueeze(2)
