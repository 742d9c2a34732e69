"""An encoder of pictures, and the decoder that undoes its three halvings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.api import Parameters
from benchmarks.models import perceptron, register_backbone

#: feature maps of the encoder's three blocks, by name of the backbone; the decoder has them in reverse
MAPS = {"statistician": (64, 128, 256), "statistician-reduced": (32, 64, 128)}


def encoder(input_shape: tuple[int, ...], maps: Sequence[int]) -> nn.Module:
    """Three blocks of three 3x3 convolutions, the last of stride 2, each with batch-norm and ELU."""
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for block in maps:
        for stride in (1, 1, 2):
            layers += [nn.Conv2d(channels, block, 3, stride, 1), nn.BatchNorm2d(block), nn.ELU()]
            channels = block
    return nn.Sequential(*layers, nn.Flatten())


def decoder(maps: Sequence[int], generator: torch.Generator) -> Parameters:
    """The parameters of `drawn`, uniform as Glorot and Bengio have it; maps: feature maps, the coarsest first."""
    parameters: Parameters = {}
    for level, (inputs, outputs) in enumerate(pairwise((maps[0], *maps))):
        for layer, channels in enumerate((inputs, outputs, outputs)):
            shape = (outputs, channels, *((3, 3) if layer < 2 else (2, 2)))
            bound = math.sqrt(6 / (channels + outputs) / math.prod(shape[2:]))
            parameters[f"draw.{level}.{layer}"] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return parameters | perceptron.initialise("ink", (maps[-1], 1), generator)


def drawn(parameters: Parameters, x: Tensor, size: Sequence[int]) -> Tensor:
    """The logits of ink ``[n, height, width]`` from the coarsest feature maps ``[n, maps, h, w]``.

    Two 3x3 convolutions and a transposed one of stride 2 per level, each with batch-norm and ELU."""
    for level in range(3):
        for layer in range(2):
            x = F.elu(normalised(F.conv2d(x, parameters[f"draw.{level}.{layer}"], padding=1)))
        x = F.conv_transpose2d(x, parameters[f"draw.{level}.2"], stride=2)
        height, width = coarser(size, 2 - level)
        x = F.elu(normalised(x[..., :height, :width]))
    return perceptron.outputs_of(parameters, "ink", x.movedim(1, -1)).squeeze(-1)


def coarser(size: Sequence[int], halvings: int) -> tuple[int, ...]:
    """Height and width after this many convolutions of stride 2."""
    return tuple(-(-side // 2**halvings) for side in size)


def normalised(x: Tensor) -> Tensor:
    """Batch-norm with the batch's own statistics, without scale and shift."""
    return F.batch_norm(x, None, None, training=True)


def full_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    return encoder(input_shape, MAPS["statistician"])


def reduced_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    return encoder(input_shape, MAPS["statistician-reduced"])


register_backbone("statistician", full_encoder)
register_backbone("statistician-reduced", reduced_encoder)
