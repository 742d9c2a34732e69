"""The way in, of ``metabench`` and ``python -m benchmarks``; the commands are in `benchmarks.commands.app`."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point."""
    if sys.argv[1:2] == ["report"]:
        from reports import artist

        artist.begin()  # it imports for as long as all the rest takes to read the records
    from benchmarks.commands import app

    app.main()


if __name__ == "__main__":
    main()
