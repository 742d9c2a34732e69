"""RL^2: Duan et al., "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 2016.

A recurrent network plays whole trials. It is fed with the observation, its last action, the reward for it and the end
of the episode; its state lasts from episode to episode and is reset with each trial. Trained by an ordinary
algorithm of reinforcement learning to earn much in a trial, it learns to explore: what it knows about a task is in its
state.

Adaptation is playing. Where a task's own trial is one episode (navigation, locomotion), the predictor after k steps is
the policy with the state that one support trajectory of k episodes has left in each task; every query trajectory goes
on from a copy. So scores by step are returns by episode of the trial, and k episodes are k * horizon environment steps.
Bandits and tabular processes have trials of several episodes themselves, which are scored whole.

Deviations from the paper:
- `rl2` is trained by proximal policy optimisation (Schulman et al. 2017); `rl2-trpo`, which is `rl2` with `outer` =
  "trpo", by the paper's trust-region policy optimisation;
- policy and value share one GRU, where the paper has one for each. With "trpo" the value is a linear function of the
  policy's state, fitted by least squares;
- images go through two convolutions and a fully connected layer before the GRU, whose sizes are ours;
- values are learned in units of the spread of returns seen so far (van Hasselt et al. 2016);
- after the last step of a trial nothing is to come, also where it was cut off at a horizon: the return that is scored
  ends there, too;
- the paper's appendix was not at hand, so sizes and rates are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.shared import gru
from baselines.shared.beta_bernoulli import known_optimum
from baselines.shared.encoder import Encoder
from baselines.shared.gru import RecurrentPolicy
from baselines.shared.trials import Trials, natural_step, play, seen_returns
from benchmarks.api import MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.environments import ControlTasks
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from benchmarks.training import descend, training_indices
from maml.inner_loop import detached

#: our own settings: what learned fastest of a few tries on the smallest variants (docs/meta-rl.md)
_ONE_TRIAL: dict[str, Any] = {"trial_episodes": 1}
_SHORT: dict[str, Any] = {"meta_lr": 8e-3, "entropy_iterations": 60}
_LONG: dict[str, Any] = {"meta_batch": 1000, "hidden": 64, "meta_lr": 3e-3, "entropy_iterations": 150}
_TABULAR = {"hidden": 128, "meta_lr": 2e-3}
_NAVIGATION = {"meta_batch": 100, "hidden": 64, "trace": 0.95, "minibatches": 2}
_MAZE = {"meta_batch": 50, "hidden": 256, "units": 256, "trace": 0.95, "meta_lr": 1e-3}
_SHORT_MAZE = {"meta_batch": 200, "hidden": 64, "trace": 0.95, "meta_lr": 3e-3, "entropy_iterations": 100}
_LOCOMOTION = {"meta_batch": 64, "hidden": 64, "trace": 0.95, "meta_lr": 2e-3, "minibatches": 2, "entropy": 0.0}


@register_method("rl2-trpo", outer="trpo")
@register_method("rl2")
@dataclass(frozen=True)
class RL2(MetaLearner):
    """Train a recurrent policy on whole trials, so that its state learns each new task.

    trial_episodes: how many of the tasks' own trials the state is kept through: episodes, where that is one episode.
    meta_batch: tasks per iteration, with one trial each. hidden: units of the GRU.
    trace: lambda of generalised advantage estimation.
    outer: "ppo"; or "trpo", a natural gradient step within a divergence of `radius`, with the Fisher information of
        `fisher_share` of the trials. The fields from `meta_lr` to `gradient_norm` are of "ppo" alone.
    meta_lr: Adam's rate. epochs: passes over the trials of an iteration; minibatches: parts that a pass is cut into.
    filters, units: where observations are images, filters of convolutions (5 x 5, stride 2), and features of an image.
    clip: bound on the change of a probability ratio.
    entropy: weight of the entropy bonus, falling to 0 in a straight line over `entropy_iterations`.
    value_weight: weight of the value's squared error. gradient_norm: bound on the length of a gradient.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bandit": _ONE_TRIAL,
        "bandit/k5n10": _ONE_TRIAL | _SHORT,
        "bandit/k5n100": _ONE_TRIAL | _LONG,
        "bandit/k10n100": _ONE_TRIAL | _LONG,
        "tabular-mdp": _ONE_TRIAL | _TABULAR,
        "navigation-2d": _NAVIGATION,
        "visual-maze": _MAZE,
        "visual-maze/quick": _SHORT_MAZE,
        **dict.fromkeys(
            ("half-cheetah-direction", "half-cheetah-velocity", "ant-direction", "ant-velocity"), _LOCOMOTION
        ),
    }

    origins: ClassVar[Mapping[str, Origin]] = {
        "visual-maze": ours("untried; 25,000 steps an iteration fit into 4 GB"),
        "visual-maze/quick": ours("one setting, looked at in 12 iterations of trpo and, on other mazes, 60 of ppo"),
        "tabular-mdp": ours(
            "units and rate of 2 settings, and trace of 2, on 300 validation tasks of n10, 1 seed: 120.0 after 100 "
            "iterations, 116.2 with 32 units and 0.005; the paper's were unavailable"
        ),
        "": ours("fastest of a few tries on the smallest variants, not kept; the paper's were unavailable"),
    }

    trial_episodes: int = 2
    meta_batch: int = 1000
    hidden: int = 32
    filters: tuple[int, ...] = (16, 16)
    units: int = 64
    trace: float = 0.9
    outer: Literal["ppo", "trpo"] = "ppo"
    meta_lr: float = 5e-3
    epochs: int = 4
    minibatches: int = 4
    clip: float = 0.2
    entropy: float = 0.01
    entropy_iterations: int = 300
    value_weight: float = 0.5
    gradient_norm: float = 0.5
    radius: float = 0.01
    fisher_share: float = 0.25

    def __post_init__(self) -> None:
        counts = (
            "trial_episodes",
            "meta_batch",
            "hidden",
            "filters",
            "units",
            "epochs",
            "minibatches",
            "entropy_iterations",
        )
        check_fields(self, "at least 1", *counts)
        check_fields(self, "above 0", "meta_lr", "clip", "gradient_norm", "radius", "fisher_share")
        check_fields(self, "at least 0", "entropy", "value_weight")
        check_fields(self, "between 0 and 1", "trace")
        if self.minibatches > self.meta_batch:
            raise ValueError(f"{self.minibatches} minibatches cannot be cut from {self.meta_batch} trials")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if not isinstance(tasks, ControlTasks) or tasks.trial_episodes * self.trial_episodes > 1:
            return None
        return f"{self.name} learns from episode to episode of a trial; with trial_episodes = 1 {tasks.name} has one"

    def reported_steps(self) -> tuple[int, ...]:
        return tuple(range(self.trial_episodes))

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        assert isinstance(tasks, ControlTasks)
        return self.meta_batch * self.trial_episodes * tasks.trial_steps

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        assert isinstance(tasks, ControlTasks)
        begin = start or self.initial(tasks, seed)
        return (self._proximal if self.outer == "ppo" else self._natural)(tasks, seed, begin)

    def initial(self, tasks: ControlTasks, seed: int) -> State:
        """The state before the first iteration."""
        encoder, history = self.encoder(tasks), tasks.actions.features + 2
        if encoder is None:
            parameters = gru.initialise(tasks.model.observation + history, self.hidden, tasks.actions, seed)
        else:
            inputs = self.units + history
            parameters = gru.initialise(inputs, self.hidden, tasks.actions, seed, self.units)
            parameters |= encoder.initialise(seed)
        parameters = {name: value.to(tasks.device) for name, value in parameters.items()}
        return State(parameters=parameters, buffers=seen_returns(tasks.device))

    def encoder(self, tasks: TaskDistribution) -> Encoder | None:
        """The encoder of tasks that show images; None for those that show numbers."""
        return Encoder(tasks.input_shape, self.filters, self.units) if len(tasks.input_shape) == 3 else None

    def policy(self, tasks: TaskDistribution, parameters: Parameters) -> RecurrentPolicy:
        """The policy with these parameters, at the beginning of a trial."""
        return RecurrentPolicy(parameters, encoder=self.encoder(tasks))

    def _proximal(self, tasks: ControlTasks, seed: int, start: State) -> Iterator[State]:
        updates = self.epochs * self.minibatches
        parts: list[Trials] = []

        def loss(parameters: Parameters, buffers: Parameters, update: int) -> tuple[Tensor, int]:
            iteration, number = divmod(update, updates)
            if number == 0:
                trials = self.play(tasks, parameters, buffers, seed, iteration)
                parts[:] = [trials[part :: self.minibatches] for part in range(self.minibatches)]
            entropy = self.entropy * max(0.0, 1 - iteration / self.entropy_iterations)
            return self.loss(parameters, parts[number % self.minibatches], tasks, entropy), 0

        begin = dataclasses.replace(start, step=start.step * updates)
        for state in descend(
            start.parameters, loss, learning_rate=self.meta_lr, clip_norm=self.gradient_norm, start=begin
        ):
            if state.step % updates == 0:
                state.environment_steps += parts[0].environment_steps
                state.loss = -parts[0].mean_return
                yield dataclasses.replace(state, step=state.step // updates)

    def _natural(self, tasks: ControlTasks, seed: int, start: State) -> Iterator[State]:
        state = start.copy()
        for iteration in count(start.step):
            trials = self.play(tasks, state.parameters, state.buffers, seed, iteration)
            policy = self.policy(tasks, state.parameters)
            parameters = natural_step(policy, trials, tasks.actions, self.radius, self.fisher_share)
            state = dataclasses.replace(
                state,
                parameters=parameters,
                step=iteration + 1,
                environment_steps=state.environment_steps + trials.environment_steps,
                loss=-trials.mean_return,
            )
            yield state

    def play(
        self, tasks: ControlTasks, parameters: Parameters, buffers: Parameters, seed: int, iteration: int
    ) -> Trials:
        """One trial in each task of the iteration, with the values and advantages of the present policy."""
        episodes = tasks.episodes("train", training_indices(seed, iteration, self.meta_batch), shots=1)
        whole = episodes.support.episodes * self.trial_episodes
        source = dataclasses.replace(episodes.support, episodes=whole)
        return play(source, self.policy(tasks, parameters), buffers, tasks.discount, self.trace)

    def loss(self, parameters: Parameters, trials: Trials, tasks: ControlTasks, entropy: float) -> Tensor:
        """The loss of an update, from trials of the policy before the first one."""
        return self.surrogate(self.policy(tasks, parameters).act(trials.inputs), trials, tasks, entropy)

    def surrogate(self, acts: tuple[Tensor, Tensor], trials: Trials, tasks: ControlTasks, entropy: float) -> Tensor:
        """Clipped surrogate, squared error of the values and entropy bonus, over the steps that took place; acts: the
        parameters of the distributions and the values."""
        distributions, values = acts
        likelihood, bonus = tasks.actions.judge(distributions, trials.actions)
        ratio = (likelihood - trials.log_probabilities).exp()
        bounded = ratio.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.minimum(ratio * trials.advantages, bounded * trials.advantages)
        error = (values - trials.targets).square()
        each = -gain + self.value_weight * error - entropy * bonus
        return torch.where(trials.live, each, 0.0).sum() / trials.live.sum()

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        policy = self.policy(tasks, detached(state.parameters))
        yield policy
        if self.trial_episodes == 1:
            return
        source = dataclasses.replace(support, trajectories=1)
        for episode in count():
            seen = source.batch(policy, episode)
            policy = dataclasses.replace(policy, memory=seen.memory, previous=seen.history)
            yield policy

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        front = "-".join(("conv", *map(str, (*self.filters, self.units)), "")) if self.encoder(tasks) else ""
        return {"backbone": f"{front}gru-{self.hidden}", "outer": self.outer, **known_optimum(tasks.config())}
