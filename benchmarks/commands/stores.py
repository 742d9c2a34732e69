"""Commands that copy, join, thin out and export stores: ``keep``, ``merge``, ``forget``, ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.options import ProfileOption, StoreOption, existing, folder, store_of
from benchmarks.errors import MetabenchError


def keep(
    target: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", parser=folder, help="Where the copies go, as in reports/reference/quick."),
    ],
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Copy records with their scores and curves, without trained states: a small store to commit or to send.

    Pictures whose terms forbid redistribution (mini-ImageNet's) are left out."""
    from benchmarks.records import copies
    from benchmarks.records.store import Store

    copied, bare = copies.keep(Store(existing(store_of(store, profile)), read_only=True), Store(target))
    without = f", {bare} of them without pictures, whose terms forbid redistribution" if bare else ""
    typer.echo(f"copied {copied} records to {target}{without}")


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", parser=folder, help="Stores, with their trained states.")
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="FOLDER", parser=folder, help="The store that gets all records.")
    ],
) -> None:
    """Join the records of several stores in one; the same key with other scores is an error."""
    from benchmarks.records import copies
    from benchmarks.records.store import Store

    count = copies.merge([Store(existing(path), read_only=True) for path in sources], Store(into))
    typer.echo(f"{into} has {count} records")


def forget(
    method: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD]...", help="Methods, as `show` names them or as registered.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed.")] = False,
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Delete the records of some methods, or of all cells that failed. The next run computes them again."""
    from benchmarks.records import copies
    from benchmarks.records.store import Store

    if not method and not failed:
        raise MetabenchError("name the methods to forget, or write --failed")
    found = existing(store_of(store, profile))
    typer.echo(f"deleted {copies.forget(Store(found), method or [], failed)} records of {found}")


def export(
    output: Annotated[Path, typer.Argument(metavar="FILE", parser=folder, help="A parquet file.")],
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Write every score as a table, one row per query, for pandas, R or polars."""
    from benchmarks.python_api.results import write_parquet
    from benchmarks.records.store import Store

    rows = write_parquet(Store(existing(store_of(store, profile)), read_only=True), output)
    typer.echo(f"wrote {rows} rows to {output}")
