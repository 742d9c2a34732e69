"""The way in, of ``metabench`` and ``python -m benchmarks``; the commands are in `benchmarks.commands.app`."""

from __future__ import annotations

import sys

OWN = ("benchmarks", "baselines", "maml", "reports")


def main() -> None:
    """The entry point. A library that this Python lacks is one line and exit code 2."""
    try:
        from benchmarks.commands import app

        app.main()
    except ModuleNotFoundError as error:
        if (error.name or OWN[0]).partition(".")[0] in OWN:
            raise
        needed = f"{error.name} is not installed for {sys.executable}, and this command needs it"
        print(f"metabench: {needed}: `make install` sets up .venv, which has it", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # while the command line itself is imported
        print("metabench: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
