"""MB-MPO: MAML on imagined trajectories, with an ensemble of learned dynamics.

Clavera, Rothfuss, Schulman, Fujita, Asfour and Abbeel, "Model-based reinforcement learning via meta-policy
optimization", CoRL 2018 (https://arxiv.org/abs/1809.05214). An iteration has three parts: adapted policies play real
trajectories; M networks learn from all real trajectories how states change; MAML takes a number of its iterations in
environments whose dynamics are the networks. So the policy learns to adapt to each network, and needs few real steps.
Inner loop and trust-region step are those of `maml.control.maml`, unchanged.

Deviations from the paper and the released code (jonasrothfuss/model_ensemble_meta_learning):
- the paper solves one task, and its MAML tasks are the networks. Here it learns a distribution: a MAML task is a
  training task, imagined by one of the networks. At test the policy adapts to the real task as MAML's does;
- the networks are told the parameters of training tasks, in case tasks differ in their dynamics. Rewards and ends in
  training tasks are computed from imagined states, as in the paper, which knows the rewards. Nothing is told at test;
- the first real trajectories are of the first policy, not of random actions; no weight normalisation;
- networks take a fixed number of steps and keep their best ones on a fifth of the data that stays the same from
  iteration to iteration. The code draws another fifth each time, and stops by a moving average;
- sizes are reduced: networks of 128-128 units (the code: 512-512), 400 gradient steps in an iteration (500 epochs at
  most), 10 updates (30), the last 20,000 transitions (100,000), batches of 250 (500); on navigation smaller still;
- imagined changes are cut to the range of the real ones; the code clips observations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch

from benchmarks import sampling
from benchmarks.api import Parameters, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.environments import ControlTasks, Rollouts, Trajectories
from benchmarks.environments.learned import Dynamics, ImaginedTasks
from benchmarks.models import join, split
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from benchmarks.training import training_indices
from maml.control.dynamics import Ensemble, Fitting, Transitions, transitions_of
from maml.control.maml import CRITIC, ControlMAML
from maml.control.policies import Acting, Layers
from maml.control.policy_learners import ALPHA, TRAINING
from maml.inner_loop import detached, per_task

#: prefixes of the networks and of the transitions among the buffers
NETWORKS, REPLAY = "dynamics.", "replay."
#: a point moves by its action: small networks are enough
_NAVIGATION: Mapping[str, Any] = {"model_hidden": (32, 32), "model_steps": 100}
_REDUCED = "MAML's policies and batches; ensemble and updates reduced from the released code, as the file says"


@register_method("mb-mpo")
@dataclass(frozen=True)
class MBMPO(ControlMAML):
    """Learn how states change, and by MAML in imagined environments a policy that adapts in few steps.

    models: networks of the ensemble. model_hidden: their hidden layers. model_lr, model_batch, model_steps: Adam's rate
        for them, transitions in a batch of each, and gradient steps in an iteration.
    updates: iterations of MAML in imagined environments after each collection.
    collected: real trajectories per task and iteration. replay: the most transitions that are kept, the latest ones.

    All other fields are MAML's; `trajectories` are imagined ones.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"parameters"})
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {**settings, "inner_lr": ALPHA[task], **(_NAVIGATION if task.startswith("navigation") else {})}
        for task, settings in TRAINING.items()
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        "navigation-2d": ours(f"{_REDUCED}; small networks: two trainings on quick, looked at on validation tasks"),
        "half-cheetah-direction": ours(f"{_REDUCED}; one training on quick, looked at on validation tasks"),
        "": ours(f"{_REDUCED}; untried"),
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {}

    models: int = 5
    model_hidden: tuple[int, ...] = (128, 128)
    model_lr: float = 1e-3
    model_batch: int = 250
    model_steps: int = 400
    updates: int = 10
    collected: int = 1
    replay: int = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("models", "model_hidden", "model_batch", "model_steps", "updates", "collected", "replay")
        check_fields(self, "at least 1", *counts)
        check_fields(self, "above 0", "model_lr")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if not isinstance(tasks, ControlTasks):
            return f"{self.name} imagines environments; {tasks.name} has no model of one"
        if tasks.trial_episodes > 1:
            return f"{self.name} imagines single episodes; a trial of {tasks.name} has {tasks.trial_episodes}"
        if tasks.model.step_lanes:
            return f"{self.name} predicts one next state; steps of {tasks.name} are random"
        if len(tasks.input_shape) > 1:
            return f"{self.name} predicts from a vector; observations of {tasks.name} are {tasks.input_shape}"
        return None

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        """Real environment steps only."""
        assert isinstance(tasks, ControlTasks)
        return self.meta_batch * self.collected * tasks.trial_steps

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        assert isinstance(tasks, ControlTasks)
        state = start.copy() if start else State(self.initial_parameters(self.policy(tasks), tasks, seed))
        while True:
            source, seen = self.collect(state, tasks, seed)
            state.environment_steps += seen.environment_steps
            state.buffers = self.learned(state, transitions_of(source, seen), seed)
            imagined = ImaginedTasks.of(tasks, self.dynamics(state.buffers))
            begin = State(state.parameters, moments=state.moments, step=state.step * self.updates)
            *_, improved = islice(super().fit(imagined, seed, begin), self.updates)
            state.parameters, state.moments = detached(improved.parameters), improved.moments
            state.step += 1
            state.loss = -float(seen.returns.mean())
            yield state

    def collect(self, state: State, tasks: ControlTasks, seed: int) -> tuple[Rollouts, Trajectories]:
        """Real trajectories, with their states, in the tasks of the next update: of policies that have adapted to the
        networks, or of the policy as it is where there are no networks yet."""
        policy, indices = self.policy(tasks), training_indices(seed, state.step * self.updates, self.meta_batch)
        theta = per_task(split(state.parameters, CRITIC)[1], self.meta_batch)
        if state.buffers:
            imagined = ImaginedTasks.of(tasks, self.dynamics(state.buffers))
            support = imagined.episodes("train", indices, shots=self.trajectories).support
            _, theta = self.adapted(policy, state.parameters, tasks, support)
        real = tasks.episodes("train", indices, shots=self.collected).support
        # the random numbers of a step that no imagined trajectory takes
        return real, real.play(Acting(policy, theta), self.inner_steps, states=True)

    def learned(self, state: State, new: Transitions, seed: int) -> Parameters:
        """The buffers after the networks have learned from the transitions kept and new ones."""
        networks, _ = split(state.buffers, NETWORKS)
        data = (_kept(state.buffers, state.environment_steps - len(new)) + new).latest(self.replay)
        if not networks:
            generator = torch.Generator().manual_seed(seed)
            drawn = [self._network(data).initialise(generator) for _ in range(self.models)]
            networks = {name: torch.stack([each[name] for each in drawn]).to(data.inputs) for name in drawn[0]}
        held = data.held_out(sampling.stream(self.name, "held out", seed), self.models)
        generator = torch.Generator().manual_seed(sampling.stream(self.name, "batches", seed, state.step) >> 1)
        fitting = Fitting(self.model_steps, self.model_batch, self.model_lr)
        ensemble = Ensemble.of(self._network(data), networks, data).trained(data, held, generator, fitting)
        return {**join(NETWORKS, ensemble.parameters), REPLAY + "inputs": data.inputs, REPLAY + "changes": data.changes}

    def dynamics(self, buffers: Parameters) -> Dynamics:
        """How states follow in imagined environments."""
        data = _kept(buffers)
        return Ensemble.of(self._network(data), split(buffers, NETWORKS)[0], data)

    def _network(self, data: Transitions) -> Layers:
        return Layers(data.inputs.shape[1], self.model_hidden, data.changes.shape[1], "relu")


def _kept(buffers: Parameters, collected: int = 0) -> Transitions:
    """The transitions in the buffers; collected: how many there were so far."""
    inputs, changes = (buffers.get(REPLAY + name, torch.zeros(0, 0)) for name in ("inputs", "changes"))
    return Transitions(inputs, changes, collected - len(inputs))
