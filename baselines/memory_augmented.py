"""Memory-augmented neural networks (MANN) with least-recently-used access.

Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, "Meta-learning with memory-augmented neural networks", ICML 2016,
section 3: an LSTM reads an external memory by the cosine of keys that it emits, and writes them either to the slots
that it has just read or to those that were used least. The label of an example comes with the next one, so the network
binds the two in its memory and finds them when it sees the class again.

Deviations and choices:
- those of `baselines.sequence`. Sequences of `training_shot` examples per class, as the paper's, train it; at test it
  reads the task's support set;
- with several heads, each has a least used slot of its own, and all of these are erased before the write;
- the write weight comes from the controller for each head. The first write has read nothing, so its weights sum to the
  share of the least used slot;
- no small shifts and rotations of the images;
- sizes, rates and initial memory are those of two public re-implementations (vineetjain96, tristandeleu), as is RMSProp
  (decay 0.95, momentum 0.9); its epsilon is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.sequence import Cell, SequenceLearner
from benchmarks.api import Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import lstm
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: the content of an empty memory, and what is added to the norms of a cosine
EMPTY, SHORTEST = 1e-6, 1e-6


@register_method("memory-augmented")
@dataclass(frozen=True)
class MemoryAugmented(SequenceLearner):
    """Train an LSTM with an external memory to bind examples and labels, and to read them when a query comes.

    hidden: units of the LSTM. slots, width: of the external memory. heads: keys that read and write at a time.
    usage_decay: share of a slot's usage that stays from one example to the next.

    All other fields: see `baselines.sequence.SequenceLearner`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"omniglot": {"training_shot": 10}}
    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("sizes and rates of two public re-implementations on Omniglot; untried here")
    }

    meta_batch: int = 16
    meta_lr: float = 1e-4
    optimiser: Literal["adam", "rmsprop"] = "rmsprop"
    hidden: int = 200
    slots: int = 128
    width: int = 40
    heads: int = 4
    usage_decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "hidden", "slots", "width", "heads")
        check_fields(self, "between 0 and 1", "usage_decay")
        if self.heads > self.slots:
            raise ValueError(f"heads = {self.heads}: each writes to its own of slots = {self.slots}")

    @property
    def cell(self) -> Cell:
        return LeastRecentlyUsed(self.hidden, self.slots, self.width, self.heads, self.usage_decay)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": f"mann-{self.hidden}-{self.slots}x{self.width}"}


@dataclass(frozen=True)
class LeastRecentlyUsed(Cell):
    """An LSTM with a memory of ``slots`` rows of ``width`` numbers, read and written by ``heads`` keys.

    Its memory is the LSTM's ``output`` and ``content`` ``[B, hidden]``, the ``rows`` ``[B, slots, width]``, the last
    read ``weights`` ``[B, heads, slots]``, what they read ``[B, heads * width]``, and the ``usage`` ``[B, slots]``."""

    hidden: int
    slots: int
    width: int
    heads: int
    usage_decay: float

    @property
    def size(self) -> int:
        return self.hidden + self.heads * self.width

    def initialise(self, inputs: int, generator: torch.Generator) -> Parameters:
        """Forget gates have a bias of 1, so that the LSTM keeps its content at first."""
        parameters = lstm.initialise("lstm", inputs, self.hidden, self.size, generator)
        parameters["lstm.bias"][self.hidden : 2 * self.hidden] = 1.0
        for name, outputs in (("key", self.heads * self.width), ("gate", self.heads)):
            bound = 1 / math.sqrt(self.hidden)
            parameters[f"{name}.weight"] = (torch.rand(outputs, self.hidden, generator=generator) * 2 - 1) * bound
            parameters[f"{name}.bias"] = torch.zeros(outputs)
        return parameters

    def start(self, parameters: Parameters, sequences: int) -> Parameters:
        new = parameters["lstm.bias"].new_zeros
        return {
            "output": new(sequences, self.hidden),
            "content": new(sequences, self.hidden),
            "rows": new(sequences, self.slots, self.width) + EMPTY,
            "weights": new(sequences, self.heads, self.slots),
            "read": new(sequences, self.heads * self.width),
            "usage": new(sequences, self.slots),
        }

    def step(self, parameters: Parameters, memory: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        gates = lstm.gates_of(parameters, "lstm", x)
        fed_back = torch.cat((memory["output"], memory["read"]), -1)
        output, content = lstm.cell(parameters, "lstm", gates, fed_back, memory["content"])
        keys = F.linear(output, parameters["key.weight"], parameters["key.bias"]).tanh().unflatten(-1, (self.heads, -1))
        gate = F.linear(output, parameters["gate.weight"], parameters["gate.bias"]).sigmoid().unsqueeze(-1)
        least = least_used(memory["usage"], self.heads)
        written = gate * memory["weights"] + (1 - gate) * least
        kept = memory["rows"] * (1 - least.sum(1)).unsqueeze(-1)
        rows = kept + written.transpose(1, 2) @ keys
        weights = cosines(keys, rows).softmax(-1)
        read = (weights @ rows).flatten(1)
        usage = self.usage_decay * memory["usage"] + (weights + written).detach().sum(1)
        after = {"output": output, "content": content, "rows": rows, "weights": weights, "read": read, "usage": usage}
        return torch.cat((output, read), -1), after


def least_used(usage: Tensor, heads: int) -> Tensor:
    """The least used slot, the second least used and so on, one for each head: ``[B, heads, slots]``, 1 at that slot
    and 0 elsewhere. usage: ``[B, slots]``; of equals the first comes first."""
    order = usage.argsort(dim=1, stable=True)[:, :heads]
    return F.one_hot(order, usage.shape[1]).to(usage.dtype)


def cosines(keys: Tensor, rows: Tensor) -> Tensor:
    """``[B, heads, slots]`` of keys ``[B, heads, width]`` and rows ``[B, slots, width]``; near 0 for an empty row."""
    norms = keys.norm(dim=-1).unsqueeze(2) * rows.norm(dim=-1).unsqueeze(1)
    return keys @ rows.transpose(1, 2) / (norms + SHORTEST)
