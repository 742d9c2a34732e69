"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.errors import MetabenchError

RUNS = Path(__file__).parents[2] / "reports" / "runs"

ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile", "-p", metavar="NAME", help="smoke, quick, standard or paper; or your own: ./mine.toml[:name]"
    ),
]
StoreOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where the records are; default: reports/runs/<profile>.")
]


def store_of(store: Path | None, profile: str) -> Path:
    """The folder of the records: the one that is named, or the profile's own."""
    from benchmarks.run import profiles

    path = store or RUNS / profiles.title(profile)
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise MetabenchError(f"the store {path} can't be a folder: {nearest} is a file")
    return path


def existing(store: Path) -> Path:
    """The folder itself; raises `MetabenchError` where there is none."""
    if not store.is_dir():
        raise MetabenchError(f"no store at {store}: run `metabench run` first, or name one with --store")
    return store
