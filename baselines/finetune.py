"""Fine-tuning: train one network on everything, then fit it to the support set.

The baseline of Ravi and Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017, section 5: one
classifier of all meta-training classes, whose last layer is replaced by one of the new classes and which then takes
gradient steps on the support set. By default that layer alone does: the "Baseline" of Chen et al., "A Closer Look at
Few-shot Classification", ICLR 2019. Steps of all layers under running statistics make a straw man: on Omniglot (5-way
1-shot, 2,500 meta-steps, ten steps, 40 episodes) they reach 63, 77 and 44 % at the rates 0.001, 0.004 and 0.01, the
default 89 %. On regression it is the "pretrained" network of Finn, Abbeel and Levine, ICML 2017,
section 5.1: x to y over all tasks at once, its last layer kept.

The new last layer starts at random, or imprinted: Qi, Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR
2018: each row is the normalised mean of the normalised embeddings of its class, so that before the first step a query
goes to the class mean with the highest cosine.

Deviations:
- training examples are drawn one by one, class (or task) first; MAML's code draws 25 tasks with K points of each;
- imprinted rows are used in a linear layer with bias 0: embeddings are not normalised and there is no learned scale,
  which changes no prediction before the first step;
- Ravi and Larochelle also search a decay of the rate; here the rate is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

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
from benchmarks.models import Network, NetworkPredictor, Statistics, network_for
from benchmarks.models.backbones import linear
from benchmarks.registry import register_method
from benchmarks.training import descend, training_indices
from maml.inner_loop import RATES, inner_loop, per_task
from maml.losses import LossScale, loss_factor, supervised_loss

Layers = Literal["", "all", "head"]
Head = Literal["random", "imprinted"]
Regime = Literal["running", "query", "support", "single"]

HEAD = ("head.weight", "head.bias")


@register_method("finetune")
@dataclass(frozen=True)
class FineTune(MetaLearner):
    """Train one network on all meta-training classes (or tasks), then fit it to the support set by gradient steps.

    batch_size, meta_lr, training_weight_decay: examples per meta-step, Adam's rate, and its decoupled weight decay.
    inner_lr: the rate of the steps on the support set, in the units of `loss_scale` ("sum/K" as in MAML, or "mean").
    test_steps: the numbers of steps reported, headline last.
    layers: which parameters take steps: "all", batch-norm's included, or the "head" alone; "": the head for
        classification, all for regression.
    head: how the new last layer of a classifier starts; regression keeps the trained one.
    weight_decay: of the parameters that take steps.
    test_regime: batch-norm's statistics when queries are predicted. In the regime "running" the steps use the running
        statistics of training too; in the others they use the support set's own, as MAML's do.
    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})
    regimes: ClassVar[tuple[str, ...]] = ("running", "query", "support", "single")
    #: MAML, section 5.1 and cbfinn/maml's README (25 tasks of K = 10 points); the paper tunes the rate, here MAML's
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sinusoid": {"batch_size": 250, "inner_lr": 0.01}}
    published_meta_steps: ClassVar[Mapping[str, int]] = {"sinusoid": 70_000}
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"inner_lr": RATES}

    batch_size: int = 64
    meta_lr: float = 1e-3
    training_weight_decay: float = 0.0
    inner_lr: float = adaptation_field(0.01)
    test_steps: tuple[int, ...] = adaptation_field((1, 5, 10))
    loss_scale: LossScale = adaptation_field("sum/K")
    layers: Layers = adaptation_field("")
    head: Head = adaptation_field("random")
    weight_decay: float = adaptation_field(0.0)
    test_regime: Regime = adaptation_field("running")
    backbone: str = ""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")

    def test_regimes(self, tasks: TaskDistribution) -> tuple[str, ...]:
        return self.regimes if network_for(tasks, self.backbone).backbone.normalised else ("none",)

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        network = network_for(tasks, self.backbone, outputs=tasks.pooled_outputs("train"))

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            batch = tasks.pooled("train", training_indices(seed, step, self.batch_size))
            shared, statistics = per_task(parameters, 1), Statistics(running=buffers, update=True)
            losses = supervised_loss(lambda x, memory=None: (network(shared, x, statistics), None), batch)
            return losses.sum(), batch.y.shape[:2].numel()

        yield from descend(
            network.initialise(seed, tasks.device),
            loss,
            learning_rate=self.meta_lr,
            buffers=network.running_statistics(tasks.device),
            start=start,
            weight_decay=self.training_weight_decay,
        )

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        network = network_for(tasks, self.backbone)
        trained = {name: value.detach() for name, value in state.parameters.items()}
        steps = self._steps_of_all if self._moves_all(tasks) else self._steps_of_the_head
        yield from steps(network, trained, state, support, tasks)

    def _steps_of_all(
        self, network: Network, trained: Parameters, state: State, support: LabelledSet, tasks: TaskDistribution
    ) -> Iterator[Predictor]:
        """Every layer takes steps, each task its own copy."""

        def predictor(theta: Mapping[str, Tensor], regime: str) -> Predictor:
            return NetworkPredictor(network, theta, regime, support.x, state.buffers)

        body = {name: value for name, value in per_task(trained, len(support)).items() if name not in HEAD}
        start = {**body, **self._new_head(network, trained, state, support, tasks)}
        adapted = self._descend(start, support, lambda theta: predictor(theta, self._support_regime), tasks)
        for theta in adapted:
            yield predictor(theta, self.test_regime)

    def _steps_of_the_head(
        self, network: Network, trained: Parameters, state: State, support: LabelledSet, tasks: TaskDistribution
    ) -> Iterator[Predictor]:
        """The head takes steps on embeddings that stay: each input is embedded once, however many steps there are."""
        embedded, _ = self._embedding(network, trained, state, support, self._support_regime)(support.x)
        embed = Remembering(self._embedding(network, trained, state, support, self.test_regime))
        heads = self._new_head(network, trained, state, support, tasks)
        seen = LabelledSet(embedded, support.y)
        for head in self._descend(heads, seen, LastLayer, tasks):
            yield OnTop(embed, LastLayer(head))

    @property
    def _support_regime(self) -> str:
        return "running" if self.test_regime == "running" else "query"

    def _descend(
        self,
        start: Parameters,
        support: LabelledSet,
        predictor_of: Callable[[Mapping[str, Tensor]], Predictor],
        tasks: TaskDistribution,
    ) -> Iterator[Parameters]:
        return inner_loop(
            start,
            support,
            predictor_of,
            supervised_loss,
            self.inner_lr * loss_factor(tasks, self.loss_scale),
            second_order=False,
            weight_decay=self.weight_decay,
        )

    def _moves_all(self, tasks: TaskDistribution) -> bool:
        return (self.layers or ("all" if tasks.kind == "regression" else "head")) == "all"

    def _embedding(
        self, network: Network, trained: Parameters, state: State, support: LabelledSet, regime: str
    ) -> NetworkPredictor:
        return NetworkPredictor(network, per_task(trained, 1), regime, support.x, state.buffers, embed=True)

    def _new_head(
        self, network: Network, trained: Parameters, state: State, support: LabelledSet, tasks: TaskDistribution
    ) -> Parameters:
        """The last layer before the first step, ``[T, ...]``."""
        if tasks.kind == "regression":
            return per_task({name: trained[name] for name in HEAD}, len(support))
        if self.head == "random":
            # The step of the state is its only number that every machine and every call agrees on.
            drawn = network.initialise(state.step, support.x.device)
            return per_task({name: drawn[name] for name in HEAD}, len(support))
        embedded, _ = self._embedding(network, trained, state, support, self._support_regime)(support.x)
        return imprinted(embedded, support.y, network.outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {
            "backbone": self.backbone or tasks.backbone,
            "mean_loss_inner_lr": self.inner_lr * loss_factor(tasks, self.loss_scale),
            "layers": "all" if self._moves_all(tasks) else "head",
            "head": self.head if tasks.kind == "classification" else "trained",
            "train_regime": "running",
        }


def imprinted(embedded: Tensor, labels: Tensor, way: int) -> Parameters:
    """The last layer of T tasks whose rows are class means: weight ``[T, way, d]``, bias ``[T, way]`` of zeros.

    embedded: ``[T, k, d]``; labels: ``[T, k]``."""
    members = F.one_hot(labels, way).to(embedded.dtype).transpose(1, 2)
    rows = F.normalize(members @ F.normalize(embedded, dim=-1), dim=-1)
    return {"head.weight": rows, "head.bias": rows.new_zeros(rows.shape[:2])}


@dataclass(frozen=True)
class LastLayer:
    """The last layer alone, ``[T, ...]``, on embeddings ``[T, n, d]``."""

    parameters: Mapping[str, Tensor]

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        weight, bias = (self.parameters[name] for name in HEAD)
        return linear(weight, bias, x), None


class Remembering:
    """An embedding that does not compute the same inputs twice in a row."""

    def __init__(self, embed: NetworkPredictor) -> None:
        self._embed = embed
        self._inputs: Tensor | None = None
        self._embedded: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._embedded is None or x is not self._inputs:
            self._inputs, (self._embedded, _) = x, self._embed(x)
        return self._embedded


@dataclass(frozen=True)
class OnTop:
    """A head on an embedding."""

    embed: Remembering
    head: LastLayer

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What is a task's own, ``[T, ...]``."""
        return self.head.parameters

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return self.head(self.embed(x))
