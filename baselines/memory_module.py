"""The memory module that remembers rare events.

Kaiser, Nachum, Roy and Bengio, "Learning to Remember Rare Events", ICLR 2017, section 2: a memory of unit keys, labels
and ages answers with the label of the key nearest to a query's embedding. A correct answer moves that key towards the
query; an incorrect one overwrites the oldest slot. Only the embedding is trained, by the margin between the nearest key
with the right label and the nearest with a wrong one; stored keys have no gradient.

Deviations and choices:
- every task has a memory of its own, where the authors' code shares one among the episodes of a batch;
- training scores queries against the memory of a support set, where the paper scores every example of one sequence;
- the network is the task's own up to a linear layer of `key_size`, where the paper has four convolutions without
  batch-norm; for batch-norm see `baselines.episodic`;
- no noise on ages, no dropout and no clipping of gradients, which the authors' code has;
- a class without a key in memory scores -1, the lowest cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.sequence import Cell, EmbeddedSequenceLearner
from baselines.shared.similarity import highest_of_class
from benchmarks.api import LabelledSet, Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


@register_method("memory-module")
@dataclass(frozen=True)
class MemoryModule(EmbeddedSequenceLearner):
    """Learn an embedding in which the nearest key of a small memory has the label of the query.

    slots: keys that the memory of a task holds. key_size: numbers of a key.
    margin: by which the nearest right key should be nearer than the nearest wrong one, in cosine.

    All other fields: see `baselines.episodic.Episodic`.
    """

    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours(
            "margin and key size of the authors' code; rate: best of 2 on Omniglot 5-way 1-shot validation tasks, "
            "120 meta-steps; all else untried"
        )
    }

    meta_lr: float = 3e-3
    slots: int = 128
    key_size: int = 128
    margin: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "slots", "key_size")
        check_fields(self, "at least 0", "margin")

    def cell(self, outputs: int) -> Cell:
        return KeyMemory(self.slots, self.key_size, outputs)

    def loss(self, output: Tensor, query: LabelledSet) -> Tensor:
        """The mean of max(0, wrong - right + margin), of the nearest keys with a wrong and with the right label."""
        y = query.y.unsqueeze(-1)
        right, wrong = output.gather(2, y).squeeze(2), output.scatter(2, y, float("-inf")).amax(2)
        return (wrong - right + self.margin).relu().mean()

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"metric": "cosine", "slots": self.slots}


@dataclass(frozen=True)
class KeyMemory(Cell):
    """Unit ``keys`` ``[B, slots, d]``, the ``labels`` ``[B, slots]`` they stand for (-1: empty) and their ``ages``
    ``[B, slots]``, the number of examples read since they were written.

    Its output is the cosine of the nearest key of each class ``[B, outputs]``, before the example itself is written."""

    paired = True

    slots: int
    key_size: int
    outputs: int

    @property
    def size(self) -> int:
        return self.outputs

    def initialise(self, inputs: int, generator: torch.Generator) -> Parameters:
        shape = (self.key_size, inputs - self.outputs)
        return {"key.weight": (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(shape[1])}

    def start(self, parameters: Parameters, sequences: int) -> Parameters:
        weight = parameters["key.weight"]
        ages = torch.arange(self.slots, 0, -1, device=weight.device)  # the first slot is the oldest
        return {
            "keys": weight.new_zeros(sequences, self.slots, self.key_size),
            "labels": torch.full((sequences, self.slots), -1, device=weight.device),
            "ages": ages.expand(sequences, -1),
        }

    def answer(self, parameters: Parameters, memory: Parameters, x: Tensor) -> Tensor:
        return nearest_of_class(memory, self._key(parameters, x), self.outputs)

    def step(self, parameters: Parameters, memory: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        key, label = self._key(parameters, x), x[:, -self.outputs :].argmax(1)
        return nearest_of_class(memory, key.unsqueeze(1), self.outputs)[:, 0], written(memory, key.detach(), label)

    def _key(self, parameters: Parameters, x: Tensor) -> Tensor:
        return F.normalize(F.linear(x[..., : -self.outputs], parameters["key.weight"]), dim=-1)


def nearest_of_class(memory: Parameters, query: Tensor, way: int) -> Tensor:
    """The cosine of queries ``[T, n, d]`` and the nearest key of each class, ``[T, n, way]``; -1 without a key."""
    cosine = _to_keys(memory, query)
    return highest_of_class(cosine, memory["labels"].clamp(min=0), way).clamp(min=-1.0)


def written(memory: Parameters, key: Tensor, label: Tensor) -> Parameters:
    """The memory after an example with unit key ``[B, d]`` and label ``[B]``.

    If the nearest key has this label, it becomes the direction of the sum of both; else the oldest slot takes the
    example. The slot's age becomes 0, all others grow by 1."""
    keys, labels, ages = memory["keys"], memory["labels"], memory["ages"]
    nearest = _to_keys(memory, key.unsqueeze(1))[:, 0].argmax(1, keepdim=True)
    right = labels.gather(1, nearest) == label.unsqueeze(1)
    slot = torch.where(right, nearest, ages.argmax(1, keepdim=True))
    here = torch.arange(keys.shape[1], device=keys.device) == slot
    merged = F.normalize(key.unsqueeze(1) + keys * right.unsqueeze(2), dim=-1)
    return {
        "keys": torch.where(here.unsqueeze(2), merged, keys),
        "labels": torch.where(here, label.unsqueeze(1), labels),
        "ages": torch.where(here, 0, ages + 1),
    }


def _to_keys(memory: Parameters, query: Tensor) -> Tensor:
    """Cosines ``[T, n, slots]`` of unit vectors ``[T, n, d]``; minus infinity for empty slots."""
    cosine = query @ memory["keys"].transpose(1, 2)
    return cosine.masked_fill((memory["labels"] < 0).unsqueeze(1), float("-inf"))
