"""Rollouts of policies: the source of the contract for control tasks.

A trial is one or more episodes in the same task. One policy plays it and keeps its memory from the first step to the
last. In navigation a trial is one episode. A bandit's trial is n pulls, each an episode of one step.

A policy is a predictor with the observation ``[T, K, o]`` as input. If its attribute ``history`` is true, it also sees
the inputs of RL^2 (Duan et al. 2016): its previous action, that action's reward, and 1 if an episode has just ended.
The input is then ``[T, K, o + features + 2]``, with zeros at the start of a trial. There is no auto-reset, so the first
observation of an episode comes with the last reward of the previous one. While an episode that ended early waits for
the others, the policy's history and its memory (if it is one tensor) stay unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Diverged, Predictor
from benchmarks.environments.batch import BatchEnv, Model

#: random numbers reserved per step of the inner loop, more than any number of trajectories takes
_LANES_PER_STEP = 1 << 40


@dataclass(frozen=True)
class Trajectories:
    """K trials in each of T tasks; N is the number of steps of a trial, over all its episodes.

    inputs: of the policy, ``[T, K, N, o]``, or ``[T, K, N, o + features + 2]`` with its history
    actions, rewards: int64 ``[T, K, N]`` or float ``[T, K, N, a]``; ``[T, K, N]``, 0 where not live
    live: bool ``[T, K, N]``, whether the step took place (its episode had not ended)
    terminated, truncated: bool ``[T, K, N]``, whether the episode had ended by itself, or was cut off, by then
    distributions, log_probabilities: outputs of the policy ``[T, K, N, outputs]``, and of the actions ``[T, K, N]``
    memory: the policy's memory after the last step
    observation: o, the leading inputs that are the observation
    history: the next history input of a policy with ``history``, ``[T, K, features + 2]``; None for other policies
    states: of the environment before and after each step, ``[T, K, N, 2, s]``, where they were asked for
    """

    inputs: Tensor
    actions: Tensor
    rewards: Tensor
    live: Tensor
    terminated: Tensor
    truncated: Tensor
    distributions: Tensor
    log_probabilities: Tensor
    memory: Any
    observation: int
    history: Tensor | None = None
    states: Tensor | None = None

    @property
    def observations(self) -> Tensor:
        """``[T, K, N, o]``."""
        return self.inputs[..., : self.observation]

    @property
    def returns(self) -> Tensor:
        """Undiscounted sum of the rewards of each trial, ``[T, K]``."""
        return self.rewards.sum(-1)

    @property
    def environment_steps(self) -> int:
        """Steps that took place, in all tasks and trials."""
        return int(self.live.sum())


@dataclass
class Counter:
    """Counter of environment steps."""

    steps: int = 0


@dataclass(frozen=True)
class Rollouts:
    """An environment as a source: it rolls out the given policy at each step of the inner loop.

    back_end: (model, tasks) -> `BatchEnv`
    parameters, indices: the tasks, ``[T, p]``, and their numbers
    key: number of the random stream
    trajectories, episodes: trials per task, and episodes per trial
    counter: steps rolled out by this source, its slices and its copies

    Index, ``key`` and inner step determine all randomness. A trajectory depends neither on the other tasks nor on the
    number of trajectories.
    """

    model: Model
    back_end: Callable[[Model, Tensor], BatchEnv]
    parameters: Tensor
    indices: np.ndarray
    key: int
    trajectories: int
    episodes: int = 1
    counter: Counter = field(default_factory=Counter, compare=False, repr=False)

    @property
    def environment_steps(self) -> int:
        """Steps rolled out so far, in all tasks and trajectories."""
        return self.counter.steps

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, tasks: slice) -> Rollouts:
        """The source for a slice of the tasks."""
        return dataclasses.replace(self, parameters=self.parameters[tasks], indices=self.indices[tasks])

    def batch(self, predictor: Predictor | None, step: int) -> Trajectories:
        """The trajectories of inner step ``step``; raises `Diverged` for a reward that is not finite."""
        trajectories = self.play(predictor, step)
        if not bool(torch.isfinite(trajectories.rewards).all()):
            raise Diverged("a reward is not finite: the policy or the simulation has become unstable")
        return trajectories

    def play(self, predictor: Predictor | None, step: int, inputs: bool = True, states: bool = False) -> Trajectories:
        """The same, whatever the rewards. inputs, states: what to keep; inputs that are images take gigabytes."""
        if predictor is None:
            raise ValueError("an environment needs a policy to roll out")
        env = self.back_end(self.model, self.parameters)
        reset_noise, step_noise = self.noise(step)
        with torch.no_grad(), env.working():
            trajectories = roll_out(env, predictor, reset_noise, step_noise, inputs, states)
        self.counter.steps += trajectories.environment_steps
        return trajectories

    def noise(self, step: int) -> tuple[Tensor, Tensor]:
        """Uniform numbers, float64: for starts ``[T, K, E, lanes]`` and for steps ``[T, K, E, H, lanes]``."""
        T, K, E, H = len(self), self.trajectories, self.episodes, self.model.horizon
        per_reset, per_step = self.model.reset_lanes, self.model.actions.lanes + self.model.step_lanes
        resets, steps = E * per_reset, E * H * per_step
        drawn = sampling.uniform(self.key, self.indices, K * (resets + steps), first=step * _LANES_PER_STEP)
        noise = torch.from_numpy(drawn).to(self.parameters.device).view(T, K, -1)
        return noise[..., :resets].view(T, K, E, per_reset), noise[..., resets:].view(T, K, E, H, per_step)


def roll_out(
    env: BatchEnv,
    predictor: Predictor,
    reset_noise: Tensor,
    step_noise: Tensor,
    inputs: bool = True,
    states: bool = False,
) -> Trajectories:
    """Play trials of E episodes; noise as drawn by `Rollouts`, the action's lanes first. inputs, states: what to keep;
    without, inputs are ``[T, K, N, 0]``."""
    space, remembers = env.model.actions, getattr(predictor, "history", False)
    kept: dict[str, list[Tensor]] = {name: [] for name in _KEPT}
    memory: Any = None
    trials = reset_noise.shape[:2]
    history = reset_noise.new_zeros(*trials, space.features + 2, dtype=torch.float32) if remembers else None
    for episode in range(step_noise.shape[2]):
        observation = env.reset(reset_noise[:, :, episode])
        live = torch.ones(observation.shape[:2], dtype=torch.bool, device=observation.device)
        for time in range(env.model.horizon):
            x = observation if history is None else torch.cat((observation, history), -1)
            distribution, after = predictor(x, memory)
            memory = _moved(live, after, memory)
            noise, before = step_noise[:, :, episode, time], env.state
            action = space.sample(distribution, noise[..., : space.lanes])
            done = env.step(action, noise[..., space.lanes :])
            row = (
                x if inputs else x[..., :0],
                action,
                live,
                done.terminated,
                done.truncated,
                distribution,
                before,
                env.state,
            )
            for values, value in zip(kept.values(), row, strict=True):
                values.append(value)
            ended = done.terminated | done.truncated
            if history is not None:
                reward = done.reward()
                boundary = torch.stack((reward, ended.to(reward.dtype)), -1)
                history = _moved(live, torch.cat((space.as_features(action, boundary.dtype), boundary), -1), history)
            observation, live = done.observation, ~ended
    stacked: dict[str, Any] = {name: torch.stack(values, 2) for name, values in kept.items()}
    likelihood = space.log_probability(stacked["distributions"], stacked["actions"])
    before, after = stacked.pop("before"), stacked.pop("after")
    moves = (before, stacked["actions"], after, stacked["live"])
    if states:
        stacked["states"] = torch.stack((before, after), 3)
    rewards = env.rewards(*(part.flatten(1, 2) for part in moves)).view_as(likelihood)
    stacked |= {"memory": memory, "observation": env.model.observation, "history": history}
    return Trajectories(**stacked, rewards=rewards, log_probabilities=likelihood)


def _moved(live: Tensor, after: Any, before: Any) -> Any:
    """The new memory where the step took place, else the old one; live: ``[T, K]``."""
    if not (isinstance(after, Tensor) and isinstance(before, Tensor)):
        return after
    if live.device.type == "cpu" and bool(live.all()):  # a GPU would have to be waited for
        return after
    return torch.where(live.view(*live.shape, *(1,) * (after.dim() - 2)), after, before)


_KEPT = ("inputs", "actions", "live", "terminated", "truncated", "distributions", "before", "after")
