"""Batch normalisation whose statistics are an argument, so that a batch-norm regime is a label and not a mode.

Ioffe and Szegedy, "Batch Normalization", ICML 2015. In meta-learning it matters which examples give the mean and the
variance: statistics of the query batch let every query see the others (docs/protocol.md, "Batch-norm regimes").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5
MOMENTUM = 0.1


@dataclass(frozen=True)
class Statistics:
    """Where mean and variance come from.

    groups: the n examples are this many sets, one after another, each with statistics of its own.
    first: the number of leading examples of each set that give the statistics; None: all.
    running: use these instead, by parameter name ("….mean", "….variance").
    update: with ``running``, use the batch's own statistics and move the running ones towards them, in place.
    """

    groups: int = 1
    first: int | None = None
    running: Mapping[str, Tensor] | None = None
    update: bool = False

    def for_tasks(self, tasks: int) -> Statistics:
        """The same for ``tasks`` tasks whose examples are folded into one batch: every task is a set of its own."""
        return dataclasses.replace(self, groups=self.groups * tasks)


def batch_norm(
    x: Tensor, scale: Tensor, shift: Tensor, statistics: Statistics, name: str, epsilon: float = EPSILON
) -> Tensor:
    """Normalise ``[n, channels, *space]`` per channel; scale and shift are ``[channels]``.

    Gradients flow through the statistics unless they are running ones."""
    if statistics.running is not None:
        mean, variance = statistics.running[f"{name}.mean"], statistics.running[f"{name}.variance"]
        if not statistics.update:
            repeats = x.shape[1] // mean.numel()
            mean, variance = mean.repeat(repeats), variance.repeat(repeats)
        return F.batch_norm(x, mean, variance, scale, shift, statistics.update, MOMENTUM, epsilon)
    alone = x.numel() == x.shape[1]  # torch refuses a single number per channel; it is normalised to 0
    if statistics.groups == 1 and statistics.first is None and not alone:
        return F.batch_norm(x, None, None, scale, shift, True, MOMENTUM, epsilon)
    sets = x.unflatten(0, (statistics.groups, -1))
    dimensions = [1, *range(3, sets.dim())]
    variance, mean = torch.var_mean(sets[:, : statistics.first], dim=dimensions, keepdim=True, correction=0)
    shape = (-1, *[1] * (x.dim() - 2))
    normalised = (sets - mean) * torch.rsqrt(variance + epsilon)
    return (normalised * scale.view(shape) + shift.view(shape)).flatten(0, 1)
