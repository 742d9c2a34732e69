"""SNAIL: a simple neural attentive meta-learner.

Mishra, Rohaninejad, Chen and Abbeel, "A Simple Neural Attentive Meta-Learner", ICLR 2018, section 3: a causal network
reads the embedded examples with their labels, then a query without one. Blocks of dilated causal convolutions pass
recent examples on, and attention over the whole past picks any of them; each layer's output is appended to its input.

Deviations and choices:
- all queries of an episode read the same support set at once, and none sees another: each output is that of a sequence
  of its own;
- dilations are 1, 2, 4 and so on; the paper's pseudo-code starts at 2, which never joins odd neighbours;
- the embedding is the task's own network, without a linear layer of 64; for batch-norm see `baselines.episodic`;
- sizes are those of a reproduction (eambutu/snail-pytorch), whose attention normalises over queries and so sees the
  future; here it is over the past, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.sequence import Cell, EmbeddedSequenceLearner
from benchmarks.api import Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


@register_method("snail")
@dataclass(frozen=True)
class Snail(EmbeddedSequenceLearner):
    """Train causal convolutions and attention to read a support set and answer a query at its end.

    length: examples that the convolutions look back over, rounded up to a power of two; attention looks at all.
    filters: of each convolution.
    keys: size of the keys of each attention block, whose values have half of it; convolutions are between two blocks.

    All other fields: see `baselines.episodic.Episodic`.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"omniglot/{way}w{shot}s": {"length": way * shot + 1} for way in (5, 20) for shot in (1, 5)
    }
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("sizes of a reproduction on Omniglot; rates untried")}

    meta_batch: int = 32
    training_queries: int = 1
    length: int = 32
    filters: int = 128
    keys: tuple[int, ...] = (64, 256, 512)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 2", "length", "keys")
        check_fields(self, "at least 1", "filters")
        if not self.keys:
            raise ValueError("keys = (): at least one attention block")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if self.training_way not in (0, tasks.outputs) and tasks.kind == "classification":
            return f"training_way = {self.training_way}: labels of {tasks.outputs} classes enter the network"
        return super().refuses(tasks)

    def cell(self, outputs: int) -> Cell:
        return CausalNetwork(self.length, self.filters, self.keys, outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"length": self.length}


@dataclass(frozen=True)
class CausalNetwork(Cell):
    """Attention blocks with dilated causal convolutions between them.

    Its memory is the ``past``: what enters the last layer ``[B, t, channels]``, which begins with the inputs of every
    layer before it."""

    paired = True

    length: int
    filters: int
    keys: tuple[int, ...]
    outputs: int

    @property
    def size(self) -> int:
        return self.outputs

    def layers(self) -> Iterator[tuple[str, Convolution | Attention]]:
        """Names and layers from the first to the last."""
        for block, key in enumerate(self.keys):
            if block:
                for power in range(math.ceil(math.log2(self.length))):
                    yield f"convolution{block}.{power}", Convolution(2**power, self.filters)
            yield f"attention{block}", Attention(key)

    def initialise(self, inputs: int, generator: torch.Generator) -> Parameters:
        shapes, channels = {}, inputs
        for name, layer in self.layers():
            shapes[name] = layer.shape(channels)
            channels += layer.channels
        shapes["output"] = (self.outputs, channels)
        parameters: Parameters = {}
        for name, shape in shapes.items():
            parameters[f"{name}.weight"] = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(shape[1])
            parameters[f"{name}.bias"] = torch.zeros(shape[0])
        return parameters

    def start(self, parameters: Parameters, sequences: int) -> Parameters:
        weight = parameters["output.weight"]
        return {"past": weight.new_zeros(sequences, 0, weight.shape[1])}

    def step(self, parameters: Parameters, memory: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        now = self._through(parameters, x.unsqueeze(1), memory["past"])
        return self._output(parameters, now)[:, 0], {"past": torch.cat((memory["past"], now), 1)}

    def read(self, parameters: Parameters, sequence: Tensor) -> tuple[Tensor, Parameters]:
        past = self._through(parameters, sequence, None)
        return self._output(parameters, past), {"past": past}

    def answer(self, parameters: Parameters, memory: Parameters, x: Tensor) -> Tensor:
        return self._output(parameters, self._through(parameters, x, memory["past"]))

    def _through(self, parameters: Parameters, x: Tensor, past: Tensor | None) -> Tensor:
        for name, layer in self.layers():
            before = None if past is None else past[..., : x.shape[-1]]
            added = layer(parameters[f"{name}.weight"], parameters[f"{name}.bias"], x, before)
            x = torch.cat((x, added), -1)
        return x

    def _output(self, parameters: Parameters, x: Tensor) -> Tensor:
        return F.linear(x, parameters["output.weight"], parameters["output.bias"])


# Layers take inputs ``[T, m, c]`` after a past ``[T, t, c]`` that is common to them: each sees the past and itself.
# With None they are a sequence from its beginning: each sees those before it and itself.


@dataclass(frozen=True)
class Convolution:
    """A gated convolution of two positions, ``dilation`` apart."""

    dilation: int
    channels: int

    def shape(self, inputs: int) -> tuple[int, int]:
        return 2 * self.channels, 2 * inputs

    def __call__(self, weight: Tensor, bias: Tensor, x: Tensor, past: Tensor | None) -> Tensor:
        before = F.pad(x if past is None else past, (0, 0, self.dilation, 0))
        m = x.shape[1]
        earlier = before[:, :m] if past is None else before[:, past.shape[1]].unsqueeze(1).expand(-1, m, -1)
        signal, gate = F.linear(torch.cat((earlier, x), -1), weight, bias).chunk(2, -1)
        return signal.tanh() * gate.sigmoid()


@dataclass(frozen=True)
class Attention:
    """A read-out of values by softmax over the scaled products of keys of ``key`` numbers."""

    key: int

    @property
    def channels(self) -> int:
        return self.key // 2

    def shape(self, inputs: int) -> tuple[int, int]:
        return 2 * self.key + self.channels, inputs

    def __call__(self, weight: Tensor, bias: Tensor, x: Tensor, past: Tensor | None) -> Tensor:
        query, key, value = F.linear(x, weight, bias).split((self.key, self.key, self.channels), -1)
        query = query / math.sqrt(self.key)
        if past is None:
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
            return (query @ key.transpose(1, 2)).masked_fill(later, float("-inf")).softmax(-1) @ value
        seen_key, seen_value = F.linear(past, weight[self.key :], bias[self.key :]).split((self.key, self.channels), -1)
        own = (query * key).sum(-1, keepdim=True)
        weights = torch.cat((query @ seen_key.transpose(1, 2), own), -1).softmax(-1)
        return weights[..., :-1] @ seen_value + weights[..., -1:] * value
