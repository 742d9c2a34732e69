"""MAML and first-order MAML on control tasks.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, algorithm 3 and
section 5.3: the inner step is a policy gradient on trajectories of the task, the outer step a trust-region step
(Schulman et al., "Trust region policy optimization", ICML 2015) on trajectories of the adapted policies, whose
divergence it bounds. The gradient and the curvature of that step pass through the inner steps; FOMAML leaves the second
derivatives out of both.

Deviations from the paper and its code (cbfinn/maml_rl):
- curvature by products of exact derivatives (`maml.control.trust_region`), not by finite differences, and on one of
  `curvature_every` trajectories;
- the paper reports the best iteration of training; here validation tasks choose it, and the last one is tested, too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from benchmarks.api import Parameters, State, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.environments import Rollouts
from benchmarks.models import join, split
from benchmarks.origin import Origin
from benchmarks.registry import register_method
from benchmarks.training import MetaGradient, descend, training_indices
from maml.control.critics import AdaptingValues, Critic
from maml.control.meta_objective import MetaObjective, Part, credits_of, flat, unflat
from maml.control.policies import Acting, Policy
from maml.control.policy_gradient import Baseline, Experiences, Surrogate, linear_baseline
from maml.control.policy_learners import (
    ALPHA,
    ORIGINS,
    PUBLISHED_ITERATIONS,
    TRAINING,
    AdaptedPolicy,
    TrustRegionLearner,
    environment_steps,
    step_sizes,
)
from maml.inner_loop import detached, per_task

#: prefix of the parameters of the value network
CRITIC = "critic."


@register_method("fomaml", second_order=False)
@register_method("maml")
@dataclass(frozen=True)
class ControlMAML(TrustRegionLearner, AdaptedPolicy):
    """Learn a policy from which a policy-gradient step or two in a new task are enough.

    inner_lr: the rate alpha of the first inner step; those after it have alpha / 2.
    inner_steps, test_steps: gradient steps in training, and the numbers of steps reported at test, headline last.
    second_order: differentiate through the inner steps; False is FOMAML.
    surrogate: the inner loss that is differentiated: "log-likelihood" as in the released code, "likelihood-ratio", or
        "dice", whose second derivatives are right on average (`maml.control.policy_gradient`).
    meta_batch, trajectories: tasks per iteration, and trajectories per task for each inner step and after the last.
    trace: lambda of generalised advantage estimation; 1: none.
    hidden, activation: layers of the policy, and their non-linearity.
    outer: "trpo", or "ppo": `epochs` steps of Adam (rate `meta_lr`) on a loss whose ratios are clipped at `ratio_clip`.
    max_divergence: bound on the mean divergence of the adapted policies in an iteration (outer "trpo").
    cg_iterations, damping, backtracks: of the trust-region step. curvature_every: one in this
        many trajectories is used for its curvature.
    inner_penalty: weight of the divergence before the inner steps (ProMP); exploration: of the term of E-MAML.
    critic: hidden layers of a value network that adapts with the policy, an actor-critic (`maml.control.critics`); ():
        the linear baseline. critic_rate: of the values' inner steps. Adam trains their start, at the rate `meta_lr`.
    test_rates: rates of the first step at test where one, two ... steps are taken; (): inner_lr.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {**settings, "inner_lr": ALPHA[task]} for task, settings in TRAINING.items()
    }
    origins: ClassVar[Mapping[str, Origin]] = ORIGINS
    published_meta_steps: ClassVar[Mapping[str, int]] = PUBLISHED_ITERATIONS

    inner_lr: float = 0.1
    inner_steps: int = 1
    second_order: bool = True
    surrogate: Surrogate = "log-likelihood"
    outer: Literal["trpo", "ppo"] = "trpo"
    meta_lr: float = 1e-3
    epochs: int = 5
    ratio_clip: float = 0.3
    inner_penalty: float = 0.0
    exploration: float = 0.0
    critic: tuple[int, ...] = ()
    critic_rate: float = 0.1
    test_rates: tuple[float, ...] = adaptation_field(())

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "above 0", "inner_lr", "meta_lr", "ratio_clip", "critic_rate")
        check_fields(self, "at least 1", "inner_steps", "epochs", "critic")
        check_fields(self, "at least 0", "inner_penalty", "exploration")

    def played_policies(self) -> int:
        return self.inner_steps + 1

    def first_rates(self) -> tuple[float, ...]:
        return self.test_rates or (self.inner_lr,)

    def initial(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Parameters:
        return per_task(detached(split(state.parameters, CRITIC)[1]), len(support))

    def baseline(self, parameters: Parameters, tasks: TaskDistribution, count: int) -> Baseline:
        if not self.critic:
            return linear_baseline
        return AdaptingValues(self.values(tasks), per_task(split(parameters, CRITIC)[0], count))

    def values(self, tasks: TaskDistribution) -> Critic:
        """The value network for these tasks."""
        return Critic(tasks.input_shape[0], self.critic, self.critic_rate)

    def initial_parameters(self, policy: Policy, tasks: TaskDistribution, seed: int) -> Parameters:
        own = self.values(tasks).initialise(seed, tasks.device) if self.critic else {}
        return policy.initialise(seed, tasks.device) | join(CRITIC, own)

    def improved_values(self, state: State, recorded: Part, tasks: TaskDistribution) -> tuple[Parameters, Parameters]:
        values, theta = split(state.parameters, CRITIC)
        if not self.critic:
            return {}, theta

        def gradient(parameters: Parameters, buffers: Parameters, step: int) -> MetaGradient:
            error, found = self._values_gradient(parameters, recorded, tasks)
            return MetaGradient(error, list(found.values()), 0)

        begin = State(parameters=values, moments=state.moments, step=state.step)
        after = next(descend(values, gradient=gradient, learning_rate=self.meta_lr, start=begin))
        state.moments = after.moments
        return join(CRITIC, detached(after.parameters)), theta

    def _values_gradient(self, values: Parameters, recorded: Part, tasks: TaskDistribution) -> tuple[float, Parameters]:
        discount, order = tasks.discount, self.second_order
        return self.values(tasks).start_gradient(values, recorded.inner, recorded.outer, discount, order)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        yield from (super().fit if self.outer == "trpo" else self._proximal_fit)(tasks, seed, start)

    def play(self, policy: Policy, parameters: Parameters, tasks: TaskDistribution, seed: int, iteration: int) -> Part:
        """Trajectories for each inner step, and trajectories of the adapted policies."""
        indices = training_indices(seed, iteration, self.meta_batch)
        episodes = tasks.episodes("train", indices, shots=self.trajectories, queries=self.trajectories)
        inner, theta = self.adapted(policy, parameters, tasks, episodes.support)
        source = Experiences(episodes.query, tasks.discount, self.trace, inner.baseline)
        outer = source.batch(Acting(policy, theta), 0)
        return Part(inner.seen, outer, None, credits_of(outer))

    def adapted(
        self, policy: Policy, parameters: Parameters, tasks: TaskDistribution, support: Rollouts
    ) -> tuple[Experiences, Parameters]:
        """The inner steps of training: their experience, and the policies after them, ``[T, ...]``."""
        baseline = self.baseline(parameters, tasks, len(support))
        inner = Experiences(support, tasks.discount, self.trace, baseline)
        _, start = split(parameters, CRITIC)
        thetas = self.steps(policy, per_task(start, len(support)), inner, self.inner_lr)
        return inner, next(itertools.islice(thetas, self.inner_steps, None))

    def objective(self, policy: Policy, parameters: Parameters, recorded: Part) -> MetaObjective:
        return MetaObjective(
            policy,
            parameters,
            self.parts(recorded),
            step_sizes(self.inner_lr),
            self.surrogate,
            self.second_order,
            self.curvature_every,
            self.ratio_clip if self.outer == "ppo" else math.inf,
            self.inner_penalty,
            self.exploration,
            self.moves,
        )

    def _proximal_fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        policy = self.policy(tasks)
        recorded: list[Part] = []

        def meta_gradient(parameters: Parameters, buffers: Parameters, update: int) -> MetaGradient:
            plain = detached(parameters)
            if update % self.epochs == 0:
                recorded[:] = [self.play(policy, plain, tasks, seed, update // self.epochs)]
            values, theta = split(plain, CRITIC)
            here = self.objective(policy, theta, recorded[0]).linearise(flat(per_task(theta, 1)))
            found = unflat(here.gradient, theta)
            if self.critic:
                found |= join(CRITIC, self._values_gradient(values, recorded[0], tasks)[1])
            return MetaGradient(here.loss, [found[name] for name in parameters], 0)

        begin = dataclasses.replace(start, step=start.step * self.epochs) if start else None
        initial = self.initial_parameters(policy, tasks, seed)
        for state in descend(initial, gradient=meta_gradient, learning_rate=self.meta_lr, start=begin):
            if state.step % self.epochs == 0:
                state.environment_steps += environment_steps(recorded[0])
                state.loss = -float(recorded[0].outer.trajectories.returns.mean())
                yield dataclasses.replace(state, step=state.step // self.epochs)
