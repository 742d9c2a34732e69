"""Conditional neural processes.

Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende and Eslami, "Conditional Neural Processes", ICML
2018, section 2: an encoder h turns each support example (x_i, y_i) into a vector, the mean r of these vectors stands
for the task, and a decoder g turns (x, r) into the distribution of y. Training minimises the negative log-likelihood of
support set and queries together. In regression y is normal, with a standard deviation of at least 0.1. In
classification r is the means of the classes, one after another.

Deviations and choices:
- a training episode has the task's shots. The paper draws the number of support examples;
- the rate and the meta-batch are ours; the widths are those of the authors' notebook;
- in classification the encoder and the decoder see the embedding of the task's network, and the encoder no label: the
  place of a class in r is its label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from baselines.shared.similarity import class_means
from benchmarks.api import Episodes, LabelledSet, Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, Statistics, perceptron
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: the smallest standard deviation
SMALLEST = 0.1


@register_method("conditional-neural-process")
@dataclass(frozen=True)
class ConditionalNeuralProcess(Episodic):
    """Learn to turn a support set into a vector, and that vector and an input into a normal distribution of the target.

    encoder: units of the layers of h, which has no activation at its end. decoder: of the hidden layers of g.
    backbone: what both see of an input; "identity" is the input itself.

    All other fields: see `baselines.episodic.Episodic`.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"regression"})

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sinusoid": {"meta_batch": 25, "training_queries": 10}}
    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("the widths of the authors' notebook; meta-batch, rate and queries untried")
    }

    backbone: str = "identity"
    encoder: tuple[int, ...] = (128, 128, 128, 128)
    decoder: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "encoder", "decoder")
        if not self.encoder:
            raise ValueError("encoder = (): at least one layer")

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        size, outputs = network.embedding_size, network.outputs
        seen, vectors, numbers = self.sizes(size, outputs)
        encoder = perceptron.initialise("encoder", (seen, *self.encoder), generator)
        decoder = (size + vectors * self.encoder[-1], *self.decoder, numbers)
        return encoder | perceptron.initialise("decoder", decoder, generator)

    def sizes(self, size: int, outputs: int) -> tuple[int, int, int]:
        """The inputs of the encoder, the number of vectors in r, and the outputs of the decoder."""
        return size + outputs, 1, 2 * outputs

    def representation(self, parameters: Parameters, support: Tensor, y: Tensor, outputs: int) -> Tensor:
        """The representation of each task, ``[T, r]``."""
        return perceptron.outputs_of(parameters, "encoder", torch.cat((support, y), -1)).mean(1)

    def decoded(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """The outputs of the decoder for each query: the means of the targets and what `deviation` takes."""
        task = self.representation(parameters, support, y, outputs)
        return perceptron.outputs_of(
            parameters, "decoder", torch.cat((query, task.unsqueeze(1).expand(-1, query.shape[1], -1)), -1)
        )

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """The means of the targets, ``[T, n, outputs]``; in classification the scores."""
        return self.decoded(parameters, support, query, y, outputs)[..., :outputs]

    def objective(
        self,
        network: Network,
        statistics: Statistics,
        parameters: Parameters,
        embedded: Tensor,
        episodes: Episodes,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss of support set and queries together."""
        support, query = episodes.support, episodes.query
        both = LabelledSet(torch.cat((support.x, query.x), 1), torch.cat((support.y, query.y), 1))
        seen = embedded[:, : support.y.shape[1]]
        return self.loss(self.decoded(parameters, seen, embedded, support.y, network.outputs), both)

    def loss(self, output: Tensor, query: LabelledSet) -> Tensor:
        mean, spread = output.chunk(2, -1)
        return negative_log_likelihood(mean, deviation(spread), query.y).mean()

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        widths = "-".join(map(str, (*self.encoder, "mean", *self.decoder)))
        return super().describe(tasks) | {"backbone": f"{self.backbone or tasks.backbone}, {widths}"}


@register_method("conditional-neural-process")
@dataclass(frozen=True)
class ClassifyingNeuralProcess(ConditionalNeuralProcess):
    """Learn to turn each class of a support set into a vector, and these vectors and an input into class scores."""

    kinds: ClassVar[frozenset[str]] = frozenset({"classification"})

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("untried")}

    backbone: str = ""

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if self.training_way not in (0, tasks.outputs):
            return f"training_way = {self.training_way}: the decoder is for {tasks.outputs} classes"
        return super().refuses(tasks)

    def sizes(self, size: int, outputs: int) -> tuple[int, int, int]:
        return size, outputs, outputs

    def representation(self, parameters: Parameters, support: Tensor, y: Tensor, outputs: int) -> Tensor:
        return class_means(perceptron.outputs_of(parameters, "encoder", support), y, outputs).flatten(1)

    def loss(self, output: Tensor, query: LabelledSet) -> Tensor:
        return Episodic.loss(self, output, query)


def deviation(spread: Tensor) -> Tensor:
    """The standard deviation for an output of the decoder, any number: at least `SMALLEST`."""
    return SMALLEST + (1 - SMALLEST) * F.softplus(spread)


def negative_log_likelihood(mean: Tensor, deviations: Tensor, y: Tensor) -> Tensor:
    """-log p(y) of normal targets, each number on its own, all of one shape."""
    return 0.5 * ((y - mean) / deviations).square() + deviations.log() + 0.5 * math.log(2 * math.pi)
