"""Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates) as equations on plain tensors by name, so
that its parameters are part of a `State` and a step is the same on every device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters


def initialise(name: str, inputs: int, hidden: int, recurrent: int, generator: torch.Generator) -> Parameters:
    """The parameters of a cell, U(-1, 1)/sqrt(hidden): ``{name}.input`` ``[4h, inputs]``, ``{name}.recurrent`` ``[4h,
    recurrent]`` and ``{name}.bias`` ``[4h]``; input, forget, candidate and output gate one after another."""
    shapes = {"input": (4 * hidden, inputs), "recurrent": (4 * hidden, recurrent), "bias": (4 * hidden,)}
    bound = 1 / math.sqrt(hidden)
    return {
        f"{name}.{part}": (torch.rand(shape, generator=generator) * 2 - 1) * bound for part, shape in shapes.items()
    }


def gates_of(parameters: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """The contribution of inputs ``[..., inputs]`` to the gates, ``[..., 4h]``: the same at every step of one input."""
    return F.linear(x, parameters[f"{name}.input"], parameters[f"{name}.bias"])


def cell(
    parameters: Mapping[str, Tensor], name: str, gates: Tensor, previous: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One step: the output and the memory, both ``[..., h]``.

    gates: `gates_of` the input. previous: what is fed back, ``[..., recurrent]``. memory: ``[..., h]``."""
    gates = gates + F.linear(previous, parameters[f"{name}.recurrent"])
    enter, keep, candidate, leave = gates.chunk(4, -1)
    memory = keep.sigmoid() * memory + enter.sigmoid() * candidate.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def read(parameters: Mapping[str, Tensor], name: str, sequence: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The outputs ``[T, k, h]`` of a cell that reads ``[T, k, inputs]`` from the first to the last, starting from 0;
    and its state after the last, output and memory ``[T, h]``."""
    inputs, fed_back, bias = (parameters[f"{name}.{part}"] for part in ("input", "recurrent", "bias"))
    zero = sequence.new_zeros(1, len(sequence), fed_back.shape[1])
    weights = [inputs, fed_back, bias, torch.zeros_like(bias)]
    outputs, output, memory = torch.lstm(sequence, (zero, zero), weights, True, 1, 0.0, True, False, True)
    return outputs, (output[0], memory[0])
