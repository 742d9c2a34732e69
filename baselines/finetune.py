"""Fine-tuning: train one network on everything, then fit it to the support set.

The baseline of Ravi and Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017, section 5: one
classifier of all meta-training classes. A new last layer for the new classes replaces its own and takes gradient steps
on the support set. By default that layer alone does: the "Baseline" of Chen et al., "A Closer Look at Few-shot
Classification", ICLR 2019. Steps of all layers under running statistics make a straw man: on Omniglot (5-way 1-shot,
2,500 meta-steps, ten steps, 40 episodes) they reach 63, 77 and 44 % at the rates 0.001, 0.004 and 0.01, the default
89 %. On regression it is the "pretrained" network of Finn, Abbeel and Levine, ICML 2017, section 5.1: x to y over all
tasks at once, and the last layer stays.

The new last layer starts imprinted (Qi, Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018): each
row is the normalised mean of the normalised embeddings of its class, so before the first step a query goes to the class
mean with the highest cosine. Or it starts at random, drawn for each episode. Validation tasks chose: docs/decisions.md.

The steps use the running statistics of training when queries are predicted with them (regime "running"), and the
support set's own statistics, as MAML's do, in all other regimes.

Deviations:
- training examples are drawn one by one, class (or task) first; MAML's code draws 25 tasks with K points of each;
- the new last layer of Ravi and Larochelle, and of Chen et al., starts at random;
- imprinted rows form a linear layer with bias 0, without normalised embeddings or a learned scale; this changes no
  prediction before the first step (`baseline-plus-plus` keeps the cosine);
- Ravi and Larochelle also search a decay of the rate; here the rate is constant.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.shared.fingerprints import fingerprints
from baselines.shared.similarity import class_sums
from benchmarks import sampling
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
from benchmarks.checks import check_fields
from benchmarks.models import Network, NetworkPredictor, Statistics, join, network_for, split
from benchmarks.models.network import last_layer
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from benchmarks.training import descend, training_indices
from maml.inner_loop import RATES, GradientDescent, InnerLoop, detached, per_task
from maml.losses import LossScale, loss_factor, supervised_loss

Layers = Literal["", "all", "head"]
Head = Literal["random", "imprinted"]

#: the share of a batch in the running mean of embeddings
MEAN_MOMENTUM = 0.01


@register_method("finetune")
@dataclass(frozen=True)
class FineTune(MetaLearner):
    """Train one network on all meta-training classes (or tasks), then fit it to the support set by gradient steps.

    batch_size, meta_lr, training_weight_decay: examples per meta-step, Adam's rate, and its decoupled weight decay.
    inner_lr: the rate of the steps on the support set, in the units of `loss_scale` ("sum/K" as in MAML, or "mean").
    test_steps: the numbers of steps reported, headline last.
    layers: the parameters that take steps: "all", batch-norm's included, or the "head" alone; "": the head for
        classification, all for regression.
    head: how the new last layer of a classifier starts: "imprinted", or "random" as in the papers; regression keeps the
        trained one.
    weight_decay: of the parameters that take steps.
    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})
    #: MAML, section 5.1 and cbfinn/maml's README (25 tasks of K = 10 points); the paper tunes the rate, here MAML's
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sinusoid": {"batch_size": 250, "inner_lr": 0.01}}
    origins: ClassVar[Mapping[str, Origin]] = {
        "sinusoid": ours("the rate is MAML's, untuned; batches as in cbfinn/maml"),
        "": ours("the last layer alone: best of 4 settings on 40 episodes of Omniglot 5-way 1-shot"),
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"sinusoid": 70_000}
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"inner_lr": RATES}

    batch_size: int = 64
    meta_lr: float = 1e-3
    training_weight_decay: float = 0.0
    inner_lr: float = adaptation_field(0.01)
    test_steps: tuple[int, ...] = adaptation_field((1, 5, 10))
    loss_scale: LossScale = adaptation_field("sum/K")
    layers: Layers = adaptation_field("")
    head: Head = adaptation_field("imprinted")
    weight_decay: float = adaptation_field(0.0)
    backbone: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "batch_size")
        rates = ("meta_lr", "training_weight_decay", "inner_lr", "weight_decay")
        check_fields(self, "at least 0", *rates, "test_steps")
        if not self.test_steps:
            raise ValueError("test_steps = (): at least one number of steps")

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        return self.batch_size

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        """As `MetaLearner.fit`. The buffer ``extra.mean``, ``[d]``, is the running mean of training embeddings."""
        network = network_for(tasks, self.backbone, outputs=tasks.pooled_outputs("train"))

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            batch = tasks.pooled("train", training_indices(seed, step, self.batch_size))
            shared, statistics = per_task(parameters, 1), Statistics(running=buffers, update=True)
            embedded = network.features(shared, batch.x, statistics)
            move_mean(buffers["extra.mean"], embedded, step)
            losses = supervised_loss(self.classifier(shared), LabelledSet(embedded, batch.y))
            return losses.sum(), batch.y.shape[:2].numel()

        head, backbone = split(network.initialise(seed, tasks.device), "head.")
        mean = torch.zeros(network.embedding_size, device=tasks.device)
        yield from descend(
            backbone | join("head.", self.classifier_from(head)),
            loss,
            learning_rate=self.meta_lr,
            buffers=network.running_statistics(tasks.device) | {"extra.mean": mean},
            start=start,
            weight_decay=self.training_weight_decay,
        )

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        tuning = Tuning(self, state, support, tasks)
        for number in itertools.count():
            yield Tuned(tuning, number, tuning.after(number, "running"))

    def classifier(self, parameters: Mapping[str, Tensor]) -> Predictor:
        """The last layer alone, ``[T, ...]``, on embeddings ``[T, n, d]``."""
        return last_layer(parameters)

    def classifier_from(self, layer: Parameters) -> Parameters:
        """The parameters of the classifier, without ``head.``, that starts from a linear layer's weight and bias."""
        return layer

    def moves_all(self, tasks: TaskDistribution) -> bool:
        """Whether all layers take steps."""
        return (self.layers or ("all" if tasks.kind == "regression" else "head")) == "all"

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {
            "backbone": self.backbone or tasks.backbone,
            "mean_loss_inner_lr": self.inner_lr * loss_factor(tasks, self.loss_scale),
            "layers": "all" if self.moves_all(tasks) else "head",
            "head": self.head if tasks.kind == "classification" else "trained",
            "train_regime": "running",
        }


