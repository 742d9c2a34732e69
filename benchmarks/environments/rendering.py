"""Pictures of robots by MuJoCo's offscreen renderer, in a process of its own: graphics drivers crash and hang, MuJoCo
chooses one when it is imported, and none of that may cost a result.

Run as a script it reads positions ``[N, nq]`` of the robot in the file ``sys.argv[1]``, written by `numpy.save` to the
standard input, and writes frames to the standard output in the same way.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np

HEIGHT, WIDTH = 90, 160
#: numbers in a row of the map that shadows are drawn from; MuJoCo's own 4096 take most of the time of a frame where a
#: processor draws it, for pictures of this size that look the same
SHADOW_MAP = 1024
#: seconds after which a renderer hangs
PATIENCE = 30.0
#: the libraries that need no screen, in the order in which they are tried
LIBRARIES = ("egl", "osmesa")


def frames(description: str, positions: np.ndarray) -> np.ndarray | None:
    """Pictures ``[N, 90, 160, 3]``, uint8, of a robot with positions ``[N, nq]``; None where there is no renderer.

    The environment variable MUJOCO_GL chooses the library; without it those that need no screen are tried."""
    chosen = os.environ.get("MUJOCO_GL")
    for library in (chosen,) if chosen else LIBRARIES:
        given = io.BytesIO()
        np.save(given, positions)
        try:
            done = subprocess.run(
                [sys.executable, __file__, description],
                input=given.getvalue(),
                env=os.environ | {"MUJOCO_GL": library},
                capture_output=True,
                timeout=PATIENCE,
                check=True,
            )
            return np.load(io.BytesIO(done.stdout))
        except (OSError, ValueError, EOFError, subprocess.SubprocessError):
            continue
    return None


def draw(description: str, positions: np.ndarray) -> np.ndarray:
    """The same in this process, with the library that MuJoCo has chosen."""
    import mujoco

    configuration = mujoco.MjLogConfig.get()
    configuration.logto_file = False
    configuration.set()
    model = mujoco.MjModel.from_xml_path(description)
    model.vis.quality.shadowsize = SHADOW_MAP
    data, pictures = mujoco.MjData(model), []
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        for row in positions:
            data.qpos[:] = row
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track")
            pictures.append(renderer.render())
    return np.stack(pictures)


if __name__ == "__main__":
    drawn = draw(sys.argv[1], np.load(io.BytesIO(sys.stdin.buffer.read())))
    np.save(sys.stdout.buffer, drawn)
