"""Critics that adapt with the policy: the inner loop of an actor-critic.

The inner loss of a task is that of advantage actor-critic (Mnih et al., "Asynchronous methods for deep reinforcement
learning", ICML 2016): a surrogate of the return with advantages over values v, and the squared error of v. The values
have a network of their own, so these are two gradient steps: that of the policy on trajectories judged by v as it stood
before them, then that of v. The advantages carry no gradient. The start of v is trained as MAML trains a regression:
its error after the inner steps, on the trajectories of the adapted policies, is differentiated through the steps.

Values are learned in units of a batch: returns less their mean, over their deviation, per task. So one rate serves
rewards of every size, and values of 0 are a constant baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.api import Parameters, Predictor
from benchmarks.environments import Trajectories
from maml.control.policies import Layers
from maml.control.policy_gradient import TIME_UNIT, Experience, mean_over_steps, returns_to_go
from maml.inner_loop import GradientDescent, InnerLoop, Recorded, detached, per_task


@dataclass(frozen=True)
class Judged:
    """The targets of the values: trajectories, the mean and the deviation of the returns ahead ``[T, 1, 1]``, and these
    returns in that unit, ``[T, K, N]``."""

    seen: Trajectories
    mean: Tensor
    deviation: Tensor
    targets: Tensor


def judged(seen: Trajectories, returns: Tensor) -> Judged:
    """Trajectories with the returns ahead of each step, ``[T, K, N]``."""
    mean = mean_over_steps(returns, seen).view(-1, 1, 1)
    deviation = mean_over_steps((returns - mean).square(), seen).view(-1, 1, 1).sqrt() + 1e-8
    return Judged(seen, mean, deviation, (returns - mean) / deviation)


@dataclass(frozen=True)
class Critic:
    """A value network of observation and time, and the rate of its steps; parameters are ``[T, ...]``."""

    observation: int
    hidden: tuple[int, ...]
    rate: float

    @property
    def layers(self) -> Layers:
        return Layers(self.observation + 1, self.hidden, 1, "tanh")

    def initialise(self, seed: int, device: torch.device | str = "cpu") -> Parameters:
        """Parameters without a task axis, the same for the same seed on every device."""
        parameters = self.layers.initialise(torch.Generator().manual_seed(seed))
        return {name: value.to(device) for name, value in parameters.items()}

    def values(self, parameters: Mapping[str, Tensor], seen: Trajectories) -> Tensor:
        """In units of the batch, ``[T, K, N]``."""
        time = (torch.arange(seen.rewards.shape[-1]).to(seen.inputs) / TIME_UNIT).view(1, 1, -1, 1)
        x = torch.cat((seen.observations, time.expand(*seen.rewards.shape, 1)), -1)
        return self.layers(parameters, x.flatten(1, 2)).view(seen.rewards.shape)

    def after(self, parameters: Parameters, batches: Sequence[Judged], second_order: bool = False) -> Parameters:
        """The parameters after a gradient step on each of the batches."""

        def judging(theta: Mapping[str, Tensor], step: int) -> Predictor:
            return lambda seen, memory=None: (self.values(theta, seen), None)

        loop = InnerLoop(
            judging,
            lambda predictor, data: _error(predictor(data.seen)[0], data),
            GradientDescent(self.rate),
            second_order,
        )
        for number in range(len(batches)):
            parameters, _ = loop.step(parameters, {}, Recorded(batches), number)
        return parameters

    def start_gradient(
        self, start: Parameters, inner: Sequence[Experience], outer: Experience, discount: float, second_order: bool
    ) -> tuple[float, Parameters]:
        """The mean over tasks of the error after the inner steps, on the trajectories of the adapted policies, and its
        gradient by the start of the values, whose parameters have no task axis."""
        batches = [judged(one.trajectories, returns_to_go(one.trajectories, discount)) for one in (*inner, outer)]
        leaves = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
        with torch.enable_grad():
            adapted = self.after(per_task(leaves, len(outer.scale)), batches[:-1], second_order)
            error = _error(self.values(adapted, batches[-1].seen), batches[-1]).mean()
            found = torch.autograd.grad(error, list(leaves.values()))
        return float(error.detach()), dict(zip(leaves, found, strict=True))


class AdaptingValues:
    """A baseline that learns: it gives its values of a batch, then takes a step on it. parameters: ``[T, ...]``."""

    def __init__(self, critic: Critic, parameters: Parameters) -> None:
        self.critic, self.parameters = critic, detached(parameters)

    def __call__(self, seen: Trajectories, returns: Tensor) -> Tensor:
        data = judged(seen, returns)
        with torch.no_grad():
            values = data.mean + data.deviation * self.critic.values(self.parameters, seen)
        self.parameters = self.critic.after(self.parameters, [data])
        return values


def _error(values: Tensor, data: Judged) -> Tensor:
    """The mean squared error over the steps that took place, ``[T]``."""
    return mean_over_steps((values - data.targets).square(), data.seen)
