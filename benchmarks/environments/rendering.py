"""Images of robots, rendered offscreen by MuJoCo in a separate process.

Graphics drivers crash and hang, and MuJoCo chooses one on import; a result must survive both. Run as a script, this
file reads positions ``[N, nq]``, written by `numpy.save`, from standard input. It writes frames of the robot in the
file ``sys.argv[1]`` to standard output in the same format.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import numpy as np

HEIGHT, WIDTH = 90, 160
#: side of the shadow map; MuJoCo's default of 4096 takes most of a frame's time and looks the same at this size
SHADOW_MAP = 1024
#: seconds after which a renderer counts as hanging
PATIENCE = 30.0
#: libraries that need no screen, in the order tried
LIBRARIES = ("egl", "osmesa")


def frames(description: str, positions: np.ndarray) -> np.ndarray | None:
    """Images ``[N, 90, 160, 3]``, uint8, of a robot with positions ``[N, nq]``; None if there is no renderer.

    MUJOCO_GL chooses the library. Without it, those that need no screen are tried."""
    chosen = os.environ.get("MUJOCO_GL")
    for library in (chosen,) if chosen else LIBRARIES:
        given, command = io.BytesIO(), [sys.executable, __file__, description]
        np.save(given, positions)
        options: dict[str, Any] = {"env": os.environ | {"MUJOCO_GL": library}, "timeout": PATIENCE, "check": True}
        try:
            done = subprocess.run(command, input=given.getvalue(), capture_output=True, **options)
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
