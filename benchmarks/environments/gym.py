"""The suite's environments as Gymnasium environments.

Importing this module registers them::

    import gymnasium
    import benchmarks.environments.gym

    env = gymnasium.make("metabench/HalfCheetahVelocity-v0", preset="quick")
    observation, info = env.reset(seed=0, options={"task": 1.5})  # run at 1.5 m/s

``preset`` is a variant of the task distribution, by default the first. Every field of the distribution is an argument
too. A reset with ``options={"task": ...}`` begins an episode in that task; one without draws a task from the
distribution. ``info["task"]`` holds the task.

Observations and rewards are float64; all other numbers are those of `BatchEnv`. An episode is truncated at its horizon.
Robots use the back end "loop", which equals Gymnasium bit for bit. In bandits and tabular processes one episode (for a
bandit one pull) is played at a time, so a trial of n episodes is n resets with the same task.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from benchmarks import registry
from benchmarks.environments.actions import Categorical
from benchmarks.environments.distribution import ControlTasks
from benchmarks.errors import MetabenchError

#: task distribution of each registered id
ENVIRONMENTS = {
    "metabench/HalfCheetahDirection-v0": "half-cheetah-direction",
    "metabench/HalfCheetahVelocity-v0": "half-cheetah-velocity",
    "metabench/AntDirection-v0": "ant-direction",
    "metabench/AntVelocity-v0": "ant-velocity",
    "metabench/Navigation2D-v0": "navigation-2d",
    "metabench/Bandit-v0": "bandit",
    "metabench/TabularMDP-v0": "tabular-mdp",
}


class SuiteEnv(gymnasium.Env[np.ndarray, Any]):
    """One environment of a task distribution (name, variant, other values of fields); an action is an array of real
    numbers or an action's index."""

    def __init__(self, name: str, preset: str = "", **fields: Any) -> None:
        known = registry.task_entry(name).cls
        if "simulator" in known.__dataclass_fields__:
            fields = {"simulator": "loop", **fields}
        tasks = registry.build_task(f"{name}/{preset}" if preset else name, **fields)
        assert isinstance(tasks, ControlTasks)
        self.tasks, self.model = tasks, tasks.model
        self.action_space = self._actions()
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.model.observation,), dtype=np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.task = self._task((options or {}).get("task"))
        self.env = self.tasks.back_end(self.model, torch.from_numpy(self.task)[None])
        observation = self.env.reset(self._noise(self.model.reset_lanes))
        return observation[0, 0].numpy().copy(), {"task": self.task.copy()}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        dtype = np.int64 if isinstance(self.action_space, spaces.Discrete) else np.float64
        given = torch.from_numpy(np.asarray(action, dtype=dtype))[None, None]
        observation, terminated, truncated, reward = self.env.step(given, self._noise(self.model.step_lanes))
        result = float(reward()), bool(terminated), bool(truncated), {"task": self.task.copy()}
        return observation[0, 0].numpy().copy(), *result

    def _actions(self) -> spaces.Space[Any]:
        if isinstance(self.model.actions, Categorical):
            return spaces.Discrete(self.model.actions.count)
        bound = np.full(self.model.actions.features, getattr(self.tasks, "action_scale", 1.0), dtype=np.float32)
        return spaces.Box(-bound, bound, dtype=np.float32)

    def _noise(self, lanes: int) -> torch.Tensor:
        return torch.from_numpy(self.np_random.random((1, 1, lanes)))

    def _task(self, asked: Any) -> np.ndarray:
        drawn = self.tasks.draw(int(self.np_random.integers(1 << 62)), np.zeros(1, dtype=np.int64))[0]
        if asked is None:
            return drawn
        task = np.atleast_1d(np.asarray(asked, dtype=np.float64))
        if task.shape != drawn.shape or not np.isfinite(task).all():
            raise MetabenchError(f"{self.tasks.id}: a task is {len(drawn)} finite numbers, not {asked!r}")
        return task


for _id, _name in ENVIRONMENTS.items():
    gymnasium.register(_id, entry_point="benchmarks.environments.gym:SuiteEnv", kwargs={"name": _name})
