"""Machine, versions, data of each task, other libraries, and what would spoil a measurement."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator

import typer
from rich.table import Table

from benchmarks import machine, registry
from benchmarks.cache import cache_folder
from benchmarks.commands import console
from benchmarks.errors import MetabenchError, Unavailable

PEERS = ("learn2learn", "higher", "torchopt", "jax")


def examine() -> None:
    """Print the table, and a line for each data set that is decoded on the way."""
    import torch

    screen = console.plain()
    table = Table(box=None, show_header=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in (*machine.fingerprint(device).items(), *machine.versions().items(), *_data(), *_peers()):
        table.add_row(name, str(value))
    table.add_row("METABENCH_DATA", os.environ.get("METABENCH_DATA") or "not set")
    table.add_row("cache", str(cache_folder()))
    screen.print(table)
    for warning in _warnings():
        screen.print(f"note: {warning}", style="yellow")


def _data() -> Iterator[tuple[str, str]]:
    os.environ["METABENCH_OFFLINE"] = "1"  # a look at the data downloads nothing
    for name in registry.tasks():
        try:
            registry.build_task(name).prepare(lambda line, name=name: typer.echo(f"{name}: {line}"))  # type: ignore[misc]
        except Unavailable as reason:
            yield name, f"missing: {reason}"
        except MetabenchError as error:
            yield name, f"broken: {error}"
        else:
            yield name, "ready"


def _peers() -> Iterator[tuple[str, str]]:
    for name in PEERS:
        try:
            yield f"peer {name}", importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield f"peer {name}", "not installed (make peers)"


def _warnings() -> Iterator[str]:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        yield f"the machine is busy (load {os.getloadavg()[0]:.1f}): scores are unaffected, times are not"
