"""RL^2: Duan et al., "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 2016.

A recurrent network plays whole trials. It is fed with the observation, its last action, the reward for it and the end
of the episode; its state is kept from episode to episode and begins anew with each trial. Trained by an ordinary
algorithm of reinforcement learning to earn much in a trial, it learns to explore: what it knows about a task is in its
state.

Deviations from the paper:
- proximal policy optimisation (Schulman et al. 2017) instead of TRPO;
- policy and value share one GRU, where the paper has one for each;
- the paper's appendix was not at hand, so sizes and rates are ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Memory, MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.environments import ActionSpace, Categorical, ControlTasks, Trajectories
from benchmarks.registry import register_method
from benchmarks.training import MetaGradient, descend, training_indices


@register_method("rl2")
@dataclass(frozen=True)
class RL2(MetaLearner):
    """Train a recurrent policy on whole trials, so that its state learns each new task.

    meta_batch: tasks per iteration, with one trial each. hidden: units of the GRU.
    meta_lr: Adam's rate. epochs: passes over the trials of an iteration; minibatches: parts that a pass is cut into.
    clip: bound on the change of a probability ratio. trace: lambda of generalised advantage estimation.
    entropy: weight of the entropy bonus, falling to 0 in a straight line over `entropy_iterations`.
    value_weight: weight of the value's squared error. gradient_norm: bound on the length of a gradient.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})

    meta_batch: int = 1000
    hidden: int = 32
    meta_lr: float = 5e-3
    epochs: int = 4
    minibatches: int = 4
    clip: float = 0.2
    trace: float = 0.9
    entropy: float = 0.01
    entropy_iterations: int = 300
    value_weight: float = 0.5
    gradient_norm: float = 0.5

    def __post_init__(self) -> None:
        for name in ("meta_batch", "hidden", "epochs", "minibatches", "entropy_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.minibatches > self.meta_batch:
            raise ValueError(f"{self.minibatches} minibatches cannot be cut from {self.meta_batch} trials")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if isinstance(tasks, ControlTasks) and tasks.trial_episodes > 1:
            return None
        return f"{self.name} learns from episode to episode of a trial; a trial of {tasks.name} has one"

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        assert isinstance(tasks, ControlTasks)
        updates = self.epochs * self.minibatches
        trials: list[Trials] = []

        def gradient(parameters: Parameters, buffers: Parameters, update: int) -> MetaGradient:
            iteration, number = divmod(update, updates)
            if number == 0:
                trials[:] = [self._play(tasks, parameters, seed, iteration)]
            part = slice(number % self.minibatches, None, self.minibatches)
            entropy = self.entropy * max(0.0, 1 - iteration / self.entropy_iterations)
            loss = self._loss(parameters, trials[0][part], tasks.actions, entropy)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            length = torch.stack([value.norm() for value in gradients]).norm()
            bounded = torch._foreach_mul(gradients, (self.gradient_norm / (length + 1e-6)).clamp(max=1.0))
            return MetaGradient(float(loss.detach()), bounded, 0)

        begin = dataclasses.replace(start, step=start.step * updates) if start else None
        initial = initialise(_inputs(tasks), self.hidden, tasks.outputs, seed)
        initial = {name: value.to(tasks.device) for name, value in initial.items()}
        for state in descend(initial, gradient, learning_rate=self.meta_lr, start=begin):
            if state.step % updates == 0:
                state.environment_steps += trials[0].environment_steps
                state.loss = -trials[0].mean_return
                yield dataclasses.replace(state, step=state.step // updates)

    def _play(self, tasks: ControlTasks, parameters: Parameters, seed: int, iteration: int) -> Trials:
        """One trial in each task of the iteration, with what the present policy makes of it."""
        episodes = tasks.episodes("train", training_indices(seed, iteration, self.meta_batch), shots=1)
        seen: Trajectories = episodes.support.batch(Recurrent(parameters), 0)
        with torch.no_grad():
            _, values = replay(parameters, seen.inputs[:, 0])
        live, rewards = seen.live[:, 0], seen.rewards[:, 0]
        advantages = generalised_advantages(rewards, values, tasks.config()["discount"], self.trace)
        centred = advantages - advantages[live].mean()
        scaled = centred / (advantages[live].std() + 1e-8)
        return Trials(
            seen.inputs[:, 0],
            seen.actions[:, 0],
            live,
            seen.log_probabilities[:, 0],
            scaled,
            advantages + values,
            float(seen.returns.mean()),
            seen.environment_steps,
        )

    def _loss(self, parameters: Mapping[str, Tensor], trials: Trials, actions: ActionSpace, entropy: float) -> Tensor:
        """Clipped surrogate, squared error of the values and entropy bonus, over the steps that took place."""
        distributions, values = replay(parameters, trials.inputs)
        ratio = (actions.log_probability(distributions, trials.actions) - trials.log_probabilities).exp()
        bounded = ratio.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.minimum(ratio * trials.advantages, bounded * trials.advantages)
        error = (values - trials.targets).square()
        bonus = entropy_of(actions, distributions)
        each = -gain + self.value_weight * error - entropy * bonus
        return each[trials.live].mean()

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield Recurrent({name: value.detach() for name, value in state.parameters.items()})

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": f"gru-{self.hidden}"}


@dataclass(frozen=True)
class Trials:
    """T trials of N steps: inputs ``[T, N, i]``; actions, live, log_probabilities (of the policy that played),
    advantages and targets (of the values) ``[T, N]``."""

    inputs: Tensor
    actions: Tensor
    live: Tensor
    log_probabilities: Tensor
    advantages: Tensor
    targets: Tensor
    mean_return: float
    environment_steps: int

    def __getitem__(self, part: slice) -> Trials:
        return Trials(*(v[part] if isinstance(v, Tensor) else v for v in vars(self).values()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recurrent:
    """The policy; its memory is the state of the GRU, ``[T, K, hidden]``, 0 at the beginning of a trial."""

    parameters: Mapping[str, Tensor]

    history: ClassVar[bool] = True

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        hidden = self.parameters["gru.recurrent"].shape[1]
        memory = x.new_zeros(*x.shape[:2], hidden) if memory is None else memory
        memory = _cell(self.parameters, x.flatten(0, 1), memory.flatten(0, 1)).view(*x.shape[:2], hidden)
        return F.linear(memory, self.parameters["policy.weight"], self.parameters["policy.bias"]), memory


def initialise(inputs: int, hidden: int, outputs: int, seed: int) -> Parameters:
    """GRU weights U(-1, 1)/sqrt(hidden), of its sparse inputs U(-1, 1); a policy near to indifference; values of 0."""
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(hidden)
    shapes = {
        "gru.input": (3 * hidden, inputs),
        "gru.recurrent": (3 * hidden, hidden),
        "gru.input_bias": (3 * hidden,),
        "gru.recurrent_bias": (3 * hidden,),
        "policy.weight": (outputs, hidden),
    }
    drawn = {name: (torch.rand(shape, generator=generator) * 2 - 1) * bound for name, shape in shapes.items()}
    drawn["gru.input"] /= bound
    drawn["policy.weight"] *= 0.1
    heads = {"policy.bias": (outputs,), "value.weight": (1, hidden), "value.bias": (1,)}
    return drawn | {name: torch.zeros(shape) for name, shape in heads.items()}


def replay(parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Action distributions ``[T, N, outputs]`` and values ``[T, N]`` along stored trials, inputs ``[T, N, i]``."""
    memory = inputs.new_zeros(len(inputs), parameters["gru.recurrent"].shape[1])
    memories = []
    for x in inputs.unbind(1):
        memory = _cell(parameters, x, memory)
        memories.append(memory)
    all_ = torch.stack(memories, 1)
    values = F.linear(all_, parameters["value.weight"], parameters["value.bias"]).squeeze(-1)
    return F.linear(all_, parameters["policy.weight"], parameters["policy.bias"]), values


def _cell(parameters: Mapping[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    weights = (parameters[f"gru.{part}"] for part in ("input", "recurrent", "input_bias", "recurrent_bias"))
    return torch.gru_cell(x, memory, *weights)


def generalised_advantages(rewards: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """Schulman et al. 2016, equation 16, ``[T, N]``: along the whole trial, past the ends of its episodes, with nothing
    to come after its last step."""
    following = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), 1)
    surprises = rewards + discount * following - values
    advantages, ahead = [], torch.zeros_like(rewards[:, 0])
    for surprise in reversed(surprises.unbind(1)):
        ahead = surprise + discount * trace * ahead
        advantages.append(ahead)
    return torch.stack(advantages[::-1], 1)


def entropy_of(actions: ActionSpace, distributions: Tensor) -> Tensor:
    """The entropy of each distribution, up to a constant for real-valued actions, ``[T, N]``."""
    if isinstance(actions, Categorical):
        logarithms = distributions.log_softmax(-1)
        return -(logarithms.exp() * logarithms).sum(-1)
    return distributions.chunk(2, -1)[1].sum(-1)


def _inputs(tasks: ControlTasks) -> int:
    return tasks.input_shape[0] + tasks.actions.features + 2