def move_mean(mean: Tensor, embedded: Tensor, step: int) -> None:
    """Move the mean ``[d]`` towards that of embeddings ``[1, n, d]``, in place; the first steps weigh the same."""
    mean.lerp_(embedded.detach().mean((0, 1)), max(MEAN_MOMENTUM, 1 / (step + 1)))


def imprinted(embedded: Tensor, labels: Tensor, way: int) -> Parameters:
    """The last layer of T tasks whose rows are class means: weight ``[T, way, d]``, bias ``[T, way]`` of zeros.

    embedded: ``[T, k, d]``; labels: ``[T, k]``."""
    rows = F.normalize(class_sums(F.normalize(embedded, dim=-1), labels, way), dim=-1)
    return {"weight": rows, "bias": rows.new_zeros(rows.shape[:2])}


def random_head(support: LabelledSet, network: Network) -> Parameters:
    """A last layer for each of T episodes, U(-1, 1)/sqrt(inputs): weight ``[T, way, d]``, bias ``[T, way]``."""
    way, inputs = network.outputs, network.embedding_size
    drawn = sampling.uniform(sampling.stream("finetune"), fingerprints(support), way * (inputs + 1), -1.0, 1.0)
    values = torch.from_numpy(drawn / math.sqrt(inputs)).to(support.x)
    return {"weight": values[:, way:].unflatten(1, (way, inputs)), "bias": values[:, :way]}


