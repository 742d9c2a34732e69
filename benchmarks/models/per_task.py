"""A backbone applied to T tasks by running it for one: under `torch.vmap`, or task after task.

Layers with a task axis need neither (`benchmarks.models.backbones`); your own module does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.models.backbones import Backbone
from benchmarks.models.normalisation import Statistics


def features_per_task(
    backbone: Backbone, how: str, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics
) -> Tensor:
    """Features ``[T, n, d]`` of a backbone that sees parameters ``[1, ...]`` and the inputs of one task.

    how: "vmap" or "loop". Shared parameters (leading axis 1) go to the backbone as they are."""
    if next(iter(parameters.values())).shape[0] == 1:
        return backbone(parameters, x, statistics)

    def one(own: dict[str, Tensor], inputs: Tensor) -> Tensor:
        copies = {name: value.unsqueeze(0) for name, value in own.items()}
        return backbone(copies, inputs.unsqueeze(0), statistics).squeeze(0)

    if how == "vmap":
        features: Tensor = torch.vmap(one)(dict(parameters), x)
        return features
    each = ({name: value[task] for name, value in parameters.items()} for task in range(len(x)))
    return torch.stack([one(own, inputs) for own, inputs in zip(each, x, strict=True)])
