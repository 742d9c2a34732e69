"""The inner loss on trajectories: surrogates of the return, with advantages over a linear baseline.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 4.2:
the inner step of control is a policy gradient (vanilla REINFORCE), with the linear feature baseline of Duan et al.,
"Benchmarking deep reinforcement learning for continuous control", ICML 2016, fitted for each task and step. All
surrogates have the same gradient at the policy that acted; they differ in the second derivatives, which MAML
differentiates through, and at other policies:

- "log-likelihood": log-probability times advantage. What the paper's code differentiates; its Hessian is not that of
  the return, not even on average.
- "likelihood-ratio": the ratio of the probability to that under the policy that acted, times the advantage (Rothfuss
  et al., "ProMP", ICLR 2019: low variance, and biased). Its values can be compared between policies.
- "dice": the Hessian is right on average (Foerster et al. 2018; in the form with advantages of Farquhar et al., "Loaded
  DiCE", NeurIPS 2019).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.api import Predictor, Source
from benchmarks.environments import ActionSpace, Trajectories

Surrogate = Literal["log-likelihood", "likelihood-ratio", "dice"]
#: trajectories and the discounted returns from each step on, ``[T, K, N]`` -> the values to compare them with
Baseline = Callable[[Trajectories, Tensor], Tensor]
#: added to the diagonal of the baseline's normal equations
RIDGE = 1e-5
#: steps that are one unit of time for the baseline
TIME_UNIT = 100


@dataclass(frozen=True)
class Experience:
    """Trajectories of T tasks and the advantages of their actions.

    advantages: ``[T, K, N]``, centred and scaled over the live steps of each task, 0 where not live. scale: what they
    were divided by, ``[T]``."""

    trajectories: Trajectories
    advantages: Tensor
    scale: Tensor

    def __getitem__(self, tasks: slice) -> Experience:
        """The same for a slice of the tasks."""
        return Experience(_cut(self.trajectories, tasks), self.advantages[tasks], self.scale[tasks])

    def thinned(self, every: int) -> Experience:
        """One in ``every`` trajectories of each task."""
        some = slice(None), slice(None, None, every)
        return Experience(_cut(self.trajectories, some), self.advantages[some], self.scale)


def _cut(trajectories: Trajectories, part: slice | tuple[slice, slice]) -> Trajectories:
    """Some tasks, or some trajectories of each."""
    tensors: dict[str, Any] = {n: value[part] for n, value in vars(trajectories).items() if isinstance(value, Tensor)}
    return dataclasses.replace(trajectories, **tensors)


class Experiences:
    """A source of experience: an environment, with the advantages of its trajectories; ``seen`` is all it gave. Asked
    for the same step again, it gives the same.

    baseline: of the advantages; the linear one by default. first: trajectories of step 0 that were played before."""

    def __init__(
        self,
        source: Source,
        discount: float,
        trace: float = 1.0,
        baseline: Baseline | None = None,
        first: Trajectories | None = None,
    ) -> None:
        self._source, self._discount, self._trace, self._first = source, discount, trace, first
        self.baseline = baseline or linear_baseline
        self.seen: list[Experience] = []

    def batch(self, predictor: Predictor | None, step: int) -> Experience:
        if step == len(self.seen):
            played = (self._first if step == 0 else None) or self._source.batch(predictor, step)
            self.seen.append(experience_of(played, self._discount, self._trace, self.baseline))
        return self.seen[step]

    @property
    def environment_steps(self) -> int:
        """The environment steps of all experience so far."""
        return sum(experience.trajectories.environment_steps for experience in self.seen)


def surrogate_loss(predictor: Predictor, experience: Experience, actions: ActionSpace, form: Surrogate) -> Tensor:
    """Minus the surrogate of the return, one number per task, ``[T]``: a mean over the steps that took place.

    For policies without a memory."""
    seen = experience.trajectories
    return weighted_loss(log_probabilities(predictor, seen, actions), experience, form)


def weighted_loss(likelihood: Tensor, experience: Experience, form: Surrogate, clip: float = math.inf) -> Tensor:
    """The surrogate loss of log-probabilities of the actions, ``[T, K, N]``.

    clip: bound on what is gained by a weight other than 1 (Schulman et al., "Proximal policy optimization", 2017)."""
    seen, advantages = experience.trajectories, experience.advantages
    weights = _weights(likelihood.masked_fill(~seen.live, 0.0), seen, form)
    gain = weights * advantages
    if clip < math.inf:
        gain = torch.minimum(gain, weights.clamp(1 - clip, 1 + clip) * advantages)
    return -mean_over_steps(gain, seen)


def mean_over_steps(values: Tensor, trajectories: Trajectories) -> Tensor:
    """The mean of ``[T, K, N]`` over the steps of each task that took place, ``[T]``."""
    live = trajectories.live
    return values.masked_fill(~live, 0.0).flatten(1).sum(1) / live.flatten(1).sum(1)


def _weights(likelihood: Tensor, seen: Trajectories, form: Surrogate) -> Tensor:
    """The factors of the advantages, ``[T, K, N]``, from log-probabilities that are 0 where not live."""
    if form == "log-likelihood":
        return likelihood
    ratio = likelihood - seen.log_probabilities.masked_fill(~seen.live, 0.0)
    if form == "likelihood-ratio":
        return ratio.exp()
    so_far = ratio.cumsum(-1)
    return so_far.exp() - (so_far - ratio).exp()


def log_probabilities(predictor: Predictor, trajectories: Trajectories, actions: ActionSpace) -> Tensor:
    """The logarithms of the probabilities of the actions under a policy without a memory, ``[T, K, N]``."""
    return actions.log_probability(distributions(predictor, trajectories), trajectories.actions)


def distributions(predictor: Predictor, trajectories: Trajectories) -> Tensor:
    """The action distributions along trajectories of a policy without a memory, ``[T, K, N, outputs]``."""
    inputs = trajectories.inputs
    return predictor(inputs.flatten(1, 2), None)[0].unflatten(1, inputs.shape[1:3])


def experience_of(
    trajectories: Trajectories, discount: float, trace: float = 1.0, baseline: Baseline | None = None
) -> Experience:
    """With generalised advantages (Schulman et al. 2016) over a baseline, the linear one by default. Nothing counts
    beyond the end of an episode: a policy without a memory changes nothing there, and one that was cut off is taken to
    end there, as in the paper's code."""
    rewards, live = trajectories.rewards, trajectories.live
    ends = trajectories.terminated | trajectories.truncated
    values = (baseline or linear_baseline)(trajectories, returns_to_go(trajectories, discount)).masked_fill(~live, 0.0)
    following = torch.cat((values[..., 1:], torch.zeros_like(values[..., :1])), -1).masked_fill(ends, 0.0)
    surprises = (rewards + discount * following - values).masked_fill(~live, 0.0)
    advantages = to_go(surprises, discount * trace, ends)
    steps = live.flatten(1).sum(1).view(-1, 1, 1)
    centred = (advantages - advantages.sum((1, 2), keepdim=True) / steps).masked_fill(~live, 0.0)
    deviation = (centred.square().sum((1, 2), keepdim=True) / steps).sqrt()
    return Experience(trajectories, centred / (deviation + 1e-8), deviation.flatten() + 1e-8)


