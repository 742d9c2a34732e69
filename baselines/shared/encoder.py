"""The features of an image that a recurrent unit is fed with.

Convolutions of 5 x 5 with stride 2 and ReLU, then a fully connected layer with ReLU. Plain tensors by name, so that its
parameters are part of a `State`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters

KERNEL, STRIDE = 5, 2


@dataclass(frozen=True)
class Encoder:
    """shape: of an image, ``(channels, height, width)``. filters: of each convolution. units: features of an image."""

    shape: tuple[int, ...]
    filters: tuple[int, ...]
    units: int

    def initialise(self, seed: int) -> Parameters:
        """Weights uniform (He et al. 2015), biases 0."""
        generator = torch.Generator().manual_seed(seed)
        parameters = {}
        for name, shape in self._shapes():
            bound = math.sqrt(6 / math.prod(shape[1:]))
            parameters[f"{name}.weight"] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
            parameters[f"{name}.bias"] = torch.zeros(shape[0])
        return parameters

    def __call__(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """``[..., units + h]`` of inputs ``[..., o + h]``: images, flat, and a history that stays as it is."""
        seen, history = inputs.tensor_split([math.prod(self.shape)], -1)
        x = seen.reshape(-1, *self.shape)
        for layer in range(len(self.filters)):
            weight, bias = parameters[f"encoder.layer{layer}.weight"], parameters[f"encoder.layer{layer}.bias"]
            x = F.conv2d(x, weight, bias, STRIDE, KERNEL // 2).relu()
        x = F.linear(x.flatten(1), parameters["encoder.dense.weight"], parameters["encoder.dense.bias"]).relu()
        return torch.cat((x.view(*inputs.shape[:-1], -1), history), -1)

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the weights."""
        channels, height, width = self.shape
        for layer, filters in enumerate(self.filters):
            yield f"encoder.layer{layer}", (filters, channels, KERNEL, KERNEL)
            channels, height, width = filters, -(-height // STRIDE), -(-width // STRIDE)
        yield "encoder.dense", (self.units, channels * height * width)
