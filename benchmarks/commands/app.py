"""The command line. Everything heavy is imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import functools
import gc
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.commands import cost as costs
from benchmarks.commands import options, stores
from benchmarks.commands.compare import compare, episodes, power
from benchmarks.commands.gate import gate
from benchmarks.commands.options import ProfileOption, StoreOption
from benchmarks.commands.run import prepare, run
from benchmarks.errors import MetabenchError

app = typer.Typer(
    name="metabench",
    help="Compare meta-learners on shared tasks: run, look, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

#: what the parser raises for a mistake; typer exports its subclass alone
_UsageError: Any = typer.BadParameter.__base__

PAGE = Path(__file__).parents[2] / "reports" / "index.html"


app.command()(run)
app.command()(prepare)


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Methods, tasks, profiles, and which method fits which task."""
    from benchmarks.commands import catalogue

    found = catalogue.load()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        catalogue.show(found)


@app.command()
def show(profile: ProfileOption = "quick", store: StoreOption = None) -> None:
    """The first screen in the terminal: who leads on each test, what is separated, and the main table."""
    from benchmarks.commands import console
    from reports import terminal

    terminal.show(options.existing(options.store_of(store, profile)), console.plain())


@app.command()
def report(
    profile: ProfileOption = "quick",
    store: StoreOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = PAGE,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Every figure as SVG and PNG into this folder too.")
    ] = None,
) -> None:
    """One self-contained HTML page from the records."""
    from reports.page import page

    typer.echo(f"wrote {page.write_report(options.existing(options.store_of(store, profile)), output, figures)}")


@app.command()
@functools.wraps(costs.cost)
def cost(**given: Any) -> None:
    from benchmarks.commands import console
    from reports.cost import terminal as tables

    given["device"] = options.device(given["device"])
    tables.show(costs.cost(**given), console.plain())


app.command()(gate)
app.command()(compare)
app.command()(power)
app.command()(episodes)
for command in (stores.keep, stores.merge, stores.forget, stores.export):
    app.command()(command)


@app.command()
def doctor() -> None:
    """The machine, the versions, the data and the peers that are found here."""
    from benchmarks.commands import doctor as surgery

    surgery.examine()


@app.command()
def check(path: Annotated[Path, typer.Argument(help="A file with your method or your task.")]) -> None:
    """Check somebody's plug-in against the contract and say in words what is wrong."""
    from benchmarks import conformance, registry

    complaints = [line for entry in registry.load_file(path) for line in conformance.check(entry)]
    for line in complaints:
        typer.echo(line)
    if complaints:
        raise MetabenchError(f"{path}: {len(complaints)} of its promises to the contract are broken")
    typer.echo(f"{path}: holds the contract")


def main() -> None:
    """The entry point: a mistake is one line and exit code 2."""
    logging.basicConfig(format="metabench: %(message)s")
    try:
        code = app(prog_name="metabench", standalone_mode=False)
    except _UsageError as error:
        code, told = 2, error.format_message()
        if len(sys.argv) == 1:
            error.show()
        else:
            typer.echo(f"metabench: {' '.join(told.split())} (metabench --help)", err=True)
    except MetabenchError as error:
        code = 2
        typer.echo(f"metabench: {' '.join(str(error).split())}", err=True)
    except OSError as error:
        if error.filename is None:
            raise
        code = 2
        typer.echo(f"metabench: {error.filename}: {error.strerror}", err=True)
    gc.freeze()  # the system takes everything back at once
    sys.exit(code)
