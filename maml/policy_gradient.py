"""The inner loss on trajectories: surrogates of the return, with advantages over a linear baseline.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 4.2:
the inner step of control is a policy gradient (vanilla REINFORCE), with the linear feature baseline of Duan et al.,
"Benchmarking deep reinforcement learning for continuous control", ICML 2016, fitted for each task and step. Trials have
one episode. All surrogates have the same gradient at the policy that acted; they differ in the second derivatives,
which MAML differentiates through:

- "log-likelihood": log-probability times advantage. What the paper's code differentiates; its Hessian is not that of
  the return, not even on average.
- "likelihood-ratio": the probability ratio times the advantage (Rothfuss et al., "ProMP", ICLR 2019: low variance, and
  biased).
- "dice": the Hessian is right on average (Foerster et al. 2018; in the form with advantages of Farquhar et al., "Loaded
  DiCE", NeurIPS 2019).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from benchmarks.api import Predictor
from benchmarks.environments import ActionSpace, Trajectories

Surrogate = Literal["log-likelihood", "likelihood-ratio", "dice"]
#: added to the diagonal of the baseline's normal equations
RIDGE = 1e-5
#: steps that are one unit of time for the baseline
TIME_UNIT = 100


def surrogate_loss(
    predictor: Predictor, trajectories: Trajectories, advantages: Tensor, actions: ActionSpace, form: Surrogate
) -> Tensor:
    """Minus the surrogate of the return, one number per task, ``[T]``: a mean over the steps that took place.

    advantages: ``[T, K, N]``, 0 where not live. For policies without a memory."""
    likelihood = log_probabilities(predictor, trajectories, actions).masked_fill(~trajectories.live, 0.0)
    steps = trajectories.live.flatten(1).sum(1)
    return -(_weights(likelihood, form) * advantages).flatten(1).sum(1) / steps


def _weights(likelihood: Tensor, form: Surrogate) -> Tensor:
    """What multiplies the advantages, ``[T, K, N]``, of log-probabilities that are 0 where not live."""
    if form == "log-likelihood":
        return likelihood
    if form == "likelihood-ratio":
        return (likelihood - likelihood.detach()).exp()
    so_far = likelihood.cumsum(-1)
    before = so_far - likelihood
    return (so_far - so_far.detach()).exp() - (before - before.detach()).exp()


def ratio_loss(predictor: Predictor, trajectories: Trajectories, advantages: Tensor, actions: ActionSpace) -> Tensor:
    """Minus the advantage under another policy than the one that acted, one number per task, ``[T]``: each step is
    weighted by the ratio of probabilities. Its values can be compared between policies; those of surrogates cannot."""
    ratio = (log_probabilities(predictor, trajectories, actions) - trajectories.log_probabilities).exp()
    steps = trajectories.live.flatten(1).sum(1)
    return -(ratio * advantages).masked_fill(~trajectories.live, 0.0).flatten(1).sum(1) / steps


def log_probabilities(predictor: Predictor, trajectories: Trajectories, actions: ActionSpace) -> Tensor:
    """The logarithms of the probabilities of the actions under a policy without a memory, ``[T, K, N]``."""
    inputs = trajectories.inputs
    distributions, _ = predictor(inputs.flatten(1, 2), None)
    return actions.log_probability(distributions.unflatten(1, inputs.shape[1:3]), trajectories.actions)


def advantages_of(trajectories: Trajectories, discount: float, trace: float = 1.0) -> Tensor:
    """Generalised advantages over the linear baseline, ``[T, K, N]``: centred and scaled over the live steps of each
    task, 0 where not live. An episode that was cut off is taken to end there, as in the paper's code."""
    rewards, live = trajectories.rewards, trajectories.live
    values = linear_baseline(trajectories, to_go(rewards, discount)).masked_fill(~live, 0.0)
    following = torch.cat((values[..., 1:], torch.zeros_like(values[..., :1])), -1)
    surprises = (rewards + discount * following - values).masked_fill(~live, 0.0)
    advantages = to_go(surprises, discount * trace)
    steps = live.flatten(1).sum(1).view(-1, 1, 1)
    centred = (advantages - advantages.sum((1, 2), keepdim=True) / steps).masked_fill(~live, 0.0)
    deviation = (centred.square().sum((1, 2), keepdim=True) / steps).sqrt()
    return centred / (deviation + 1e-8)


def to_go(rewards: Tensor, discount: float) -> Tensor:
    """The discounted sum from each step to the end, along the last axis."""
    sums, ahead = [], torch.zeros_like(rewards[..., 0])
    for reward in reversed(rewards.unbind(-1)):
        ahead = reward + discount * ahead
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
