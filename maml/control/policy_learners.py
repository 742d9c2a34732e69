"""Bases of learners of policies without a memory: the network, trust-region training, and steps in a new task.

The steps in a new task are those of Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks", ICML 2017, section 5.3, and of the released code (cbfinn/maml_rl): policy gradients on fresh trajectories,
with the rate alpha for the first one and alpha / 2 for all after it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from benchmarks.api import (
    Diverged,
    MetaLearner,
    Parameters,
    Predictor,
    Source,
    State,
    TaskDistribution,
    adaptation_field,
)
from benchmarks.checks import check_fields
from benchmarks.environments import ControlTasks, Rollouts, Trajectories
from benchmarks.environments.rollout import Counter
from benchmarks.origin import Origin, ours, paper
from benchmarks.training import training_indices
from maml.control.meta_objective import MetaObjective, Part, credits_of, flat, unflat
from maml.control.policies import Acting, Activation, Policy, blind_to_images, policy_for
from maml.control.policy_gradient import Baseline, Experiences, linear_baseline, surrogate_loss
from maml.control.trust_region import trust_region_step
from maml.inner_loop import GradientDescent, InnerLoop, detached, per_task

#: rates of the first step that fine-tuned policies choose from on validation tasks, for each number of steps
POLICY_RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
#: environment steps that go through a network in one pass on a CPU, so that activations stay in the cache
STEPS_AT_ONCE = 5000

#: networks and batches, by "task/variant" or "task": those of section 5.3 of the paper, of the scripts of
#: cbfinn/maml_rl, and (variants "promp") of jonasrothfuss/ProMP. "quick" is not published: small networks and batches
#: and long steps, with which minutes of training on a laptop are enough.
_PAPER: Mapping[str, Any] = {"hidden": (100, 100), "activation": "relu"}
_PROMP: Mapping[str, Any] = {"hidden": (64, 64), "activation": "tanh"}
_QUICK: Mapping[str, Any] = {"hidden": (32, 32), "activation": "tanh"}
_SMALL: Mapping[str, Any] = {"meta_batch": 10, "trajectories": 10, "max_divergence": 0.03, "cg_iterations": 5}
_LOCOMOTION = ("half-cheetah-direction", "half-cheetah-velocity", "ant-direction", "ant-velocity")
_TASKS = ("navigation-2d", *_LOCOMOTION)
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    f"{task}{variant}": network
    for task in _TASKS
    for variant, network in (("", _PAPER), ("/promp", _PROMP), ("/quick", _QUICK))
}
TRAINING: Mapping[str, Mapping[str, Any]] = {
    "navigation-2d": {**NETWORKS["navigation-2d"], "meta_batch": 20, "trajectories": 20},
    "navigation-2d/promp": {**_PROMP, "meta_batch": 40, "trajectories": 20},
    "navigation-2d/quick": {**_QUICK, "meta_batch": 20, "trajectories": 10, "cg_iterations": 5},
} | {
    f"{task}{variant}": {**network, **batch}
    for task in _LOCOMOTION
    for variant, network, batch in (
        ("", _PAPER, {"meta_batch": 40, "trajectories": 20}),
        ("/promp", _PROMP, {"meta_batch": 40, "trajectories": 20}),
        ("/quick", _QUICK, _SMALL),
    )
}
# Two directions bear longer steps: 18 iterations reach 107 on validation with 0.2, 55 with 0.05 (alpha 1.75, one seed).
TRAINING = {**TRAINING, "half-cheetah-direction/quick": {**_QUICK, **_SMALL, "max_divergence": 0.2}}

#: the paper's 40 trajectories of each gradient
TRAINING = {**TRAINING, "ant-direction": {**TRAINING["ant-direction"], "trajectories": 40}}

#: alpha, the rate of the first step, where it is not the paper's 0.1: the action scale of 10 in the quick presets of
#: locomotion makes gradients small. That of half-cheetah-direction is the best of 0.5, 1, 1.75 and 3; see `ORIGINS`
_RATES = {
    "half-cheetah-direction/quick": 1.75,
    "half-cheetah-velocity/quick": 0.3,
    "ant-direction/quick": 1.0,
    "ant-velocity/quick": 0.3,
}
ALPHA: Mapping[str, float] = {task: _RATES.get(task, 0.1) for task in TRAINING}

#: whose settings these are
ORIGINS: Mapping[str, Origin] = {
    **dict.fromkeys((f"{task}/maml2017" for task in _TASKS), paper("MAML, section 5.3; cbfinn/maml_rl")),
    **dict.fromkeys((f"{task}/promp" for task in _TASKS), paper("jonasrothfuss/ProMP, its scripts")),
    **dict.fromkeys((f"{task}/quick" for task in _TASKS), ours("a few tries on half-cheetah's tasks, not kept")),
    "navigation-2d/quick": ours("small networks and batches; untried"),
    "half-cheetah-direction/quick": ours(
        "alpha, divergence: best of 4 x 2 on 20 validation episodes after 18 iterations of maml (1 seed)"
    ),
    **dict.fromkeys((f"{task}/varibad" for task in _TASKS), ours("the MAML paper's, on VariBAD's preset; untried")),
    "": ours("untried"),
}

#: "up to 500 meta-iterations", section 5.3 of the paper, of its own environments; no paper states a budget for "quick"
PUBLISHED_ITERATIONS = {f"{task}/maml2017": 500 for task in _TASKS}


def step_sizes(rate: float) -> tuple[float, float]:
    """The sizes of the first step and of those after it."""
    return rate, rate / 2


@dataclass(frozen=True)
class PolicyLearner(MetaLearner):
    """Something that acts by a fully connected policy."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})

    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    trace: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "hidden")
        check_fields(self, "between 0 and 1", "trace")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        return blind_to_images(self.name, tasks)

    def policy(self, tasks: TaskDistribution) -> Policy:
        """The network for these tasks."""
        return policy_for(tasks, self.hidden, self.activation)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": "-".join(("mlp", *map(str, self.hidden), self.activation))}


