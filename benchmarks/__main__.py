"""The way in, of ``metabench`` and ``python -m benchmarks``; the commands are in `benchmarks.commands.app`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

OWN = ("benchmarks", "baselines", "maml", "reports")


def main() -> None:
    """The entry point. A library that this Python lacks is one line and exit code 2."""
    interrupted = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _importing(frame):  # an interrupted import may raise any error, or none
            os.write(2, b"metabench: interrupted\n")
            os._exit(130)
        interrupted.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        from benchmarks.commands import app

        app.main()
    except SystemExit as ending:
        if interrupted:
            _end(ending.code)
        raise
    except (Exception, KeyboardInterrupt) as error:
        if interrupted:
            print("metabench: interrupted", file=sys.stderr)
            _end(130)
        if not isinstance(error, ModuleNotFoundError) or (error.name or OWN[0]).partition(".")[0] in OWN:
            raise
        needed = f"{error.name} is not installed for {sys.executable}, and this command needs it"
        print(f"metabench: {needed}: `make install` sets up .venv, which has it", file=sys.stderr)
        sys.exit(2)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _end(code: str | int | None) -> None:
    """Exit with this code: Python has one of its own after an interrupt inside ``exec``, as of a dataclass."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 130)


if __name__ == "__main__":
    main()
