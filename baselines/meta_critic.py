"""Meta-critic networks, and the actor-critic from scratch that they are compared with.

Sung, Zhang, Xiang, Hospedales and Yang, "Learning to learn: Meta-critic networks for sample efficient learning", 2017
(https://arxiv.org/abs/1706.09529). One critic judges the actors of many tasks. It is a value network V(s, z) of the
state and of an embedding z of the task, which a task-actor encoder, an LSTM, makes of the last transitions (s, a, r) of
the actor before. In each task a new actor learns from the advantages R - V(s, z). Critic and encoder are trained by the
squared error of V; in a new task they stay, and a new actor learns from them.

Deviations from the paper and the released code (floodsung/Meta-Critic-Networks, ``cartpole``):
- the code makes an optimiser for the encoder and never steps it, so that its encoder stays random; here the loss of the
  values trains both, as the paper says;
- an update of an actor takes `shot` trajectories to their ends, where the code cuts roll-outs of 30 steps, and the
  embedding is the mean of those of its trajectories. No value stands for what is cut off at the horizon;
- training tasks are renewed with their actors, after `lifetime` updates; the code keeps them for ten generations;
- actors sample at test as in training; the code's are greedy;
- the paper's supervised tasks are left out: the critic of a regression judges labels, not returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.shared.actors import Adam, Coached, actor_loop, fresh
from baselines.shared.trials import in_sequence
from benchmarks.api import MetaLearner, Parameters, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.environments import ActionSpace, ControlTasks, Rollouts, Trajectories
from benchmarks.models import join, lstm, perceptron, split
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from benchmarks.training import descend, training_indices
from maml.control.policies import Acting, Activation, Layers, blind_to_images, policy_for
from maml.control.policy_gradient import mean_over_steps
from maml.inner_loop import InnerLoop, Recorded, detached

ACTOR_RATES = (0.003, 0.01, 0.03, 0.1)
#: a reward of 1 becomes -10 where the pole falls
_CARTPOLE: Mapping[str, Any] = {"fall": 11.0, "test_steps": (5, 10, 20, 50)}
_ORIGINS: Mapping[str, Origin] = {
    "cartpole/metacritic": ours(
        "sizes and rates of floodsung/Meta-Critic-Networks; updates of whole episodes: untried"
    ),
    "": ours("sizes and rates of floodsung/Meta-Critic-Networks for its cart-poles; untried"),
}


@dataclass(frozen=True)
class ActorLearner(MetaLearner):
    """A new actor in each task, which takes steps of Adam on policy gradients."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cartpole": _CARTPOLE}
    origins: ClassVar[Mapping[str, Origin]] = _ORIGINS

    hidden: tuple[int, ...] = (40, 40)
    activation: Activation = "relu"
    values: tuple[int, ...] = (80, 80)
    critic_lr: float = 1e-3
    clip_norm: float = 0.5
    fall: float = 0.0
    test_steps: tuple[int, ...] = adaptation_field((5, 10, 20))

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "hidden", "values")
        check_fields(self, "above 0", "critic_lr", "clip_norm")
        check_fields(self, "at least 0", "fall", "test_steps")
        if not self.test_steps:
            raise ValueError("test_steps = () is empty")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        return blind_to_images(self.name, tasks)

    def reported_steps(self) -> tuple[int, ...]:
        return self.test_steps

    def actors(self, tasks: TaskDistribution, rate: float, support: Rollouts) -> tuple[InnerLoop, Parameters]:
        """The updates of the actors, and their weights before the first one."""
        policy = policy_for(tasks, self.hidden, self.activation)
        return actor_loop(policy, rate), fresh(lambda index: policy.initialise(index, tasks.device), support)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": "-".join(("mlp", *map(str, self.hidden), self.activation))}


@dataclass(frozen=True)
class Guided(Acting):
    """An actor, and its critic's embedding of the task, ``[T, z]``."""

    embedding: Tensor = field(default_factory=lambda: torch.zeros(0))


