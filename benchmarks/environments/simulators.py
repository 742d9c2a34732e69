"""Back ends for the physics of `Locomotion`: MuJoCo's native threads, a loop in Python, or Gymnasium itself.

| back end | stepped by | equal to Gymnasium |
| --- | --- | --- |
| "batch" | `mujoco.batch`, on as many native threads as torch may use | bit for bit, with any number of threads |
| "rollout" | `mujoco.rollout`, likewise | in each step to rounding; contacts amplify that along a trajectory |
| "loop" | one MjData after the other | bit for bit |
| "gymnasium" | Gymnasium's own environments, one after the other | it is Gymnasium |

`mujoco.rollout` starts each control step without the constraint solution of the previous one (no warm start). Positions
and velocities are float64 everywhere. `Locomotion` computes rewards, ends and observations from them for every back
end. Threads start with an episode, in the process that runs it.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib.util
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.api import Diverged, MetabenchError, Unavailable
from benchmarks.environments.batch import BatchEnv
from benchmarks.environments.locomotion import Locomotion
from benchmarks.execution.threads import one_thread

#: MuJoCo's own bound for a bad number
HUGE = 1e10
#: the first major version with `mujoco.batch`; Ant moves differently in older ones
OLDEST_MUJOCO = 4


def mujoco_module() -> Any:
    """The module mujoco; raises `Unavailable` with one line if it is missing or too old, and `MetabenchError` where
    MUJOCO_GL names a library that it can't load."""
    try:
        import mujoco
    except Exception as error:
        if isinstance(error, ImportError):
            raise Unavailable(f"MuJoCo can't be imported ({error}): pip install mujoco") from error
        if chosen := os.environ.get("MUJOCO_GL"):
            why = f"MuJoCo can't be imported with MUJOCO_GL={chosen}; known: egl, osmesa, glfw, disable"
            raise MetabenchError(f"{why} (egl and osmesa need their libraries): unset it or name another") from error
        raise Unavailable(f"MuJoCo can't be imported ({type(error).__name__}: {error})") from error
    version = mujoco.__version__
    if int(version.partition(".")[0]) < OLDEST_MUJOCO:
        raise Unavailable(f"MuJoCo {version} is installed, {OLDEST_MUJOCO}.0 or newer is needed: pip install -U mujoco")
    return mujoco


def description(name: str) -> Path:
    """Path of Gymnasium's file for a robot's body, found without importing Gymnasium.

    Raises `Unavailable` if it is missing."""
    try:
        spec = importlib.util.find_spec("gymnasium")
    except ImportError:
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "envs" / "mujoco" / "assets" / name
        if path.is_file():
            return path
    raise Unavailable(f"Gymnasium's {name}, which describes the robot, is not installed: pip install gymnasium")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence MuJoCo's warnings, on the console and in MUJOCO_LOG.TXT."""
    configuration = mujoco_module().MjLogConfig
    before, silent = configuration.get(), configuration.get()
    silent.logto_console = silent.logto_file = False
    silent.set()
    try:
        yield
    finally:
        before.set()


@functools.cache
def physics(name: str) -> Any:
    """The MjModel of a file, shared by all simulators of this process; never changed afterwards.

    MuJoCo silently resets an unstable simulation; that is switched off, so that instability is noticed. Constraint
    islands and bounding-volume trees are off too: they speed up worlds of many bodies, slow down one body and change no
    result."""
    mujoco = mujoco_module()
    with quiet():
        model = mujoco.MjModel.from_xml_path(str(description(name)))
    bits = mujoco.mjtDisableBit
    model.opt.disableflags |= bits.mjDSBL_AUTORESET | bits.mjDSBL_ISLAND | bits.mjDSBL_MIDPHASE
    return model


class SimulatedEnv(BatchEnv, abc.ABC):
    """T x K robots, computed in float64 on the CPU. A subclass sets them to states and moves them."""

    model: Locomotion

    def __init__(self, model: Locomotion, tasks: Tensor) -> None:
        super().__init__(model, tasks)
        self.here = tasks.detach().cpu()
        self.threads = torch.get_num_threads()

    def working(self) -> contextlib.AbstractContextManager[Any]:
        """Give MuJoCo the cores: torch's threads spin after each operation and slow it down by a fifth."""
        return one_thread()

    @abc.abstractmethod
    def begin(self, states: np.ndarray) -> None:
        """Set N = T * K simulators to states ``[N, s]``."""

    @abc.abstractmethod
    def advance(self, controls: np.ndarray, live: np.ndarray) -> np.ndarray:
        """Move the live robots (bool ``[N]``, at least one true) for one control step by controls ``[N, a]``; returns
        states ``[N, s]``, arbitrary where not live."""

    def reset(self, noise: Tensor) -> Tensor:
        observation = super().reset(noise)
        with quiet():
            self.begin(self.state.flatten(0, 1).numpy())
        return observation

    def moved(self, action: Tensor, noise: Tensor, live: Tensor) -> Tensor:
        if not bool(live.any()):  # `mujoco.rollout` crashes without work
            return self.state
        # MuJoCo replaces a control that is NaN by 0.
        self._expect_below(math.inf, action, live, "the action is not finite")
        controls = self.model.control(action).flatten(0, 1).numpy()
        with quiet():
            after = torch.from_numpy(self.advance(controls, live.flatten().numpy())).view_as(self.state)
        self._expect_below(HUGE, after, live, "the simulation has become unstable")
        return after

    def _expect_below(self, bound: float, values: Tensor, live: Tensor, otherwise: str) -> None:
        """Raise `Diverged` if a live row has a number that is NaN or not below the bound."""
        if np.abs(values.numpy()).max() < bound:  # numpy takes a tenth of torch's time for this few numbers
            return
        bad = live & ~(values.abs() < bound).all(-1)
        if bool(bad.any()):
            task, trajectory = bad.nonzero()[0].tolist()
            raise Diverged(
                f"{self.model.robot}: {otherwise} in step {self.time + 1} of trajectory {trajectory} in task {task}"
            )


