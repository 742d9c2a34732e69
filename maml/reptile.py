"""Reptile: move the initialisation towards the weights that a few steps on a task lead to.

Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", 2018. theta moves by epsilon (phi - theta),
where phi is theta after several minibatch steps on a training set of the task; there are no queries. Algorithm 1
(serial) moves after each task, algorithm 2 (batched) by the mean of several. Epsilon falls linearly to 0 over training.

The inner optimiser is Adam without momentum (beta1 = 0). As in the released code (openai/supervised-reptile), its
second moments go on from task to task, and adaptation at test starts from them; `moments_persist` switches this off.

Deviations and choices:
- the tasks of a batched meta-step start from the same second moments, and their means go on; in the code one task
  starts from those of the one before;
- on Omniglot the code's network keeps 2 x 2 places of its features; ours is MAML's, with their mean over space;
- on the sinusoid the authors' demo has tanh layers of 64 units and 50 fixed inputs; ours is MAML's network, with drawn
  inputs;
- a minibatch larger than the set has examples twice, as in the code. All parameters take steps, batch-norm's too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import (
    Diverged,
    LabelledSet,
    MetaLearner,
    Parameters,
    Predictor,
    State,
    TaskDistribution,
    adaptation_field,
)
from benchmarks.checks import check_fields
from benchmarks.models import Network, NetworkPredictor, join, network_for, split
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method
from benchmarks.training import examples_of, training_indices
from maml.inner_loop import RATES, GradientDescent, InnerLoop, TaskLoss, UpdateRule, detached, per_task
from maml.losses import supervised_loss

_TWENTY_WAY = {"inner_lr": 5e-4, "inner_batch": 20, "inner_steps": 10, "test_batch": 10}
_MINIIMAGENET = {"inner_batch": 10, "inner_steps": 8, "training_shot": 15}


@register_method("reptile")
@dataclass(frozen=True)
class Reptile(MetaLearner):
    """Learn an initialisation that is near the weights of every task, without second derivatives or queries.

    form: "batched", or "serial": each task of a meta-step starts where the one before has moved theta.
    meta_batch, outer_rate: tasks of a meta-step, and epsilon in the first one.
    anneal_over: meta-steps over which epsilon falls linearly to 0; 0: the budget.
    inner_rule, inner_lr: "adam" (beta1 = 0) or "sgd" on the mean loss, and its rate.
    inner_steps, inner_batch: steps on a task, and examples of each (0: the whole set).
    training_shot: examples per class (per task in regression) of a training set; 0: the task's own.
    moments_persist: Adam's second moments go on from task to task.
    test_steps, test_batch, test_lr: the same at test, headline last; test_lr 0: `inner_lr`.
    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    #: README of openai/supervised-reptile, the paper's commands; on the sinusoid the authors' demo
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "omniglot": {},
        "omniglot/20w1s": _TWENTY_WAY,
        "omniglot/20w5s": _TWENTY_WAY,
        "miniimagenet/5w1s": {"test_batch": 5, **_MINIIMAGENET},
        "miniimagenet/5w5s": {"test_batch": 15, **_MINIIMAGENET},
        "sinusoid": {
            "meta_batch": 1,
            "outer_rate": 0.1,
            "inner_rule": "sgd",
            "inner_lr": 0.02,
            "training_shot": 50,
            "test_batch": 0,
            "test_steps": (1, 5, 10, 32),
        },
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {
        "sinusoid": 30_000,
        "omniglot": 100_000,
        "omniglot/20w1s": 200_000,
        "omniglot/20w5s": 200_000,
        "miniimagenet": 100_000,
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        "sinusoid": paper("the authors' sinusoid demo"),
        **dict.fromkeys(("omniglot", "miniimagenet"), paper("openai/supervised-reptile, README and args.py")),
        "": ours("the paper's for Omniglot; untried"),
    }
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"test_lr": RATES}

    form: Literal["batched", "serial"] = "batched"
    meta_batch: int = 5
    outer_rate: float = 1.0
    anneal_over: int = 0
    inner_rule: Literal["adam", "sgd"] = "adam"
    inner_lr: float = 1e-3
    inner_steps: int = 5
    inner_batch: int = 10
    training_shot: int = 10
    moments_persist: bool = True
    test_steps: tuple[int, ...] = adaptation_field((5, 50))
    test_batch: int = adaptation_field(5)
    test_lr: float = adaptation_field(0.0)
    backbone: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "meta_batch", "inner_steps")
        check_fields(self, "at least 0", "anneal_over", "inner_batch", "test_batch", "training_shot")
        check_fields(self, "at least 0", "inner_lr", "test_lr", "test_steps")
        check_fields(self, "above 0", "outer_rate")
        if not self.test_steps:
            raise ValueError("test_steps = (): at least one number of steps")

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def for_budget(self, meta_steps: int) -> Self:
        return self if self.anneal_over else self.replace(anneal_over=meta_steps)

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        return examples_of(tasks, self.training_shot, episodes=self.meta_batch)

    def epsilon(self, step: int) -> float:
        """The outer rate of a meta-step, counted from 0."""
        left = 1 - step / self.anneal_over if self.anneal_over else 1.0
        return self.outer_rate * max(0.0, left)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        network = network_for(tasks, self.backbone)
        state = start.copy() if start else State(parameters=network.initialise(seed, tasks.device))
        while True:
            indices = training_indices(seed, state.step, self.meta_batch)
            drawn = self._training_sets(tasks, indices)
            size = 1 if self.form == "serial" else self.meta_batch
            losses = [self._move(state, network, drawn[i : i + size]) for i in range(0, self.meta_batch, size)]
            state.loss = sum(losses) / len(losses)
            if not math.isfinite(state.loss):
                raise Diverged(f"training loss is {state.loss} at meta-step {state.step + 1}")
            state.step += 1
            state.examples += drawn.y.shape[:2].numel()
            yield state

    def _training_sets(self, tasks: TaskDistribution, indices: Sequence[int] | np.ndarray) -> LabelledSet:
        drawn: LabelledSet = tasks.episodes("train", indices, shots=self.training_shot or None, queries=0).support
        return drawn

    def check_data(self, tasks: TaskDistribution) -> None:
        self._training_sets(tasks, [0])

    def _move(self, state: State, network: Network, examples: LabelledSet) -> float:
        """Move the state towards the mean of the weights after the inner steps; the mean loss of these steps."""
        losses: list[Tensor] = []

        def loss(predictor: Predictor, batch: LabelledSet) -> Tensor:
            found = supervised_loss(predictor, batch)
            losses.append(found.detach())
            return found

        loop, source = self._inner(network, self.inner_lr, loss), Minibatches(examples, self.inner_batch)
        phi = per_task(self._begin(state), len(examples))
        memory = loop.rule.start(phi)
        for number in range(self.inner_steps):
            phi, memory = loop.step(phi, memory, source, number)
        for name, value in state.parameters.items():
            value.lerp_(phi[name].mean(0), self.epsilon(state.step))
        if self.moments_persist:
            state.moments = {name: value.mean(0) for name, value in memory.items()}
        return float(torch.stack(losses).mean())

    def _begin(self, state: State) -> Parameters:
        """The weights, and under ``rule.`` the moments that the inner steps go on from."""
        return detached(state.parameters) | join("rule.", state.moments if self.moments_persist else {})

    def _inner(self, network: Network, rate: float, loss: TaskLoss = supervised_loss) -> InnerLoop:
        rule: UpdateRule = AdamWithoutMomentum(rate) if self.inner_rule == "adam" else GradientDescent(rate)
        return InnerLoop(lambda theta, step: NetworkPredictor(network, theta), loss, rule, second_order=False)

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        network = network_for(tasks, self.backbone)
        loop = self._inner(network, self.test_lr or self.inner_lr)
        parameters = per_task(self._begin(state), len(support))
        for theta in loop.steps(parameters, Minibatches(support, self.test_batch)):
            yield NetworkPredictor(network, theta, support=support.x)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {
            "backbone": self.backbone or tasks.backbone,
            "inner_steps": self.inner_steps,
            "mean_loss_inner_lr": self.test_lr or self.inner_lr,
            "train_regime": "query",
        }


