"""The suite's environments as Gymnasium environments.

Importing this module registers them::

    import gymnasium
    import benchmarks.environments.gym

    env = gymnasium.make("metabench/HalfCheetahVelocity-v0", preset="quick")
    observation, info = env.reset(seed=0, options={"task": 1.5})  # run at 1.5 m/s

``preset`` is a variant of the task distribution, by default the first. Every field of the distribution is an argument
too. A reset with ``options={"task": ...}`` begins an episode in that task; one without draws a task from the
distribution. ``info["task"]`` holds the task.

``trial_episodes=n`` keeps a task for n episodes, also over the automatic resets of vector environments, so that a
policy with a memory can be trained (RL^2); ``info["trial_episode"]`` counts from 0. In bandits and tabular processes
one episode (for a bandit one pull) is played at a time. A reset with a seed or a task begins a new trial.

Observations and rewards are float64; all other numbers are those of `BatchEnv`. An episode is truncated at its horizon.
Observations that are images have their channels first. Robots use the back end "loop", which equals Gymnasium bit for
bit. ``render_mode`` is "rgb_array" (robots, navigation, cart-poles and mazes) or "ansi". A mistake raises
`MetabenchError`.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from benchmarks import registry
from benchmarks.checks import check_budget, check_known, check_type, unknown
from benchmarks.environments.actions import Categorical
from benchmarks.environments.distribution import ControlTasks
from benchmarks.environments.locomotion import Locomotion
from benchmarks.environments.rendering import Camera
from benchmarks.environments.simulators import description
from benchmarks.errors import MetabenchError

#: task distribution of each registered id
ENVIRONMENTS = {
    "metabench/HalfCheetahDirection-v0": "half-cheetah-direction",
    "metabench/HalfCheetahVelocity-v0": "half-cheetah-velocity",
    "metabench/AntDirection-v0": "ant-direction",
    "metabench/AntVelocity-v0": "ant-velocity",
    "metabench/Navigation2D-v0": "navigation-2d",
    "metabench/CartPole-v0": "cartpole",
    "metabench/VisualMaze-v0": "visual-maze",
    "metabench/Bandit-v0": "bandit",
    "metabench/TabularMDP-v0": "tabular-mdp",
}


class NotDrawn(MetabenchError, TypeError):
    """A render mode that an environment lacks. Stable-Baselines3 asks for pictures, and after a TypeError for none."""


class SuiteEnv(gymnasium.Env[np.ndarray, Any]):
    """One environment of a task distribution (name, variant, other values of fields); an action is an array of real
    numbers or an action's index."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, name: str, preset: str = "", render_mode: str | None = None, trial_episodes: int = 1, **fields: Any
    ) -> None:
        known = registry.task_entry(name).cls
        if "simulator" in known.__dataclass_fields__:
            fields = {"simulator": "loop", **fields}
        tasks = registry.build_task(f"{name}/{preset}" if preset else name, **fields)
        assert isinstance(tasks, ControlTasks)
        check_type("trial_episodes", trial_episodes, int)
        check_budget("trial_episodes", trial_episodes)
        self.tasks, self.model, self.trial_episodes = tasks, tasks.model, trial_episodes
        self.action_space = self._actions()
        self.observation_space = spaces.Box(-np.inf, np.inf, tasks.input_shape, dtype=np.float64)
        drawn = isinstance(self.model, Locomotion) or hasattr(self.model, "picture")
        self.metadata = {**self.metadata, "render_modes": ["rgb_array", "ansi"] if drawn else ["ansi"]}
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise NotDrawn(str(unknown(f"render mode of {name}", str(render_mode), self.metadata["render_modes"])))
        self.render_mode = render_mode
        self.camera: Camera | None = None
        self.trial_episode = trial_episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        for option in options or {}:
            check_known("option of reset", option, ("task",))
        asked = (options or {}).get("task")
        self.trial_episode += 1
        if seed is not None or asked is not None or self.trial_episode >= self.trial_episodes:
            self.task, self.trial_episode = self._task(asked), 0
        self.env = self.tasks.back_end(self.model, torch.from_numpy(self.task)[None])
        observation = self._told(self.env.reset(self._noise(self.model.reset_lanes)))
        self.told = f"observation {observation.ravel()}"
        return observation, self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        given = torch.from_numpy(self._action(action))[None, None]
        seen, terminated, truncated, reward = self.env.step(given, self._noise(self.model.step_lanes))
        observation, earned = self._told(seen), float(reward())
        self.told = f"action {action}, reward {earned:g}, observation {observation.ravel()}"
        return observation, earned, bool(terminated), bool(truncated), self._info()

    def render(self) -> Any:
        """A picture of the present state, uint8 ``[H, W, 3]``, or a line of text."""
        if self.render_mode != "rgb_array":
            return f"task {self.task}, step {self.env.time}: {self.told}" if self.render_mode else None
        state = self.env.state[0, 0].numpy()
        if not isinstance(self.model, Locomotion):
            return self.model.picture(self.task, state)  # type: ignore[attr-defined]
        self.camera = self.camera or Camera(str(description(self.model.body.description)))
        picture = self.camera.picture(state[: self.model.body.positions])
        if picture is None:
            raise MetabenchError("MuJoCo draws no picture here: it needs EGL or OSMesa (MUJOCO_GL=egl or osmesa)")
        return picture

    def close(self) -> None:
        if self.camera is not None:
            self.camera.close()

    def _told(self, seen: torch.Tensor) -> np.ndarray:
        """The observation, in its shape and the caller's own."""
        return seen[0, 0].numpy().reshape(self.tasks.input_shape).copy()

    def _info(self) -> dict[str, Any]:
        return {"task": self.task.copy(), "trial_episode": self.trial_episode}

    def _action(self, action: Any) -> np.ndarray:
        """The action as an array, int64 ``[]`` or float64 ``[a]``; raises `MetabenchError` for any other."""
        space, given = self.action_space, np.asarray(action)
        if isinstance(space, spaces.Discrete):
            if given.dtype.kind in "iu" and given.size == 1 and 0 <= given.item() < space.n:
                return given.astype(np.int64).reshape(())
            raise MetabenchError(
                f"{self.tasks.id}: an action is a whole number from 0 to {space.n - 1}, not {action!r}"
            )
        if given.dtype.kind in "iuf" and given.shape == space.shape and np.isfinite(given).all():
            return given.astype(np.float64)
        raise MetabenchError(
            f"{self.tasks.id}: an action is {self.model.actions.features} finite numbers, not {action!r}"
        )

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
        with contextlib.suppress(TypeError, ValueError):
            task = np.atleast_1d(np.asarray(asked, dtype=np.float64))
            if task.shape == drawn.shape and np.isfinite(task).all():
                if reason := self.tasks.impossible(task):
                    raise MetabenchError(f"{self.tasks.id}: {reason}")
                return task
        raise MetabenchError(f"{self.tasks.id}: a task is {len(drawn)} finite numbers, not {asked!r}")


for _id, _name in ENVIRONMENTS.items():
    gymnasium.register(_id, entry_point="benchmarks.environments.gym:SuiteEnv", kwargs={"name": _name})
