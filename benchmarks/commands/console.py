"""The terminal that commands print tables to."""

from __future__ import annotations

import os

from rich.console import Console


def screen(columns: int = 100) -> Console:
    """The terminal. Output to a file is as wide as COLUMNS, or ``columns`` where that is not set."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=columns, highlight=False)
