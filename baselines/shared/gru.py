"""A recurrent actor and critic: a gated recurrent unit (Cho et al., "Learning phrase representations using RNN
encoder-decoder for statistical machine translation", EMNLP 2014) that sees what RL^2 is fed with, and two linear heads.

Plain tensors by name, so that its parameters are part of a `State`. Its state is 0 at the beginning of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.shared.encoder import Encoder
from benchmarks.api import Memory, Parameters
from benchmarks.environments import ActionSpace, Categorical


@dataclass(frozen=True)
class RecurrentPolicy:
    """The actor as a predictor; its memory is the state of the unit, ``[T, K, hidden]``.

    memory, history: what an earlier part of the trial has left behind, ``[T, 1, hidden]`` and ``[T, 1, features + 2]``;
    every trajectory goes on from a copy. None: the trial begins here.
    encoder: of observations that are images; None: they enter the unit as they are."""

    parameters: Mapping[str, Tensor]
    memory: Tensor | None = None
    previous: Tensor | None = None
    encoder: Encoder | None = None

    #: the predictor is fed with its last action, the reward for it, and the end of the episode
    history: ClassVar[bool] = True

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        hidden = self.parameters["gru.recurrent"].shape[1]
        if memory is None and self.memory is not None and self.previous is not None:
            memory = self.memory.expand(*x.shape[:2], hidden)
            previous = self.previous.expand(*x.shape[:2], -1)
            x = torch.cat((x[..., : -previous.shape[-1]], previous), -1)
        memory = x.new_zeros(*x.shape[:2], hidden) if memory is None else memory
        memory = cell(self.parameters, self.entering(x.flatten(0, 1)), memory.flatten(0, 1)).view(*x.shape[:2], hidden)
        return distribution(self.parameters, self.judged(x, memory)), memory

    def read(self, inputs: Tensor, twice: bool = False) -> Tensor:
        """What the heads see along whole trials, ``[n, N, hidden]``; inputs ``[n, N, i]``; see the function `read`."""
        return self.judged(inputs, read(self.parameters, self.entering(inputs), twice))

    def judged(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """What the heads see: the states ``[..., hidden]``."""
        return memory

    def entering(self, inputs: Tensor) -> Tensor:
        """What the unit sees of inputs ``[..., i]``."""
        return self.encoder(self.parameters, inputs) if self.encoder else inputs


def initialise(inputs: int, hidden: int, actions: ActionSpace, seed: int, features: int = 0) -> Parameters:
    """A policy near to indifference and values of 0 on a unit with weights U(-1, 1)/sqrt(hidden).

    Where actions are choices, inputs are mostly 0 and their weights U(-1, 1), but for the first ones that are features
    of images. Where actions are real numbers, the head returns their means, and the logarithms of their deviations are
    parameters of their own, 0 at first."""
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
        drawn["gru.input"][:, features:] /= bound
    drawn["policy.weight"] *= 0.1
    heads: dict[str, tuple[int, ...]] = {"policy.bias": (outputs,)}
    heads |= {} if choices else {"policy.log_deviation": (outputs,)}
    heads |= {"value.weight": (1, hidden), "value.bias": (1,)}
    return drawn | {name: torch.zeros(shape) for name, shape in heads.items()}


def cell(parameters: Mapping[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    """One step: the state after inputs ``[n, i]`` in states ``[n, hidden]``."""
    return torch.gru_cell(x, memory, *_weights(parameters))


def _weights(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    return [parameters[f"gru.{part}"] for part in ("input", "recurrent", "input_bias", "recurrent_bias")]


def equations(parameters: Mapping[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    """The same as `cell`, and can be differentiated twice on every device."""
    entered = F.linear(x, parameters["gru.input"], parameters["gru.input_bias"]).chunk(3, -1)
    kept = F.linear(memory, parameters["gru.recurrent"], parameters["gru.recurrent_bias"]).chunk(3, -1)
    reset, keep = (entered[0] + kept[0]).sigmoid(), (entered[1] + kept[1]).sigmoid()
    return torch.lerp((entered[2] + reset * kept[2]).tanh(), memory, keep)


def read(parameters: Mapping[str, Tensor], inputs: Tensor, twice: bool = False) -> Tensor:
    """The states ``[n, N, hidden]`` along trials from their beginning, inputs ``[n, N, i]``.

    twice: whether they are to be differentiated twice."""
    if not twice and inputs.device.type == "cpu":
        states: Tensor = _Scan.apply(inputs, *_weights(parameters))  # type: ignore[no-untyped-call]
        return states
    memory = inputs.new_zeros(len(inputs), parameters["gru.recurrent"].shape[1])
    memories = []
    for x in inputs.unbind(1):
        memory = (equations if twice else cell)(parameters, x, memory)
        memories.append(memory)
    return torch.stack(memories, 1)


class _Scan(torch.autograd.Function):
    """`read` with a gradient of its own: half the operations, and 0.7 of the time on a CPU (docs/performance.md).

    Units come first, trials last: the gates of a step are then contiguous parts of one product ``[3h, n]``."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, entering: Tensor, recurrent: Tensor, bias: Tensor, kept_bias: Tensor
    ) -> Tensor:
        inputs = inputs.transpose(0, 1).contiguous()
        steps, n, _ = inputs.shape
        hidden = recurrent.shape[1]
        gates, kept = inputs.new_empty(steps, 3 * hidden, n), inputs.new_empty(steps, hidden, n)
        memories = inputs.new_empty(hidden, steps, n)
        both = torch.cat((bias[: 2 * hidden] + kept_bias[: 2 * hidden], bias[2 * hidden :])).unsqueeze(1)
        memory = inputs.new_zeros(hidden, n)
        for step in range(steps):
            torch.addmm(both, entering, inputs[step].t(), out=gates[step])
            switches, candidate = gates[step].split((2 * hidden, hidden))
            switches.addmm_(recurrent[: 2 * hidden], memory).sigmoid_()
            torch.addmm(kept_bias[2 * hidden :].unsqueeze(1), recurrent[2 * hidden :], memory, out=kept[step])
            candidate.addcmul_(switches[:hidden], kept[step]).tanh_()
            memory = torch.lerp(candidate, memory, switches[hidden:], out=memories[:, step])
        ctx.save_for_backward(inputs, entering, recurrent, gates, kept, memories)
        return memories.permute(2, 1, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, entering, recurrent, gates, kept, memories = ctx.saved_tensors
        hidden, steps, n = memories.shape
        aten = torch.ops.aten
        # of the candidate's input, the reset gate, the update gate, and of what the candidate keeps of the state: the
        # first three enter with the inputs, the last three with the state
        of_gates = inputs.new_empty(4 * hidden, n)
        candidate, switches, kept_candidate = of_gates.split((hidden, 2 * hidden, hidden))
        of_input, of_state, of_sums = (x.new_zeros(x.shape) for x in (entering, recurrent, of_gates))
        back = torch.cat((entering[2 * hidden :], entering[: 2 * hidden])) if ctx.needs_input_grad[0] else None
        of_inputs = None if back is None else inputs.new_empty(n, steps, inputs.shape[2])
        carried = inputs.new_zeros(hidden, n)
        for step in reversed(range(steps)):
            reset, update, proposed = gates[step].split(hidden)
            before = memories[:, step - 1] if step else torch.zeros_like(carried)
            of_memory = carried.add_(gradient[:, step].t())
            carried = of_memory * update
            aten.tanh_backward.grad_input(of_memory - carried, proposed, grad_input=candidate)
            torch.mul(candidate, kept[step], out=switches[:hidden])
            torch.mul(of_memory, before - proposed, out=switches[hidden:])
            aten.sigmoid_backward.grad_input(switches, gates[step, : 2 * hidden], grad_input=switches)
            torch.mul(candidate, reset, out=kept_candidate)
            carried.addmm_(recurrent.t(), of_gates[hidden:])
            of_input.addmm_(of_gates[: 3 * hidden], inputs[step])
            of_state.addmm_(of_gates[hidden:], before.t())
            of_sums.add_(of_gates)
            if back is not None and of_inputs is not None:
                of_inputs[:, step] = of_gates[: 3 * hidden].t() @ back
        sums = of_sums.sum(1)
        return (
            of_inputs,
            torch.cat((of_input[hidden:], of_input[:hidden])),
            of_state,
            torch.cat((sums[hidden : 3 * hidden], sums[:hidden])),
            sums[hidden:],
        )


def distribution(parameters: Mapping[str, Tensor], memory: Tensor) -> Tensor:
    """The parameters of the action distribution ``[..., outputs]`` in states ``[..., hidden]``."""
    output = _head(parameters, "policy", memory)
    if "policy.log_deviation" not in parameters:
        return output
    return torch.cat((output, parameters["policy.log_deviation"].expand_as(output)), -1)


def value(parameters: Mapping[str, Tensor], memory: Tensor) -> Tensor:
    """The critic's output ``[...]`` in states ``[..., hidden]``."""
    return _head(parameters, "value", memory).squeeze(-1)


def _head(parameters: Mapping[str, Tensor], name: str, memory: Tensor) -> Tensor:
    """A linear function ``[a, b, outputs]`` of states ``[a, b, hidden]``."""
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    if memory.is_contiguous():
        return F.linear(memory, weight, bias)
    units = memory.permute(2, 1, 0)  # contiguous if `read` wrote them: an eighth of the time for few outputs
    return torch.addmm(bias.unsqueeze(1), weight, units.flatten(1)).unflatten(1, units.shape[1:]).permute(2, 1, 0)
