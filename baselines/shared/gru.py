"""A recurrent actor and critic: a gated recurrent unit (Cho et al., "Learning phrase representations using RNN
encoder-decoder for statistical machine translation", EMNLP 2014) that sees what RL^2 is fed with, and two linear heads.

Plain tensors by name, so that its parameters are part of a `State`. Its state is 0 at the beginning of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Memory, Parameters
from benchmarks.environments import ActionSpace, Categorical


@dataclass(frozen=True)
class RecurrentPolicy:
    """The actor as a predictor; its memory is the state of the unit, ``[T, K, hidden]``.

    memory, history: what an earlier part of the trial has left behind, ``[T, 1, hidden]`` and ``[T, 1, features + 2]``;
    every trajectory goes on from a copy. None: the trial begins here."""

    parameters: Mapping[str, Tensor]
    memory: Tensor | None = None
    previous: Tensor | None = None

    #: the predictor is fed with its last action, the reward for it, and the end of the episode
    history: ClassVar[bool] = True

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        hidden = self.parameters["gru.recurrent"].shape[1]
        if memory is None and self.memory is not None and self.previous is not None:
            memory = self.memory.expand(*x.shape[:2], hidden)
            previous = self.previous.expand(*x.shape[:2], -1)
            x = torch.cat((x[..., : -previous.shape[-1]], previous), -1)
        memory = x.new_zeros(*x.shape[:2], hidden) if memory is None else memory
        memory = cell(self.parameters, x.flatten(0, 1), memory.flatten(0, 1)).view(*x.shape[:2], hidden)
        return distribution(self.parameters, memory), memory


def initialise(inputs: int, hidden: int, actions: ActionSpace, seed: int) -> Parameters:
    """A policy near to indifference and values of 0 on a unit with weights U(-1, 1)/sqrt(hidden).

    Where actions are choices, inputs are mostly 0 and their weights U(-1, 1). Where they are real numbers, the head
    returns their means, and the logarithms of their deviations are parameters of their own, 0 at first."""
    generator = torch.Generator().manual_seed(seed)
    choices = isinstance(actions, Categorical)
    bound, outputs = 1 / math.sqrt(hidden), actions.outputs if choices else actions.features
    shapes = {
        "gru.input": (3 * hidden, inputs),
        "gru.recurrent": (3 * hidden, hidden),
        "gru.input_bias": (3 * hidden,),
        "gru.recurrent_bias": (3 * hidden,),
        "policy.weight": (outputs, hidden),
    }
    drawn = {name: (torch.rand(shape, generator=generator) * 2 - 1) * bound for name, shape in shapes.items()}
    if choices:
        drawn["gru.input"] /= bound
    drawn["policy.weight"] *= 0.1
    heads: dict[str, tuple[int, ...]] = {"policy.bias": (outputs,)}
    heads |= {} if choices else {"policy.log_deviation": (outputs,)}
    heads |= {"value.weight": (1, hidden), "value.bias": (1,)}
    return drawn | {name: torch.zeros(shape) for name, shape in heads.items()}


def cell(parameters: Mapping[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    """One step: the state after inputs ``[n, i]`` in states ``[n, hidden]``."""
    weights = (parameters[f"gru.{part}"] for part in ("input", "recurrent", "input_bias", "recurrent_bias"))
    return torch.gru_cell(x, memory, *weights)


def equations(parameters: Mapping[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    """The same as `cell`, and can be differentiated twice on every device."""
    entered = F.linear(x, parameters["gru.input"], parameters["gru.input_bias"]).chunk(3, -1)
    kept = F.linear(memory, parameters["gru.recurrent"], parameters["gru.recurrent_bias"]).chunk(3, -1)
    reset, keep = (entered[0] + kept[0]).sigmoid(), (entered[1] + kept[1]).sigmoid()
    return torch.lerp((entered[2] + reset * kept[2]).tanh(), memory, keep)


def read(parameters: Mapping[str, Tensor], inputs: Tensor, twice: bool = False) -> Tensor:
    """The states ``[n, N, hidden]`` along trials from their beginning, inputs ``[n, N, i]``.

    twice: whether they are to be differentiated twice."""
    memory = inputs.new_zeros(len(inputs), parameters["gru.recurrent"].shape[1])
    memories = []
    for x in inputs.unbind(1):
        memory = (equations if twice else cell)(parameters, x, memory)
        memories.append(memory)
    return torch.stack(memories, 1)


def distribution(parameters: Mapping[str, Tensor], memory: Tensor) -> Tensor:
    """The parameters of the action distribution ``[..., outputs]`` in states ``[..., hidden]``."""
    output = F.linear(memory, parameters["policy.weight"], parameters["policy.bias"])
    if "policy.log_deviation" not in parameters:
        return output
    return torch.cat((output, parameters["policy.log_deviation"].expand_as(output)), -1)


def value(parameters: Mapping[str, Tensor], memory: Tensor) -> Tensor:
    """The critic's output ``[...]`` in states ``[..., hidden]``."""
    return F.linear(memory, parameters["value.weight"], parameters["value.bias"]).squeeze(-1)