class BatchSimulators(SimulatedEnv):
    """The back end "batch"."""

    def begin(self, states: np.ndarray) -> None:
        mujoco = mujoco_module()
        from mujoco.batch import Batch

        self.simulations = Batch(physics(self.model.body.description), len(states), self.threads)
        self.positions, self.velocities = (self.simulations.bind(name) for name in ("qpos", "qvel"))
        self.controls = self.simulations.bind("ctrl")
        self.simulations.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self.positions[:], self.velocities[:] = np.split(states, [self.model.body.positions], 1)
        self.simulations.forward()

    def advance(self, controls: np.ndarray, live: np.ndarray) -> np.ndarray:
        self.controls[:] = controls
        self.simulations.step(live, nstep=self.model.body.frame_skip)
        # A row is the time, positions, velocities, then the warm start of the next step.
        return self.simulations.state[:, 1 : 1 + self.model.body.state].copy()


class LoopSimulators(SimulatedEnv):
    """The back end "loop"."""

    def begin(self, states: np.ndarray) -> None:
        self.simulations = [self._made(*np.split(state, [self.model.body.positions])) for state in states]

    def advance(self, controls: np.ndarray, live: np.ndarray) -> np.ndarray:
        after = np.empty((len(live), self.model.body.state))
        for number in np.flatnonzero(live):
            after[number] = self._advanced(self.simulations[number], controls[number])
        return after

    def _made(self, positions: np.ndarray, velocities: np.ndarray) -> Any:
        mujoco, model = mujoco_module(), physics(self.model.body.description)
        simulation = mujoco.MjData(model)
        simulation.qpos[:], simulation.qvel[:] = positions, velocities
        mujoco.mj_forward(model, simulation)
        return simulation

    def _advanced(self, simulation: Any, control: np.ndarray) -> np.ndarray:
        body = self.model.body
        simulation.ctrl[:] = control
        mujoco_module().mj_step(physics(body.description), simulation, nstep=body.frame_skip)
        return np.concatenate((simulation.qpos, simulation.qvel))


class GymnasiumSimulators(LoopSimulators):
    """The back end "gymnasium"."""

    def _made(self, positions: np.ndarray, velocities: np.ndarray) -> Any:
        import gymnasium

        body = self.model.body
        simulation: Any = gymnasium.make(body.environment, frame_skip=body.frame_skip).unwrapped
        simulation.model.opt.disableflags |= mujoco_module().mjtDisableBit.mjDSBL_AUTORESET
        simulation.set_state(positions, velocities)
        return simulation

    def _advanced(self, simulation: Any, control: np.ndarray) -> np.ndarray:
        simulation.do_simulation(control, simulation.frame_skip)
        after: np.ndarray = simulation.state_vector()
        return after


class RolloutSimulators(SimulatedEnv):
    """The back end "rollout"."""

    def begin(self, states: np.ndarray) -> None:
        mujoco = mujoco_module()
        from mujoco.rollout import Rollout

        model = physics(self.model.body.description)
        self.workspaces = [mujoco.MjData(model) for _ in range(self.threads)]
        self.pool = Rollout(nthread=self.threads if self.threads > 1 else 0)
        # A row is the time, positions, velocities.
        self.rows = np.concatenate((np.zeros((len(states), 1)), states), 1)

    def advance(self, controls: np.ndarray, live: np.ndarray) -> np.ndarray:
        body = self.model.body
        repeated = np.repeat(controls[live, None], body.frame_skip, 1)
        after, _ = self.pool.rollout(physics(body.description), self.workspaces, self.rows[live], repeated)
        self.rows[live] = after[:, -1]
        return self.rows[:, 1:].copy()


BACK_ENDS: dict[str, type[SimulatedEnv]] = {
    "batch": BatchSimulators,
    "rollout": RolloutSimulators,
    "loop": LoopSimulators,
    "gymnasium": GymnasiumSimulators,
}
