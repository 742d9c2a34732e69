"""Cart-poles with different poles and carts.

Sources: Sung et al., "Learning to learn: Meta-critic networks for sample efficient learning", 2017
(https://arxiv.org/abs/1706.09529), who vary the length of the pole; Barto, Sutton and Anderson, "Neuronlike adaptive
elements that can solve difficult learning control problems", 1983; Gymnasium's CartPole-v1, whose numbers these are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.checks import check_fields
from benchmarks.environments import Categorical, ControlTasks
from benchmarks.environments.distribution import Indices
from benchmarks.registry import register_task

GRAVITY = 9.8
#: seconds per step
TIME_STEP = 0.02
#: distance from the middle and angle beyond which an episode ends
FARTHEST, STEEPEST = 2.4, 12 * 2 * math.pi / 360
#: bound on each number of a first state
START = 0.05
#: the four numbers of a task; each is the name of a field, its range
PARAMETERS = ("half_length", "pole_mass", "cart_mass", "force")


@dataclass(frozen=True)
class CartPole:
    """The environment: its state is position and velocity of the cart, angle and angular velocity of the pole,
    ``[T, K, 4]``; a task is half the pole's length, masses of pole and cart, and the force, ``[T, 4]``."""

    horizon: int

    reset_lanes, step_lanes, observation = 4, 0, 4

    @property
    def actions(self) -> Categorical:
        return Categorical(2)

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        return (START * (2 * noise - 1)).to(tasks.dtype)

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        half_length, pole, cart, push = tasks.unsqueeze(1).unbind(-1)
        _, _, angle, turning = state.unbind(-1)
        sine, cosine, whole = angle.sin(), angle.cos(), pole + cart
        force = torch.where(action == 1, push, -push)
        pushed = (force + pole * half_length * turning.square() * sine) / whole
        inertia = half_length * (4 / 3 - pole * cosine.square() / whole)
        angular = (GRAVITY * sine - cosine * pushed) / inertia
        linear = pushed - pole * half_length * angular * cosine / whole
        return state + TIME_STEP * torch.stack((state[..., 1], linear, turning, angular), -1)

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        return state

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return torch.ones_like(following[..., 0])

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return (following[..., 0].abs() > FARTHEST) | (following[..., 2].abs() > STEEPEST)

    def picture(self, task: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The cart (dark) and its pole (green), uint8 ``[200, 480, 3]``; a metre is 96 pixels across, poles 18."""
        picture = np.full((200, 480, 3), 255, np.uint8)
        middle = int(np.clip(240 + 96 * state[0], 12, 467))
        picture[170:186, middle - 12 : middle + 13] = (27, 31, 36)
        along = np.linspace(0, 36 * min(task[0], 4.5), 200)
        rows, columns = 170 - along * np.cos(state[2]), middle + along * np.sin(state[2])
        inside = (columns > 1) & (columns < 478)
        for shift in (-1, 0, 1):
            picture[rows[inside].astype(int), columns[inside].astype(int) + shift] = (27, 127, 77)
        return picture


@register_task("cartpole")
@dataclass(frozen=True)
class CartPoles(ControlTasks):
    """A cart is pushed left or right so that the pole on it stays up. The learner is not told what the pole is like.

    | | meaning | unit |
    | --- | --- | --- |
    | observation 0, 1 | position and velocity of the cart | m, m/s |
    | 2, 3 | angle from upright and angular velocity of the pole | rad, rad/s |
    | action | 0: push to the left, 1: to the right, with the force of the task | N |
    | reward | 1 for each step, the one that ends the episode too | |
    | start | all four numbers uniform in ± 0.05 | |
    | end | at `horizon`; before that beyond ± 2.4 m or ± 12 degrees | steps of 0.02 s |

    A task is drawn uniform from ranges (lowest, highest):

    | field | meaning | unit |
    | --- | --- | --- |
    | `half_length` | half the length of the pole | m |
    | `pole_mass`, `cart_mass` | masses | kg |
    | `force` | of a push | N |

    The score is the number of steps that the pole stays up, at most `horizon`. Physics and Euler steps are those of
    Gymnasium's CartPole-v1: with the task (0.5, 0.1, 1, 10) a step from the same state agrees to 1e-12, in double
    precision. Training, validation and test poles differ.

    Presets:

    - "metacritic" varies the length alone, as Sung et al. do (github.com/floodsung/Meta-Critic-Networks), for 200
      steps. They test greedy policies and this suite sampled ones, so returns are not comparable.
    - "physics" varies all four; its ranges are this suite's own.
    - "quick" is "metacritic" with 100 steps and small batches, for short trainings.
    """

    equivalence_margin: ClassVar[float] = 5.0
    exhibited: ClassVar[int] = 50
    parameter_names: ClassVar[Sequence[str]] = tuple(name.replace("_", " ") for name in PARAMETERS)
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "metacritic": {},
        "physics": {
            "half_length": (0.25, 2.5),
            "pole_mass": (0.05, 1.0),
            "cart_mass": (0.5, 2.0),
            "force": (5.0, 20.0),
        },
        "quick": {"horizon": 100, "shot": 5, "queries": 10},
    }

    horizon: int = 200
    half_length: tuple[float, ...] = (0.5, 5.0)
    pole_mass: tuple[float, ...] = (0.1, 0.1)
    cart_mass: tuple[float, ...] = (1.0, 1.0)
    force: tuple[float, ...] = (10.0, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "horizon")
        check_fields(self, "above 0", *PARAMETERS)
        for name in PARAMETERS:
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"{name} = {bounds} is not a range (lowest, highest)")

    @property
    def model(self) -> CartPole:
        return CartPole(self.horizon)

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Half lengths, masses of pole and cart, and forces, float64 ``[T, 4]``."""
        unit = sampling.uniform(key, indices, len(PARAMETERS))
        ranges = [getattr(self, name) for name in PARAMETERS]
        return np.stack([sampling.between(bounds, unit[:, i]) for i, bounds in enumerate(ranges)], 1)

    def impossible(self, task: np.ndarray) -> str:
        wrong = [f"{name} = {value:g}" for name, value in zip(PARAMETERS, task, strict=True) if value <= 0]
        return f"{', '.join(wrong)} of a task is not above 0" if wrong else ""
