"""Nearest neighbour: a query takes the label (or the target) of the support example that is most like it.

Cover and Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 1967. On raw inputs
it learns nothing and shows how far the inputs alone lead. In the embedding of the network that `finetune` trains it is
the baseline of Ravi and Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017, section 5.

The best match decides, whatever the number of shots. Among equally good matches the one with the lowest label wins
(labels of an episode are in random order), in regression the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from baselines.pooled_embedding import PooledEmbedding
from baselines.shared.similarity import Metric, highest_of_class, similarity
from benchmarks.api import (
    LabelledSet,
    Memory,
    MetaLearner,
    Parameters,
    Predictor,
    State,
    TaskDistribution,
    adaptation_field,
)
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


def chosen_metric(metric: str, regression: bool) -> Metric:
    """The metric by name; "" is the cosine for classification and the Euclidean distance for regression."""
    return cast(Metric, metric or ("l2" if regression else "cosine"))


@register_method("nearest-neighbour")
@dataclass(frozen=True)
class NearestNeighbour(MetaLearner):
    """Answer as the support example does whose raw input is nearest.

    metric: "cosine", "l2", or "": the cosine for classification, the Euclidean distance for regression.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    fits: ClassVar[bool] = False
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("the metric; untried")}

    metric: Literal["", "cosine", "l2"] = adaptation_field("")

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield Nearest(support, chosen_metric(self.metric, tasks.kind == "regression"), tasks.outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"metric": chosen_metric(self.metric, tasks.kind == "regression")}


@register_method("nearest-neighbour-embedding")
@dataclass(frozen=True)
class EmbeddedNearestNeighbour(PooledEmbedding):
    """Answer as the support example does that is nearest in the embedding of the network that `finetune` trains.

    metric: as for raw inputs.
    backbone: that of the fine-tuned network; "": the task's own.
    """

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("the metric, untried; the fit of finetune")}

    metric: Literal["", "cosine", "l2"] = adaptation_field("")

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        return nearest(support, query, y, chosen_metric(self.metric, y.is_floating_point()), outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"metric": chosen_metric(self.metric, tasks.kind == "regression")}


@dataclass(frozen=True)
class Nearest:
    """A predictor: for each class its best match, ``[T, n, way]``; in regression the best match's target."""

    support: LabelledSet
    metric: Metric
    outputs: int

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return nearest(self.support.x.flatten(2), x.flatten(2), self.support.y, self.metric, self.outputs), None


def nearest(support: Tensor, query: Tensor, y: Tensor, metric: Metric, outputs: int) -> Tensor:
    """The prediction ``[T, n, outputs]`` for vectors ``[T, n, d]`` from support vectors ``[T, k, d]`` with labels y."""
    scores = similarity(query, support, metric)
    if not y.is_floating_point():
        return highest_of_class(scores, y, outputs)
    return y.gather(1, scores.argmax(-1, keepdim=True).expand(-1, -1, y.shape[-1]))
