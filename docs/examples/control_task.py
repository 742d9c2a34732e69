"""A control task as an example: a cart on a track has to stop at a hidden place."""

from dataclasses import dataclass

import torch

from benchmarks import sampling
from benchmarks.environments import ControlTasks, Gaussian, TensorModel
from benchmarks.registry import register_task


class Cart(TensorModel):
    """State and observation: position in m and velocity in m/s, ``[T, K, 2]``. Task: the hidden place, ``[T, 1]``."""

    horizon, observation, actions = 40, 2, Gaussian(1)

    def start(self, tasks, noise):
        return tasks.new_zeros(*noise.shape[:2], 2)

    def following(self, tasks, state, action, noise):
        position, velocity = state.split(1, -1)
        velocity = velocity + 0.1 * action.clamp(-1, 1)
        return torch.cat((position + 0.1 * velocity, velocity), -1)

    def reward(self, tasks, state, action, following):
        return -(following[..., 0] - tasks).abs() - 0.1 * following[..., 1].abs()


@register_task("hidden-place")
@dataclass(frozen=True)
class HiddenPlace(ControlTasks):
    """A cart is pushed with up to 1 m/s^2 along a line, 40 steps of 0.1 s. The place is uniform in [-2, 2] m.

    The reward of a step is minus the distance in m, minus a tenth of the speed in m/s. The score is the return.
    """

    equivalence_margin = 1.0
    model = Cart()

    def draw(self, key, indices):
        return sampling.uniform(key, indices, 1, -2.0, 2.0)
