"""A backbone applied to T tasks by running it for one: under `torch.vmap`, or task after task.

Layers with a task axis need neither (`benchmarks.models.backbones`); your own module does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.models.backbones import Backbone
from benchmarks.models.network import Network
from benchmarks.models.normalisation import Statistics


@dataclass(frozen=True)
class PerTask:
    """The features of the inner backbone, which sees parameters ``[1, ...]`` and the inputs of one task.

    how: "vmap" or "loop". why: the error of `torch.vmap`, if it failed. Shared parameters (leading axis 1) go to the
    inner backbone as they are."""

    inner: Backbone
    how: str
    why: str = ""

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        return self.inner.batch_norms(input_shape)

    @property
    def initial(self) -> Any:
        """The inner backbone's own initial values, as a function of the seed; None where it has none."""
        return getattr(self.inner, "initial", None)

    @property
    def running(self) -> Any:
        """The inner backbone's own start of the running statistics, a function; None where it has none."""
        return getattr(self.inner, "running", None)

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        return self.inner.shapes(input_shape)

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        return self.inner.embedding_size(input_shape)

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        if next(iter(parameters.values())).shape[0] == 1:
            return self.inner(parameters, x, statistics)

        def one(own: dict[str, Tensor], inputs: Tensor) -> Tensor:
            copies = {name: value.unsqueeze(0) for name, value in own.items()}
            return self.inner(copies, inputs.unsqueeze(0), statistics).squeeze(0)

        if self.how == "vmap":
            features: Any = torch.vmap(one)(dict(parameters), x)
            return features
        each = ({name: value[task] for name, value in parameters.items()} for task in range(len(x)))
        return torch.stack([one(own, inputs) for own, inputs in zip(each, x, strict=True)])


def applied(network: Network, how: str) -> Network:
    """The network with its backbone applied by "vmap" or in a "loop"; "layers": as it is."""
    if how == "layers":
        return network
    backbone = network.backbone
    inner = backbone.inner if isinstance(backbone, PerTask) else backbone
    return dataclasses.replace(network, backbone=PerTask(inner, how))
