"""Bases of the learners that compare a query's embedding with those of the support set.

`EmbeddingLearner` answers from embeddings; `Episodic` also trains the embedding, episode by episode, as it is tested
(Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, section 2.2). A method is its `answer`.

Batch-norm in training takes the statistics of all examples of a meta-batch at once and moves the running statistics,
which are the default at test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.api import Episodes, LabelledSet, Memory, MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, NetworkPredictor, Statistics, join, network_for, split
from benchmarks.models.normalisation import fresh_statistics
from benchmarks.training import descend, examples_of, training_indices
from maml.inner_loop import detached, per_task
from maml.losses import supervised_loss


@dataclass(frozen=True)
class EmbeddingLearner(MetaLearner):
    """Embed support set and queries with one network, then `answer`.

    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification"})

    backbone: str = ""

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """Class scores ``[T, n, outputs]``, the highest for the answer, or values in regression.

        T tasks at once, of k support examples and n queries; no task may look at another.

        parameters: those of `Episodic.extra`, and buffers under ``extra.``, by their own names.
        support, query: float32 embeddings ``[T, k, d]`` and ``[T, n, d]``, d numbers each.
        y: int64 labels ``[T, k]`` of the support set, 0 to outputs - 1; or targets ``[T, k, outputs]`` in regression.
        outputs: the way, or the dimension of the target.
        """
        raise NotImplementedError

    def answer_with(
        self,
        network: Network,
        statistics: Statistics,
        parameters: Parameters,
        support: Tensor,
        query: Tensor,
        y: Tensor,
    ) -> Tensor:
        """`answer`, for a learner with batch-norm of its own or with feature maps.

        network: the embedding, for the way of these episodes.
        statistics: of the learner's own batch-norm, whose layer is ``extra.<name>`` (`Episodic.extra_batch_norms`)."""
        return self.answer(parameters, support, query, y, network.outputs)

    def regimes(self, network: Network) -> tuple[str, ...]:
        """The batch-norm regimes it answers under, the default first; ("none",) without batch-norm."""
        return ("running", "query", "support", "single") if network.normalised else ("none",)

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        extra, others = split(detached(state.parameters), "extra.")
        kept, _ = split(state.buffers, "extra.")
        network, shared = network_for(tasks, self.backbone), per_task(others, 1)
        yield Compared(self, network, extra | kept, shared, state.buffers, support)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": self.backbone or tasks.backbone, "train_regime": "running"}


