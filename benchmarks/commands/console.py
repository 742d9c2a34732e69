"""The terminal that commands print tables to."""

from __future__ import annotations

import shutil

from rich.console import Console


def screen(columns: int = 100) -> Console:
    """As wide as COLUMNS says, else as the terminal; output to a file has ``columns``. A width of 0 counts as unset."""
    return Console(width=shutil.get_terminal_size((columns, 24)).columns, highlight=False)
