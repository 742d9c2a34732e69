"""The command line. Heavy imports stay inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from benchmarks.commands import options, stores, streams
from benchmarks.commands.check import check
from benchmarks.commands.compare import compare, episodes, power
from benchmarks.commands.cost import cost
from benchmarks.commands.gate import gate
from benchmarks.commands.options import ProfileOption, StoresOption
from benchmarks.commands.run import prepare, run
from benchmarks.errors import MetabenchError, one_line
from benchmarks.python_api.places import ROOT, home, store_of

app = typer.Typer(
    name="metabench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: the parser's exit code for Ctrl-C, and the commands that resume
INTERRUPTED, RESUMED = 130, ("run", "cost")
#: the parser's exception for a mistake; typer exports its subclass alone
_UsageError: Any = typer.BadParameter.__base__


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        try:
            typer.echo(f"metabench {metadata.version('metabench')}")
        except metadata.PackageNotFoundError:
            typer.echo(f"metabench from {ROOT}, not installed")
        raise typer.Exit


@app.callback()
def metabench(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compare meta-learners on shared tasks."""


app.command(short_help="Train methods and test them on tasks.")(run)
app.command(short_help="Find, download and decode the data of tasks.")(prepare)


@app.command(name="list", short_help="Methods, tasks and profiles.")
def list_(as_json: Annotated[bool, Option("--json", help="For programs.")] = False) -> None:
    """Methods, tasks, profiles, and the methods that fit each task."""
    from benchmarks.commands import catalogue

    found = catalogue.load()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        catalogue.show(found)


@app.command(short_help="Results in the terminal.")
def show(
    profile: ProfileOption = "quick",
    stores: StoresOption = None,
    test: Annotated[
        str | None, Option(metavar="NAME", help="Only the tests whose name contains this, in full.")
    ] = None,
    everything: Annotated[bool, Option("--all", help="Every test and condition, in full.")] = False,
    form: Annotated[
        Literal["md", "csv", "latex"] | None,
        Option("--format", metavar="FORM", help="md, csv or latex: the tables alone, for other programs."),
    ] = None,
) -> None:
    """Results in the terminal: the scores of every method on every test, and the main questions answered in short."""
    from benchmarks.commands.console import screen
    from reports import plain, terminal

    folders = _folders(stores, profile)
    if form is not None:
        typer.echo(plain.tables(folders, form, test, everything))
    else:
        terminal.show(folders, screen(), test, everything, options.where(stores, profile))


def _folders(stores: Sequence[Path] | None, profile: str) -> list[Path]:
    return [store_of(store, profile) for store in stores] if stores else [store_of(None, profile)]


@app.command(short_help="Write the HTML page.")
def report(
    profile: ProfileOption = "quick",
    stores: StoresOption = None,
    output: Annotated[Path | None, options.output_option("The page. [default: reports/index.html]")] = None,
    figures: Annotated[
        Path | None,
        Option(metavar="FOLDER", parser=options.path, help="Write every figure as SVG and PNG here too."),
    ] = None,
    against: Annotated[
        Path | None,
        Option(metavar="FOLDER", parser=options.path, help="Another store: a section says what changed since."),
    ] = None,
    summary: Annotated[
        bool, Option("--summary", help="Print at most 40 lines of Markdown, as for a CI job, and write no page.")
    ] = False,
) -> None:
    """Write one HTML page from the records; it opens offline."""
    from benchmarks.commands import catalogue
    from reports import plain
    from reports.page import page

    if summary:
        typer.echo(plain.summary(_folders(stores, profile)))
        return
    written = page.write_report(
        _folders(stores, profile),
        output or home() / "index.html",
        figures,
        catalogue.load()["methods"],
        catalogue.load()["tasks"],
        against,
    )
    typer.echo(f"wrote {options.near(written)}")


app.command(short_help="Measure what second order costs against first.")(cost)
app.command(short_help="Check your own plug-in file.")(check)
app.command(short_help="Check that nothing became slower or worse.")(gate)
app.command(short_help="Two methods, stores or commits in pairs.")(compare)
app.command(short_help="Episodes or seeds needed to find a difference.")(power)
app.command(short_help="Export the frozen test episodes of a task.")(episodes)
app.command(short_help="Copy records without trained states.")(stores.keep)
app.command(short_help="Join the records of several stores.")(stores.merge)
app.command(short_help="Delete records.")(stores.forget)
app.command(short_help="Write every score as a table.")(stores.export)


@app.command(short_help="Machine, versions and data.")
def doctor(
    store: Annotated[
        Path | None, Option(metavar="FOLDER", parser=options.path, help="A store, to try whether locks hold there.")
    ] = None,
) -> None:
    """The machine, the versions, the data and the other libraries found here."""
    from benchmarks.commands import doctor as examination

    examination.examine(store)


def main() -> None:
    """The entry point: a mistake is one line and exit code 2."""
    logging.basicConfig(format="metabench: %(message)s")
    streams.prepare()
    mistake, code = "", 0
    try:
        code = app(prog_name="metabench", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        if len(sys.argv) == 1:
            error.show()
            sys.exit(2)
        mistake = f"{error.format_message()} (metabench --help)"
    except MetabenchError as error:
        mistake = str(error)
    except OSError as error:
        mistake = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        streams.give_up()
    if code == INTERRUPTED:
        again = ": run the same command again to resume" if sys.argv[1] in RESUMED else ""
        streams.tell(f"interrupted{again}")
    if mistake:
        code = 2
        streams.tell(one_line(mistake))
    gc.freeze()  # the system takes everything back at once
    sys.exit(code)
