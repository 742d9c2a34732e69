"""A process so small that all of its trajectories can be written down, for expectations without sampling."""

import itertools

import torch

from benchmarks.environments import Categorical, Trajectories
from maml.control.policy_gradient import Experience, surrogate_loss, to_go

STATES, CHOICES, HORIZON = 3, 2, 3


class Process:
    """A small process whose 72 trajectories can be enumerated: state 0 first, a softmax policy per state."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        moves = torch.rand(STATES, CHOICES, STATES, generator=generator, dtype=torch.float64) + 0.1
        self.moves = moves / moves.sum(-1, keepdim=True)
        self.rewards = torch.randn(STATES, CHOICES, generator=generator, dtype=torch.float64)
        self.logits = torch.randn(STATES, CHOICES, generator=generator, dtype=torch.float64)
        free = itertools.product(range(CHOICES), *[range(STATES), range(CHOICES)] * (HORIZON - 1))
        rows = torch.tensor(list(free))
        self.actions = rows[:, ::2]
        self.states = torch.cat((torch.zeros(len(rows), 1, dtype=torch.int64), rows[:, 1::2]), 1)

    def probabilities(self, logits):
        """Of each trajectory, ``[72]``."""
        chosen = logits.log_softmax(-1)[self.states, self.actions].sum(1).exp()
        return chosen * self.moves[self.states[:, :-1], self.actions[:, :-1], self.states[:, 1:]].prod(1)

    def value(self, logits):
        return (self.probabilities(logits) * self.rewards[self.states, self.actions].sum(1)).sum()

    def values(self):
        """Of each state with 0, 1 ... steps gone, ``[H, S]``."""
        value, rows = torch.zeros(STATES, dtype=torch.float64), []
        for _ in range(HORIZON):
            worth = self.rewards + self.moves @ value
            value = (self.logits.softmax(-1) * worth).sum(-1)
            rows.append(value)
        return torch.stack(rows[::-1])

    def trajectories(self):
        """All of them as one task with a trajectory each: T = 72, K = 1."""
        inputs = torch.nn.functional.one_hot(self.states, STATES).double().unsqueeze(1)
        rewards = self.rewards[self.states, self.actions].unsqueeze(1)
        live = torch.ones_like(rewards, dtype=torch.bool)
        chosen = self.logits.log_softmax(-1)[self.states, self.actions].unsqueeze(1)
        shape = inputs, self.actions.unsqueeze(1), rewards, live, ~live, ~live, torch.zeros(0), chosen, None, STATES
        return Trajectories(*shape)

    def expected(self, logits, form, baseline):
        """The surrogate's mean over trajectories as the policy that acted drew them."""
        seen = self.trajectories()
        advantages = to_go(seen.rewards, 1.0)
        if baseline:
            advantages = advantages - self.values()[torch.arange(HORIZON), self.states].unsqueeze(1)
        experience = Experience(seen, advantages, torch.ones(len(advantages)))
        losses = surrogate_loss(lambda x, memory: (x @ logits, None), experience, Categorical(CHOICES), form)
        return -(self.probabilities(self.logits) * losses).sum() * HORIZON
