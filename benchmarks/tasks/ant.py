"""Ant robots that run in a direction or at a velocity.

Source: Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section
5.3 (https://arxiv.org/abs/1703.03400).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.environments.locomotion_tasks import Directions, Falling, Velocities
from benchmarks.registry import register_task

_MAML2017: dict[str, object] = {"observation": "joints-torso", "control_cost": 0.005}
_PROMP: dict[str, object] = {"horizon": 100, "action_scale": 10.0, "control_cost": 0.5, "bonus": 1.0, "lowest": 0.0}
_QUICK: dict[str, object] = {"horizon": 100, "action_scale": 10.0, "control_cost": 0.005}


@register_task("ant-direction")
@dataclass(frozen=True)
class AntDirection(Falling, Directions):
    """A four-legged robot runs forward or backward along x. The direction is the task.

    | | meaning | unit |
    | --- | --- | --- |
    | observation 0 | height of the torso | m |
    | 1 to 4 | its orientation, a quaternion: w, x, y, z | |
    | 5 to 12 | joints, hip and ankle of the legs: front left, front right, back left, back right | rad |
    | 13 to 18 | velocity of the torso along x, y, z; angular velocity about them | m/s, rad/s |
    | 19 to 26 | angular velocities of the joints, in the same order | rad/s |
    | with "joints-torso" | x and y before these; after them the torso's rotation matrix, row by row, and x, y, z | m |
    | action 0 to 7 | divided by `action_scale`, then clipped to ± 1: torques of hip and ankle of the legs back | 150 |
    | | right, front left, front right, back left | N m |
    | reward | direction * v - `control_cost` * sum of (clipped action)^2 + `bonus` | |
    | start | positions uniform in ± `reset_noise`, velocities normal with that standard deviation | |
    | end | when the height leaves [`lowest`, `highest`], with the reward of that step; else at `horizon` | control |
    | | | steps of 0.05 s |

    v is the mean velocity of the torso along x over the control step, in m/s. The direction is +1 or -1, equally
    likely. Both test tasks are training tasks, so a score measures how well a learner recognises one of them from a new
    start. It says nothing about unseen tasks.

    The body is Gymnasium's ant.xml. There are no contact terms. The sources charge for contact forces (at most 0.0005
    for each of 84 numbers) and show them to the policy. Here a reward depends on positions, velocities and action only,
    so simulators that report contacts differently agree. Gymnasium takes v from a torso position one physics step (0.01
    s) behind; here v is exact.

    Presets:

    - "maml2017" follows github.com/cbfinn/maml_rl. There v is the torso's velocity at the end of the step, and x, y, z
      belong to a centre of mass.
    - "promp" follows github.com/jonasrothfuss/ProMP, whose wrapper has an action scale of 10.
    - "varibad" follows github.com/lmzintgraf/varibad. Its code calls +1 and -1 forward and backward but uses them as
      angles in radians; here they are forward and backward.
    - "quick" is "maml2017" with the observations, horizon and action scale of "promp". Its returns are not comparable
      with published ones.
    """

    robot: ClassVar[str] = "ant"
    equivalence_margin: ClassVar[float] = 5.0
    #: MAML's: 500 iterations of 40 tasks with twice 40 trajectories; "quick": ours, 18 iterations
    budgets: ClassVar[Mapping[str, int]] = {"maml2017": 500 * 40 * 80 * 200, "quick": 18 * 10 * 20 * 100}
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": {**_MAML2017, "bonus": 0.05, "shot": 40},
        "promp": _PROMP,
        "varibad": {**_PROMP, "horizon": 200, "action_scale": 1.0, "lowest": 0.2},
        "quick": {**_QUICK, "bonus": 0.05},
    }


@register_task("ant-velocity")
@dataclass(frozen=True)
class AntVelocity(Falling, Velocities):
    """A four-legged robot runs along x at a velocity that it is not told. The velocity is the task.

    Observations, actions, start, end and the absence of contact terms are those of ant-direction.

    | | meaning | unit |
    | --- | --- | --- |
    | reward | -abs(v - velocity) - `control_cost` * sum of (clipped action)^2 + `bonus` | |
    | velocity | uniform from `slowest` to `fastest` | m/s |

    v is the mean velocity of the torso along x over the control step. Training, validation and test velocities differ.

    "maml2017" follows github.com/cbfinn/maml_rl, whose bonus of 1.05 makes staying alive worth it. "quick" changes the
    horizon, action scale and observation, so its returns are not comparable with published ones. ProMP and varibad have
    no such task.
    """

    robot: ClassVar[str] = "ant"
    equivalence_margin: ClassVar[float] = 5.0
    #: MAML's: 500 iterations of 40 tasks with twice 20 trajectories; "quick": ours, 18 iterations
    budgets: ClassVar[Mapping[str, int]] = {"maml2017": 500 * 40 * 40 * 200, "quick": 18 * 10 * 20 * 100}
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": {**_MAML2017, "bonus": 1.05, "fastest": 3.0},
        "quick": {**_QUICK, "bonus": 1.05, "fastest": 3.0},
    }
