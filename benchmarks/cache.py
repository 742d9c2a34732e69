"""Where the suite keeps what it downloads and decodes."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The suite's own folder for downloads and decoded images; it need not exist."""
    if named := os.environ.get("METABENCH_CACHE"):
        return Path(named)
    fallback = {"darwin": Path.home() / "Library" / "Caches", "win32": os.environ.get("LOCALAPPDATA", Path.home())}
    return Path(os.environ.get("XDG_CACHE_HOME") or fallback.get(sys.platform, Path.home() / ".cache")) / "metabench"
