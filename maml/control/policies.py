"""Policies without a memory: fully connected networks whose parameters have a task axis.

The policies of Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
section 5.3, and of the codes after it: two hidden layers, and for real-valued actions a standard deviation that does
not depend on the state. Weights start uniform (Glorot and Bengio 2010), biases at 0 and deviations at 1, as in rllab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.api import Memory, Parameters, TaskDistribution
from benchmarks.environments import ActionSpace, ControlTasks, Gaussian
from benchmarks.models.backbones import linear

Activation = Literal["tanh", "relu"]
#: the logarithm of the smallest standard deviation, as in rllab
LEAST_LOG_DEVIATION = math.log(1e-6)


@dataclass(frozen=True)
class Layers:
    """A fully connected network, inputs to outputs. hidden: units of the hidden layers; activation: their
    non-linearity."""

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: str

    def initialise(self, generator: torch.Generator) -> Parameters:
        """Parameters without a task axis."""
        parameters = {}
        for name, (outputs, inputs) in self._shapes():
            bound = math.sqrt(6 / (inputs + outputs))
            parameters[f"{name}.weight"] = (torch.rand((outputs, inputs), generator=generator) * 2 - 1) * bound
            parameters[f"{name}.bias"] = torch.zeros(outputs)
        return parameters

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``[T, n, outputs]`` of inputs ``[T, n, inputs]``; parameters ``[T or 1, ...]``."""
        for layer in range(len(self.hidden)):
            x = linear(parameters[f"layer{layer}.weight"], parameters[f"layer{layer}.bias"], x)
            x = x.tanh() if self.activation == "tanh" else x.relu()
        return linear(parameters["head.weight"], parameters["head.bias"], x)

    def _shapes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Names and shapes ``(outputs, inputs)`` of the weights."""
        size = self.inputs
        for layer, width in enumerate(self.hidden):
            yield f"layer{layer}", (width, size)
            size = width
        yield "head", (self.outputs, size)


@dataclass(frozen=True)
class Policy:
    """A network from observations to the parameters of an action distribution.

    inputs: numbers that it sees. hidden: units of the hidden layers. activation: their non-linearity. context: further
    inputs that are parameters themselves, 0 at first."""

    inputs: int
    hidden: tuple[int, ...]
    activation: str
    actions: ActionSpace
    context: int = 0

    def initialise(self, seed: int, device: torch.device | str = "cpu") -> Parameters:
        """Parameters without a task axis, the same for the same seed on every device."""
        parameters = self._layers.initialise(torch.Generator().manual_seed(seed))
        if self._gaussian:
            parameters["log_deviation"] = torch.zeros(self.actions.features)
        if self.context:
            parameters["context"] = torch.zeros(self.context)
        return {name: value.to(device) for name, value in parameters.items()}

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Distributions ``[T, n, outputs]`` for observations ``[T, n, inputs]``; parameters ``[T or 1, ...]``."""
        if self.context:
            x = torch.cat((x, parameters["context"].unsqueeze(1).expand(*x.shape[:2], -1)), -1)
        x = self._layers(parameters, x)
        if not self._gaussian:
            return x
        log_deviation = parameters["log_deviation"].clamp(min=LEAST_LOG_DEVIATION).unsqueeze(1)
        return torch.cat((x, log_deviation.expand_as(x)), -1)

    @property
    def _gaussian(self) -> bool:
        return isinstance(self.actions, Gaussian)

    @property
    def _layers(self) -> Layers:
        outputs = self.actions.features if self._gaussian else self.actions.outputs
        return Layers(self.inputs + self.context, self.hidden, outputs, self.activation)


def policy_for(tasks: TaskDistribution, hidden: tuple[int, ...], activation: str, told: int = 0) -> Policy:
    """The policy for the environments of a task distribution; told: number of further inputs."""
    assert isinstance(tasks, ControlTasks)
    return Policy(tasks.model.observation + told, hidden, activation, tasks.actions)


def blind_to_images(method: str, tasks: TaskDistribution) -> str | None:
    """Why a method that acts by such a policy can't play these tasks; None if it can."""
    if len(tasks.input_shape) == 1:
        return None
    return f"{method} acts by fully connected layers on numbers; observations of {tasks.name} are images"


@dataclass(frozen=True)
class Acting:
    """A policy with the parameters of T tasks, ``[T or 1, ...]``, as a predictor.

    told: ``[T, p]``, appended to every observation; None: nothing."""

    policy: Policy
    parameters: Mapping[str, Tensor]
    told: Tensor | None = None

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        if self.told is not None:
            x = torch.cat((x, self.told.unsqueeze(1).expand(-1, x.shape[1], -1).to(x.dtype)), -1)
        return self.policy(self.parameters, x), None
