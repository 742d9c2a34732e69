"""Half-cheetah robots that run in a direction or at a velocity.

Source: Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section
5.3 (https://arxiv.org/abs/1703.03400).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.environments.locomotion_tasks import Directions, Velocities
from benchmarks.registry import register_task

#: later codebases divide actions by 10, so that noise of standard deviation 1 explores around 0
_PROMP: dict[str, object] = {"horizon": 100, "action_scale": 10.0}
_TORSO: dict[str, object] = {"observation": "joints-torso"}


@register_task("half-cheetah-direction")
@dataclass(frozen=True)
class HalfCheetahDirection(Directions):
    """A planar two-legged robot runs forward or backward. The direction is the task.

    | | meaning | unit |
    | --- | --- | --- |
    | observation 0 | height of the torso above where it starts | m |
    | 1 | pitch of the torso | rad |
    | 2 to 7 | joints: back thigh, shin, foot; front thigh, shin, foot | rad |
    | 8, 9 | velocity of the torso along x and z | m/s |
    | 10 to 16 | angular velocities of the torso and of the joints, in the same order | rad/s |
    | 17 to 19 | torso: x, y (always 0), z; with "joints-torso" only | m |
    | action 0 to 5 | divided by `action_scale`, then clipped to ± 1: torques of the joints, in the same order | 120, |
    | | | 90, 60, 120, 60, 30 N m |
    | reward | direction * v - `control_cost` * sum of (clipped action)^2 + `bonus` | |
    | start | positions uniform in ± `reset_noise`, velocities normal with that standard deviation | |
    | end | at `horizon` only | control steps of 0.05 s |

    v is the mean velocity along x over the control step, in m/s. The direction is +1 or -1, equally likely. Both test
    tasks are training tasks, so a score measures how well a learner recognises one of them from a new start. It says
    nothing about unseen tasks.

    The body is Gymnasium's half_cheetah.xml. Gymnasium's control cost is 0.1; here and in all sources it is 0.05.

    Presets:

    - "maml2017" follows github.com/cbfinn/maml_rl. There v is the torso's velocity at the end of the step, x, y, z
      belong to the centre of mass, and the published figures come from MuJoCo 1.31.
    - "promp" follows github.com/jonasrothfuss/ProMP, whose wrapper has an action scale of 10.
    - "varibad" follows github.com/lmzintgraf/varibad.
    - "quick" is "promp" under its own name, for short trainings. An action scale of 10 makes exploration a hundred
      times cheaper than a scale of 1, so directions are learned in seconds. Its returns are not comparable with
      published ones.
    """

    robot: ClassVar[str] = "half-cheetah"
    equivalence_margin: ClassVar[float] = 5.0
    #: MAML's: 500 iterations of 40 tasks with twice 20 trajectories; "quick": ours, 18 iterations
    budgets: ClassVar[Mapping[str, int]] = {"maml2017": 500 * 40 * 40 * 200, "quick": 18 * 10 * 20 * 100}
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": _TORSO,
        "promp": _PROMP,
        "varibad": _TORSO,
        "quick": _PROMP,
    }


@register_task("half-cheetah-velocity")
@dataclass(frozen=True)
class HalfCheetahVelocity(Velocities):
    """A planar two-legged robot runs at a velocity that it is not told. The velocity is the task.

    Observations, actions, start and end are those of half-cheetah-direction.

    | | meaning | unit |
    | --- | --- | --- |
    | reward | -abs(v - velocity) - `control_cost` * sum of (clipped action)^2 + `bonus` | |
    | velocity | uniform from `slowest` to `fastest` | m/s |

    v is the mean velocity along x over the control step. Training, validation and test velocities differ.

    The presets are those of half-cheetah-direction. Velocities reach 2 m/s in "maml2017" and "quick", as in the paper,
    and 3 m/s in "promp" and "varibad", as in their code.
    """

    robot: ClassVar[str] = "half-cheetah"
    equivalence_margin: ClassVar[float] = 2.0
    #: MAML's: 500 iterations of 40 tasks with twice 20 trajectories; "quick": ours, 18 iterations
    budgets: ClassVar[Mapping[str, int]] = {"maml2017": 500 * 40 * 40 * 200, "quick": 18 * 10 * 20 * 100}
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": _TORSO,
        "promp": {**_PROMP, "fastest": 3.0},
        "varibad": {**_TORSO, "fastest": 3.0},
        "quick": _PROMP,
    }
