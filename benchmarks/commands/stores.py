"""Commands that copy, join, thin out and export stores: ``keep``, ``merge``, ``forget``, ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from benchmarks.commands import options
from benchmarks.commands.options import ProfileOption, StoreOption
from benchmarks.errors import MetabenchError
from benchmarks.python_api import places
from benchmarks.python_api.places import store_of
from benchmarks.records.store import Store


def keep(
    target: Annotated[
        Path,
        Argument(metavar="FOLDER", parser=options.path, help="Folder of the copies, as in reports/reference/quick."),
    ],
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Copy records with scores of episodes and curves, without trained states: a small store to commit or to send.

    Scores of single queries and numbers of single meta-steps go, films keep three pictures, and of episodes of images
    one is shown; all tables stay.
    Pictures whose terms forbid redistribution (mini-ImageNet's) are left out."""
    from benchmarks.records import copies

    copied, bare = copies.keep(Store.existing(store_of(store, profile)), places.target(target))
    without = f", {bare} of them without pictures, whose terms forbid redistribution" if bare else ""
    typer.echo(f"copied {copied} records to {target}{without}")


def merge(
    sources: Annotated[
        list[Path], Argument(metavar="FOLDER...", parser=options.path, help="Stores, with their trained states.")
    ],
    into: Annotated[
        Path, Option("--into", metavar="FOLDER", parser=options.path, help="The store that gets all records.")
    ],
) -> None:
    """Join the records of several stores in one; the same key with other results is an error."""
    from benchmarks.records import copies

    count = copies.merge([Store.existing(path) for path in sources], places.target(into))
    typer.echo(f"{into} has {count} records")


def forget(
    method: Annotated[
        list[str] | None, Argument(metavar="[METHOD]...", help="Methods, as `show` names them or as registered.")
    ] = None,
    failed: Annotated[bool, Option("--failed", help="Only what failed.")] = False,
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Delete the records of some methods, or of all cells that failed. The next run computes them again."""
    from benchmarks.records import copies

    if not method and not failed:
        raise MetabenchError("name the methods to forget, or write --failed")
    found = Store.existing(store_of(store, profile), read_only=False)
    typer.echo(f"deleted {copies.forget(found, method or [], failed)} records of {found.path}")


def export(
    output: Annotated[Path, options.table_argument("A .csv or .parquet file.")],
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Write every score as a table, one row per query, for pandas, R or polars."""
    from benchmarks.python_api import results

    rows = results.export(Store.existing(store_of(store, profile)), output)
    typer.echo(f"wrote {rows:,} rows to {output}")
