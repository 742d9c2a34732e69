"""Action spaces: families of action distributions, from which the environment draws.

A predictor returns the parameters of a distribution. The environment draws the action, so all methods sample in the
same way and from the same random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class ActionSpace(Protocol):
    """A family of action distributions.

    outputs: parameters per distribution; features: numbers per action, where an action is an input; lanes: uniform
    random numbers per draw.
    """

    @property
    def outputs(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def lanes(self) -> int: ...

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Draw actions. parameters: ``[..., outputs]``; noise: uniform ``[..., lanes]``, float64."""

    def log_probability(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Log-probability (or log-density) of actions, ``[...]``."""

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities of actions, and the entropies of their distributions up to a constant, ``[...]``."""

    def as_features(self, actions: Tensor, dtype: torch.dtype) -> Tensor:
        """Actions as inputs ``[..., features]``."""

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence from old to new distributions, ``[...]``; parameters ``[..., outputs]``."""

    def metric(self, parameters: Tensor, change: Tensor) -> Tensor:
        """Fisher information of the parameters times a small change of them, ``[..., outputs]``: the Hessian of the
        divergence where old and new are the same."""


@dataclass(frozen=True)
class Categorical:
    """One of ``count`` actions, int64 ``[...]``, from as many unnormalised log-probabilities (−inf: never taken)."""

    count: int

    lanes = 1

    @property
    def outputs(self) -> int:
        return self.count

    features = outputs

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        cumulative = parameters.double().softmax(-1).cumsum(-1)
        return (noise * cumulative[..., -1:] >= cumulative).sum(-1).clamp(max=self.count - 1)

    def log_probability(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return parameters.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        # classes first: torch takes a tenth of the time along the first of the dimensions
        logarithms = parameters.transpose(0, -1).log_softmax(0)
        taken = logarithms.gather(0, actions.movedim(0, -1).unsqueeze(0)).squeeze(0)
        return taken.movedim(-1, 0), -(logarithms.exp() * logarithms).sum(0).movedim(-1, 0)

    def as_features(self, actions: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.nn.functional.one_hot(actions, self.count).to(dtype)

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        before, after = old.log_softmax(-1), new.log_softmax(-1)
        return (before.exp() * (before - after)).sum(-1)

    def metric(self, parameters: Tensor, change: Tensor) -> Tensor:
        probabilities = parameters.softmax(-1)
        return probabilities * (change - (probabilities * change).sum(-1, keepdim=True))


@dataclass(frozen=True)
class Gaussian:
    """``dimensions`` independent real numbers, float ``[..., dimensions]``, unclipped; from their means, then the
    logarithms of their standard deviations."""

    dimensions: int

    @property
    def outputs(self) -> int:
        return 2 * self.dimensions

    @property
    def features(self) -> int:
        return self.dimensions

    lanes = features

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        mean, log_deviation = parameters.chunk(2, -1)
        return mean + log_deviation.exp() * standard_normal(noise).to(mean.dtype)

    def log_probability(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """The sum over dimensions; a mean would give a root of the density."""
        mean, log_deviation = parameters.chunk(2, -1)
        scaled = (actions - mean) / log_deviation.exp()
        return (-0.5 * (scaled.square() + math.log(2 * math.pi)) - log_deviation).sum(-1)

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_probability(parameters, actions), parameters.chunk(2, -1)[1].sum(-1)

    def as_features(self, actions: Tensor, dtype: torch.dtype) -> Tensor:
        return actions.to(dtype)

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        (mean, log_deviation), (new_mean, new_log_deviation) = old.chunk(2, -1), new.chunk(2, -1)
        spread = ((2 * log_deviation).exp() + (mean - new_mean).square()) / (2 * (2 * new_log_deviation).exp())
        return (new_log_deviation - log_deviation + spread - 0.5).sum(-1)

    def metric(self, parameters: Tensor, change: Tensor) -> Tensor:
        of_mean, of_log_deviation = change.chunk(2, -1)
        return torch.cat((of_mean / (2 * parameters.chunk(2, -1)[1]).exp(), 2 * of_log_deviation), -1)


def standard_normal(noise: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones in [0, 1), float64, by the inverse distribution function."""
    return torch.special.ndtri(noise.clamp(min=2.0**-54))
