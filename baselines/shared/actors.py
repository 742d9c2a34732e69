"""Actors that learn from scratch in T tasks at once, from the advantages that a critic gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.api import Parameters, Predictor, Source
from benchmarks.environments import ActionSpace, Rollouts, Trajectories
from maml.control.policies import Acting, Policy
from maml.control.policy_gradient import Experience, returns_to_go, surrogate_loss
from maml.inner_loop import InnerLoop

#: trajectories and the discounted returns from each step on, ``[T, K, N]`` -> the values that a critic gives the steps
Judge = Callable[[Trajectories, Tensor], Tensor]


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) as a rule of an inner loop. clip_norm: bound on the gradient's length in each task; 0:
    none."""

    rate: float
    clip_norm: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        moments = ("exp_avg", "exp_avg_sq")
        return {f"{name}/{moment}": torch.zeros_like(v) for name, v in parameters.items() for moment in moments}

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        gradients = self._clipped(gradients) if self.clip_norm else gradients
        kept, stepped = {}, {}
        for name, value in values.items():
            first, second = memory[f"{name}/exp_avg"], memory[f"{name}/exp_avg_sq"]
            first = kept[f"{name}/exp_avg"] = torch.lerp(gradients[name], first, self.beta1)
            second = kept[f"{name}/exp_avg_sq"] = torch.lerp(gradients[name].square(), second, self.beta2)
            root = (second / (1 - self.beta2 ** (number + 1))).sqrt() + self.epsilon
            stepped[name] = value - self.rate / (1 - self.beta1 ** (number + 1)) * first / root
        return stepped, kept

    def _clipped(self, gradients: Parameters) -> Parameters:
        squares = [gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients.values()]
        factor = (self.clip_norm / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1.0)
        return {name: g * factor.view(-1, *[1] * (g.dim() - 1)) for name, g in gradients.items()}


@dataclass
class Coached:
    """A source of experience: trajectories with the advantages of returns over what a judge says of them, neither
    centred nor scaled. fall: taken from the reward of a step after which an episode ends by itself."""

    source: Source
    judge: Judge
    discount: float
    fall: float

    def batch(self, predictor: Predictor | None, step: int) -> Experience:
        seen: Trajectories = self.source.batch(predictor, step)
        if self.fall:
            last = seen.live & seen.terminated
            seen = dataclasses.replace(seen, rewards=seen.rewards - self.fall * last)
        returns = returns_to_go(seen, self.discount)
        advantages = (returns - self.judge(seen, returns).detach()).masked_fill(~seen.live, 0.0)
        return Experience(seen, advantages, torch.ones_like(advantages[:, 0, 0]))


def actor_loop(policy: Policy, rate: float) -> InnerLoop:
    """Steps of the actors of T tasks on experience."""
    actions: ActionSpace = policy.actions
    return InnerLoop(
        lambda theta, step: Acting(policy, theta),
        lambda predictor, seen: surrogate_loss(predictor, seen, actions, "log-likelihood"),
        Adam(rate),
        second_order=False,
    )


def fresh(initialise: Callable[[int], Parameters], support: Rollouts) -> Parameters:
    """Other parameters for each task, which are a function of its number: ``[T, ...]``."""
    drawn = [initialise(int(index)) for index in support.indices]
    return {name: torch.stack([parameters[name] for parameters in drawn]) for name in drawn[0]}