@dataclass(frozen=True)
class Minibatches:
    """A source that goes through the examples in minibatches, in another order each time; the first order is theirs,
    which is random. A minibatch may begin in one pass and end in the next.

    size: of a minibatch; 0: all examples, in their order."""

    examples: LabelledSet
    size: int

    def batch(self, predictor: Predictor | None, step: int) -> LabelledSet:
        if not self.size:
            return self.examples
        chosen = torch.from_numpy(self.chosen(step)).to(self.examples.x.device)
        return LabelledSet(self.examples.x[:, chosen], self.examples.y[:, chosen])

    def chosen(self, step: int) -> np.ndarray:
        """The numbers of the examples of a step, ``[size]``."""
        count = self.examples.x.shape[1]
        turns, places = np.divmod(np.arange(self.size) + step * self.size, count)
        orders = sampling.permutations(sampling.stream("minibatches"), np.arange(turns[0], turns[-1] + 1), count)
        if turns[0] == 0:
            orders[0] = np.arange(count)
        return orders[turns - turns[0], places]


@dataclass(frozen=True)
class AdamWithoutMomentum:
    """Adam (Kingma and Ba 2015) with beta1 = 0: the gradient over the root of its second moment.

    Its memory is ``<name>/exp_avg_sq`` and the ``step``, as Adam's; ``rule.`` has those that it goes on from."""

    rate: float
    beta2: float = 0.999
    epsilon: float = 1e-8

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        known, values = split(parameters, "rule.")
        fresh = {f"{name}/exp_avg_sq": torch.zeros_like(value) for name, value in values.items()}
        first = next(iter(values.values()))
        return {**fresh, "step": first.new_zeros(len(first)), **known}

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        steps = memory["step"] + 1
        correction = (1 - self.beta2**steps).sqrt()
        kept, stepped = {"step": steps}, {}
        for name, value in values.items():
            gradient, second = gradients[name], memory[f"{name}/exp_avg_sq"]
            second = kept[f"{name}/exp_avg_sq"] = self.beta2 * second + (1 - self.beta2) * gradient.square()
            root = second.sqrt() / correction.view(-1, *[1] * (value.dim() - 1)) + self.epsilon
            stepped[name] = value - self.rate * gradient / root
        return stepped, kept