@register_method("meta-critic")
@dataclass(frozen=True)
class MetaCritic(ActorLearner):
    """Train one critic on the actors of many tasks; in a new task it teaches a new actor.

    hidden, activation: layers of an actor, and their non-linearity. actor_lr: Adam's rate for actors.
    meta_batch: training tasks at once. lifetime: updates after which tasks and actors are renewed.
    values: hidden layers of the value network. encoder: units of the encoder's LSTM. embedding: numbers that it makes
        of the last `window` transitions of each trajectory.
    critic_lr, clip_norm: Adam's rate for critic and encoder, and the bound on their gradient.
    fall: taken from the reward where an episode ends by itself.
    test_lr: Adam's rate for actors at test; 0: `actor_lr`. test_steps: updates reported at test, headline last.
    """

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {"test_lr": ACTOR_RATES}

    meta_batch: int = 10
    lifetime: int = 50
    actor_lr: float = 0.01
    encoder: int = 30
    embedding: int = 3
    window: int = 9
    test_lr: float = adaptation_field(0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "meta_batch", "lifetime", "encoder", "embedding", "window")
        check_fields(self, "above 0", "actor_lr")
        check_fields(self, "at least 0", "test_lr")

    def critic(self, tasks: TaskDistribution) -> MetaValues:
        """Critic and encoder for these tasks."""
        assert isinstance(tasks, ControlTasks)
        sizes = self.values, self.encoder, self.embedding, self.window
        return MetaValues(tasks.input_shape[0], tasks.actions, *sizes)

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        assert isinstance(tasks, ControlTasks)
        return self.meta_batch * tasks.shot * tasks.trial_steps

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        critic = self.critic(tasks)
        played = 0

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            nonlocal played
            generation, number = divmod(step, self.lifetime)
            support = tasks.episodes("train", training_indices(seed, generation, self.meta_batch)).support
            loop, actors = self.actors(tasks, self.actor_lr, support)
            memory, transitions = loop.rule.start(actors), critic.nothing(support)
            if number:
                (actors, rest), transitions = split(buffers, "actor."), buffers["transitions"]
                memory, _ = split(rest, "rule.")
            judge = Judging(critic, parameters, transitions)
            source = Coached(support, judge, tasks.discount, self.fall)
            actors, memory = loop.step(actors, memory, source, number)
            played = judge.seen.environment_steps
            buffers |= {**join("actor.", actors), **join("rule.", memory), "transitions": judge.transitions}
            return judge.error.mean(), 0

        initial = {name: value.to(tasks.device) for name, value in critic.initialise(seed).items()}
        for state in descend(initial, loss, learning_rate=self.critic_lr, clip_norm=self.clip_norm, start=start):
            state.environment_steps += played
            yield state

    def adapt(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Iterator[Predictor]:
        critic, rate = self.critic(tasks), self.test_lr or self.actor_lr
        judge = Judging(critic, detached(state.parameters), critic.nothing(support))
        loop, start = self.actors(tasks, rate, support)
        policy = policy_for(tasks, self.hidden, self.activation)
        for actors in loop.steps(start, Coached(support, judge, tasks.discount, self.fall)):
            yield Guided(policy, actors, None, judge.embedding())


@dataclass(frozen=True)
class MetaValues:
    """The value network and the task-actor encoder, as functions of one set of parameters for all tasks.

    observation: numbers that the critic sees. sizes as in `MetaCritic`."""

    observation: int
    actions: ActionSpace
    values: tuple[int, ...]
    encoder: int
    embedding: int
    window: int

    @property
    def transition(self) -> int:
        """Numbers of a transition (s, a, r)."""
        return self.observation + self.actions.features + 1

    def initialise(self, seed: int) -> Parameters:
        generator = torch.Generator().manual_seed(seed)
        sizes = (self.observation + self.embedding, *self.values, 1)
        return {
            **perceptron.initialise("values", sizes, generator),
            **lstm.initialise("encoder", self.transition, self.encoder, self.encoder, generator),
            **perceptron.initialise("embedding", (self.encoder, self.embedding), generator),
        }

    def nothing(self, support: Rollouts) -> Tensor:
        """The transitions before the first update: zeros ``[T, 1, window, i]``."""
        return support.parameters.new_zeros(len(support), 1, self.window, self.transition)

    def last(self, seen: Trajectories) -> Tensor:
        """The last transitions of each trajectory, ``[T, K, window, i]``; zeros before its first one."""
        steps = self.actions.as_features(seen.actions, seen.rewards.dtype)
        rows = torch.cat((seen.observations, steps, seen.rewards.unsqueeze(-1)), -1).flatten(0, 1)
        live = seen.live.flatten(0, 1)
        (rows,) = in_sequence(live, rows)
        places = live.sum(1, keepdim=True) - self.window + torch.arange(self.window, device=live.device)
        found = rows.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, self.transition))
        return found.masked_fill((places < 0).unsqueeze(-1), 0.0).unflatten(0, seen.live.shape[:2])

    def embed(self, parameters: Mapping[str, Tensor], transitions: Tensor) -> Tensor:
        """The embedding of each task, ``[T, z]``: a mean over its trajectories."""
        _, (output, _) = lstm.read(parameters, "encoder", transitions.flatten(0, 1))
        found = perceptron.outputs_of(parameters, "embedding", output)
        return found.unflatten(0, transitions.shape[:2]).mean(1)

    def judge(self, parameters: Mapping[str, Tensor], seen: Trajectories, embedding: Tensor) -> Tensor:
        """The values of the steps ``[T, K, N]``, told the embedding of the task."""
        told = embedding[:, None, None].expand(*seen.rewards.shape, -1)
        return perceptron.outputs_of(parameters, "values", torch.cat((seen.observations, told), -1)).squeeze(-1)


