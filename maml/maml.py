"""MAML and first-order MAML.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017: algorithm 2
learns an initialisation theta such that a few gradient steps on a support set do well on the queries; the meta-gradient
differentiates through those steps. FOMAML (section 5.2) leaves the second derivatives out: one flag here.

Deviations from the paper and its code (cbfinn/maml):
- weights are initialised as `benchmarks.models.Network.initialise` says, not from truncated normals of deviation 0.01;
- batch-norm has a scale beside its shift (neither is adapted by default; in the code the shift is not either);
- the state is chosen on validation episodes; the code keeps the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.api import MetaLearner, Parameters, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.models import NORMALISATION, Network, NetworkPredictor, network_for
from benchmarks.registry import register_method
from benchmarks.training import MetaGradient, descend, training_indices
from maml.inner_loop import RATES, inner_loop, per_task
from maml.losses import LossScale, loss_factor, supervised_loss
from maml.plan import tasks_at_once

Regime = Literal["query", "support", "single"]

_MINIIMAGENET = {"inner_lr": 0.01, "inner_steps": 5, "test_steps": (5, 10), "training_queries": 15, "clip": 10.0}


@register_method("fomaml", second_order=False)
@register_method("maml")
@dataclass(frozen=True)
class MAML(MetaLearner):
    """Learn an initialisation from which a few gradient steps on the support set are enough.

    inner_lr: the rate alpha of the inner steps, in the units of `loss_scale`.
    inner_steps, test_steps: gradient steps in training, and the numbers of steps reported at test, headline last.
    second_order: differentiate through the inner steps; False is FOMAML.
    meta_batch, meta_lr: tasks per meta-step, and Adam's rate beta.
    training_queries: queries per class (per task in regression) in training; 0: as many as shots.
    loss_scale: "sum/K" as in the released code, or "mean".
    adapt_normalisation: whether inner steps change batch-norm's scale and shift.
    clip: bound on each element of the meta-gradient; 0: none.
    train_regime, test_regime: batch-norm regimes for the queries; the support set always has its own statistics.
    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    tasks_at_once: tasks that go through in one pass; 0: chosen for backbone and device.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    regimes: ClassVar[tuple[str, ...]] = ("query", "support", "single")
    #: table 4 and section A.1 of the paper, and the commands in the README of cbfinn/maml
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sinusoid": {"inner_lr": 0.01, "meta_batch": 25, "inner_steps": 1, "test_steps": (1, 5, 10)},
        "omniglot": {"inner_lr": 0.4, "meta_batch": 32, "inner_steps": 1, "test_steps": (1, 3)},
        "omniglot/20w1s": {"inner_lr": 0.1, "meta_batch": 16, "inner_steps": 5, "test_steps": (1, 5)},
        "omniglot/20w5s": {"inner_lr": 0.1, "meta_batch": 16, "inner_steps": 5, "test_steps": (1, 5)},
        "miniimagenet/5w1s": {"meta_batch": 4, **_MINIIMAGENET},
        "miniimagenet/5w5s": {"meta_batch": 2, **_MINIIMAGENET},
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {
        "sinusoid": 70_000,
        "omniglot": 60_000,
        "miniimagenet": 60_000,
    }
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"test_lr": RATES}

    inner_lr: float = 0.4
    inner_steps: int = 1
    test_steps: tuple[int, ...] = adaptation_field((1, 3))
    second_order: bool = True
    meta_batch: int = 16
    meta_lr: float = 1e-3
    training_queries: int = 0
    loss_scale: LossScale = "sum/K"
    adapt_normalisation: bool = False
    clip: float = 0.0
    train_regime: Regime = "query"
    test_regime: Regime = adaptation_field("query")
    test_lr: float = adaptation_field(0.0)
    backbone: str = ""
    tasks_at_once: int = 0

    def __post_init__(self) -> None:
        if self.inner_steps < 1 or self.meta_batch < 1:
            raise ValueError("inner_steps and meta_batch must be at least 1")

    def test_regimes(self, tasks: TaskDistribution) -> tuple[str, ...]:
        return self.regimes if network_for(tasks, self.backbone).backbone.normalised else ("none",)

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        network = network_for(tasks, self.backbone)
        shot = tasks.config()["shot"]
        queries = self.training_queries or shot
        examples = (shot + queries) * (tasks.outputs if tasks.kind == "classification" else 1)
        chunk = self.tasks_at_once or tasks_at_once(network, tasks.device, self.meta_batch, examples)

        def meta_gradient(parameters: Parameters, buffers: Parameters, step: int) -> MetaGradient:
            indices = training_indices(seed, step, self.meta_batch)
            total: tuple[Tensor, ...] = ()
            loss, examples = 0.0, 0
            for first in range(0, self.meta_batch, chunk):
                episodes = tasks.episodes("train", indices[first : first + chunk], queries=queries)
                query_loss = self._query_loss(network, parameters, episodes, tasks) / self.meta_batch
                part = torch.autograd.grad(query_loss, list(parameters.values()))
                total = tuple(torch._foreach_add(total, part)) if total else part
                loss += float(query_loss.detach())
                examples += episodes.support.y.shape[:2].numel() + episodes.query.y.shape[:2].numel()
            if self.clip:
                total = tuple(gradient.clamp(-self.clip, self.clip) for gradient in total)
            return MetaGradient(loss, total, examples)

        yield from descend(
            network.initialise(seed, tasks.device), meta_gradient, learning_rate=self.meta_lr, start=start
        )

    def _query_loss(self, network: Network, parameters: Parameters, episodes: Any, tasks: TaskDistribution) -> Tensor:
        """The summed loss on the queries after the inner steps, a scalar with a graph back to the parameters."""
        T = len(episodes.support)
        adapted = self._steps(
            network, per_task(parameters, T), episodes.support, tasks, self.inner_lr, self.second_order
        )
        for _ in range(self.inner_steps + 1):
            theta = next(adapted)
        predictor = NetworkPredictor(network, theta, self.train_regime, episodes.support.x)
        return loss_factor(tasks, self.loss_scale) * supervised_loss(predictor, episodes.query).sum()

    def _steps(
        self,
        network: Network,
        parameters: Parameters,
        support: Any,
        tasks: TaskDistribution,
        rate: float,
        second_order: bool,
    ) -> Iterator[Parameters]:
        return inner_loop(
            parameters,
            support,
            lambda theta: NetworkPredictor(network, theta),
            supervised_loss,
            rate * loss_factor(tasks, self.loss_scale),
            second_order=second_order,
            adapted=lambda name: self.adapt_normalisation or not name.endswith(NORMALISATION),
        )

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        network = network_for(tasks, self.backbone)
        parameters = per_task({name: value.detach() for name, value in state.parameters.items()}, len(support))
        for theta in self._steps(network, parameters, support, tasks, self.test_lr or self.inner_lr, False):
            yield NetworkPredictor(network, theta, self.test_regime, support.x)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        factor = loss_factor(tasks, self.loss_scale)
        return {
            "backbone": self.backbone or tasks.backbone,
            "inner_steps": self.inner_steps,
            "mean_loss_inner_lr": factor * (self.test_lr or self.inner_lr),
            "train_regime": self.train_regime,
        }
