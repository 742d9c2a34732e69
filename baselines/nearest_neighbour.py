"""Nearest neighbour: a query takes the label (or the target) of the support example that is most like it.

Cover and Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 1967. In raw inputs
it learns nothing and shows what the inputs alone give away; in the embedding of the network that `finetune` trains it
is the baseline of Ravi and Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017, section 5.

The best match decides, whatever the number of shots. Among equally good matches the one with the lowest label wins
(labels of an episode are in random order), in regression the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from baselines.finetune import FineTune, Regime
from baselines.shared.embedding import embed_both
from baselines.shared.similarity import Metric, highest_of_class, similarity
from benchmarks.api import LabelledSet, Memory, MetaLearner, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.models import Network, network_for
from benchmarks.registry import register_method
from maml.inner_loop import per_task


def chosen_metric(metric: str, tasks: TaskDistribution) -> Metric:
    """The metric by name; "" is the cosine for classification and the Euclidean distance for regression."""
    return cast(Metric, metric or ("cosine" if tasks.kind == "classification" else "l2"))


@register_method("nearest-neighbour")
@dataclass(frozen=True)
class NearestNeighbour(MetaLearner):
    """Answer as the support example does whose raw input is nearest.

    metric: "cosine", "l2", or "": the cosine for classification, the Euclidean distance for regression.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    fits: ClassVar[bool] = False

    metric: Literal["", "cosine", "l2"] = adaptation_field("")

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield Nearest(support, chosen_metric(self.metric, tasks), tasks.outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"metric": chosen_metric(self.metric, tasks)}


@register_method("nearest-neighbour-embedding")
@dataclass(frozen=True)
class EmbeddedNearestNeighbour(MetaLearner):
    """Answer as the support example does that is nearest in the embedding of the network that `finetune` trains.

    metric: as for raw inputs.
    test_regime: batch-norm's statistics (`baselines.shared.embedding.embed_both`).
    backbone: that of the fine-tuned network; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = FineTune.kinds
    needs: ClassVar[frozenset[str]] = FineTune.needs
    regimes: ClassVar[tuple[str, ...]] = FineTune.regimes
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    published_meta_steps: ClassVar[Mapping[str, int]] = FineTune.published_meta_steps

    metric: Literal["", "cosine", "l2"] = adaptation_field("")
    test_regime: Regime = adaptation_field("running")
    backbone: str = ""

    def fit_method(self) -> str | None:
        return "finetune"

    def test_regimes(self, tasks: TaskDistribution) -> tuple[str, ...]:
        return FineTune(backbone=self.backbone).test_regimes(tasks)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        """That of `finetune` with its default fields, for use without the suite."""
        yield from FineTune(backbone=self.backbone).fit(tasks, seed, start)

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = per_task({name: value.detach() for name, value in state.parameters.items()}, 1)
        network, metric = network_for(tasks, self.backbone), chosen_metric(self.metric, tasks)
        yield NearestEmbedded(network, parameters, support, metric, self.test_regime, state.buffers)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {
            "backbone": self.backbone or tasks.backbone,
            "metric": chosen_metric(self.metric, tasks),
            "train_regime": "running",
        }


@dataclass(frozen=True)
class Nearest:
    """A predictor: for each class its best match, ``[T, n, way]``; in regression the best match's target."""

    support: LabelledSet
    metric: Metric
    outputs: int

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return self.answer(self.support.x.flatten(2), x.flatten(2)), None

    def answer(self, support: Tensor, query: Tensor) -> Tensor:
        """The prediction for vectors ``[T, n, d]`` that stand for the queries, and ``[T, k, d]`` for the support."""
        scores = similarity(query, support, self.metric)
        y = self.support.y
        if not y.is_floating_point():
            return highest_of_class(scores, y, self.outputs)
        return y.gather(1, scores.argmax(-1, keepdim=True).expand(-1, -1, y.shape[-1]))


@dataclass(frozen=True)
class NearestEmbedded:
    """The same among embeddings."""

    network: Network
    parameters: Mapping[str, Tensor]
    support: LabelledSet
    metric: Metric
    regime: str
    running: Mapping[str, Tensor]

    @torch.no_grad()
    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        support, query = embed_both(self.network, self.parameters, self.support.x, x, self.regime, self.running)
        return Nearest(self.support, self.metric, self.network.outputs).answer(support, query), None
