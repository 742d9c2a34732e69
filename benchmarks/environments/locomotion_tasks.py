"""Distributions over directions and velocities of a robot."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Episodes, Predictor
from benchmarks.checks import check_fields, check_known
from benchmarks.environments.batch import BatchEnv
from benchmarks.environments.distribution import ControlTasks, Indices
from benchmarks.environments.locomotion import Locomotion
from benchmarks.environments.rendering import frames
from benchmarks.environments.rollout import Rollouts
from benchmarks.environments.simulators import BACK_ENDS, description, mujoco_module

#: pictures of a film, and seconds between them
FRAMES, SECONDS_PER_FRAME = 6, 0.5

Simulator = Literal["batch", "rollout", "loop", "gymnasium"]
Observation = Literal["joints", "joints-torso"]


@dataclass(frozen=True)
class LocomotionTasks(ControlTasks):
    """A robot of `benchmarks.environments.locomotion`, and how its tasks are drawn.

    simulator: the back end of the physics, see `benchmarks.environments.simulators`
    """

    robot: ClassVar[str]
    aim: ClassVar[str]
    exhibited: ClassVar[int] = 1

    horizon: int = 200
    observation: Observation = "joints"
    action_scale: float = 1.0
    control_cost: float = 0.05
    bonus: float = 0.0
    reset_noise: float = 0.1
    simulator: Simulator = "batch"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "horizon")
        check_fields(self, "above 0", "action_scale")
        check_fields(self, "at least 0", "control_cost", "reset_noise")
        check_fields(self, "a finite number", "bonus")
        check_known("simulator", self.simulator, BACK_ENDS)

    @property
    def heights(self) -> tuple[float, float] | None:
        """Range of the torso's height in m, outside of which an episode ends."""
        return None

    @property
    def model(self) -> Locomotion:
        form, heights = self.observation, self.heights
        names = ("robot", "aim", "horizon", "action_scale", "control_cost", "bonus", "reset_noise")
        return Locomotion(**{n: getattr(self, n) for n in names}, observation_form=form, heights=heights)

    @property
    def back_end(self) -> Callable[[Any, Tensor], BatchEnv]:
        return BACK_ENDS[self.simulator]

    def prepare(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Raises `Unavailable` if MuJoCo or Gymnasium is missing."""
        mujoco_module()
        description(self.model.body.description)

    def data_digest(self) -> str:
        """Hash of the robot's description and MuJoCo's version, which decide how it moves."""
        body = description(self.model.body.description).read_bytes()
        return hashlib.sha256(body + mujoco_module().__version__.encode()).hexdigest()[:16]

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """Films of the first trajectory in the first task after each of S step counts; nothing without a renderer.

        frames: uint8 ``[S, F, 90, 160, 3]``, `SECONDS_PER_FRAME` apart; task: ``[p]``; steps: ``[S]``."""
        stride = round(SECONDS_PER_FRAME / self.model.body.seconds)
        shown = [self._positions(episodes.query, each)[::stride][:FRAMES] for each in predictors.values()]
        pictures = frames(str(description(self.model.body.description)), np.concatenate(shown))
        if pictures is None:
            return {}
        return {
            "frames": pictures.reshape(len(shown), -1, *pictures.shape[1:]),
            "task": episodes.query.parameters[0].cpu().numpy(),
            "steps": np.array(list(predictors), dtype=np.int16),
        }

    def _positions(self, source: Rollouts, predictor: Predictor) -> np.ndarray:
        """Positions before each step of the first episode in the first task, ``[H, positions]``."""
        actions = source.batch(predictor, 0).actions[:1, :1, : self.horizon]
        env = BACK_ENDS[self.simulator](self.model, source.parameters[:1])
        env.reset(source.noise(0)[0][:1, :1, 0])
        positions = []
        for action in actions.unbind(2):
            positions.append(env.state[0, 0, : self.model.body.positions].numpy())
            env.step(action, action)
        return np.stack(positions)


@dataclass(frozen=True)
class Listed(Rollouts):
    """Rollouts in tasks of a finite list. ``classes``: 1 for forward and 0 for backward, ``[T, queries]``; ``items``:
    the number of the trajectory."""

    @property
    def classes(self) -> Tensor:
        return (self.parameters[:, :1] > 0).long().expand(-1, self.trajectories)

    @property
    def items(self) -> Tensor:
        return torch.arange(self.trajectories).expand(len(self), -1)


@dataclass(frozen=True)
class Directions(LocomotionTasks):
    """Two tasks, forward (+1) and backward (−1), equally likely; test episodes have them in pairs, one of each.

    test_tasks: recorded fact that test tasks are training tasks
    """

    version: ClassVar[int] = 2
    aim: ClassVar[str] = "direction"

    test_tasks: Literal["training"] = "training"

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Directions, float64 ``[T, 1]``."""
        return np.where(sampling.uniform(key, indices, 1) < 0.5, -1.0, 1.0)

    def episodes(
        self, split: str, indices: Indices, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        """As for all control tasks; of the test episodes 2i and 2i + 1, one goes forward and one backward."""
        found = super().episodes(split, indices, shots=shots, queries=queries)
        support, query = found.support, found.query
        if split == "test":
            numbers = np.asarray(indices, dtype=np.int64)
            first = self.draw(sampling.stream(f"{self.name}-v{self.version}", split, "pairs"), numbers // 2)
            drawn = np.where(numbers[:, None] % 2, -first, first).astype(np.float32)
            directions = torch.from_numpy(drawn).to(self.device)
            support, query = (dataclasses.replace(each, parameters=directions) for each in (support, query))
        return Episodes(support, Listed(**{each.name: getattr(query, each.name) for each in dataclasses.fields(query)}))


@dataclass(frozen=True)
class Velocities(LocomotionTasks):
    """Velocities in m/s, uniform from `slowest` to `fastest`.

    test_tasks: recorded fact that no test task is a training task
    """

    aim: ClassVar[str] = "velocity"

    test_tasks: Literal["unseen"] = "unseen"
    slowest: float = 0.0
    fastest: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -math.inf < self.slowest < self.fastest < math.inf:
            raise ValueError(f"no velocity is between slowest = {self.slowest} and fastest = {self.fastest}")

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Velocities, float64 ``[T, 1]``."""
        return sampling.uniform(key, indices, 1, self.slowest, self.fastest)


@dataclass(frozen=True)
class Falling(LocomotionTasks):
    """A robot whose episode ends when the height of its torso, in m, leaves the range from `lowest` to `highest`."""

    lowest: float = 0.2
    highest: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lowest < self.highest:
            raise ValueError(f"lowest = {self.lowest} is not below highest = {self.highest}")

    @property
    def heights(self) -> tuple[float, float]:
        return self.lowest, self.highest
