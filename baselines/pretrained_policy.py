"""Policies fine-tuned from a start that was not meta-learned: pretrained on all tasks, or random.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.3:
one policy is pretrained on all of the tasks and then fine-tuned, another one starts from random weights. In a new task
both take the policy-gradient steps of MAML. The paper tunes their step sizes by hand; the rows marked "[tuned]" choose
the rate on validation tasks, for each number of steps by itself.

Deviations from the paper and its code (cbfinn/maml_rl):
- new tasks are drawn for each iteration; as committed there, the simulators keep one goal each;
- the pretrained policy sees as many environment steps in an iteration as MAML does in one with one inner step;
- baselines and advantages are those of each task by itself, also in pretraining;
- every test task has random weights of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from benchmarks.api import Parameters, State, TaskDistribution
from benchmarks.environments import Rollouts
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from maml.control.policy_learners import (
    ALPHA,
    NETWORKS,
    ORIGINS,
    PUBLISHED_ITERATIONS,
    TRAINING,
    AdaptedPolicy,
    TrustRegionLearner,
)

#: the rate is MAML's alpha: the paper tunes that of these policies by hand and prints none
_ORIGINS: Mapping[str, Origin] = {
    task: ours(f"MAML's rate, untuned; all else: {origin.why}") for task, origin in ORIGINS.items()
}


@register_method("pretrained")
@dataclass(frozen=True)
class Pretrained(TrustRegionLearner, AdaptedPolicy):
    """Train one policy on all tasks together, then take policy-gradient steps in the new one.

    meta_batch, trajectories: tasks per iteration, and half the number of trajectories in each.
    test_rates: rates of the first step where one, two ... steps are taken; those after it have half of it.
    test_steps: the numbers of steps reported at test, headline last.
    max_divergence, cg_iterations, damping, backtracks, curvature_every: of the trust-region step, as in MAML.
    hidden, activation, trace: as in MAML.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {**settings, "test_rates": (ALPHA[task],)} for task, settings in TRAINING.items()
    }
    origins: ClassVar[Mapping[str, Origin]] = _ORIGINS
    published_meta_steps: ClassVar[Mapping[str, int]] = PUBLISHED_ITERATIONS


@register_method("random")
@dataclass(frozen=True)
class Untrained(AdaptedPolicy):
    """Take policy-gradient steps in the new task from random weights.

    test_rates: rates of the first step where one, two ... steps are taken; those after it have half of it.
    test_steps: the numbers of steps reported at test, headline last.
    hidden, activation, trace: as in MAML.
    """

    role: ClassVar[str] = "floor"
    fits: ClassVar[bool] = False
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {**settings, "test_rates": (ALPHA[task],)} for task, settings in NETWORKS.items()
    }
    origins: ClassVar[Mapping[str, Origin]] = _ORIGINS

    def initial(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Parameters:
        """Other weights for each task, which are a function of its number."""
        policy = self.policy(tasks)
        drawn = [policy.initialise(int(index), tasks.device) for index in support.indices]
        return {name: torch.stack([parameters[name] for parameters in drawn]) for name in drawn[0]}
