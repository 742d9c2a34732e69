"""Base of the black-box learners: a network that reads the support set as a sequence and is then asked.

Hochreiter, Younger and Conwell, "Learning to learn using gradient descent", ICANN 2001: a network that reads pairs
(x_t, y_{t-1}) and predicts y_t learns, across many functions, to learn a function. Santoro et al., "Meta-learning with
memory-augmented neural networks", ICML 2016, shuffle the labels of the classes from episode to episode.

The network reads the support set in the order of the episode, which is shuffled. It answers every query from a copy of
the memory that the support set leaves, with the last support label next to the query's x. No query sees another.

A method is its `Cell`: an LSTM, one with an external memory, or one whose memory is the whole past.

Deviations from the papers:
- an episode is a support set and queries, where the papers score every element of one long sequence. Training adds the
  losses of the support sequence, each example predicted from those before it, to those of the queries;
- raw pixels are averaged over windows of 2 x 2 (Santoro et al. reduce Omniglot to 20 x 20) and doubled.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import LabelledSet, Memory, MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import join, split
from benchmarks.training import descend, training_indices
from maml.losses import supervised_loss

#: pixels are averaged over windows of this size, and multiplied: drawings are mostly background
WINDOW, CONTRAST = 2, 2.0


class Cell(abc.ABC):
    """A recurrent network as equations on tensors by name, for B sequences at once.

    B is T, the number of tasks, along the support set, and T * n for the queries, each with a copy of the memory."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The numbers of one output."""

    @abc.abstractmethod
    def initialise(self, inputs: int, generator: torch.Generator) -> Parameters:
        """The parameters for inputs of this many numbers."""

    @abc.abstractmethod
    def start(self, parameters: Parameters, sequences: int) -> Parameters:
        """The memory of this many sequences at the beginning: tensors ``[B, ...]`` by name."""

    @abc.abstractmethod
    def step(self, parameters: Parameters, memory: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        """The output ``[B, size]`` for inputs ``[B, i]``, and the memory afterwards."""

    def read(self, parameters: Parameters, sequence: Tensor) -> tuple[Tensor, Parameters]:
        """The outputs ``[B, k, size]`` along ``[B, k, i]`` from the beginning, and the memory afterwards. A cell with
        a quicker way of reading a whole sequence has it here."""
        memory, outputs = self.start(parameters, len(sequence)), []
        for x in sequence.unbind(1):
            output, memory = self.step(parameters, memory, x)
            outputs.append(output)
        return torch.stack(outputs, 1), memory


@dataclass(frozen=True)
class SequenceLearner(MetaLearner):
    """Train a cell to read a support set, so that its memory afterwards answers queries.

    meta_batch, meta_lr: tasks per meta-step, and Adam's rate.
    training_queries: queries per class (per task in regression) in training.
    sequence_weight: weight of the losses along the support set; those of the queries have weight 1.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})

    meta_batch: int = 64
    meta_lr: float = 3e-3
    training_queries: int = 1
    sequence_weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "meta_batch", "training_queries")
        check_fields(self, "above 0", "meta_lr")
        check_fields(self, "at least 0", "sequence_weight")

    @property
    def cell(self) -> Cell:
        """The network that reads."""
        raise NotImplementedError

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            indices = training_indices(seed, step, self.meta_batch)
            episodes = tasks.episodes("train", indices, queries=self.training_queries)
            support, query = episodes.support, episodes.query
            along, reader = Reader.of(self.cell, parameters, support, tasks.outputs)
            total = _loss(reader(query.x)[0], query) + self.sequence_weight * _loss(along, support)
            return total, support.y.shape[:2].numel() + query.y.shape[:2].numel()

        yield from descend(self.initial(tasks, seed), loss, learning_rate=self.meta_lr, start=start)

    def initial(self, tasks: TaskDistribution, seed: int) -> Parameters:
        """The cell, under ``extra.``, and a linear head."""
        generator, cell = torch.Generator().manual_seed(seed), self.cell
        inputs = _as_rows(torch.zeros(1, 1, *tasks.input_shape)).shape[-1] + tasks.outputs
        parameters = join("extra.", cell.initialise(inputs, generator))
        weight = (torch.rand(tasks.outputs, cell.size, generator=generator) * 2 - 1) * (1 / math.sqrt(cell.size))
        parameters |= {"head.weight": weight, "head.bias": torch.zeros(tasks.outputs)}
        return {name: value.to(tasks.device) for name, value in parameters.items()}

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = {name: value.detach() for name, value in state.parameters.items()}
        with torch.no_grad():
            _, reader = Reader.of(self.cell, parameters, support, tasks.outputs)
        yield reader


@dataclass(frozen=True)
class Reader:
    """A predictor that answers every query ``[T, n, ...]`` from a copy of the memory of the support set.

    parameters, head: of the cell and of the linear layer on its outputs. memory: ``[T, ...]``.
    label: the last support label, ``[T, outputs]``."""

    cell: Cell
    parameters: Parameters
    head: Parameters
    memory: Parameters
    label: Tensor

    @classmethod
    def of(cls, cell: Cell, parameters: Parameters, support: LabelledSet, outputs: int) -> tuple[Tensor, Reader]:
        """The prediction of each support example from those before it, ``[T, k, outputs]``, and the reader after it."""
        own, _ = split(parameters, "extra.")
        head, _ = split(parameters, "head.")
        labels = support.y if support.y.is_floating_point() else F.one_hot(support.y, outputs).to(support.x.dtype)
        previous = torch.cat((torch.zeros_like(labels[:, :1]), labels[:, :-1]), 1)
        along, memory = cell.read(own, torch.cat((_as_rows(support.x), previous), -1))
        return F.linear(along, head["weight"], head["bias"]), cls(cell, own, head, memory, labels[:, -1])

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        n = x.shape[1]

        def copies(value: Tensor) -> Tensor:
            return value.unsqueeze(1).expand(-1, n, *value.shape[1:]).flatten(0, 1)

        inputs = torch.cat((_as_rows(x).flatten(0, 1), copies(self.label)), -1)
        kept = {name: copies(value) for name, value in self.memory.items()}
        output, _ = self.cell.step(self.parameters, kept, inputs)
        return F.linear(output, self.head["weight"], self.head["bias"]).unflatten(0, (-1, n)), None


def _as_rows(x: Tensor) -> Tensor:
    """Inputs ``[T, n, *input_shape]`` as ``[T, n, d]``: pictures ``[c, h, w]`` smaller, all else flat."""
    if x.dim() != 5:
        return x.flatten(2)
    return (CONTRAST * F.avg_pool2d(x.flatten(0, 1), WINDOW)).flatten(1).unflatten(0, x.shape[:2])


def _loss(output: Tensor, batch: LabelledSet) -> Tensor:
    return supervised_loss(lambda x, memory=None: (output, None), batch).mean()