def returns_to_go(trajectories: Trajectories, discount: float) -> Tensor:
    """The discounted rewards from each step to the end of its episode, ``[T, K, N]``."""
    return to_go(trajectories.rewards, discount, trajectories.terminated | trajectories.truncated)


def to_go(rewards: Tensor, discount: float, ends: Tensor | None = None) -> Tensor:
    """The discounted sum from each step to the end, along the last axis.

    ends: bool, of the same shape: where the end is, other than at the last step."""
    passed = torch.full_like(rewards, discount) if ends is None else discount * (~ends).to(rewards.dtype)
    sums, ahead = [], torch.zeros_like(rewards[..., 0])
    for reward, factor in zip(reversed(rewards.unbind(-1)), reversed(passed.unbind(-1)), strict=True):
        ahead = reward + factor * ahead
        sums.append(ahead)
    return torch.stack(sums[::-1], -1)


def linear_baseline(trajectories: Trajectories, targets: Tensor) -> Tensor:
    """The targets ``[T, K, N]`` as a linear function of observation, its square and powers of time: ridge regression
    over the live steps of each task, all tasks at once, in double precision."""
    features = _features(trajectories)
    weighted = features * trajectories.live.flatten(1).unsqueeze(-1)
    gram = weighted.transpose(1, 2) @ features + RIDGE * torch.eye(features.shape[-1]).to(features)
    moments = weighted.transpose(1, 2) @ targets.double().flatten(1).unsqueeze(-1)
    return (features @ torch.linalg.solve(gram, moments)).view(targets.shape).to(targets.dtype)


def _features(trajectories: Trajectories) -> Tensor:
    """The observation within ± 10, its square, time, its square and cube, and 1: float64 ``[T, K * N, 2 * o + 4]``."""
    observations = trajectories.observations.double().clamp(-10, 10)
    time = torch.arange(observations.shape[2]).to(observations) / TIME_UNIT
    powers = torch.stack((time, time**2, time**3, torch.ones_like(time)), -1)
    powers = powers.expand(*observations.shape[:3], 4)
    return torch.cat((observations, observations.square(), powers), -1).flatten(1, 2)
