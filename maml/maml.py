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

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.api import MetabenchError, MetaLearner, Parameters, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.execution.plans import Plan, parse, settle
from benchmarks.execution.threads import in_order
from benchmarks.models import NetworkPredictor, network_for
from benchmarks.models.per_task import PerTask, applied
from benchmarks.registry import register_method
from benchmarks.training import MetaGradient, descend, training_indices
from maml.gradient import QueryLoss, gradient_of, held_bytes, rule
from maml.inner_loop import RATES, per_task
from maml.losses import LossScale, loss_factor

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
    plan: how meta-steps are run, of no influence on what is learned; `planned` settles it.
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
    plan: Plan | None = field(default=None, metadata={"configuration": False}, kw_only=True)

    def __post_init__(self) -> None:
        if self.inner_steps < 1 or self.meta_batch < 1:
            raise ValueError("inner_steps and meta_batch must be at least 1")

    def test_regimes(self, tasks: TaskDistribution) -> tuple[str, ...]:
        return self.regimes if network_for(tasks, self.backbone).backbone.normalised else ("none",)

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def planned(self, tasks: TaskDistribution, meta_steps: int, forced: str = "") -> tuple[MAML, dict[str, Any]]:
        network = network_for(tasks, self.backbone)
        examples = self._examples(tasks)
        chosen, why = rule(network, tasks.device, self.meta_batch, self.inner_steps, meta_steps, examples)
        plan = settle(chosen, forced, tasks.device)
        why = "forced" if forced else why
        if plan.mode != "eager" or plan.per_task == "vmap":
            try:
                self._rehearse(plan, tasks)
            except Exception as error:  # no compiler, or a network that can't be traced: many kinds
                line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                if {"mode", "per_task"} & parse(forced).keys():
                    raise MetabenchError(f"plan {forced!r} can't be had here: {line}") from error
                plan, why = dataclasses.replace(plan, mode="eager"), f"not {plan.mode}: {line}"
        facts = {**plan.facts(), "forced": forced or None, "why": why}
        if isinstance(used := applied(network, plan.per_task).backbone, PerTask):
            if plan.threads > 1:
                raise MetabenchError(f"plan {forced!r}: one module can't be called in {plan.threads} threads")
            if self.second_order and used.first_order_only:
                why = used.first_order_only
                raise MetabenchError(f"backbone {self.backbone!r} has no second derivative; use fomaml ({why})")
            facts |= {"per_task": used.how, "per_task_why": used.why}
        return self.replace(plan=plan), facts

    def held_bytes(self, tasks: TaskDistribution) -> int | None:
        """What captured launches of the meta-gradient hold at their peak; None where none are captured."""
        return held_bytes(self._objective(tasks, self.plan), self.plan) if self.plan else None

    def _rehearse(self, plan: Plan, tasks: TaskDistribution) -> None:
        """One meta-gradient for nothing, so that what is compiled is there before the first meta-step."""
        gradient = gradient_of(self._objective(tasks, plan), plan)
        initial = network_for(tasks, self.backbone).initialise(0, tasks.device)
        indices = training_indices(0, 0, self.meta_batch)
        last = (self.meta_batch - 1) // plan.tasks * plan.tasks  # may be a smaller pass
        for first in {0, last}:
            episodes = tasks.episodes("train", indices[first : first + plan.tasks], queries=self._queries(tasks))
            # episodes in double precision are for parameters in double precision
            parameters = {name: value.to(episodes.support.x.dtype) for name, value in initial.items()}
            gradient(parameters, episodes.support, episodes.query)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        plan = self.plan or self.planned(tasks, 0)[0].plan
        assert plan is not None
        gradient = gradient_of(self._objective(tasks, plan), plan)
        queries, each = self._queries(tasks), self._examples(tasks)

        def meta_gradient(parameters: Parameters, buffers: Parameters, step: int) -> MetaGradient:
            indices = training_indices(seed, step, self.meta_batch)
            total: list[Tensor] = []
            losses: list[Tensor] = []
            passes = (indices[first : first + plan.tasks] for first in range(0, self.meta_batch, plan.tasks))
            cut = (tasks.episodes("train", some, queries=queries) for some in passes)
            for part_loss, part in in_order(
                lambda each: gradient(parameters, each.support, each.query), cut, plan.threads
            ):
                total = list(torch._foreach_add(total, list(part)) if total else part)
                losses.append(part_loss)
            if self.clip:
                total = [summed.clamp(-self.clip, self.clip) for summed in total]
            return MetaGradient(float(sum(losses[1:], losses[0])), total, each * self.meta_batch)

        parameters = network_for(tasks, self.backbone).initialise(seed, tasks.device)
        yield from descend(parameters, meta_gradient, learning_rate=self.meta_lr, start=start)

    def _queries(self, tasks: TaskDistribution) -> int:
        return self.training_queries or tasks.config()["shot"]

    def _examples(self, tasks: TaskDistribution) -> int:
        """Support and query examples of one training task."""
        classes = tasks.outputs if tasks.kind == "classification" else 1
        return int((tasks.config()["shot"] + self._queries(tasks)) * classes)

    def _objective(self, tasks: TaskDistribution, plan: Plan | None) -> QueryLoss:
        """What a meta-step differentiates: the scaled loss, a mean over the meta-batch."""
        factor = loss_factor(tasks, self.loss_scale)
        network = applied(network_for(tasks, self.backbone), plan.per_task if plan else "layers")
        return QueryLoss(
            network,
            self.inner_lr * factor,
            self.inner_steps,
            self.second_order,
            self.adapt_normalisation,
            self.train_regime,
            factor / self.meta_batch,
        )

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        learner = self.replace(inner_lr=self.test_lr or self.inner_lr, second_order=False)
        objective = learner._objective(tasks, self.plan)
        initial = {name: value.detach() for name, value in state.parameters.items()}
        # passes share nothing, so each thread goes on with its own
        threads = self._plan_for_adapting(tasks, *support.y.shape[:2]).threads
        size = -(-len(support) // threads)
        parts = [support[first : first + size] for first in range(0, len(support), size)]
        loops = [objective.steps(per_task(initial, len(part)), part) for part in parts]
        while True:
            thetas = list(in_order(lambda loop: next(loop), loops, threads))
            theta = thetas[0] if len(thetas) == 1 else {name: torch.cat([t[name] for t in thetas]) for name in initial}
            yield NetworkPredictor(objective.network, theta, self.test_regime, support.x)

    def _plan_for_adapting(self, tasks: TaskDistribution, count: int, examples: int) -> Plan:
        return self.plan or rule(network_for(tasks, self.backbone), tasks.device, count, 0, 0, examples)[0]

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        factor = loss_factor(tasks, self.loss_scale)
        return {
            "backbone": self.backbone or tasks.backbone,
            "inner_steps": self.inner_steps,
            "mean_loss_inner_lr": factor * (self.test_lr or self.inner_lr),
            "train_regime": self.train_regime,
        }
