"""The folder for downloads and decoded data."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """METABENCH_CACHE, else ``metabench`` in the platform's cache folder, else (a user without a home) in the temporary
    one; it need not exist."""
    if named := os.environ.get("METABENCH_CACHE"):
        return Path(named)
    platforms = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(platforms) if platforms else _default()) / "metabench"


def _default() -> Path:
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry in the table of users
        return Path(tempfile.gettempdir())
    return {"darwin": home / "Library" / "Caches", "win32": home}.get(sys.platform, home / ".cache")
