"""Training of recurrent policies: the updates of one iteration of RL^2, by the suite's learner, by `torch.nn.GRU` as
practitioners write it, and by a jitted scan in JAX. From a checkout::

    python -m benchmarks.cost.recurrent_steps       # a table per task, then its record as JSON

All begin with the same parameters and learn from the same trials, which the learner has played once, with its settings
for the task: `epochs` passes of proximal policy optimisation in `minibatches` parts. Playing is not timed. Each
environment step of the trials counts once, however many passes learn from it.

Before it is timed, the change of all parameters over the iteration is compared with ours: on a few trials in double
precision (relative difference at most 1e-6), then on all trials in the precision that is timed (at most 1e-3).
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import Parameters
from benchmarks.cost import peers, throughput
from benchmarks.cost.comparison import relative_error, verdict
from benchmarks.cost.peers.jax import adam, precision_of
from benchmarks.cost.throughput import Entry, Progress, show, tell
from benchmarks.environments.distribution import ControlTasks
from benchmarks.errors import status_of
from benchmarks.training import descend

TASKS = ("bandit/k10n100", "tabular-mdp/n10")
#: trials per minibatch on which algorithms are compared
COMPARED_TRIALS = 5
ROUNDS = 7
#: names of parameters in the module, where they differ
NAMES = {
    "gru.input": "gru.weight_ih_l0",
    "gru.recurrent": "gru.weight_hh_l0",
    "gru.input_bias": "gru.bias_ih_l0",
    "gru.recurrent_bias": "gru.bias_hh_l0",
}


@dataclass(frozen=True)
class Iteration:
    """The updates that all do: the learner's settings, the parameters before them, and the trials."""

    learner: Any
    tasks: ControlTasks
    start: Parameters
    trials: Any

    @property
    def minibatches(self) -> list[Any]:
        """The trials of every update, in order."""
        parts = self.learner.minibatches
        return [self.trials[number % parts :: parts] for number in range(self.learner.epochs * parts)]

    def in_double(self) -> Iteration:
        """The same with a few of the trials, in double precision."""
        few = self.trials[: COMPARED_TRIALS * self.learner.minibatches]
        tensors = {name: value for name, value in vars(few).items() if isinstance(value, Tensor)}
        trials = dataclasses.replace(few, **_doubled(tensors))
        return dataclasses.replace(self, start=_doubled(self.start), trials=trials)

    def change(self, reached: Parameters) -> Parameters:
        """How far the updates have moved each parameter."""
        return {name: reached[name].detach() - value for name, value in self.start.items()}


#: does the updates from the start, and returns the parameters after them
Run = Callable[[], Parameters]


def ours(iteration: Iteration) -> Run:
    """The loss of RL^2 in the suite's outer loop, as the learner's `fit` has it."""
    learner, parts = iteration.learner, iteration.minibatches

    def loss(parameters: Parameters, buffers: Parameters, update: int) -> tuple[Tensor, int]:
        return learner.loss(parameters, parts[update], iteration.tasks, learner.entropy), 0

    def run() -> Parameters:
        stream = descend(iteration.start, loss, learning_rate=learner.meta_lr, clip_norm=learner.gradient_norm)
        *_, state = itertools.islice(stream, len(parts))
        return state.parameters

    return run


class Recurrent(torch.nn.Module):
    """A GRU with an actor's and a critic's head."""

    def __init__(self, inputs: int, hidden: int, actions: int) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(inputs, hidden, batch_first=True)
        self.policy = torch.nn.Linear(hidden, actions)
        self.value = torch.nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> tuple[torch.distributions.Categorical, Tensor]:
        states, _ = self.gru(x)
        return torch.distributions.Categorical(logits=self.policy(states)), self.value(states).squeeze(-1)


def module(iteration: Iteration) -> Run:
    """`torch.nn.GRU`, `torch.optim.Adam` and `clip_grad_norm_`."""
    learner, parts, start = iteration.learner, iteration.minibatches, iteration.start
    model = Recurrent(start["gru.input"].shape[1], learner.hidden, len(start["policy.bias"]))
    model.to(start["gru.input"].dtype)

    def run() -> Parameters:
        model.load_state_dict({NAMES.get(name, name): value for name, value in start.items()})
        optimizer = torch.optim.Adam(model.parameters(), lr=learner.meta_lr)
        for part in parts:
            policy, values = model(part.inputs)
            ratio = (policy.log_prob(part.actions) - part.log_probabilities).exp()
            clipped = ratio.clamp(1 - learner.clip, 1 + learner.clip)
            gain = torch.min(ratio * part.advantages, clipped * part.advantages)
            error = (values - part.targets).square()
            each = learner.value_weight * error - gain - learner.entropy * policy.entropy()
            loss = each[part.live].mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), learner.gradient_norm)
            optimizer.step()
        found = model.state_dict()
        return {name: found[NAMES.get(name, name)].clone() for name in start}

    return run


