"""VariBAD: Zintgraf et al., "VariBAD: A very good method for Bayes-adaptive deep RL via meta-learning", ICLR 2020.

A GRU reads a trial as that of RL^2 does. Its states are beliefs about the task: normal distributions q(m | what was
seen so far) of a latent m. The policy acts on observation and belief, and is trained by an ordinary algorithm; no
gradient of its loss goes into the beliefs. They are trained as a variational autoencoder: from m drawn from the belief
at any step a decoder tells the rewards of the whole trial, also those ahead, and each belief is drawn to the one before
it, the first to N(0, 1). The evidence lower bound at step t is

    E[log p(r_1 ... r_N | m)] - weight * KL(q_t || q_(t-1)),  m from q_t.

Deviations from the paper and the released code (lmzintgraf/varibad):
- beliefs learn from the trials of the iteration; the code keeps a buffer of earlier ones;
- one Adam with one rate for both losses, which share no parameter, where the code has one for each;
- the bound is divided by the number of steps and has a term for at most `terms` beliefs, evenly spaced; the code draws
  them. The decoder sees observation and action, not the observation that follows; transitions are not decoded;
- observation, means and logarithms of deviations enter the policy as they are; the code embeds and normalises them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.rl2 import RL2
from baselines.shared import gru
from baselines.shared.gru import RecurrentPolicy
from baselines.shared.trials import Trials
from benchmarks import sampling
from benchmarks.api import Parameters, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.environments import ControlTasks, Gaussian
from benchmarks.models import perceptron
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from benchmarks.training import training_indices
from maml.control.policies import blind_to_images


@dataclass(frozen=True)
class BeliefPolicy(RecurrentPolicy):
    """The policy: a layer of units that see observation and belief, and the heads of RL^2 on it.

    observation: numbers per observation."""

    observation: int = 0

    def judged(self, inputs: Tensor, memory: Tensor) -> Tensor:
        return self.informed(inputs, belief(self.parameters, memory).detach())

    def informed(self, inputs: Tensor, beliefs: Tensor) -> Tensor:
        """Inputs of the heads ``[..., hidden]`` for given beliefs ``[..., 2 * latent]``."""
        seen = torch.cat((inputs[..., : self.observation], beliefs), -1)
        return perceptron.outputs_of(self.parameters, "policy_layer", seen).tanh()

    def act(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return gru.heads(self.parameters, self.read(inputs))

    @property
    def embedding(self) -> Tensor | None:
        """The mean of the belief in each task, ``[T, latent]``; None before the first step."""
        return None if self.memory is None else belief(self.parameters, self.memory[:, 0]).chunk(2, -1)[0]


def belief(parameters: Mapping[str, Tensor], states: Tensor) -> Tensor:
    """Means and logarithms of deviations ``[..., 2 * latent]`` in states ``[..., hidden]``."""
    return perceptron.outputs_of(parameters, "belief", states)


def divergences(beliefs: Tensor) -> Tensor:
    """KL of each belief from the one before it, of the first from N(0, 1): ``[n, N]`` for ``[n, N, 2 * latent]``."""
    before = torch.cat((torch.zeros_like(beliefs[:, :1]), beliefs[:, :-1]), 1)
    return Gaussian(beliefs.shape[-1] // 2).divergence(beliefs, before)


@register_method("varibad")
@dataclass(frozen=True)
class VariBAD(RL2):
    """Train beliefs about the task to tell its rewards, and a policy that acts on them.

    latent: numbers of the latent. decoder: units of the decoder's hidden layer. terms: beliefs per trial in the bound.
    kl_weight: of the divergences. bound_weight: of the bound next to the loss of the policy.
    All other fields: see `baselines.rl2.RL2`; the GRU and the policy's layer have `hidden` units each.
    """

    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("latent and KL weight of lmzintgraf/varibad on half-cheetah-direction, all else RL^2's; untried")
    }

    latent: int = 5
    decoder: int = 32
    terms: int = 50
    kl_weight: float = 0.1
    bound_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "latent", "decoder", "terms")
        check_fields(self, "at least 0", "kl_weight", "bound_weight")
        if self.outer != "ppo":
            raise ValueError(f'outer = "{self.outer}": beliefs are trained next to "ppo" alone')

    def refuses(self, tasks: TaskDistribution) -> str | None:
        return blind_to_images(self.name, tasks) or super().refuses(tasks)

    def initial(self, tasks: ControlTasks, seed: int) -> State:
        state, generator = super().initial(tasks, seed), torch.Generator().manual_seed(seed)
        seen, played = tasks.model.observation, tasks.model.observation + tasks.actions.features
        for name, sizes in (
            ("belief", (self.hidden, 2 * self.latent)),
            ("policy_layer", (seen + 2 * self.latent, self.hidden)),
            ("decoder", (played + self.latent, self.decoder, 1)),
        ):
            drawn = perceptron.initialise(name, sizes, generator)
            state.parameters |= {each: value.to(tasks.device) for each, value in drawn.items()}
        return state

    def policy(self, tasks: TaskDistribution, parameters: Parameters) -> BeliefPolicy:
        assert isinstance(tasks, ControlTasks)
        return BeliefPolicy(parameters, observation=tasks.model.observation)

    def play(
        self, tasks: ControlTasks, parameters: Parameters, buffers: Parameters, seed: int, iteration: int
    ) -> Trials:
        """As RL^2; the inputs begin with the beliefs of the policy that played and normal numbers to draw from others,
        ``[n, N, 2 * latent + latent + i]``."""
        trials = super().play(tasks, parameters, buffers, seed, iteration)
        with torch.no_grad():
            known = belief(parameters, gru.read(parameters, trials.inputs))
        indices, (n, steps) = training_indices(seed, iteration, self.meta_batch), trials.live.shape
        noise = sampling.normal(sampling.stream(self.name, "latent"), indices, steps * self.latent)
        drawn = torch.from_numpy(noise).to(known).view(n, steps, self.latent)
        return dataclasses.replace(trials, inputs=torch.cat((known, drawn, trials.inputs), -1))

    def loss(self, parameters: Parameters, trials: Trials, tasks: ControlTasks, entropy: float) -> Tensor:
        known, noise, inputs = trials.inputs.tensor_split((2 * self.latent, 3 * self.latent), -1)
        seen = self.policy(tasks, parameters).informed(inputs, known)
        bound = self.bound(parameters, trials, inputs, noise, tasks)
        return self.surrogate(gru.heads(parameters, seen), trials, tasks, entropy) - self.bound_weight * bound

    def bound(
        self, parameters: Parameters, trials: Trials, inputs: Tensor, noise: Tensor, tasks: ControlTasks
    ) -> Tensor:
        """The evidence lower bound per step, a mean over beliefs, up to a constant; noise ``[n, N, latent]``."""
        beliefs, live = belief(parameters, gru.read(parameters, inputs)), trials.live
        mean, log_deviation = beliefs.chunk(2, -1)
        some = slice(None, None, -(-live.shape[1] // self.terms))
        latent = (mean + log_deviation.exp() * noise)[:, some]
        actions = tasks.actions.as_features(trials.actions, inputs.dtype)
        played = torch.cat((inputs[..., : tasks.model.observation], actions), -1)
        told = self.told(parameters, latent, played)
        pairs = live[:, some].unsqueeze(2) & live.unsqueeze(1)
        likelihood = (-0.5 * (told - trials.rewards.unsqueeze(1)).square()).masked_fill(~pairs, 0.0).sum()
        bound = likelihood / live[:, some].sum() - self.kl_weight * divergences(beliefs)[live].mean()
        return bound / live.shape[1]

    def told(self, parameters: Parameters, latent: Tensor, played: Tensor) -> Tensor:
        """The decoder's rewards ``[n, M, N]``: of observations and actions ``[n, N, o + a]``, from each of M latents
        ``[n, M, latent]``."""
        steps = played.shape[1]
        pairs = (latent.unsqueeze(2).expand(-1, -1, steps, -1), played.unsqueeze(1).expand(-1, latent.shape[1], -1, -1))
        return perceptron.outputs_of(parameters, "decoder", torch.cat(pairs, -1)).squeeze(-1)
