"""Where records and pages go, for the command line and for Python."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.errors import MetabenchError
from benchmarks.records.store import FOLDERS, Store
from benchmarks.run import profiles

ROOT = Path(__file__).parents[2]


def home() -> Path:
    """The folder that records and pages go to: METABENCH_STORE, else that of the checkout if the current folder is in
    it, else ``reports`` in the current folder."""
    if named := os.environ.get("METABENCH_STORE"):
        return Path(named)
    in_checkout = (ROOT / "pyproject.toml").is_file() and Path.cwd().is_relative_to(ROOT)
    return (ROOT if in_checkout else Path.cwd()) / "reports"


def target(path: str | Path) -> Store:
    """A store to write into, there or not; raises `MetabenchError` for a folder that holds other things."""
    found = Store(path)
    names = {name for name in os.listdir(path) if not name.startswith(".")} if found.path.is_dir() else set()
    if (other := sorted(names - FOLDERS)) and "records" not in names:
        raise MetabenchError(f"{path} is no store: it holds {other[0]}; name an empty folder or a new one")
    return found


def store_of(store: str | Path | None, profile: str) -> Path:
    """The folder of the records: the one that is named, or the profile's own."""
    path = home() / "runs" / profiles.title(profile) if store is None else Path(store)
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise MetabenchError(f"the store {path} can't be a folder: {nearest} is a file")
    return path
