"""A recurrent actor and critic: a gated recurrent unit (Cho et al., "Learning phrase representations using RNN
encoder-decoder for statistical machine translation", EMNLP 2014) that sees what RL^2 is fed with, and two linear heads.

Plain tensors by name, so that its parameters are part of a `State`. Its state is 0 at the beginning of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        """Inputs of the heads ``[n, N, hidden]`` along trials of inputs ``[n, N, i]``; see the function `read`."""
        return self.judged(inputs, read(self.parameters, self.entering(inputs), twice))

    def judged(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """Inputs of the heads: the states ``[..., hidden]`` themselves."""
        return memory

    def act(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The parameters of the action distributions ``[n, N, outputs]`` and the values ``[n, N]`` in these states."""
        return act(self.parameters, self.entering(inputs))

    def entering(self, inputs: Tensor) -> Tensor:
        """Inputs of the unit: images as their features, numbers as they are."""
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
        return _scan(parameters, inputs, ())[0]
    memory = inputs.new_zeros(len(inputs), parameters["gru.recurrent"].shape[1])
    memories = []
    for x in inputs.unbind(1):
        memory = (equations if twice else cell)(parameters, x, memory)
        memories.append(memory)
    return torch.stack(memories, 1)


def act(parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """`heads` in the states of `read`."""
    if inputs.device.type != "cpu":
        return heads(parameters, read(parameters, inputs))
    _, outputs = _scan(parameters, inputs, ("policy", "value"))
    return _with_deviation(parameters, outputs[..., :-1]), outputs[..., -1]


def heads(parameters: Mapping[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
    """`distribution` and `value` in states."""
    return distribution(parameters, memory), value(parameters, memory)


def _scan(parameters: Mapping[str, Tensor], inputs: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """States ``[n, N, hidden]``, and the outputs of all heads in them ``[n, N, outputs]``."""
    recurrent = parameters["gru.recurrent"]
    weight = torch.cat([recurrent[:0], *(parameters[f"{head}.weight"] for head in names)])
    bias = torch.cat([recurrent.new_empty(0), *(parameters[f"{head}.bias"] for head in names)])
    found: tuple[Tensor, Tensor] = _Scan.apply(inputs, *_weights(parameters), weight, bias)  # type: ignore[no-untyped-call]
    return found


def _steps(*parts: Tensor) -> list[tuple[Tensor, ...]]:
    """The views of each step, from tensors with the steps first; made at once, in a quarter of the time."""
    return list(zip(*(part.unbind() for part in parts), strict=True))


class _Scan(torch.autograd.Function):
    """`read` and heads with a gradient of their own: 0.6 of the time of torch's on a CPU (docs/performance.md).

    Units come first, trials last: the gates of a step are then contiguous parts of one product ``[3h, n]``. Heads are
    further rows of the next step's products with the state, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        entering: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        kept_bias: Tensor,
        head: Tensor,
        head_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        inputs = inputs.permute(1, 2, 0).contiguous()
        steps, _, n = inputs.shape
        hidden = recurrent.shape[1]
        both = torch.cat((bias[: 2 * hidden] + kept_bias[: 2 * hidden], bias[2 * hidden :])).unsqueeze(1)
        to_switches, to_candidate = recurrent.split((2 * hidden, hidden))
        leaving = torch.cat((to_candidate, head))
        leaving_bias = torch.cat((kept_bias[2 * hidden :], head_bias)).unsqueeze(1)
        gates, memories = inputs.new_empty(steps, 3 * hidden, n), inputs.new_empty(steps, hidden, n)
        left = inputs.new_empty(steps + 1, len(leaving), n)  # what the next step's candidate keeps of a state; outputs
        left[0] = leaving_bias
        memory, minus_one = inputs.new_zeros(hidden, n), inputs.new_tensor(-1.0)
        switches, kept = gates[:, : 2 * hidden], left[:-1, :hidden]
        parts = (inputs, gates, switches, *gates.chunk(3, 1), kept, left[1:], memories)
        for x, gate, switch, reset, update, candidate, keeps, leaves, after in _steps(*parts):
            torch.addmm(both, entering, x, out=gate)
            switch.addmm_(to_switches, memory).sigmoid_()
            # tanh(y) = 2 sigmoid(2 y) - 1, in a third of the time of torch's tanh
            candidate.addcmul_(reset, keeps).mul_(2).sigmoid_()
            torch.add(minus_one, candidate, alpha=2, out=candidate)
            memory = torch.lerp(candidate, memory, update, out=after)
            torch.addmm(leaving_bias, leaving, memory, out=leaves)
        ctx.save_for_backward(inputs, entering, recurrent, head, gates, left, memories)
        return memories.permute(2, 0, 1), left[1:, hidden:].permute(2, 0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_states: Tensor | None, of_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, entering, recurrent, head, gates, left, memories = ctx.saved_tensors
        steps, hidden, n = memories.shape
        aten = torch.ops.aten
        # of the candidate's input, the reset gate, the update gate, of what the candidate keeps of the state, and of
        # the outputs: the first three enter with the inputs, the last four leave with a state
        of_all = inputs.new_zeros(4 * hidden + len(head), n)
        candidate, of_switches, kept_candidate, outputs = of_all.split((hidden, 2 * hidden, hidden, len(head)))
        of_reset, of_update = of_switches.chunk(2)
        entered, leaving = of_all[: 3 * hidden].t(), of_all[hidden:]
        from_state = torch.cat((recurrent, head))
        back = from_state.t().contiguous()
        of_input, of_state, of_sums = (x.new_zeros(x.shape) for x in (entering.t(), from_state, of_all))
        carried = inputs.new_zeros(hidden, n)
        of_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        into_inputs = torch.cat((entering[2 * hidden :], entering[: 2 * hidden])).t()
        befores = (torch.zeros_like(carried), *memories[:-1].unbind())
        if of_outputs is None:
            of_outputs = inputs.new_zeros(n, steps, len(head))
        switches, kept = gates[:, : 2 * hidden], left[:-1, :hidden]
        parts = (inputs, switches, *gates.chunk(3, 1), kept, memories, of_outputs.permute(1, 2, 0))
        ends = zip(reversed(range(steps)), reversed(_steps(*parts)), strict=True)
        for step, (x, switch, reset, update, proposed, keeps, after, of_output) in ends:
            outputs.copy_(of_output)
            of_memory = carried.addmm_(back, leaving)
            if of_states is not None:
                of_memory.add_(of_states[:, step].t())
            of_state.addmm_(leaving, after.t())
            carried = of_memory * update
            aten.tanh_backward.grad_input(of_memory - carried, proposed, grad_input=candidate)
            torch.mul(candidate, keeps, out=of_reset)
            torch.mul(of_memory, befores[step] - proposed, out=of_update)
            aten.sigmoid_backward.grad_input(of_switches, switch, grad_input=of_switches)
            torch.mul(candidate, reset, out=kept_candidate)
            of_input.addmm_(x, entered)  # twice as fast as its transpose
            of_sums.add_(of_all)
            if of_inputs is not None:
                torch.mm(into_inputs, of_all[: 3 * hidden], out=of_inputs[step])
        sums = of_sums.sum(1)
        return (
            None if of_inputs is None else of_inputs.permute(2, 0, 1),
            torch.cat((of_input[:, hidden:], of_input[:, :hidden]), 1).t(),
            of_state[: 3 * hidden],
            torch.cat((sums[hidden : 3 * hidden], sums[:hidden])),
            sums[hidden : 4 * hidden],
            of_state[3 * hidden :],
            sums[4 * hidden :],
        )


def distribution(parameters: Mapping[str, Tensor], memory: Tensor) -> Tensor:
    """The parameters of the action distribution ``[..., outputs]`` in states ``[..., hidden]``."""
    return _with_deviation(parameters, F.linear(memory, parameters["policy.weight"], parameters["policy.bias"]))


def value(parameters: Mapping[str, Tensor], memory: Tensor) -> Tensor:
    """The critic's output ``[...]`` in states ``[..., hidden]``."""
    return F.linear(memory, parameters["value.weight"], parameters["value.bias"]).squeeze(-1)


def _with_deviation(parameters: Mapping[str, Tensor], output: Tensor) -> Tensor:
    if "policy.log_deviation" not in parameters:
        return output
    return torch.cat((output, parameters["policy.log_deviation"].expand_as(output)), -1)
