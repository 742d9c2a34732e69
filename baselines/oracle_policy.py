"""The oracle of control: a policy that is told which task it is.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.3: an
oracle policy receives the parameters of the task (the goal, the velocity, the direction) as input, an upper bound on
what can be reached. It is trained by trust-region steps on all tasks and takes no steps in a new one.

Deviation from the released code (cbfinn/maml_rl): baselines and advantages are those of each task by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.api import Predictor, State, TaskDistribution
from benchmarks.environments import Rollouts
from benchmarks.origin import Origin
from benchmarks.registry import register_method
from maml.control.policies import Acting, Policy, policy_for
from maml.control.policy_learners import ORIGINS, PUBLISHED_ITERATIONS, TRAINING, TrustRegionLearner
from maml.inner_loop import detached, per_task


@register_method("oracle")
@dataclass(frozen=True)
class OraclePolicy(TrustRegionLearner):
    """Train one policy whose inputs are the observation and the task's own parameters.

    meta_batch, trajectories: tasks per iteration, and half the number of trajectories in each.
    max_divergence, cg_iterations, damping, backtracks, curvature_every: of the trust-region step, as in MAML.
    hidden, activation, trace: as in MAML.
    """

    role: ClassVar[str] = "ceiling"
    needs: ClassVar[frozenset[str]] = frozenset({"parameters"})
    informed: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = TRAINING
    origins: ClassVar[Mapping[str, Origin]] = ORIGINS
    published_meta_steps: ClassVar[Mapping[str, int]] = PUBLISHED_ITERATIONS

    def policy(self, tasks: TaskDistribution) -> Policy:
        told = tasks.episodes("train", (0,)).support.parameters.shape[1]
        return policy_for(tasks, self.hidden, self.activation, told)

    def adapt(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = per_task(detached(state.parameters), len(support))
        yield Acting(self.policy(tasks), parameters, support.parameters)
