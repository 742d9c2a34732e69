"""Learned dynamics: an ensemble of networks, each of which predicts how a state changes in a step.

Clavera et al., "Model-based reinforcement learning via meta-policy optimization", CoRL 2018. The networks
see observation, action and the task's parameters, and predict the difference of two states. Both are normalised by mean
and deviation over the data. The loss is the mean squared error in these units. Networks differ in their first weights,
in their batches, and in the fifth of the data that they are not trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Parameters
from benchmarks.environments import Model, Rollouts, Trajectories
from benchmarks.environments.learned import Following
from benchmarks.training import descend
from maml.control.policies import Layers
from maml.inner_loop import detached

#: the share of the transitions that a network is not trained on
HELD_OUT = 0.2
#: gradient steps between two looks at the transitions held out
CHECK_EVERY = 50
#: a column with a smaller deviation is constant
CONSTANT = 1e-8


def inputs_of(model: Model, tasks: Tensor, state: Tensor, action: Tensor) -> Tensor:
    """What the networks see: observation, action and the task's parameters, ``[T, K, i]``."""
    seen = model.observe(tasks, state).to(tasks)
    told = tasks.unsqueeze(1).expand(*seen.shape[:2], -1)
    return torch.cat((seen, model.actions.as_features(action, seen.dtype), told), -1)


@dataclass(frozen=True)
class Units:
    """Mean and standard deviation of each column of the data; the deviation of a constant one is 1."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Units:
        """Of rows ``[B, columns]``, in double precision."""
        exact = rows.double()
        deviation = exact.std(0, correction=0)
        deviation = torch.where(deviation > CONSTANT, deviation, torch.ones_like(deviation))
        return cls(exact.mean(0).to(rows), deviation.to(rows))

    def scaled(self, rows: Tensor) -> Tensor:
        """Rows in these units."""
        return (rows - self.mean) / self.deviation

    def unscaled(self, rows: Tensor) -> Tensor:
        """The inverse."""
        return self.mean + self.deviation * rows


@dataclass(frozen=True)
class Transitions:
    """Steps of real trajectories: inputs ``[B, i]``, and the changes of the state ``[B, s]``. first: the number of the
    first one; they are numbered as they were collected."""

    inputs: Tensor
    changes: Tensor
    first: int = 0

    def __len__(self) -> int:
        return len(self.inputs)

    def __add__(self, later: Transitions) -> Transitions:
        """These and later ones."""
        if not len(self):
            return later
        rows = torch.cat((self.inputs, later.inputs)), torch.cat((self.changes, later.changes))
        return Transitions(*rows, self.first)

    def latest(self, count: int) -> Transitions:
        """At most so many, the last ones."""
        dropped = max(0, len(self) - count)
        return Transitions(self.inputs[dropped:], self.changes[dropped:], self.first + dropped)

    def held_out(self, key: int, members: int) -> Tensor:
        """Which of them a network is not trained on, bool ``[B, M]``: a function of their numbers, so that it stays."""
        numbers = range(self.first, self.first + len(self))
        return torch.from_numpy(sampling.uniform(key, numbers, members) < HELD_OUT).to(self.inputs.device)


def transitions_of(source: Rollouts, seen: Trajectories) -> Transitions:
    """The steps that took place on trajectories of a source, which hold their states."""
    assert seen.states is not None
    before, after = seen.states.flatten(1, 2).unbind(2)
    inputs = inputs_of(source.model, source.parameters, before, seen.actions.flatten(1, 2))
    live = seen.live.flatten(1)
    return Transitions(inputs[live], (after - before)[live].to(inputs))


@dataclass(frozen=True)
class Fitting:
    """How networks are trained: steps of Adam, transitions in the batch of each network, and the rate."""

    steps: int
    batch: int
    rate: float


@dataclass(frozen=True)
class Ensemble:
    """M networks as `benchmarks.environments.learned.Dynamics`: task t of a batch is imagined by network t modulo M.

    parameters: ``[M, ...]``. seen, changed: units of inputs and changes. lowest, highest: of the changes in the data
    ``[s]``, beyond which no prediction goes, so that imagined trajectories stay finite."""

    network: Layers
    parameters: Mapping[str, Tensor]
    seen: Units
    changed: Units
    lowest: Tensor
    highest: Tensor

    @classmethod
    def of(cls, network: Layers, parameters: Mapping[str, Tensor], data: Transitions) -> Ensemble:
        """With the units and the range of these transitions."""
        return cls(network, parameters, Units.of(data.inputs), Units.of(data.changes), *data.changes.aminmax(dim=0))

    @property
    def members(self) -> int:
        return len(next(iter(self.parameters.values())))

    def __call__(self, model: Model, tasks: Tensor) -> Following:
        chosen = torch.arange(len(tasks), device=tasks.device) % self.members
        own = {name: value[chosen] for name, value in self.parameters.items()}

        def following(state: Tensor, action: Tensor) -> Tensor:
            scaled = self.network(own, self.seen.scaled(inputs_of(model, tasks, state, action)))
            return state + self.changed.unscaled(scaled).clamp(self.lowest, self.highest).to(state)

        return following

    def trained(self, data: Transitions, held: Tensor, generator: torch.Generator, fitting: Fitting) -> Ensemble:
        """After further gradient steps. Each network keeps the weights with the least error on what it is not trained
        on, looked at every `CHECK_EVERY` steps. held: which transitions those are, bool ``[B, M]``."""
        x, y = self.seen.scaled(data.inputs), self.changed.scaled(data.changes)
        counts = (~held).sum(0).clamp(min=1).unsqueeze(1)
        # of each network: the rows that it is trained on, then the others, ``[M, B]``
        rows = held.mT.to(torch.uint8).argsort(dim=1, stable=True)
        unseen = rows[:, -max(1, int(held.sum(0).min())) :]

        def errors(parameters: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
            return (self.network(parameters, x[chosen]) - y[chosen]).square().mean((1, 2))

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            drawn = torch.rand((self.members, fitting.batch), generator=generator, dtype=torch.float64)
            return errors(parameters, rows.gather(1, (drawn.to(x.device) * counts).long())).sum(), 0

        best = dict(self.parameters)
        least = errors(best, unseen)
        for state in islice(descend(dict(best), loss, learning_rate=fitting.rate), fitting.steps):
            if state.step % CHECK_EVERY == 0 or state.step == fitting.steps:
                found = detached(state.parameters)
                error = errors(found, unseen)
                better, least = error < least, torch.minimum(error, least)
                best = {n: torch.where(better.view(-1, *[1] * (v.dim() - 1)), v, best[n]) for n, v in found.items()}
        return dataclasses.replace(self, parameters=best)