class Judging:
    """A meta-critic at work: it judges trajectories by the transitions of those before, and keeps the new ones.

    error: of its values, ``[T]``, with their graph."""

    def __init__(self, critic: MetaValues, parameters: Mapping[str, Tensor], transitions: Tensor) -> None:
        self.critic, self.parameters, self.transitions = critic, parameters, transitions

    def embedding(self) -> Tensor:
        """The embedding of each task after these transitions, ``[T, z]``."""
        return self.critic.embed(self.parameters, self.transitions)

    def __call__(self, seen: Trajectories, returns: Tensor) -> Tensor:
        values = self.critic.judge(self.parameters, seen, self.embedding())
        self.seen, self.error = seen, mean_over_steps((values - returns).square(), seen)
        self.transitions = self.critic.last(seen)
        return values


@register_method("actor-critic")
@dataclass(frozen=True)
class ActorCritic(ActorLearner):
    """Learn each task from scratch: a new actor and a new critic of its own.

    hidden, activation: layers of the actor, and their non-linearity. actor_lr: Adam's rate for it.
    values, critic_lr, clip_norm: hidden layers of the value network, Adam's rate for it, and the bound on its gradient.
    fall: taken from the reward where an episode ends by itself. test_steps: updates reported, headline last.
    """

    fits: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {"actor_lr": ACTOR_RATES}

    actor_lr: float = adaptation_field(0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "above 0", "actor_lr")

    def adapt(self, state: State, support: Rollouts, tasks: TaskDistribution) -> Iterator[Predictor]:
        loop, start = self.actors(tasks, self.actor_lr, support)
        policy = policy_for(tasks, self.hidden, self.activation)
        judge = OwnCritic(self, tasks, support)
        for actors in loop.steps(start, Coached(support, judge, tasks.discount, self.fall)):
            yield Acting(policy, actors)


class OwnCritic:
    """A value network for each task, which judges trajectories and then takes a step on them."""

    def __init__(self, learner: ActorCritic, tasks: TaskDistribution, support: Rollouts) -> None:
        self.layers = Layers(tasks.input_shape[0], learner.values, 1, "relu")
        self.loop = InnerLoop(self._judging, self._error, Adam(learner.critic_lr, learner.clip_norm), False)

        def initialise(index: int) -> Parameters:
            # not the numbers of the actor
            drawn = self.layers.initialise(torch.Generator().manual_seed(index + (1 << 62)))
            return {name: value.to(tasks.device) for name, value in drawn.items()}

        self.parameters = fresh(initialise, support)
        self.memory, self.number = self.loop.rule.start(self.parameters), 0

    def _judging(self, parameters: Mapping[str, Tensor], step: int) -> Predictor:
        def values(x: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
            return self.layers(parameters, x.flatten(1, 2)).view(x.shape[:3]), None

        return values

    def _error(self, predictor: Predictor, data: tuple[Trajectories, Tensor]) -> Tensor:
        seen, returns = data
        return mean_over_steps((predictor(seen.observations)[0] - returns).square(), seen)

    def __call__(self, seen: Trajectories, returns: Tensor) -> Tensor:
        with torch.no_grad():
            values, _ = self._judging(self.parameters, self.number)(seen.observations)
        data = Recorded([(seen, returns)] * (self.number + 1))
        self.parameters, self.memory = self.loop.step(self.parameters, self.memory, data, self.number)
        self.number += 1
        return values
