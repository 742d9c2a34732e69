"""Losses of supervised tasks, one per task, and the scale that the released MAML code gives them."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import LabelledSet, Predictor, TaskDistribution

#: "sum/K": the sum over the N * K examples divided by K, as cbfinn/maml computes it (N times the mean for an N-way
#: task; on regression the mean, since there N is 1). "mean": the mean over examples.
LossScale = Literal["sum/K", "mean"]


def loss_factor(tasks: TaskDistribution, scale: str) -> int:
    """How many mean losses the scaled loss is: an inner rate of 0.4 with "sum/K" at 5-way is 2.0 with "mean"."""
    return tasks.outputs if scale == "sum/K" and tasks.kind == "classification" else 1


def supervised_loss(predictor: Predictor, batch: LabelledSet) -> Tensor:
    """The mean cross-entropy (class labels) or squared error (targets) of each task, ``[T]``."""
    output, _ = predictor(batch.x)
    if batch.y.is_floating_point():
        return (output - batch.y).square().flatten(1).mean(1)
    each = F.cross_entropy(output.flatten(0, 1), batch.y.flatten(), reduction="none")
    return each.view(batch.y.shape).mean(1)
