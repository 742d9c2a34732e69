"""ResNet-12: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the form of few-shot papers.

Oreshkin et al., "TADAM", NeurIPS 2018, has four blocks of three convolutions; Lee et al., "Meta-Learning with
Differentiable Convex Optimization", CVPR 2019, widens them to 64, 160, 320 and 640 channels. Different from theirs:
no DropBlock, and features are the mean over space (Oreshkin et al.), where Lee et al. keep all 5 x 5 positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from benchmarks.models.normalisation import Statistics, batch_norm

#: 3x3 convolutions of a block
LAYERS = 3
#: slope of the leaky ReLU below zero
SLOPE = 0.1


@dataclass(frozen=True)
class ResNet12:
    """Blocks of three 3x3 convolutions with batch-norm, added to a 1x1 convolution with batch-norm.

    Leaky ReLU follows the first two convolutions and the sum, then 2x2 max-pooling. Convolutions have no bias, since
    batch-norm would cancel it.

    widths: channels of each block."""

    widths: tuple[int, ...] = (64, 160, 320, 640)

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        inputs = input_shape[0]
        for block, width in enumerate(self.widths):
            channels = inputs
            for layer in range(LAYERS):
                yield f"block{block}.layer{layer}.weight", (width, channels, 3, 3)
                yield f"block{block}.layer{layer}.scale", (width,)
                yield f"block{block}.layer{layer}.shift", (width,)
                channels = width
            yield f"block{block}.shortcut.weight", (width, inputs, 1, 1)
            yield f"block{block}.shortcut.scale", (width,)
            yield f"block{block}.shortcut.shift", (width,)
            inputs = width

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        names = (*(f"layer{layer}" for layer in range(LAYERS)), "shortcut")
        return {f"block{block}.{name}": width for block, width in enumerate(self.widths) for name in names}

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        return self.widths[-1]

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        tasks, n = x.shape[:2]
        copies = parameters["block0.layer0.weight"].shape[0]
        if copies == 1:
            x, statistics = x.flatten(0, 1), statistics.for_tasks(tasks)
        else:
            x = x.transpose(0, 1).flatten(1, 2)
        for block in range(len(self.widths)):
            straight = x
            for layer in range(LAYERS):
                straight = _convolution(parameters, f"block{block}.layer{layer}", straight, statistics)
                straight = straight if layer == LAYERS - 1 else F.leaky_relu(straight, SLOPE)
            shortcut = _convolution(parameters, f"block{block}.shortcut", x, statistics)
            x = F.max_pool2d(F.leaky_relu(straight + shortcut, SLOPE), 2)
        x = x.mean((2, 3))
        return x.view(tasks, n, -1) if copies == 1 else x.reshape(n, tasks, -1).transpose(0, 1)


def _convolution(parameters: Mapping[str, Tensor], name: str, x: Tensor, statistics: Statistics) -> Tensor:
    """A convolution that keeps height and width, then batch-norm, for weights ``[copies, out, in, side, side]``."""
    weight, scale, shift = (parameters[f"{name}.{part}"] for part in ("weight", "scale", "shift"))
    x = F.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=weight.shape[0])
    return batch_norm(x, scale.flatten(), shift.flatten(), statistics, name)
