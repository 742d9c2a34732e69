"""Base of the black-box learners: a network that reads the support set as a sequence and is then asked.

Hochreiter, Younger and Conwell, "Learning to learn using gradient descent", ICANN 2001: a network that reads pairs
(x_t, y_{t-1}) and predicts y_t learns, across many functions, to learn a function. Santoro et al., "Meta-learning with
memory-augmented neural networks", ICML 2016, shuffle the labels of the classes from episode to episode.

The network reads the support set in the order of the episode, which is shuffled. It answers every query from a copy of
the memory that the support set leaves, with the last support label next to the query's x. No query sees another.

A method is its `Cell`: an LSTM, one with an external memory, or one whose memory is the whole past. `SequenceLearner`
reads the inputs; `EmbeddedSequenceLearner` trains an embedding too, and reads that.

Deviations from the papers:
- an episode is a support set and queries, where the papers score every element of one long sequence. Training adds the
  losses of the support sequence, each example predicted from those before it, to those of the queries;
- raw pixels are averaged over windows of 2 x 2 (Santoro et al. reduce Omniglot to 20 x 20) and doubled.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from benchmarks.api import Episodes, LabelledSet, Memory, MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, join, split
from benchmarks.training import descend, examples_of, training_indices
from maml.inner_loop import detached
from maml.losses import supervised_loss

#: pixels are averaged over windows of this size, and multiplied: drawings are mostly background
WINDOW, CONTRAST = 2, 2.0


class Cell(abc.ABC):
    """A recurrent network as equations on tensors by name, for B sequences at once.

    B is T, the number of tasks, along the support set, and T * n for the queries, each with a copy of the memory.

    paired: whether a label enters with its own x, and nothing with a query's; else it enters with the next x."""

    paired: ClassVar[bool] = False

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

    def answer(self, parameters: Parameters, memory: Parameters, x: Tensor) -> Tensor:
        """The outputs ``[T, n, size]`` for inputs ``[T, n, i]``, each after the same memory ``[T, ...]``. A cell that
        needs no copies of the memory has its own way here."""
        n = x.shape[1]
        copies = {name: value.repeat_interleave(n, 0) for name, value in memory.items()}
        return self.step(parameters, copies, x.flatten(0, 1))[0].unflatten(0, (-1, n))


@dataclass(frozen=True)
class SequenceLearner(MetaLearner):
    """Train a cell to read a support set, so that its memory afterwards answers queries.

    meta_batch, meta_lr, optimiser: tasks per meta-step; rate and kind of the steps (`benchmarks.training.descend`).
    training_shot: shots of training episodes; 0: the task's own.
    training_queries: queries per class (per task in regression) in training.
    sequence_weight: weight of the losses along the support set; those of the queries have weight 1.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})

    meta_batch: int = 64
    meta_lr: float = 3e-3
    optimiser: Literal["adam", "rmsprop"] = "adam"
    training_shot: int = 0
    training_queries: int = 1
    sequence_weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "meta_batch", "training_queries")
        check_fields(self, "above 0", "meta_lr")
        check_fields(self, "at least 0", "training_shot", "sequence_weight")

    @property
    def cell(self) -> Cell:
        """The network that reads."""
        raise NotImplementedError

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            indices = training_indices(seed, step, self.meta_batch)
            episodes = self._training_episodes(tasks, indices)
            support, query = episodes.support, episodes.query
            along, reader = Reader.of(self.cell, parameters, support, tasks.outputs)
            total = _loss(reader(query.x)[0], query) + self.sequence_weight * _loss(along, support)
            return total, support.y.shape[:2].numel() + query.y.shape[:2].numel()

        begin = self.initial(tasks, seed)
        yield from descend(begin, loss, learning_rate=self.meta_lr, optimiser=self.optimiser, start=start)

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        return examples_of(tasks, self.training_shot, self.training_queries, self.meta_batch)

    def _training_episodes(self, tasks: TaskDistribution, indices: Sequence[int] | np.ndarray) -> Episodes:
        return tasks.episodes("train", indices, shots=self.training_shot or None, queries=self.training_queries)

    def check_data(self, tasks: TaskDistribution) -> None:
        self._training_episodes(tasks, [0])

    def initial(self, tasks: TaskDistribution, seed: int) -> Parameters:
        """The cell, under ``extra.``, and a linear head."""
        generator, cell = torch.Generator().manual_seed(seed), self.cell
        inputs = _as_rows(torch.zeros(1, 1, *tasks.input_shape)).shape[-1] + tasks.outputs
        parameters = join("extra.", cell.initialise(inputs, generator))
        weight = (torch.rand(tasks.outputs, cell.size, generator=generator) * 2 - 1) * (1 / math.sqrt(cell.size))
        parameters |= {"head.weight": weight, "head.bias": torch.zeros(tasks.outputs)}
        return {name: value.to(tasks.device) for name, value in parameters.items()}

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = detached(state.parameters)
        with torch.no_grad():
            _, reader = Reader.of(self.cell, parameters, support, tasks.outputs)
        yield reader


@dataclass(frozen=True)
class EmbeddedSequenceLearner(Episodic):
    """Train an embedding, and a cell that reads the embedded support set and gives the answers itself.

    All fields: see `baselines.episodic.Episodic`.
    """

    def cell(self, outputs: int) -> Cell:
        """The network that reads; its size is ``outputs``."""
        raise NotImplementedError

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """The cell."""
        return self.cell(network.outputs).initialise(network.embedding_size + network.outputs, generator)

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """The cell's outputs ``[T, n, outputs]``."""
        seen = LabelledSet(support, y)
        _, reader = Reader.of(self.cell(outputs), join("extra.", parameters), seen, outputs)
        return reader(query)[0]


@dataclass(frozen=True)
class Reader:
    """A predictor that answers every query ``[T, n, ...]`` from a copy of the memory of the support set.

    parameters, head: of the cell and of the linear layer on its outputs, if there is one. memory: ``[T, ...]``.
    label: what enters with a query, ``[T, outputs]``: the last support label, or zeros if the cell is paired."""

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
        nothing = torch.zeros_like(labels[:, 0])
        entering = labels if cell.paired else torch.cat((nothing.unsqueeze(1), labels[:, :-1]), 1)
        along, memory = cell.read(own, torch.cat((_as_rows(support.x), entering), -1))
        reader = cls(cell, own, head, memory, nothing if cell.paired else labels[:, -1])
        return reader._headed(along), reader

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        label = self.label.unsqueeze(1).expand(-1, x.shape[1], -1)
        output = self.cell.answer(self.parameters, self.memory, torch.cat((_as_rows(x), label), -1))
        return self._headed(output), None

    def _headed(self, output: Tensor) -> Tensor:
        return F.linear(output, self.head["weight"], self.head["bias"]) if self.head else output


def _as_rows(x: Tensor) -> Tensor:
    """Inputs ``[T, n, *input_shape]`` as ``[T, n, d]``: pictures ``[c, h, w]`` smaller, all else flat."""
    if x.dim() != 5:
        return x.flatten(2)
    return (CONTRAST * F.avg_pool2d(x.flatten(0, 1), WINDOW)).flatten(1).unflatten(0, x.shape[:2])


def _loss(output: Tensor, batch: LabelledSet) -> Tensor:
    return supervised_loss(lambda x, memory=None: (output, None), batch).mean()
