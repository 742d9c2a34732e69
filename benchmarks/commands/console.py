"""The terminal that commands print tables to."""

from __future__ import annotations

import os

from rich.console import Console


def screen(columns: int = 100) -> Console:
    """The terminal; where the output goes to a file, one of COLUMNS or so many columns."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=columns, highlight=False)
