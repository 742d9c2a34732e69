"""Independent normal distributions as pairs of tensors, and how far apart two of them are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """Independent normal distributions: the mean and the logarithm of the variance of each number."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw, with a gradient."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise


def divergence(first: Gaussian, second: Gaussian) -> Tensor:
    """KL(first || second), summed over the last axis."""
    difference = first.log_variance - second.log_variance
    distance = (first.mean - second.mean).square() * (-second.log_variance).exp()
    return 0.5 * (difference.exp() - difference - 1 + distance).sum(-1)
