"""Control steps per second of the half-cheetahs: the suite's simulators with a policy in the loop, compared with
Gymnasium's vector environments and with physics alone. From a checkout::

    python -m benchmarks.cost.control_steps         # a table, then its record as JSON

All are timed in rounds, in a new order each, with as many threads as there are cores. Ours is the source that learners
train on: T tasks x K trajectories, with random numbers, log-probabilities and masks. Gymnasium has one environment per
task, with its own reward; the policy sees all of them at once. "physics" is one call of `mujoco.rollout` for a whole
episode, with our starts and controls: the limit for any simulator with a policy in the loop.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.environments.distribution import ControlTasks
from benchmarks.environments.locomotion import ROBOTS, Locomotion
from benchmarks.environments.simulators import BACK_ENDS, mujoco_module, physics, quiet
from benchmarks.errors import Unavailable, status_of
from benchmarks.machine import usable_cores, versions
from benchmarks.stats import timing

TASK = "half-cheetah-direction/quick"
TASKS, TRAJECTORIES = 40, 20
#: other values of the task's fields
FIELDS: dict[str, Any] = {}
HIDDEN = 64
ROUNDS = 7

Block = Callable[[], int]


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


@dataclass
class Simulation:
    """One way to simulate. ``block`` runs an episode in all of its environments and returns the control steps."""

    label: str
    environments: int
    block: Block
    status: str = "ok"
    reason: str | None = None
    steps: int = 0
    samples: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Time one episode of all environments. After an error the simulation takes no further part."""
        if self.status != "ok":
            return
        try:
            began = time.perf_counter()
            self.steps = self.block()
            self.samples.append((time.perf_counter() - began) / self.steps)
        except Exception as error:
            self.status, self.reason = status_of(error)


def measure(
    progress: Callable[[dict[str, Any]], None], rounds: int = ROUNDS, tasks: int = TASKS, threads: int | None = None
) -> dict[str, Any]:
    """The rows as plain values; a job of `benchmarks.run.isolate`. threads: None: as many as there are cores.

    A row holds label, environments, status, reason, steps of a block, seconds per step of every round, and control
    steps per second with an interval. ``against_ours`` is its time per step divided by that of the default back end,
    with an interval over the rounds."""
    mujoco_module()
    threads = threads or usable_cores() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with contextlib.ExitStack() as stack:
            simulations = list(_simulations(tasks, threads, stack))
            order = np.random.default_rng(0)
            for number in range(rounds + 1):
                progress({"line": f"control steps: round {number} of {rounds}"})
                for position in order.permutation(len(simulations)):
                    simulations[position].run()
                if number == 0:  # the first episodes load libraries and models
                    for each in simulations:
                        each.samples.clear()
    finally:
        torch.set_num_threads(before)
    ours = simulations[0]
    rows = [_row(each, ours) for each in simulations]
    return {"task": TASK, "threads": threads, "rounds": rounds, "rows": rows, "versions": versions()}


def _simulations(tasks: int, threads: int, stack: contextlib.ExitStack) -> Iterator[Simulation]:
    for back_end in ("batch", "rollout", "loop"):
        setting = registry.build_task(TASK, simulator=back_end, **FIELDS)
        assert isinstance(setting, ControlTasks)
        source = setting.episodes("train", range(tasks), shots=TRAJECTORIES).support
        policy = Policy(source.model, tasks)
        yield Simulation(back_end, tasks * TRAJECTORIES, functools.partial(_ours, source, policy))
        if back_end == "batch":
            physical = Simulation("physics", tasks * TRAJECTORIES, _open_loop(source, policy, threads))
    yield physical
    for label, count in (("SyncVectorEnv", tasks), ("AsyncVectorEnv", tasks), ("AsyncVectorEnv", threads)):
        try:
            block = _gymnasium(label, count, stack)
            yield Simulation(label, count, block)
        except Exception as error:
            yield Simulation(label, count, lambda: 0, *status_of(error))


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


def _gymnasium(label: str, count: int, stack: contextlib.ExitStack) -> Block:
    """An episode in vectorised environments of Gymnasium, with as many steps as ours."""
    try:
        import gymnasium
    except ImportError as error:
        raise Unavailable(f"Gymnasium can't be imported ({error})") from error
    model = registry.build_task(TASK, **FIELDS).model  # type: ignore[attr-defined]
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


def _row(each: Simulation, ours: Simulation) -> dict[str, Any]:
    facts = {"label": each.label, "environments": each.environments, "status": each.status, "reason": each.reason}
    unknown = ("steps_per_second", "low", "high", "spread", "stable", "against_ours")
    row = {**facts, "steps": each.steps, "seconds_per_step": each.samples, **dict.fromkeys(unknown)}
    if each.samples:
        speeds = [1 / seconds for seconds in each.samples]
        speed, faster = timing.median(speeds), timing.ratio(each.samples, ours.samples)
        row["steps_per_second"], row["low"], row["high"] = speed.value, speed.low, speed.high
        row["spread"] = spread = timing.spread(speeds)
        row["stable"] = spread <= timing.SPREAD
        row["against_ours"] = [faster.value, faster.low, faster.high]
    return row


def lines(record: dict[str, Any]) -> Iterator[str]:
    """The record as a table for the terminal."""
    yield f"{record['task']}, {record['threads']} threads, {record['rounds']} rounds"
    yield f"{'':16}{'environments':>14}{'steps/s':>10}{'interval':>18}{'times slower than ours':>32}"
    for row in record["rows"]:
        if row["steps_per_second"] is None:
            yield f"{row['label']:16}{row['environments']:>14}  {row['status']}: {row['reason']}"
            continue
        ratio, low, high = row["against_ours"]
        span, slower = f"{row['low']:,.0f} to {row['high']:,.0f}", f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        unstable = "" if row["stable"] else "  unstable"
        count, speed = row["environments"], f"{row['steps_per_second']:,.0f}"
        yield f"{row['label']:16}{count:>14}{speed:>10}{span:>18}{slower:>32}{unstable}"


if __name__ == "__main__":
    found = measure(lambda plain: print(plain["line"], flush=True))
    print("\n".join(lines(found)))
    print(json.dumps(found))
