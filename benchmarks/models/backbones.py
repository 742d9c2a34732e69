"""Backbones: functions of parameters with a leading task axis.

Inside a backbone the task axis is part of the channels, ``[n, tasks * channels, ...]``, so that per-task weights are
one grouped convolution or one batched matrix product. With one set of weights for all tasks (leading axis 1) the tasks
are folded into the batch instead, an ordinary convolution. Grouped convolutions are slow on a CPU: except for small
sets, it takes per-task weights task by task, channels last (`benchmarks.models.fast.channels_last`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.models.fast import channels_last, windows
from benchmarks.models.normalisation import Statistics, batch_norm
from benchmarks.models.resnet import ResNet12

Parameters = dict[str, Tensor]
#: input numbers per task up to which a CPU groups the strided convolutions of several tasks (docs/performance.md)
GROUPED_NUMBERS = 20_000


class Backbone(Protocol):
    """The part of a network below its last layer."""

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        """The channels of each batch-norm layer by name; layer ``name`` has ``name.scale`` and ``name.shift``."""
        ...

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the parameters, without the task axis."""
        ...

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        """How many features it makes of one input."""
        ...

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        """Features ``[T, n, d]`` of inputs ``[T, n, *input_shape]``; parameters ``[T or 1, ...]``."""
        ...


def linear(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """``[T, n, in]`` to ``[T, n, out]`` with weights ``[T or 1, out, in]`` and biases ``[T or 1, out]``."""
    if weight.shape[0] == 1:
        return F.linear(x, weight[0], bias[0])
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


@dataclass(frozen=True)
class MLP:
    """Fully connected layers with ReLU. MAML section 5.1: 40-40 without batch-norm on the sinusoid; section 5.2:
    256-128-64-64 with batch-norm on Omniglot ("no conv")."""

    widths: tuple[int, ...]
    normalised: bool = False

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        size = torch.Size(input_shape).numel()
        for layer, width in enumerate(self.widths):
            yield f"layer{layer}.weight", (width, size)
            yield f"layer{layer}.bias", (width,)
            if self.normalised:
                yield f"layer{layer}.scale", (width,)
                yield f"layer{layer}.shift", (width,)
            size = width

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        return {f"layer{layer}": width for layer, width in enumerate(self.widths)} if self.normalised else {}

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        return self.widths[-1]

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        x = x.flatten(2)
        for layer in range(len(self.widths)):
            x = linear(parameters[f"layer{layer}.weight"], parameters[f"layer{layer}.bias"], x)
            if self.normalised:
                x = self._normalise(parameters, f"layer{layer}", x, statistics)
            x = F.relu(x)
        return x

    def _normalise(self, parameters: Mapping[str, Tensor], name: str, x: Tensor, statistics: Statistics) -> Tensor:
        scale, shift = parameters[f"{name}.scale"], parameters[f"{name}.shift"]
        tasks, n = x.shape[:2]
        if scale.shape[0] == 1:
            folded = batch_norm(x.flatten(0, 1), scale[0], shift[0], statistics.for_tasks(tasks), name)
            return folded.unflatten(0, (tasks, n))
        beside = batch_norm(x.transpose(0, 1).flatten(1), scale.flatten(), shift.flatten(), statistics, name)
        return beside.unflatten(1, (tasks, -1)).transpose(0, 1)


@dataclass(frozen=True)
class Conv4:
    """Four modules of 3x3 convolution, batch-norm and ReLU (Vinyals et al. 2016).

    strided: convolutions of stride 2 and the mean over space, as the MAML code has it on Omniglot. Otherwise each
    module ends in 2x2 max-pooling and the features keep their place, 5 x 5 x filters on mini-ImageNet.
    """

    filters: int
    strided: bool = False

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        channels = input_shape[0]
        for layer in range(4):
            yield f"layer{layer}.weight", (self.filters, channels, 3, 3)
            yield f"layer{layer}.bias", (self.filters,)
            yield f"layer{layer}.scale", (self.filters,)
            yield f"layer{layer}.shift", (self.filters,)
            channels = self.filters

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        return {f"layer{layer}": self.filters for layer in range(4)}

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        if self.strided:
            return self.filters
        return self.filters * (input_shape[1] // 16) * (input_shape[2] // 16)

    def _grouped(self, x: Tensor) -> bool:
        """Whether a CPU computes per-task weights faster as one grouped convolution: for small sets without pooling,
        where the calls take longer than the arithmetic."""
        return self.strided and x[0].numel() <= GROUPED_NUMBERS

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        tasks, n = x.shape[:2]
        copies = parameters["layer0.weight"].shape[0]
        if copies > 1 and windows.serves(x, statistics):
            return self._over_windows(parameters, x)
        on_cpu = channels_last.serves(x)
        if copies > 1 and on_cpu and not statistics.update and not self._grouped(x):
            own = {name: value.split(1) for name, value in parameters.items() if name.startswith("layer")}
            each = ({name: values[task] for name, values in own.items()} for task in range(tasks))
            return torch.cat([self(task, x[i : i + 1], statistics) for i, task in enumerate(each)])
        if copies == 1:
            x, statistics = x.flatten(0, 1), statistics.for_tasks(tasks)
            x = channels_last.channels_last(x) if on_cpu else x
        else:
            x = x.transpose(0, 1).flatten(1, 2)
        fused = copies == 1 and on_cpu and channels_last.fuses(statistics)
        stride = 2 if self.strided else 1
        for layer in range(4):
            weight, bias, scale, shift = (
                parameters[f"layer{layer}.{part}"].flatten(0, 1) for part in ("weight", "bias", "scale", "shift")
            )
            if fused:
                pooled, rectified = not self.strided, layer > 0
                x = channels_last.module(
                    x, weight, bias, scale, shift, stride=stride, pooled=pooled, rectified=rectified
                )
                continue
            x = F.conv2d(x, weight, bias, stride=stride, padding=1, groups=copies)
            x = batch_norm(x, scale, shift, statistics, f"layer{layer}")
            x = F.relu(x if self.strided else F.max_pool2d(x, 2))
        x = F.relu(x) if fused else x
        x = x.mean((2, 3)) if self.strided else x.flatten(2).unflatten(1, (copies, -1)).flatten(2)
        return x.view(tasks, n, -1) if copies == 1 else x.reshape(n, tasks, -1).transpose(0, 1)

    def _over_windows(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The same, tasks and channels first (`benchmarks.models.fast.windows`)."""
        x = x.transpose(1, 2)
        for layer in range(4):
            own = (parameters[f"layer{layer}.{part}"] for part in ("weight", "bias", "scale", "shift"))
            x = windows.module(x, *own, stride=2 if self.strided else 1)
            x = F.relu(x if self.strided else windows.max_pooling(x))
        return x.mean((3, 4)).transpose(1, 2) if self.strided else x.transpose(1, 2).flatten(2)


#: backbones by the names that tasks and fields use
BACKBONES: dict[str, Backbone] = {
    "mlp-40-40": MLP((40, 40)),
    "mlp-256-128-64-64": MLP((256, 128, 64, 64), normalised=True),
    "conv4-64-strided": Conv4(64, strided=True),
    "conv4-32": Conv4(32),
    "conv4-48": Conv4(48),
    "conv4-64": Conv4(64),
    "resnet12": ResNet12(),
}
