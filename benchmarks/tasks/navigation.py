"""2D navigation: a point walks to a goal in the plane.

Source: Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section
5.3 (https://arxiv.org/abs/1703.03400).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Episodes, Predictor
from benchmarks.checks import check_fields
from benchmarks.environments import ControlTasks, Gaussian
from benchmarks.environments.distribution import Indices
from benchmarks.registry import register_task

RewardForm = Literal["distance", "squared", "corner-progress"]
Goals = Literal["box", "corners", "semicircle"]
Observation = Literal["position", "position-goal"]

#: tasks and trajectories shown in figures
EXHIBITED_EPISODES = 3
EXHIBITED_TRAJECTORIES = 3
#: L1 distance from the origin below which "corner-progress" pays nothing
QUIET_RADIUS = 0.5

_PROMP: dict[str, object] = {
    "reward": "corner-progress",
    "goals": "corners",
    "goal_range": 2.0,
    "action_scale": 10.0,
    "action_bound": 0.2,
    "start_range": 0.2,
    "tolerance": 0.0,
}


@dataclass(frozen=True)
class Point:
    """The environment: a point that moves by its action. Its state is the position, ``[T, K, 2]``, a task the goal."""

    horizon: int
    reward_form: str
    action_scale: float
    action_bound: float
    start_range: float
    tolerance: float
    sees_goal: bool

    reset_lanes, step_lanes = 2, 0

    @property
    def actions(self) -> Gaussian:
        return Gaussian(2)

    @property
    def observation(self) -> int:
        return 4 if self.sees_goal else 2

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        return (self.start_range * (2 * noise - 1)).to(tasks.dtype)

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        longest = self.action_bound
        return state + (longest / self.action_scale * action).clamp(-longest, longest)

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        return torch.cat((state, tasks.unsqueeze(1).expand_as(state)), -1) if self.sees_goal else state

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        goal = tasks.unsqueeze(1)
        distance = (following - goal).norm(dim=-1)
        if self.reward_form == "distance":
            return -distance
        if self.reward_form == "squared":
            return -distance.square()
        # The nearest corner is the one in the point's own quadrant.
        nearest = (following * goal >= 0).all(-1)
        outside = following.abs().sum(-1) >= QUIET_RADIUS
        return ((state - goal).norm(dim=-1) - distance).masked_fill(~(nearest & outside), 0.0)

    def picture(self, task: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The point (dark) and its goal (green) in ± 2.5, uint8 ``[200, 200, 3]``."""
        picture = np.full((200, 200, 3), 255, np.uint8)
        for (x, y), colour in ((task, (27, 127, 77)), (state, (27, 31, 36))):
            row, column = (np.clip([100 - 40 * y, 100 + 40 * x], 4, 195)).astype(int)
            picture[row - 3 : row + 4, column - 3 : column + 4] = colour
        return picture

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return ((following - tasks.unsqueeze(1)).abs() < self.tolerance).all(-1)


@register_task("navigation-2d")
@dataclass(frozen=True)
class Navigation(ControlTasks):
    """A point in the plane walks to a goal that it is not told. The goal is the task.

    | | meaning | unit |
    | --- | --- | --- |
    | observation | position x, y (with "position-goal" also the goal, for oracles) | length |
    | action | velocity x, y; ± `action_scale` is mapped to ± `action_bound`, then clipped | length per step |
    | reward | see below | length |
    | start | uniform in ± `start_range` on both axes | length |
    | end | at `horizon`; before that when both coordinates are within `tolerance` of the goal (0: never) | steps |

    reward: "distance", minus the Euclidean distance to the goal after the step; "squared", minus its square;
        "corner-progress", the distance gained in the step, paid only in the goal's quadrant and at least 0.5 (L1) from
        the origin. After an early end it is 0, so arriving costs nothing.
    goals: "box", uniform in ± `goal_range` on both axes; "corners", one of the four (± range, ± range), so that test
        tasks are training tasks; "semicircle", on the upper half of the circle with radius `goal_range`.

    Presets:

    - "maml2017" follows the released code (github.com/cbfinn/maml_rl, ``point_env_randgoal``). It does *not* square the
      distance, though the paper's text does; the returns of the paper's table 4 fit the plain distance only. It takes
      40 trajectories per step, as in that table. Policies act in ± 1, which its wrapper ``normalize`` maps to ± 0.1.
    - "quick" is the same environment, for shorter trainings. Its returns are not comparable with published ones.
    - "promp" is the corner task of github.com/jonasrothfuss/ProMP, whose wrapper divides actions by 10.
    - "varibad" is the point robot of github.com/lmzintgraf/varibad with goals on the semicircle. A trial is one episode
      here and three in the papers that use it.
    """

    equivalence_margin: ClassVar[float] = 0.5
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": {"shot": 40},
        "quick": {},
        "promp": _PROMP,
        "varibad": {"goals": "semicircle", "goal_range": 1.0, "tolerance": 0.0},
    }
    #: MAML's: 500 iterations of 20 tasks with twice 20 trajectories; "quick": ours, 21 iterations
    budgets: ClassVar[Mapping[str, int]] = {"maml2017": 500 * 20 * 40 * 100, "quick": 21 * 20 * 20 * 100}

    horizon: int = 100
    reward: RewardForm = "distance"
    goals: Goals = "box"
    goal_range: float = 0.5
    observation: Observation = "position"
    action_scale: float = 1.0
    action_bound: float = 0.1
    start_range: float = 0.0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "horizon")
        check_fields(self, "above 0", "goal_range", "action_scale", "action_bound")
        check_fields(self, "at least 0", "start_range", "tolerance")

    @property
    def model(self) -> Point:
        names = ("horizon", "action_scale", "action_bound", "start_range", "tolerance")
        shared = {name: getattr(self, name) for name in names}
        return Point(**shared, reward_form=self.reward, sees_goal=self.observation == "position-goal")

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Goals, float64 ``[T, 2]``."""
        unit = sampling.uniform(key, indices, 2)
        if self.goals == "semicircle":
            return self.goal_range * np.stack((np.cos(np.pi * unit[:, 0]), np.sin(np.pi * unit[:, 0])), 1)
        centred = 2 * unit - 1
        return self.goal_range * (np.where(centred < 0, -1.0, 1.0) if self.goals == "corners" else centred)

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """Paths of the first E tasks and R trajectories after each of S step counts.

        paths: ``[S, E, R, H, 2]``, NaN after an early end; goals: ``[E, 2]``; steps: ``[S]``."""
        paths = []
        for predictor in predictors.values():
            seen = episodes.query.batch(predictor, 0)
            path = seen.observations[..., :2].masked_fill(~seen.live.unsqueeze(-1), math.nan)
            paths.append(path[:EXHIBITED_EPISODES, :EXHIBITED_TRAJECTORIES].cpu().numpy())
        return {
            "paths": np.stack(paths),
            "goals": episodes.query.parameters[:EXHIBITED_EPISODES].cpu().numpy(),
            "steps": np.array(list(predictors), dtype=np.int16),
        }