def scan(iteration: Iteration) -> Run:
    """One `jit` for an update: `lax.scan` over time-major trials, whose backward pass computes each step again. Keeping
    the gates of all steps takes it twice the time on a CPU."""
    peers.load("jax")
    jax = importlib.import_module("jax")
    learner, hidden, precision = iteration.learner, iteration.learner.hidden, iteration.start["gru.input"]

    def outputs(theta: Any, inputs: Any) -> tuple[Any, Any]:
        entering, recurrent = theta["gru.input"].T, theta["gru.recurrent"].T

        @jax.checkpoint  # type: ignore[untyped-decorator]
        def cell(memory: Any, x: Any) -> tuple[Any, Any]:
            entered = x @ entering + theta["gru.input_bias"]
            kept = memory @ recurrent + theta["gru.recurrent_bias"]
            gates = jax.nn.sigmoid(entered[:, : 2 * hidden] + kept[:, : 2 * hidden])
            proposed = jax.numpy.tanh(entered[:, 2 * hidden :] + gates[:, :hidden] * kept[:, 2 * hidden :])
            memory = proposed + gates[:, hidden:] * (memory - proposed)
            return memory, memory

        _, states = jax.lax.scan(cell, jax.numpy.zeros((inputs.shape[1], hidden), inputs.dtype), inputs)
        policy, value = (states @ theta[f"{head}.weight"].T + theta[f"{head}.bias"] for head in ("policy", "value"))
        return jax.nn.log_softmax(policy), value[..., 0]

    def loss(theta: Any, part: Any) -> Any:
        policy, values = outputs(theta, part["inputs"])
        taken = jax.numpy.take_along_axis(policy, part["actions"][..., None], -1)[..., 0]
        ratio = jax.numpy.exp(taken - part["log_probabilities"])
        clipped = jax.numpy.clip(ratio, 1 - learner.clip, 1 + learner.clip)
        gain = jax.numpy.minimum(ratio * part["advantages"], clipped * part["advantages"])
        entropy = -(jax.numpy.exp(policy) * policy).sum(-1)
        each = learner.value_weight * jax.numpy.square(values - part["targets"]) - gain - learner.entropy * entropy
        return jax.numpy.where(part["live"], each, 0).sum() / part["live"].sum()

    @jax.jit  # type: ignore[untyped-decorator]
    def update(theta: Any, moments: Any, count: Any, part: Any) -> Any:
        gradient = jax.grad(loss)(theta, part)
        length = jax.numpy.sqrt(sum(jax.numpy.square(each).sum() for each in jax.tree.leaves(gradient)))
        share = jax.numpy.minimum(1, learner.gradient_norm / (length + 1e-6))
        clipped = jax.tree.map(lambda each: share * each, gradient)
        return adam(jax, theta, moments, count, clipped, learner.meta_lr)

    def arrays(values: Parameters) -> Any:
        return jax.device_put({name: value.numpy() for name, value in values.items()}, jax.devices("cpu")[0])

    def time_major(part: Any) -> Any:
        tensors = {name: value for name, value in vars(part).items() if isinstance(value, Tensor)}
        return arrays({name: value.transpose(0, 1).contiguous() for name, value in tensors.items()})

    with precision_of(jax, precision):
        start, parts = arrays(iteration.start), [time_major(part) for part in iteration.minibatches]

    def run() -> Parameters:
        with precision_of(jax, precision):
            zeros = jax.tree.map(jax.numpy.zeros_like, start)
            state = start, (zeros, zeros), jax.numpy.ones(())
            for part in parts:
                state = update(*state, part)
            return {name: torch.tensor(value.tolist(), dtype=precision.dtype) for name, value in state[0].items()}

    return run


#: label -> what prepares its updates; ours is the first
RIVALS: dict[str, Callable[[Iteration], Run]] = {"ours": ours, "torch.nn.GRU": module, "jax scan": scan}
#: those that compile
COMPILED = ("jax scan",)


def measure(
    progress: Progress, task: str = TASKS[0], rounds: int = ROUNDS, threads: int | None = None, **fields: Any
) -> dict[str, Any]:
    """The rows of `throughput.measure`, with ``error`` and ``program_error``, the relative differences from ours in
    double precision and in the precision that is timed. fields: of the learner, in place of its settings."""
    tasks = registry.build_task(task)
    assert isinstance(tasks, ControlTasks)
    learner: Any = registry.build_method("rl2", tasks, **fields)

    def entries(*_: Any) -> Iterator[Entry]:
        state = learner.initial(tasks, 0)
        trials = learner.play(tasks, state.parameters, state.buffers, 0, 0)
        return _compared(Iteration(learner, tasks, state.parameters, trials))

    return throughput.measure(f"recurrent updates, {task}", task, entries, progress, rounds, threads)


def _compared(iteration: Iteration) -> Iterator[Entry]:
    """An entry for each; one that computes something else, or can't, is not timed."""
    few = iteration.in_double()
    references = [(each, each.change(ours(each)())) for each in (few, iteration)]
    for label, prepare in RIVALS.items():
        entry = Entry(label, len(iteration.trials.live), lambda: 0)
        try:
            exact = prepare(few)()
            began = time.perf_counter()
            run = prepare(iteration)
            timed = run()
            entry.first_seconds = time.perf_counter() - began if label in COMPILED else None
            errors = [
                relative_error(each.change(reached), reference)
                for (each, reference), reached in zip(references, (exact, timed), strict=True)
            ]
            entry.facts = dict(zip(("error", "program_error"), errors, strict=True))
            judged = dict(zip(("gradient_error", "program_error"), errors, strict=True), rounding_error=0.0)
            entry.reason = verdict("iteration", judged)
            entry.status = "error" if entry.reason else "ok"
            entry.block = _block(run, iteration.trials.environment_steps)
        except Exception as error:
            entry.status, entry.reason = status_of(error)
        yield entry


def _block(run: Run, steps: int) -> throughput.Block:
    def block() -> int:
        run()
        return steps

    return block


def _doubled(values: Parameters) -> Parameters:
    return {name: value.double() if value.is_floating_point() else value for name, value in values.items()}


if __name__ == "__main__":
    for each in TASKS:
        show(measure(tell, each))
