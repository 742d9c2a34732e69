"""The suite's networks as ordinary torch modules, for libraries that need modules, and their losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cost.workloads import Workload
from benchmarks.errors import MetabenchError
from benchmarks.models import BACKBONES
from benchmarks.models.backbones import MLP, Conv4
from benchmarks.models.resnet import LAYERS, SLOPE, ResNet12


class Ordinary(nn.Sequential):
    """A network of ordinary modules.

    names: for each of its parameters, the suite's name."""

    names: dict[str, str]

    def gradients(self) -> dict[str, Tensor]:
        """The ``.grad`` of every parameter, by the suite's names."""
        return {self.names[name]: value.grad for name, value in self.named_parameters() if value.grad is not None}


def ordinary(workload: Workload, parameters: Mapping[str, Tensor]) -> Ordinary:
    """The workload's network with these parameters, shared and not copied. Draws no random number."""
    backbone = BACKBONES[workload.backbone]
    with torch.device("meta"):
        if isinstance(backbone, Conv4):
            layers = _convolutional(backbone, workload)
        elif isinstance(backbone, ResNet12):
            layers = _residual(backbone, workload)
        elif isinstance(backbone, MLP) and not backbone.normalised:
            layers = _fully_connected(backbone, workload)
        else:
            raise MetabenchError(f"backbone {workload.backbone!r} has no form made of torch's modules yet")
    module = Ordinary(*(layer for _, layer in layers))
    module.names = {name: _name(module, [title for title, _ in layers], name) for name, _ in module.named_parameters()}
    state = {name: parameters[own].detach() for name, own in module.names.items()}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_()


def _name(module: Ordinary, titles: Sequence[str], name: str) -> str:
    """The suite's name of a parameter: its layer (in a block: and the part), then its kind."""
    path, _, part = name.rpartition(".")
    place, _, inside = path.partition(".")
    if isinstance(module.get_submodule(path), nn.BatchNorm2d):
        part = {"weight": "scale", "bias": "shift"}[part]
    return ".".join(filter(None, (titles[int(place)], inside.partition(".")[0], part)))


def _fully_connected(backbone: MLP, workload: Workload) -> list[tuple[str, nn.Module]]:
    layers: list[tuple[str, nn.Module]] = [("", nn.Flatten())]
    size = torch.Size(workload.input_shape).numel()
    for number, width in enumerate(backbone.widths):
        layers += [(f"layer{number}", nn.Linear(size, width)), ("", nn.ReLU())]
        size = width
    return [*layers, ("head", nn.Linear(size, workload.outputs))]


class Mean(nn.Module):
    """The mean over space."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def _convolutional(backbone: Conv4, workload: Workload) -> list[tuple[str, nn.Module]]:
    layers: list[tuple[str, nn.Module]] = []
    channels = workload.input_shape[0]
    for number in range(4):
        convolution = nn.Conv2d(channels, backbone.filters, 3, stride=2 if backbone.strided else 1, padding=1)
        normalisation = nn.BatchNorm2d(backbone.filters, track_running_stats=False)
        layers += [(f"layer{number}", convolution), (f"layer{number}", normalisation), ("", nn.ReLU())]
        if not backbone.strided:
            layers.append(("", nn.MaxPool2d(2)))
        channels = backbone.filters
    layers.append(("", Mean() if backbone.strided else nn.Flatten()))
    return [*layers, ("head", nn.Linear(backbone.embedding_size(workload.input_shape), workload.outputs))]


class Residual(nn.Module):
    """A block of ResNet-12."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        for layer in range(LAYERS):
            self.add_module(f"layer{layer}", _normalised(inputs if layer == 0 else width, width, 3))
        self.shortcut = _normalised(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        straight = x
        for layer in range(LAYERS):
            straight = self.get_submodule(f"layer{layer}")(straight)
            straight = straight if layer == LAYERS - 1 else F.leaky_relu(straight, SLOPE)
        return F.max_pool2d(F.leaky_relu(straight + self.shortcut(x), SLOPE), 2)


def _normalised(inputs: int, width: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, width, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width, track_running_stats=False))


def _residual(backbone: ResNet12, workload: Workload) -> list[tuple[str, nn.Module]]:
    channels = (workload.input_shape[0], *backbone.widths)
    layers: list[tuple[str, nn.Module]] = [
        (f"block{block}", Residual(channels[block], width)) for block, width in enumerate(backbone.widths)
    ]
    return [*layers, ("", Mean()), ("head", nn.Linear(channels[-1], workload.outputs))]


def loss_of(output: Tensor, y: Tensor) -> Any:
    """The mean cross-entropy (class labels) or squared error (targets)."""
    return F.mse_loss(output, y) if y.is_floating_point() else F.cross_entropy(output, y)
