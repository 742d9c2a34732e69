"""Running robots as pure functions of state, action, next state and task; `benchmarks.environments.simulators` steps
them.

A state is positions and velocities of the joints, ``[T, K, positions + velocities]``, float64. A task is one number,
``[T, 1]``: a direction along x (−1 or +1) or a velocity along x in m/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.environments.actions import Gaussian, standard_normal

#: seconds of one physics step, in the models of both robots
PHYSICS_STEP = 0.01


@dataclass(frozen=True)
class Robot:
    """A robot of Gymnasium, with Gymnasium's description of its body.

    description, environment: its file in ``gymnasium/envs/mujoco/assets``, and Gymnasium's own environment
    initial: positions before the reset noise; initial velocities are 0
    velocities, controls: numbers of velocities in a state and of motors
    hidden: leading positions that are left out of observations, because they say where the robot is
    frame_skip: physics steps per control step
    free: whether positions 0 to 6 are place and quaternion of a freely turning torso; otherwise positions 0 to 2 are x,
        height above `torso_height` and pitch
    torso_height: initial height of a torso that is not free, in m
    """

    description: str
    environment: str
    initial: tuple[float, ...]
    velocities: int
    controls: int
    hidden: int
    frame_skip: int
    free: bool
    torso_height: float

    @property
    def positions(self) -> int:
        return len(self.initial)

    @property
    def state(self) -> int:
        return self.positions + self.velocities

    @property
    def seconds(self) -> float:
        """Duration of a control step."""
        return self.frame_skip * PHYSICS_STEP

    def torso(self, state: Tensor) -> Tensor:
        """Position x, y, z of the torso, after its rotation matrix if it is free: ``[T, K, 3 or 12]``."""
        if not self.free:
            x, height = state[..., 0], state[..., 1] + self.torso_height
            return torch.stack((x, torch.zeros_like(x), height), -1)
        return torch.cat((rotation(state[..., 3:7]), state[..., :3]), -1)


ROBOTS: Mapping[str, Robot] = {
    "half-cheetah": Robot("half_cheetah.xml", "HalfCheetah-v5", (0.0,) * 9, 9, 6, 1, 5, False, 0.7),
    "ant": Robot("ant.xml", "Ant-v5", (0.0, 0.0, 0.75, 1.0, *(0.0,) * 11), 14, 8, 2, 5, True, 0.0),
}


@dataclass(frozen=True)
class Locomotion:
    """A robot of `ROBOTS` that runs with an aim, "direction" or "velocity".

    observation_form: "joints" or "joints-torso"
    action_scale: a policy acts in ± action_scale
    control_cost, bonus: terms of the reward
    heights: range of the torso's height in m, outside of which an episode ends; None: it never ends
    reset_noise: half the width of the uniform noise on positions, and the standard deviation of that on velocities
    """

    robot: str
    aim: str
    horizon: int
    observation_form: str
    action_scale: float
    control_cost: float
    bonus: float
    heights: tuple[float, float] | None
    reset_noise: float

    step_lanes = 0

    @property
    def body(self) -> Robot:
        return ROBOTS[self.robot]

    @property
    def reset_lanes(self) -> int:
        return self.body.state

    @property
    def actions(self) -> Gaussian:
        return Gaussian(self.body.controls)

    @property
    def observation(self) -> int:
        if self.observation_form == "joints":
            return self.body.state - self.body.hidden
        return self.body.state + 12 if self.body.free else self.body.state - self.body.hidden + 3

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        body, noise = self.body, noise.double()
        initial = torch.tensor(body.initial, dtype=torch.float64, device=noise.device)
        positions = initial + self.reset_noise * (2 * noise[..., : body.positions] - 1)
        return torch.cat((positions, self.reset_noise * standard_normal(noise[..., body.positions :])), -1)

    def control(self, action: Tensor) -> Tensor:
        """Controls of the motors, in ± 1: float64 ``[T, K, controls]``."""
        return (action.double() / self.action_scale).clamp(-1.0, 1.0)

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        body = self.body
        if self.observation_form == "joints":
            return state[..., body.hidden :]
        return torch.cat((state if body.free else state[..., body.hidden :], body.torso(state)), -1)

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        # the mean velocity over the control step
        task, velocity = tasks.to(state.dtype), (following[..., 0] - state[..., 0]) / self.body.seconds
        progress = task * velocity if self.aim == "direction" else -(velocity - task).abs()
        # Summed from first to last, as numpy sums so few numbers: equal to Gymnasium's cost bit for bit.
        effort = self.control(action).square().cumsum(-1)[..., -1]
        return progress - self.control_cost * effort + self.bonus

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        if self.heights is None:
            return torch.zeros(following.shape[:-1], dtype=torch.bool, device=following.device)
        height = following[..., 2] if self.body.free else following[..., 1] + self.body.torso_height
        return (height < self.heights[0]) | (height > self.heights[1])


def rotation(quaternion: Tensor) -> Tensor:
    """Rotation matrices of quaternions ``[..., 4]`` (w, x, y, z; any nonzero length), row by row: ``[..., 9]``."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        *(w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return torch.stack(rows, -1)
