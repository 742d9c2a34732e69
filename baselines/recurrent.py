"""A black-box learner: a recurrent network that is shown examples and is then asked.

Hochreiter, Younger and Conwell, "Learning to learn using gradient descent", ICANN 2001: an LSTM that reads the sequence
of pairs (x_t, y_{t-1}) and predicts y_t learns, across many functions, to learn a function. Santoro, Bartunov,
Botvinick, Wierstra and Lillicrap, "Meta-learning with memory-augmented neural networks", ICML 2016, do the same with
classes whose labels are shuffled from episode to episode; the LSTM here is their baseline, without the external memory.

The network reads the support set in the order of the episode, which is shuffled. Every query is answered from a copy of
the state that the support set has left, with the last support label beside the query's x: it sees no other query.

Deviations from the papers:
- an episode is a support set and queries, where the papers score every element of one long sequence. Training adds the
  losses of the support sequence, each example predicted from those before it, to those of the queries;
- raw pixels are averaged over windows of 2 x 2 (Santoro et al. reduce Omniglot to 20 x 20) and doubled;
- Adam, where Hochreiter et al. follow the gradient and Santoro et al. take RMSProp; the sizes are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Episodes, LabelledSet, Memory, MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.models import lstm
from benchmarks.registry import register_method
from benchmarks.training import descend, training_indices
from maml.losses import supervised_loss

#: pixels are averaged over windows of this size, and multiplied: drawings are mostly background
WINDOW, CONTRAST = 2, 2.0


@register_method("recurrent")
@dataclass(frozen=True)
class Recurrent(MetaLearner):
    """Train an LSTM to read a support set as a sequence, so that its state afterwards answers queries.

    hidden: units of the LSTM.
    meta_batch, meta_lr: tasks per meta-step, and Adam's rate.
    training_queries: queries per class (per task in regression) in training.
    sequence_weight: weight of the losses along the support set, beside those of the queries.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    #: our own settings: no paper has these tasks with this learner
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sinusoid": {"hidden": 64, "meta_batch": 32, "meta_lr": 1e-3, "training_queries": 10}
    }

    hidden: int = 128
    meta_batch: int = 64
    meta_lr: float = 3e-3
    training_queries: int = 1
    sequence_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("hidden", "meta_batch", "training_queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is less than 1")
        if not self.meta_lr > 0:
            raise ValueError(f"meta_lr = {self.meta_lr} is not above 0")
        if not 0 <= self.sequence_weight < math.inf:
            raise ValueError(f"sequence_weight = {self.sequence_weight} is below 0")

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            indices = training_indices(seed, step, self.meta_batch)
            episodes = tasks.episodes("train", indices, queries=self.training_queries)
            reader = Reader(parameters, tasks.outputs)
            along, state = reader.read(episodes.support)
            asked = Reader(parameters, tasks.outputs, state)
            queries = _loss(asked(episodes.query.x)[0], episodes.query)
            return queries + self.sequence_weight * _loss(along, episodes.support), _examples(episodes)

        yield from descend(self._initialise(tasks, seed), loss, learning_rate=self.meta_lr, start=start)

    def _initialise(self, tasks: TaskDistribution, seed: int) -> Parameters:
        """The cell, which keeps its memory at first (forget gates with a bias of 1), and a linear head."""
        generator = torch.Generator().manual_seed(seed)
        inputs = _as_rows(torch.zeros(1, 1, *tasks.input_shape)).shape[-1] + tasks.outputs
        cell = lstm.initialise("lstm", inputs, self.hidden, self.hidden, generator)
        cell["lstm.bias"][self.hidden : 2 * self.hidden] = 1.0
        bound = 1 / math.sqrt(self.hidden)
        weight = (torch.rand(tasks.outputs, self.hidden, generator=generator) * 2 - 1) * bound
        parameters = {**cell, "head.weight": weight, "head.bias": torch.zeros(tasks.outputs)}
        return {name: value.to(tasks.device) for name, value in parameters.items()}

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = {name: value.detach() for name, value in state.parameters.items()}
        with torch.no_grad():
            _, left = Reader(parameters, tasks.outputs).read(support)
        yield Reader(parameters, tasks.outputs, left)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": f"lstm-{self.hidden}"}


@dataclass(frozen=True)
class Left:
    """What a support set has left behind: output and memory of the cell ``[T, h]``, the last label ``[T, outputs]``."""

    output: Tensor
    memory: Tensor
    label: Tensor


@dataclass(frozen=True)
class Reader:
    """The network; as a predictor it answers every query ``[T, n, ...]`` from a copy of what the support set left."""

    parameters: Parameters
    outputs: int
    left: Left | None = None

    def read(self, support: LabelledSet) -> tuple[Tensor, Left]:
        """The prediction of each support example from those before it, ``[T, k, outputs]``, and what is left."""
        labels = support.y if support.y.is_floating_point() else F.one_hot(support.y, self.outputs).to(support.x.dtype)
        previous = torch.cat((torch.zeros_like(labels[:, :1]), labels[:, :-1]), 1)
        sequence = torch.cat((_as_rows(support.x), previous), -1)
        outputs, (output, memory) = lstm.read(self.parameters, "lstm", sequence)
        return self._head(outputs), Left(output, memory, labels[:, -1])

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        assert self.left is not None
        copies = (part.unsqueeze(1).expand(-1, x.shape[1], -1) for part in vars(self.left).values())
        output, kept, label = copies
        gates = lstm.gates_of(self.parameters, "lstm", torch.cat((_as_rows(x), label), -1))
        output, _ = lstm.cell(self.parameters, "lstm", gates, output, kept)
        return self._head(output), None

    def _head(self, output: Tensor) -> Tensor:
        return F.linear(output, self.parameters["head.weight"], self.parameters["head.bias"])


def _as_rows(x: Tensor) -> Tensor:
    """Inputs ``[T, n, *input_shape]`` as ``[T, n, d]``: pictures ``[c, h, w]`` smaller, all else flat."""
    if x.dim() != 5:
        return x.flatten(2)
    return (CONTRAST * F.avg_pool2d(x.flatten(0, 1), WINDOW)).flatten(1).unflatten(0, x.shape[:2])


def _loss(output: Tensor, batch: LabelledSet) -> Tensor:
    return supervised_loss(lambda x, memory=None: (output, None), batch).mean()


def _examples(episodes: Episodes) -> int:
    return sum(part.y.shape[:2].numel() for part in (episodes.support, episodes.query))
