"""All numbers of a set of parameters as one list of coordinates, for rules that treat each number alike.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS 2016, section 2.1: one small
network moves every coordinate, each with a memory of its own. Appendix A: gradients span many orders of magnitude, so
the network sees their logarithm and their sign.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.api import Parameters

#: p of appendix A: magnitudes below exp(-p) are seen linearly
SMALLEST = 10.0


def flattened(values: Mapping[str, Tensor]) -> Tensor:
    """The coordinates ``[T, n]`` of parameters ``[T, ...]``, one after another in their order."""
    return torch.cat([value.reshape(len(value), -1) for value in values.values()], 1)


def unflattened(coordinates: Tensor, like: Mapping[str, Tensor]) -> Parameters:
    """The inverse of `flattened`, with the names and shapes of ``like``."""
    parts = coordinates.split([value[0].numel() for value in like.values()], 1)
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def preprocessed(numbers: Tensor) -> Tensor:
    """``[...]`` to ``[..., 2]``: (log|v| / p, sign v) where |v| is at least exp(-p), otherwise (-1, exp(p) v)."""
    magnitude = numbers.abs().clamp(min=math.exp(-SMALLEST)).log() / SMALLEST
    return torch.stack((magnitude, (numbers * math.exp(SMALLEST)).clamp(-1, 1)), -1)