@dataclass(frozen=True)
class AdaptedPolicy(PolicyLearner):
    """A policy that takes policy-gradient steps in each new task."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {"test_rates": tuple((rate,) for rate in POLICY_RATES)}

    test_rates: tuple[float, ...] = adaptation_field((0.1,))
    test_steps: tuple[int, ...] = adaptation_field((2, 3, 1))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "above 0", "test_rates")
        check_fields(self, "at least 0", "test_steps")
        if not self.test_steps:
            raise ValueError("test_steps = () is empty")

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def first_rates(self) -> tuple[float, ...]:
        """The rate of the first step where one, two ... steps are taken; the last one goes on."""
        return self.test_rates

    def moves(self, name: str) -> bool:
        """Whether a parameter takes the steps."""
        return True

    def initial(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Parameters:
        """The parameters before the first step, ``[T, ...]``."""
        return per_task(detached(state.parameters), len(support))

    def baseline(self, parameters: Parameters, tasks: TaskDistribution, count: int) -> Baseline:
        """A baseline for the inner steps of so many tasks; parameters: the learner's, ``[...]``."""
        return linear_baseline

    def adapt(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Iterator[Predictor]:
        paths, rates, seen_before = Paths(self, state, support, tasks), self.first_rates(), support.environment_steps
        for step in itertools.count():
            predictor, environment_steps = paths.after(step, rates[min(max(step - 1, 0), len(rates) - 1)])
            support.counter.steps = seen_before + environment_steps
            yield predictor

    def steps(self, policy: Policy, parameters: Parameters, support: Source, rate: float) -> Iterator[Parameters]:
        """The parameters after 0, 1, 2 ... steps. At the policy that acted all surrogates have the same gradient."""
        inner = InnerLoop(
            lambda theta, step: Acting(policy, theta),
            lambda predictor, seen: surrogate_loss(predictor, seen, policy.actions, "log-likelihood"),
            GradientDescent(step_sizes(rate)),
            second_order=False,
            adapted=self.moves,
        )
        return inner.steps(parameters, support)

    def choose(self, state: State, tasks: TaskDistribution, episodes: int) -> tuple[dict[str, Any], int]:
        """Pick the rate with the highest return on validation tasks, for each number of steps by itself, from the grid
        and the learner's own. What a policy earns is read off the trajectories that the next step learns from: no
        others are played."""
        cut = tasks.episodes("validation", range(episodes))
        paths = Paths(self, state, cut.support, tasks)
        best: dict[int, tuple[float, float]] = {}
        trials = 0
        for rate in dict.fromkeys((*(rate for (rate,) in self.grid["test_rates"]), *self.first_rates())):
            for step in range(1, max(self.test_steps) + 1):
                try:
                    score = paths.earned_after(step, rate)
                except Diverged:
                    break
                trials += 1
                if math.isfinite(score) and score > best.get(step, (-math.inf, 0.0))[0]:
                    best[step] = score, rate
        rates = tuple(best[step][1] for step in sorted(best))
        return {"test_rates": rates} if rates else {}, trials


class Paths:
    """Steps in new tasks at several rates, each a path of its own from the same start. All of them begin with the same
    trajectories, which are played once."""

    def __init__(self, learner: AdaptedPolicy, state: State, support: Rollouts, tasks: TaskDistribution) -> None:
        self._learner, self._support, self._discount = learner, support, tasks.discount
        self._policy, self._start = learner.policy(tasks), learner.initial(state, support, tasks)
        self._baseline = functools.partial(learner.baseline, state.parameters, tasks, len(support))
        self._first: Trajectories | None = None
        self._paths: dict[float, tuple[Experiences, Iterator[Parameters], int]] = {}

    def after(self, step: int, rate: float) -> tuple[Predictor, int]:
        """The policy after ``step`` steps at a rate, and the environment steps of its path until then. For each rate,
        ask for steps in their order."""
        if rate not in self._paths:
            source = dataclasses.replace(self._support, counter=Counter())
            seen = Experiences(source, self._discount, self._learner.trace, self._baseline(), self._first)
            self._paths[rate] = seen, self._learner.steps(self._policy, self._start, seen, rate), 0
        seen, path, taken = self._paths[rate]
        theta = next(itertools.islice(path, step - taken, None))
        self._paths[rate] = seen, path, step + 1
        if seen.seen:
            self._first = seen.seen[0].trajectories
        return Acting(self._policy, theta), seen.environment_steps

    def earned_after(self, step: int, rate: float) -> float:
        """The mean return of the trajectories that the policy after ``step`` steps gives to the next step."""
        predictor, _ = self.after(step, rate)
        return float(self._paths[rate][0].batch(predictor, step).trajectories.returns.double().mean())


@dataclass(frozen=True)
class TrustRegionLearner(PolicyLearner):
    """A policy that is trained by trust-region steps (TRPO) on many tasks at once.

    Without inner steps the tasks of an iteration are pooled; then both halves of the trajectories are of one policy, so
    that every learner sees as many environment steps in an iteration."""

    #: whether the policy is told the parameters of the task
    informed: ClassVar[bool] = False

    meta_batch: int = 20
    trajectories: int = 20
    max_divergence: float = 0.01
    cg_iterations: int = 10
    damping: float = 1e-5
    backtracks: int = 15
    curvature_every: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("meta_batch", "trajectories", "cg_iterations", "backtracks", "curvature_every")
        check_fields(self, "at least 1", *counts)
        check_fields(self, "above 0", "max_divergence")
        check_fields(self, "at least 0", "damping")

    def played_policies(self) -> int:
        """How many policies play `trajectories` in each task of an iteration; two halves are of one policy."""
        return 2

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        assert isinstance(tasks, ControlTasks)
        return self.meta_batch * self.trajectories * self.played_policies() * tasks.trial_steps

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        policy = self.policy(tasks)
        state = start.copy() if start else State(parameters=self.initial_parameters(policy, tasks, seed))
        while True:
            recorded = self.play(policy, state.parameters, tasks, seed, state.step)
            values, theta = self.improved_values(state, recorded, tasks)
            objective = self.objective(policy, theta, recorded)
            state.parameters = unflat(self.improved(objective, flat(per_task(theta, 1))), theta) | values
            state.step += 1
            state.environment_steps += environment_steps(recorded)
            state.loss = -float(recorded.outer.trajectories.returns.mean())
            yield state

    def initial_parameters(self, policy: Policy, tasks: TaskDistribution, seed: int) -> Parameters:
        """All parameters before the first iteration."""
        return policy.initialise(seed, tasks.device)

    def improved_values(self, state: State, recorded: Part, tasks: TaskDistribution) -> tuple[Parameters, Parameters]:
        """The parameters beside the policy's after their own step, and those of the policy as they are."""
        return {}, state.parameters

    def play(self, policy: Policy, parameters: Parameters, tasks: TaskDistribution, seed: int, iteration: int) -> Part:
        """The record of an iteration: trajectories of the policy in new tasks."""
        indices = training_indices(seed, iteration, self.meta_batch)
        episodes = tasks.episodes("train", indices, shots=2 * self.trajectories, queries=1)
        told = episodes.support.parameters if self.informed else None
        source = Experiences(episodes.support, tasks.discount, self.trace)
        experience = source.batch(Acting(policy, per_task(parameters, self.meta_batch), told), 0)
        return Part((), experience, told, credits_of(experience))

    def objective(self, policy: Policy, parameters: Parameters, recorded: Part) -> MetaObjective:
        """The objective on the recorded data, as a function of the parameters."""
        return MetaObjective(
            policy, parameters, self.parts(recorded), (), "log-likelihood", False, self.curvature_every
        )

    def parts(self, recorded: Part) -> list[Part]:
        """Cut in passes of the network."""
        size = len(recorded)
        if recorded.credit.device.type == "cpu":
            size = max(1, STEPS_AT_ONCE // recorded.outer.advantages[0].numel())
        return [recorded[first : first + size] for first in range(0, len(recorded), size)]

    def improved(self, objective: MetaObjective, theta: Tensor) -> Tensor:
        """The parameters ``[p]`` after a trust-region step; the same ones if none is found."""
        here = objective.linearise(theta)
        return trust_region_step(
            theta,
            here.loss,
            here.gradient,
            here.product(),
            objective.evaluate,
            radius=self.max_divergence,
            damping=self.damping,
            iterations=self.cg_iterations,
            backtracks=self.backtracks,
        ).parameters


def environment_steps(recorded: Part) -> int:
    """How many environment steps were recorded."""
    return sum(seen.trajectories.environment_steps for seen in (*recorded.inner, recorded.outer))