@dataclass(frozen=True)
class Episodic(EmbeddingLearner):
    """Train the embedding on episodes: the loss of the answers to the queries, by Adam.

    meta_batch, meta_lr: episodes per meta-step, and Adam's rate.
    halve_every: meta-steps after which the rate is halved, again and again; 0: never.
    training_way, training_shot: classes and shots of training episodes; 0: the task's own.
    training_queries: queries per class (per task in regression) in training.
    """

    meta_batch: int = 16
    meta_lr: float = 1e-3
    halve_every: int = 0
    training_way: int = 0
    training_shot: int = 0
    training_queries: int = 5

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "meta_batch", "training_queries")
        check_fields(self, "at least 0", "meta_lr", "halve_every", "training_shot")
        if self.training_way < 0 or self.training_way == 1:
            raise ValueError(f"training_way = {self.training_way}: 0 (the task's own) or at least 2")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if self.training_way and tasks.kind != "classification":
            return f"training_way = {self.training_way}: {tasks.name} has no classes"
        return None

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """Further parameters that are trained with the embedding, such as a temperature, by name.

        Tensors of any shape without a task axis, shared by all tasks; random ones are drawn from ``generator``.
        `answer` gets them by these names, the state keeps them as ``extra.<name>``. network: the embedding, whose
        ``embedding_size`` is d."""
        return {}

    def extra_batch_norms(self, network: Network) -> dict[str, int]:
        """The channels of each batch-norm layer among the extra parameters, by name, as in `Backbone.batch_norms`."""
        return {}

    def loss(self, output: Tensor, query: LabelledSet) -> Tensor:
        """The training loss of a meta-batch, a scalar with a gradient: the mean cross-entropy or squared error.

        output: what `answer` gave, ``[T, n, outputs]``. query: its y is ``[T, n]``, or ``[T, n, outputs]``."""
        return supervised_loss(lambda x, memory=None: (output, None), query).mean()

    def objective(
        self,
        network: Network,
        statistics: Statistics,
        parameters: Parameters,
        embedded: Tensor,
        episodes: Episodes,
        generator: torch.Generator,
    ) -> Tensor:
        """The objective of a meta-step, a scalar with a gradient: the `loss` of the answers to the queries.

        A learner that also learns from the support set as such, or draws random numbers, replaces it.

        embedded: support set and queries, ``[T, k + n, d]``. episodes: their labelled sets.
        network, statistics, parameters: as for `answer_with`. generator: random numbers of this meta-step, on the
        CPU."""
        k, y = episodes.support.x.shape[1], episodes.support.y
        output = self.answer_with(network, statistics, parameters, embedded[:, :k], embedded[:, k:], y)
        return self.loss(output, episodes.query)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        trained_on = self.trained_on(tasks)
        network = network_for(trained_on, self.backbone)

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            indices = training_indices(seed, step, self.meta_batch)
            episodes = self.training_episodes(trained_on, indices)
            extra, others = split(parameters, "extra.")
            both = torch.cat((episodes.support.x, episodes.query.x), 1)
            statistics = Statistics(running=buffers, update=True)
            embedded = network.features(per_task(others, 1), both, statistics)
            generator = torch.Generator().manual_seed(int(indices[0]))
            value = self.objective(network, statistics, extra, embedded, episodes, generator)
            return value, both.shape[:2].numel()

        yield from descend(
            self.initial(network, seed, tasks.device),
            loss,
            learning_rate=self.meta_lr,
            schedule=lambda step: 0.5 ** (step // self.halve_every) if self.halve_every else 1.0,
            buffers=self.initial_statistics(network, tasks.device),
            start=start,
        )

    def trained_on(self, tasks: TaskDistribution) -> TaskDistribution:
        """The distribution of training episodes, with their way."""
        return tasks.replace(way=self.training_way) if self.training_way else tasks

    def training_episodes(self, trained_on: TaskDistribution, indices: Sequence[int] | np.ndarray) -> Episodes:
        """Training episodes with the shots and queries of training."""
        return trained_on.episodes("train", indices, shots=self.training_shot or None, queries=self.training_queries)

    def examples_per_step(self, tasks: TaskDistribution) -> int | None:
        return examples_of(self.trained_on(tasks), self.training_shot, self.training_queries, self.meta_batch)

    def check_data(self, tasks: TaskDistribution) -> None:
        self.training_episodes(self.trained_on(tasks), [0])

    def initial(self, network: Network, seed: int, device: str) -> Parameters:
        """The backbone without a head, and the extra parameters."""
        _, backbone = split(network.initialise(seed, device), "head.")
        extra = self.extra(network, torch.Generator().manual_seed(seed))
        return backbone | join("extra.", {name: value.to(device) for name, value in extra.items()})

    def initial_statistics(self, network: Network, device: str) -> Parameters:
        """The running statistics of the backbone and of the extra parameters before training."""
        own = fresh_statistics(self.extra_batch_norms(network), device)
        return network.running_statistics(device) | join("extra.", own)


@dataclass(frozen=True)
class Compared:
    """The predictor of an embedding learner, under a batch-norm regime.

    "running" takes the running statistics of training; "query" those of support set and queries together, since they
    are compared; "support" those of the support set for both; "single" those of the support set and one query at a
    time for the queries, and of the support set alone for itself.

    parameters: of the backbone, ``[1, ...]``. regime: "": the first of `regimes`.
    """

    learner: EmbeddingLearner
    network: Network
    extra: Parameters
    parameters: Parameters
    running: Mapping[str, Tensor]
    support: LabelledSet
    regime: str = ""

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regimes it answers under, the default first; ("none",) for a network without batch-norm."""
        return self.learner.regimes(self.network)

    def in_regime(self, name: str) -> Compared:
        """The same predictor under another regime."""
        return dataclasses.replace(self, regime=name)

    @torch.no_grad()
    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        support, query = self.embedded(x)
        running = (self.regime or self.regimes[0]) == "running"
        statistics = Statistics(running=self.running if running else None)
        return self.learner.answer_with(self.network, statistics, self.extra, support, query, self.support.y), None

    def embedded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings ``[T, k, d]`` and ``[T, n, d]`` of the support set and of queries ``[T, n, *input_shape]``."""
        seen, regime = self.support.x, self.regime or self.regimes[0]
        if regime == "single":
            alone = NetworkPredictor(self.network, self.parameters, "single", seen, embed=True)
            return self.network.features(self.parameters, seen), alone(x)[0]
        k = seen.shape[1]
        statistics = {"running": Statistics(running=self.running), "support": Statistics(first=k)}.get(regime)
        both = self.network.features(self.parameters, torch.cat((seen, x), 1), statistics)
        return both[:, :k], both[:, k:]
