"""Fully connected layers as equations on plain tensors by name, for what a learner has besides its backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters
from benchmarks.models.parts import split


def initialise(name: str, sizes: Sequence[int], generator: torch.Generator) -> Parameters:
    """Weights and biases, U(-1, 1)/sqrt(inputs): ``{name}.{layer}.weight`` ``[outputs, inputs]`` and
    ``{name}.{layer}.bias``. sizes: the inputs, then the outputs of each layer."""
    parameters = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            drawn = torch.rand(shape, generator=generator) * 2 - 1
            parameters[f"{name}.{layer}.{part}"] = drawn / math.sqrt(inputs)
    return parameters


def outputs_of(
    parameters: Mapping[str, Tensor], name: str, x: Tensor, activation: Callable[[Tensor], Tensor] = F.relu
) -> Tensor:
    """The outputs ``[..., o]`` for inputs ``[..., i]``: the activation follows every layer but the last."""
    own, _ = split(parameters, f"{name}.")
    for layer in range(len(own) // 2):
        x = F.linear(activation(x) if layer else x, own[f"{layer}.weight"], own[f"{layer}.bias"])
    return x
