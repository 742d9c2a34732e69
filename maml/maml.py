"""MAML and first-order MAML.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017: algorithm 2
learns an initialisation theta from which a few gradient steps on a support set do well on the queries. The
meta-gradient differentiates through those steps. FOMAML (section 5.2) leaves the second derivatives out: one flag here.

Deviations from the paper and its code (cbfinn/maml):
- weights are initialised as `benchmarks.models.Network.initialise` says, not from truncated normals of deviation 0.01;
- batch-norm has a scale as well as a shift; by default neither takes inner steps, as the shift in the code;
- validation episodes choose the state; the code keeps the last one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any, ClassVar, Literal, Self

from benchmarks.api import MetaLearner, Parameters, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.execution.plans import Plan
from benchmarks.models import Network, network_for
from benchmarks.models.network import applied
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method
from benchmarks.training import MetaGradient, descend, examples_of, training_indices
from maml.gradient import QueryLoss, gradient_of, held_bytes, planned_gradient, rule, steps_in_threads, summed_gradient
from maml.inner_loop import RATES, GradientDescent, UpdateRule, detached
from maml.losses import LossScale, loss_factor

_MINIIMAGENET = {"inner_lr": 0.01, "inner_steps": 5, "test_steps": (5, 10), "training_queries": 15, "clip": 10.0}


@register_method("fomaml", second_order=False)
@register_method("maml")
@dataclass(frozen=True)
class MAML(MetaLearner):
    """Learn an initialisation from which a few gradient steps on the support set are enough.

    inner_lr: the rate alpha of the inner steps, in the units of `loss_scale`.
    inner_steps, test_steps: gradient steps in training, and the numbers of steps reported at test, headline last; ():
        those of training.
    second_order: differentiate through the inner steps; False is FOMAML.
    meta_batch, meta_lr: tasks per meta-step, and Adam's rate beta.
    training_queries: queries per class (per task in regression) in training; 0: as many as shots.
    loss_scale: "sum/K" as in the released code, or "mean".
    adapt_normalisation: whether inner steps change batch-norm's scale and shift.
    adapted_layers: the layers that take inner steps: n, the last n; -n, all but the last n; 0, all.
    later_rate: factor of the inner rate after the first step, in training and at test; 0.5 halves it, as in the paper's
        control experiments.
    clip: bound on each element of the meta-gradient; 0: none.
    train_regime: batch-norm regime of the queries in training; the support set always has its own statistics.
    test_lr: rate of the inner steps at test, in the same units; 0: `inner_lr`.
    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    plan: how meta-steps are run; changes nothing that is learned. `planned` settles it.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    #: table 4 and section A.1 of the paper, and the commands in the README of cbfinn/maml
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sinusoid": {"inner_lr": 0.01, "meta_batch": 25, "inner_steps": 1, "test_steps": (1, 5, 10)},
        "omniglot": {"inner_lr": 0.4, "meta_batch": 32, "inner_steps": 1, "test_steps": (1, 3)},
        **{
            f"omniglot/20w{shot}s{split}": {"inner_lr": 0.1, "meta_batch": 16, "inner_steps": 5, "test_steps": (1, 5)}
            for shot in (1, 5)
            for split in ("", "-lake")
        },
        "miniimagenet/5w1s": {"meta_batch": 4, **_MINIIMAGENET},
        "miniimagenet/5w5s": {"meta_batch": 2, **_MINIIMAGENET},
        "regression": {"inner_lr": 0.01},  # of other tasks: 0.4 explodes on targets of some tens
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {
        "sinusoid": 70_000,
        "omniglot": 60_000,
        "miniimagenet": 60_000,
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        **dict.fromkeys(("sinusoid", "omniglot", "miniimagenet"), paper("MAML, section A.1; cbfinn/maml")),
        "regression": ours(
            "the rate is the paper's for the sinusoid: of 5 the best on validation tasks of lines (targets to 40), "
            "second best with targets to 4; all else untried"
        ),
        "": ours("the paper's for Omniglot; untried"),
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
    adapted_layers: int = 0
    later_rate: float = 1.0
    clip: float = 0.0
    train_regime: Literal["query", "support", "single"] = "query"
    test_lr: float = adaptation_field(0.0)
    backbone: str = ""
    plan: Plan | None = field(default=None, metadata={"configuration": False}, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "inner_steps", "meta_batch")
        check_fields(self, "above 0", "later_rate")
        check_fields(self, "at least 0", "inner_lr", "meta_lr", "test_lr", "test_steps", "training_queries", "clip")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        most = self.most_steps()
        if most is not None and max(self.reported_steps()) > most:
            return f"test_steps = {self.test_steps}: adaptation ends after step {most}, as in training"
        if not self.adapted_layers:
            return None
        count = len(network_for(tasks, self.backbone).layers)
        if -count < self.adapted_layers <= count:
            return None
        return f"adapted_layers = {self.adapted_layers}: {self.backbone or tasks.backbone} has {count} layers"

    def check_data(self, tasks: TaskDistribution) -> None:
        tasks.episodes("train", [0], queries=self._queries(tasks))

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps or (self.inner_steps,)

    def most_steps(self) -> int | None:
        """How many steps it may take at test; None: as many as asked."""
        return None

    def initial(self, tasks: TaskDistribution, seed: int) -> Parameters:
        """The parameters before the first meta-step; a learned update rule adds its own under ``rule.``."""
        return network_for(tasks, self.backbone).initialise(seed, tasks.device)

    def update_rule(self, rate: float) -> UpdateRule:
        """The rule of the inner steps; rate: for mean losses."""
        return GradientDescent((rate, self.later_rate * rate))

    def fixed(self, network: Network) -> frozenset[str]:
        """The names of the parameters that take no inner steps."""
        last, layers = self.adapted_layers, network.layers
        resting = layers[last:] if last < 0 else layers[: -last or 0]
        of_layers = frozenset(name for layer in resting for name in layer)
        return of_layers if self.adapt_normalisation else of_layers | network.normalisation

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        plan = self.plan or self.planned(tasks, 0)[0].plan
        assert plan is not None
        objective = self._objective(tasks, self.inner_lr, plan)
        gradient = cache(lambda *stage: gradient_of(dataclasses.replace(objective, **dict(stage)), plan))
        queries, examples = self._queries(tasks), self.examples_per_step(tasks)

        def meta_gradient(parameters: Parameters, buffers: Parameters, step: int) -> MetaGradient:
            indices = training_indices(seed, step, self.meta_batch)
            passes = (indices[first : first + plan.tasks] for first in range(0, self.meta_batch, plan.tasks))
            episodes = (tasks.episodes("train", some, queries=queries) for some in passes)
            loss, total = summed_gradient(gradient(*self.stage(step)), parameters, episodes, plan.threads)
            return MetaGradient(loss, total, examples)

        yield from descend(
            self.initial(tasks, seed),
            gradient=meta_gradient,
            start=start,
            **self.descent(),
        )

    def descent(self) -> dict[str, Any]:
        """How the meta-gradient is followed: arguments of `benchmarks.training.descend`."""
        return {"learning_rate": self.meta_lr, "clip_value": self.clip}

    def stage(self, step: int) -> tuple[tuple[str, Any], ...]:
        """The fields of the objective that differ in this meta-step, and their values."""
        return ()

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        objective = self._objective(tasks, self.test_lr or self.inner_lr, self.plan, second_order=False)
        initial = detached(state.parameters)
        plan = self.plan or rule(objective.network, tasks.device, len(support), 0, 0, support.y.shape[1])[0]
        most = self.most_steps()
        steps = steps_in_threads(objective, initial, support, plan.threads)
        for theta in steps if most is None else islice(steps, most + 1):
            yield objective.predictor(theta, support=support.x)

    def _objective(
        self, tasks: TaskDistribution, rate: float, plan: Plan | None, second_order: bool | None = None
    ) -> QueryLoss:
        """The scaled loss of a meta-step, a mean over the meta-batch; the plan says how the network is applied."""
        factor = loss_factor(tasks, self.loss_scale)
        network = network_for(tasks, self.backbone)
        return QueryLoss(
            applied(network, plan.per_task if plan else "layers"),
            self.update_rule(rate * factor),
            self.inner_steps,
            self.second_order if second_order is None else second_order,
            self.fixed(network),
            self.train_regime,
            factor / self.meta_batch,
        )

    def _queries(self, tasks: TaskDistribution) -> int:
        return self.training_queries or tasks.config()["shot"]

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        return examples_of(tasks, queries=self._queries(tasks), episodes=self.meta_batch)

    def planned(self, tasks: TaskDistribution, meta_steps: int, forced: str = "") -> tuple[Self, dict[str, Any]]:
        indices = training_indices(0, 0, self.meta_batch)
        plan, facts = planned_gradient(
            lambda plan: self._objective(tasks, self.inner_lr, plan),
            lambda some: tasks.episodes("train", indices[some], queries=self._queries(tasks)),
            lambda: self.initial(tasks, 0),
            (self.meta_batch, meta_steps, self.examples_per_step(tasks) // self.meta_batch),
            tasks.device,
            forced,
        )
        return self.replace(plan=plan), facts

    def held_bytes(self, tasks: TaskDistribution) -> int | None:
        """Peak memory of the captured meta-gradient; None if nothing is captured."""
        return held_bytes(self._objective(tasks, self.inner_lr, self.plan), self.plan) if self.plan else None

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        factor = loss_factor(tasks, self.loss_scale)
        return {
            "backbone": self.backbone or tasks.backbone,
            "inner_steps": self.inner_steps,
            "mean_loss_inner_lr": factor * (self.test_lr or self.inner_lr),
            "train_regime": self.train_regime,
        }


@register_method("maml-no-conv")
@dataclass(frozen=True)
class MAMLNoConv(MAML):
    """MAML with the fully connected network of section 5.2, "no conv"."""

    kinds: ClassVar[frozenset[str]] = frozenset({"classification"})
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: fields for task, fields in MAML.published.items() if task.startswith("omniglot")
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        task: origin for task, origin in MAML.origins.items() if task in ("omniglot", "")
    }

    backbone: str = "mlp-256-128-64-64"
