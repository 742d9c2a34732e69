"""Control steps per second of the half-cheetahs: the suite's simulators with a policy in the loop, compared with
Gymnasium's vector environments and with physics alone. From a checkout::

    python -m benchmarks.cost.control_steps         # a table, then its record as JSON

Ours is the source that learners train on: T tasks x K trajectories, with random numbers, log-probabilities and masks.
Gymnasium has one environment per task, with its own reward; the policy sees all of them at once. "physics" is one call
of `mujoco.rollout` for a whole episode, with our starts and controls: the limit for any simulator with a policy in the
loop. mjbatch, a pool of simulators in C++, has no row: each version up to 0.1.4 requires one MuJoCo, from 3.11 to 3.14,
and the suite needs 4.0.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.cost import throughput
from benchmarks.cost.throughput import Block, Entry, Progress, show, tell
from benchmarks.environments.distribution import ControlTasks
from benchmarks.environments.locomotion import ROBOTS, Locomotion
from benchmarks.environments.simulators import BACK_ENDS, mujoco_module, physics, quiet
from benchmarks.errors import Unavailable, status_of

TASK = "half-cheetah-direction/quick"
TASKS, TRAJECTORIES = 40, 20
#: other values of the task's fields
FIELDS: dict[str, Any] = {}
HIDDEN = 64
ROUNDS = 7


class Policy:
    """An MLP 64-64 with tanh, other weights for each task, and a standard deviation of a fifth of the action scale."""

    def __init__(self, model: Locomotion, tasks: int) -> None:
        generator = torch.Generator().manual_seed(0)
        sizes = (model.observation, HIDDEN, HIDDEN, model.actions.dimensions)
        self.layers = [
            (torch.randn(tasks, a, b, generator=generator) / a**0.5, torch.zeros(tasks, 1, b))
            for a, b in itertools.pairwise(sizes)
        ]
        self.scale = model.action_scale

    def __call__(self, x: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        for weight, bias in self.layers:
            x = torch.baddbmm(bias, x, weight).tanh()
        deviation = torch.full_like(x, 0.2 * self.scale).log()
        return torch.cat((self.scale * x, deviation), -1), None


def measure(
    progress: Progress, task: str = TASK, rounds: int = ROUNDS, tasks: int = TASKS, threads: int | None = None
) -> dict[str, Any]:
    """The rows of `throughput.measure`; ours is the default back end."""
    mujoco_module()
    return throughput.measure(
        "control steps", task, functools.partial(_simulations, task, tasks), progress, rounds, threads
    )


def _simulations(task: str, tasks: int, threads: int, stack: contextlib.ExitStack) -> Iterator[Entry]:
    for back_end in ("batch", "rollout", "loop"):
        setting = registry.build_task(task, simulator=back_end, **FIELDS)
        assert isinstance(setting, ControlTasks)
        source = setting.episodes("train", range(tasks), shots=TRAJECTORIES).support
        policy = Policy(source.model, tasks)
        yield Entry(back_end, tasks * TRAJECTORIES, functools.partial(_ours, source, policy))
        if back_end == "batch":
            physical = Entry("physics", tasks * TRAJECTORIES, _open_loop(source, policy, threads))
    yield physical
    for label, count in (("SyncVectorEnv", tasks), ("AsyncVectorEnv", tasks), ("AsyncVectorEnv", threads)):
        try:
            block = _gymnasium(task, label, count, stack)
            yield Entry(label, count, block)
        except Exception as error:
            yield Entry(label, count, lambda: 0, *status_of(error))


def _ours(source: Any, policy: Policy) -> int:
    return source.batch(policy, 0).environment_steps


def _open_loop(source: Any, policy: Policy, threads: int) -> Block:
    """Physics only, with our starts and controls."""
    from mujoco.rollout import Rollout

    mujoco, model = mujoco_module(), source.model
    body = physics(model.body.description)
    env = BACK_ENDS["loop"](model, source.parameters)
    reset_noise, _ = source.noise(0)
    env.reset(reset_noise[:, :, 0])
    starts = env.state.flatten(0, 1).numpy()
    rows = np.concatenate((np.zeros((len(starts), 1)), starts), 1)
    actions = source.batch(policy, 0).actions
    controls = model.control(actions).flatten(0, 1).repeat_interleave(model.body.frame_skip, 1).numpy()
    workspaces = [mujoco.MjData(body) for _ in range(threads)]
    steps = len(starts) * model.horizon

    def block() -> int:
        with Rollout(nthread=threads if threads > 1 else 0) as pool:
            pool.rollout(body, workspaces, rows, controls)
        return steps

    return block


def _gymnasium(task: str, label: str, count: int, stack: contextlib.ExitStack) -> Block:
    """An episode in vectorised environments of Gymnasium, with as many steps as ours."""
    try:
        import gymnasium
    except ImportError as error:
        raise Unavailable(f"Gymnasium can't be imported ({error})") from error
    model = registry.build_task(task, **FIELDS).model  # type: ignore[attr-defined]
    name = ROBOTS[model.robot].environment
    with quiet():
        vector: Any = getattr(gymnasium.vector, label)([functools.partial(_made, name)] * count)
    stack.callback(vector.close)
    policy, space = Policy(model, count), model.actions
    noise = torch.from_numpy(np.random.default_rng(1).random((model.horizon, count, 1, space.lanes)))

    @torch.no_grad()
    def block() -> int:
        seen, _ = vector.reset(seed=0)
        for time_step in range(model.horizon):
            distribution, _ = policy(torch.from_numpy(seen).float().unsqueeze(1))
            action = space.sample(distribution, noise[time_step])
            seen, *_ = vector.step(model.control(action).float().squeeze(1).numpy())
        return count * model.horizon

    return block


def _made(name: str) -> Any:
    """Gymnasium's environment, without its output: a process of `AsyncVectorEnv` may not be a fork of this one."""
    import gymnasium

    with quiet():
        return gymnasium.make(name)


if __name__ == "__main__":
    show(measure(tell))