class Tuning:
    """The steps on one support set, with the running statistics of training and, if asked, with its own."""

    def __init__(self, learner: FineTune, state: State, support: LabelledSet, tasks: TaskDistribution) -> None:
        self.network = network_for(tasks, learner.backbone)
        self.running, self.support = state.buffers, support
        self._learner, self._tasks = learner, tasks
        self._trained = detached(state.parameters)
        self._embedded: dict[str, tuple[Tensor, Tensor]] = {}
        self._paths: dict[str, tuple[Iterator[Parameters], int, Parameters]] = {}

    def after(self, number: int, statistics: str) -> Parameters:
        """The parameters ``[T, ...]`` after ``number`` steps; one that was passed before is reached again from the
        start. statistics: of batch-norm in the steps, "running" or "query" (the support set's own)."""
        path, taken, theta = self._paths.get(statistics, (None, -1, {}))
        if path is None or number < taken:
            path, taken = self._steps(statistics), -1
        for _ in range(number - taken):
            theta = next(path)
        self._paths[statistics] = path, number, theta
        return theta

    def predict(self, theta: Mapping[str, Tensor], regime: str, x: Tensor) -> Tensor:
        """The outputs ``[T, n, outputs]`` of queries under a regime."""
        if self._learner.moves_all(self._tasks):
            return NetworkPredictor(self.network, theta, regime, self.support.x, self.running)(x)[0]
        seen, embedded = self._embedded.get(regime, (None, x))
        if seen is not x:  # the same queries are embedded once, however many steps there are
            embedded = self._embedding(regime)(x)[0]
            self._embedded[regime] = x, embedded
        return self._learner.classifier(theta)(embedded)[0]

    def _steps(self, statistics: str) -> Iterator[Parameters]:
        learner, support, network = self._learner, self.support, self.network
        inner = InnerLoop(
            lambda theta, step: learner.classifier(theta),
            supervised_loss,
            GradientDescent(learner.inner_lr * loss_factor(self._tasks, learner.loss_scale), learner.weight_decay),
            second_order=False,
        )
        start = join("head.", self._new_head(statistics))
        if not learner.moves_all(self._tasks):
            embedded, _ = self._embedding(statistics)(support.x)
            return inner.steps(start, LabelledSet(embedded, support.y))
        _, body = split(per_task(self._trained, len(support)), "head.")
        whole = dataclasses.replace(
            inner,
            predictor_of=lambda theta, step: NetworkPredictor(network, theta, statistics, support.x, self.running),
        )
        return whole.steps({**body, **start}, support)

    def _embedding(self, regime: str) -> NetworkPredictor:
        shared = per_task(self._trained, 1)
        return NetworkPredictor(self.network, shared, regime, self.support.x, self.running, embed=True)

    def _new_head(self, statistics: str) -> Parameters:
        """The last layer before the first step, ``[T, ...]``."""
        if self._tasks.kind == "regression":
            return per_task(split(self._trained, "head.")[0], len(self.support))
        if self._learner.head == "random":
            return self._learner.classifier_from(random_head(self.support, self.network))
        embedded, _ = self._embedding(statistics)(self.support.x)
        return self._learner.classifier_from(imprinted(embedded, self.support.y, self.network.outputs))


@dataclass(frozen=True)
class Tuned:
    """The predictor after ``number`` steps. In another regime it has taken the steps with that regime's statistics.

    parameters: those that took the steps, ``[T, ...]``. regime: "": the first of `regimes`."""

    tuning: Tuning
    number: int
    parameters: Mapping[str, Tensor]
    regime: str = ""

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regimes it answers under, the default first; ("none",) for a network without batch-norm."""
        tuning = self.tuning
        return NetworkPredictor(tuning.network, {}, "", tuning.support.x, tuning.running).regimes

    def in_regime(self, name: str) -> Tuned:
        """The same number of steps under another regime."""
        now, then = ("running" if regime in ("", "running", "none") else "query" for regime in (self.regime, name))
        parameters = self.parameters if now == then else self.tuning.after(self.number, then)
        return dataclasses.replace(self, regime=name, parameters=parameters)

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return self.tuning.predict(self.parameters, self.regime or self.regimes[0], x), None
