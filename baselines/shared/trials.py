"""Trials that a recurrent policy has played, and what policy gradients make of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.shared import gru
from baselines.shared.gru import RecurrentPolicy
from benchmarks.api import Diverged, Parameters
from benchmarks.environments import ActionSpace, Rollouts, Trajectories
from maml.control.meta_objective import unflat
from maml.control.policy_gradient import to_go
from maml.control.trust_region import fisher_product, trust_region_step

#: how much of the running mean of returns stays from one iteration to the next
RETURNS_KEPT = 0.95
#: added to the diagonal of the normal equations of the values
RIDGE = 1e-3


@dataclass(frozen=True)
class Trials:
    """n trials of N steps: inputs ``[n, N, i]``; actions, rewards, live, log_probabilities (of the policy that played),
    advantages and targets (of the values) ``[n, N]``.

    Steps that took place stand one after another from the first column on: what a trial waited for after an early end
    of an episode is at its end, and not live."""

    inputs: Tensor
    actions: Tensor
    rewards: Tensor
    live: Tensor
    log_probabilities: Tensor
    advantages: Tensor
    targets: Tensor
    mean_return: float
    environment_steps: int

    def __getitem__(self, part: slice) -> Trials:
        """Some of the trials, in memory with trials last, as `gru.act` wants them."""
        some = (_trials_last(v[part]) if isinstance(v, Tensor) else v for v in vars(self).values())
        return Trials(*some)  # type: ignore[arg-type]


def _trials_last(values: Tensor) -> Tensor:
    return values.movedim(0, -1).contiguous().movedim(-1, 0)


def play(source: Rollouts, policy: RecurrentPolicy, returns: Parameters, discount: float, trace: float) -> Trials:
    """One trial in each task of the source. ``returns`` (see `seen_returns`) takes in what was earned."""
    seen: Trajectories = source.batch(policy, 0)
    parts = (seen.inputs, seen.actions, seen.live, seen.rewards, seen.log_probabilities)
    inputs, actions, live, rewards, likelihood = in_sequence(seen.live[:, 0], *(part[:, 0] for part in parts))
    with torch.no_grad():
        mean, deviation = take_in(returns, to_go(rewards, discount)[live])
        values = (mean + deviation * policy.act(inputs)[1]).masked_fill(~live, 0.0)
    advantages = generalised_advantages(rewards, values, discount, trace)
    targets = (advantages + values - mean) / deviation
    centred = advantages - advantages[live].mean()
    scaled = (centred / (advantages[live].std() + 1e-8)).masked_fill(~live, 0.0)
    mean_return = float(seen.returns.mean())
    return Trials(inputs, actions, rewards, live, likelihood, scaled, targets, mean_return, seen.environment_steps)


def in_sequence(live: Tensor, *parts: Tensor) -> list[Tensor]:
    """The same with the live steps of each trial first, in their order; live ``[n, N]``, parts ``[n, N, ...]``."""
    if bool(live.all()):
        return list(parts)
    order = (~live).to(torch.uint8).argsort(dim=1, stable=True)
    rows = torch.arange(len(live), device=live.device).unsqueeze(1)
    return [part[rows, order] for part in parts]


def seen_returns(device: str) -> Parameters:
    """Running sums of the discounted returns ahead, of their squares and of weights: nothing seen."""
    return {f"returns.{name}": torch.zeros((), device=device) for name in ("mean", "square", "weight")}


def take_in(returns: Parameters, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """Move the running sums towards returns ``[m]``, in place; mean and deviation of what was seen so far."""
    fresh = {"mean": ahead.mean(), "square": ahead.square().mean(), "weight": torch.ones(())}
    for name, amount in fresh.items():
        returns[f"returns.{name}"].mul_(RETURNS_KEPT).add_((1 - RETURNS_KEPT) * amount)
    mean, square = (returns[f"returns.{name}"] / returns["returns.weight"] for name in ("mean", "square"))
    return mean.clone(), (square - mean.square()).clamp(min=1e-8).sqrt()


def generalised_advantages(rewards: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """Schulman et al. 2016, equation 16, ``[n, N]``: along the whole trial, past the ends of its episodes, with nothing
    to come after its last step."""
    following = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), 1)
    return to_go(rewards + discount * following - values, discount * trace)


def natural_step(
    acting: RecurrentPolicy, trials: Trials, actions: ActionSpace, radius: float, fisher_share: float
) -> Parameters:
    """A trust-region step of the policy (Schulman et al. 2015), then values fitted to the states of the policy that
    played by least squares."""
    policy = {name: value for name, value in acting.parameters.items() if not name.startswith("value")}

    def distributions_of(vector: Tensor, seen: Trials, twice: bool = False) -> Tensor:
        theta = unflat(vector, policy)
        return gru.distribution(theta, dataclasses.replace(acting, parameters=theta).read(seen.inputs, twice))

    def surrogate(vector: Tensor) -> tuple[Tensor, Tensor]:
        distributions = distributions_of(vector, trials)
        ratio = (actions.log_probability(distributions, trials.actions) - trials.log_probabilities).exp()
        return -(ratio * trials.advantages)[trials.live].mean(), distributions

    here = torch.cat([value.detach().flatten() for value in policy.values()]).requires_grad_()
    loss, distributions = surrogate(here)
    (gradient,) = torch.autograd.grad(loss, here)
    before, present = distributions.detach(), float(loss.detach())
    if not math.isfinite(present):
        raise Diverged(f"the surrogate of a trust-region step is {present}")

    def evaluate(vector: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            reached, after = surrogate(vector)
            return float(reached), float(actions.divergence(before, after)[trials.live].mean())

    some = trials[: max(1, round(fisher_share * len(trials.live)))]
    weights = some.live.to(before.dtype) / some.live.sum()
    product = fisher_product(lambda vector: distributions_of(vector, some, True), here.detach(), weights, actions)
    step = trust_region_step(here.detach(), present, gradient, product, evaluate, radius=radius)
    with torch.no_grad():
        fitted = fitted_values(acting.read(trials.inputs), trials)
    return {**unflat(step.parameters, policy), **fitted}


def fitted_values(memories: Tensor, trials: Trials) -> Parameters:
    """The critic's head that is nearest to the targets of the live steps, in states ``[n, N, hidden]``."""
    states = memories[trials.live].double()
    features = torch.cat((states, torch.ones_like(states[:, :1])), 1)
    gram = features.T @ features + RIDGE * len(features) * torch.eye(features.shape[1]).to(features)
    solution = torch.linalg.solve(gram, features.T @ trials.targets[trials.live].double()).to(memories.dtype)
    return {"value.weight": solution[:-1].unsqueeze(0), "value.bias": solution[-1:]}
