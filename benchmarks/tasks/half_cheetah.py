"""Half-cheetah that has to run forward or backward, or at a velocity: Finn, Abbeel and Levine, "Model-Agnostic
Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.3 (https://arxiv.org/abs/1703.03400)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.environments.locomotion_tasks import Directions, Velocities
from benchmarks.registry import register_task

#: the wrapper of later codebases divides actions by 10, so that noise of standard deviation 1 explores around 0
_PROMP: dict[str, object] = {"horizon": 100, "action_scale": 10.0}
_TORSO: dict[str, object] = {"observation": "joints-torso"}


@register_task("half-cheetah-direction")
@dataclass(frozen=True)
class HalfCheetahDirection(Directions):
    """A planar robot with two legs has to run forward or backward; the direction is the task, and there are two.

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

    v is the mean velocity along x over the control step, in m/s. direction: +1 or -1, equally likely. The two tasks of
    training are those of the test: a test says how well one of them is found out again, from another start and with
    other noise, and nothing about unseen tasks.

    The body is Gymnasium's half_cheetah.xml, whose control cost is 0.1 where it is 0.05 here and in all sources.
    "maml2017" follows github.com/cbfinn/maml_rl: v is the velocity of the torso at the end of the step there, x, y, z
    are those of the centre of mass, its simulator is MuJoCo 1.31, and so are its figures. "promp" follows
    github.com/jonasrothfuss/ProMP, whose wrapper has an action scale of 10. "varibad" follows
    github.com/lmzintgraf/varibad. "quick" is "promp" under a name of its own, for short trainings: with an action scale
    of 10, exploration costs a hundredth of what it costs with 1, and directions are learned in seconds. Returns of
    "quick" are not set beside published ones.
    """

    robot: ClassVar[str] = "half-cheetah"
    equivalence_margin: ClassVar[float] = 5.0
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": _TORSO,
        "promp": _PROMP,
        "varibad": _TORSO,
        "quick": _PROMP,
    }


@register_task("half-cheetah-velocity")
@dataclass(frozen=True)
class HalfCheetahVelocity(Velocities):
    """A planar robot with two legs has to run at a velocity that it is not told; the velocity is the task.

    Observations, actions, start and end are those of half-cheetah-direction.

    | | meaning | unit |
    | --- | --- | --- |
    | reward | -abs(v - velocity) - `control_cost` * sum of (clipped action)^2 + `bonus` | |
    | velocity | uniform from `slowest` to `fastest` | m/s |

    v is the mean velocity along x over the control step. Training, validation and test velocities are different.

    Presets as those of half-cheetah-direction; velocities are up to 2 m/s in "maml2017" and "quick", as the paper has
    it, and up to 3 m/s in "promp" and "varibad", whose code has that.
    """

    robot: ClassVar[str] = "half-cheetah"
    equivalence_margin: ClassVar[float] = 2.0
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "maml2017": _TORSO,
        "promp": {**_PROMP, "fastest": 3.0},
        "varibad": {**_TORSO, "fastest": 3.0},
        "quick": _PROMP,
    }
