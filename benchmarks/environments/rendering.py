"""Images of robots, rendered offscreen by MuJoCo in a separate process.

Graphics drivers crash and hang, and MuJoCo chooses one on import; a result must survive both. Run as a script, this
file reads rows of positions (float64) from standard input and writes a picture (uint8) of the robot in the file
``sys.argv[1]`` to standard output after each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np

HEIGHT, WIDTH = 90, 160
#: side of the shadow map; MuJoCo's default of 4096 takes most of a frame's time and looks the same at this size
SHADOW_MAP = 1024
#: seconds for a picture after which a renderer counts as hanging
PATIENCE = 30.0
#: libraries that need no screen, in the order tried
LIBRARIES = ("egl", "osmesa")


class Camera:
    """Draws a robot in a process that stays, with the first library that draws a picture.

    MUJOCO_GL chooses the library. Without it, those that need no screen are tried."""

    def __init__(self, description: str) -> None:
        chosen = os.environ.get("MUJOCO_GL")
        self.description, self.libraries = description, [chosen] if chosen else [*LIBRARIES]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def picture(self, positions: np.ndarray) -> np.ndarray | None:
        """The robot with these positions ``[nq]``, uint8 ``[90, 160, 3]``; None if there is no renderer."""
        while self.libraries:
            try:
                return self._asked(self.process or self._started(), positions)
            except (OSError, ValueError):
                self.close()
                del self.libraries[0]
        return None

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _started(self) -> subprocess.Popen[bytes]:
        command, environment = [sys.executable, __file__, self.description], {"MUJOCO_GL": self.libraries[0]}
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=os.environ | environment, bufsize=-1, **pipes)
        return self.process

    def _asked(self, process: subprocess.Popen[bytes], positions: np.ndarray) -> np.ndarray:
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        try:
            process.stdin.write(positions.astype(np.float64).tobytes())
            process.stdin.flush()
            content = process.stdout.read(HEIGHT * WIDTH * 3)
        finally:
            alarm.cancel()
        return np.frombuffer(content, np.uint8).reshape(HEIGHT, WIDTH, 3)


def frames(description: str, positions: np.ndarray) -> np.ndarray | None:
    """Images ``[N, 90, 160, 3]``, uint8, of a robot with positions ``[N, nq]``; None if there is no renderer."""
    with Camera(description) as camera:
        pictures = [picture for row in positions if (picture := camera.picture(row)) is not None]
    return np.stack(pictures) if pictures and len(pictures) == len(positions) else None


def serve(description: str) -> None:
    """Draw each row of positions that standard input has, in this process, with the library that MuJoCo has chosen."""
    import mujoco

    configuration = mujoco.MjLogConfig.get()
    configuration.logto_file = False
    configuration.set()
    model = mujoco.MjModel.from_xml_path(description)
    model.vis.quality.shadowsize = SHADOW_MAP
    data = mujoco.MjData(model)
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        while row := sys.stdin.buffer.read(8 * model.nq):
            data.qpos[:] = np.frombuffer(row)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track")
            sys.stdout.buffer.write(renderer.render().tobytes())
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
