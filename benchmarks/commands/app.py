"""The command line. Everything heavy is imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import ast
import dataclasses
import functools
import gc
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands import cost as costs
from benchmarks.commands.check import check
from benchmarks.commands.compare import compare, episodes, power
from benchmarks.commands.gate import gate
from benchmarks.commands.options import ProfileOption, StoreOption
from benchmarks.commands.options import existing as _existing
from benchmarks.commands.options import store_of as _store
from benchmarks.errors import MetabenchError

if TYPE_CHECKING:
    from benchmarks.run.schedule import Only

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

MethodsOption = Annotated[
    list[str] | None, typer.Option("-m", "--method", metavar="NAME", help="A method, or a path to your own file.")
]
TasksOption = Annotated[
    list[str] | None, typer.Option("-t", "--task", metavar="NAME", help="A task, or a path to your own file.")
]


@app.command()
def run(
    profile: ProfileOption = "quick",
    method: MethodsOption = None,
    task: TasksOption = None,
    seeds: Annotated[str | None, typer.Option(metavar="N", help="How many (3), or which (0,2,5).")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")] = "cpu",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Processes at once; default: one per core.", min=1)
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Limit of each process; default: its share of 80 % of the machine's.", min=0.1),
    ] = None,
    only: Annotated[str, typer.Option(metavar="WHICH", help="all, failed or missing.")] = "all",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.FIELD=VALUE", help="As in maml.inner_lr=0.1")
    ] = None,
    shots: Annotated[str | None, typer.Option(metavar="N", help="More test shots: 1,5,10")] = None,
    plan: Annotated[
        str,
        typer.Option(
            metavar="WORDS", help="Execution plan of fits, as in compiled or eager,tasks=4 (default: a rule)."
        ),
    ] = "",
    store: StoreOption = None,
) -> None:
    """Run methods on tasks; the same command goes on where it was stopped.

    Exit code: 0 when every cell that was run is finished, 1 when some failed (the others are kept, and `show` and
    `report` name the failed ones), 2 for a mistake in the command, 130 when it was interrupted."""
    from benchmarks.run import isolate

    isolate.warm((*isolate.PRELOAD, "benchmarks.run.warm_imports"))  # its imports go on beside those here
    from benchmarks import registry
    from benchmarks.commands import console
    from benchmarks.execution import plans
    from benchmarks.records.store import Store
    from benchmarks.run import profiles, schedule
    from benchmarks.run.cells import Request, check_settings

    chosen = profiles.load(profile)
    methods, tasks, plugins = _plugins(method or [], task or [])
    if only not in ("all", "failed", "missing"):
        raise registry.unknown("value of --only", only, ("all", "failed", "missing"))
    request = Request(
        methods, tasks, _seeds(seeds), _settings(setting or []), _device(device), _whole(shots, "--shots", 1)
    )
    request = dataclasses.replace(request, plan=plan)
    plans.check_device(plan, request.device)
    check_settings(request.settings)
    files = Store(_store(store, profile))
    machine = schedule.Machine.default(device, jobs, memory)

    try:
        with console.RunView(console.plain()) as view:
            watcher = schedule.Watcher(view.line, view.event)
            request = schedule.prepare(chosen, request, machine, plugins, watcher)
            todo = schedule.plan(chosen, request, files, _only(only))
            view.plan(todo)
            outcomes = schedule.run(todo, files, machine, schedule.context(request), plugins, watcher)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    failed = [outcome for outcome in outcomes.values() if outcome.status not in ("ok", "skipped")]
    typer.echo(f"records in {files.path}" + (f"; {len(failed)} of {len(outcomes)} cells failed" if failed else ""))
    if failed:
        raise typer.Exit(1)


@app.command()
def prepare(task: TasksOption = None) -> None:
    """Find, download and decode the data of tasks (all of them, if none is named)."""
    from benchmarks import registry
    from benchmarks.errors import Unavailable

    _, tasks, _ = _plugins([], task or [])
    for name in tasks or registry.tasks():
        built = registry.build_task(name)
        try:
            built.prepare(lambda line, name=name: typer.echo(f"{name}: {line}"))  # type: ignore[misc]
        except Unavailable as reason:
            if task:
                raise
            typer.echo(f"{name}: {reason}")
        else:
            typer.echo(f"{name}: ready")


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

    terminal.show(_existing(_store(store, profile)), console.plain())


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

    typer.echo(f"wrote {page.write_report(_existing(_store(store, profile)), output, figures)}")


@app.command()
def keep(
    target: Annotated[Path, typer.Argument(help="A folder for the copies, for example reports/reference/quick.")],
    profile: ProfileOption = "quick",
    store: StoreOption = None,
) -> None:
    """Copy records with their scores and curves, without trained states: a small store to commit or to send.

    Pictures of data that may not be passed on (mini-ImageNet's) stay behind."""
    from benchmarks.records import export
    from benchmarks.records.store import Store

    copied, bare = export.keep(Store(_existing(_store(store, profile)), read_only=True), Store(target))
    without = f", {bare} of them without pictures, which may not be passed on" if bare else ""
    typer.echo(f"copied {copied} records to {target}{without}")


@app.command()
@functools.wraps(costs.cost)
def cost(**options: Any) -> None:
    from benchmarks.commands import console
    from reports.cost import terminal as tables

    options["device"] = _device(options["device"])
    tables.show(costs.cost(**options), console.plain())


app.command()(check)
app.command()(gate)
app.command()(compare)
app.command()(power)
app.command()(episodes)


@app.command()
def doctor() -> None:
    """The machine, the versions, the data and the peers that are found here."""
    from benchmarks.commands import doctor as surgery

    surgery.examine()


def _plugins(methods: list[str], tasks: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Names of methods and tasks, with those that the given files register in the place of the files, and the files."""
    from benchmarks import registry

    files = [name for name in (*methods, *tasks) if name.endswith(".py")]
    registry.discover(files)

    def names(given: list[str], table: dict[str, registry.Entry]) -> list[str]:
        found = []
        for name in given:
            own = [e.name for e in table.values() if name.endswith(".py") and e.path == Path(name).resolve()]
            if name.endswith(".py") and not own and Path(name).resolve() in registry.other_files:
                continue
            if name.endswith(".py") and not own:
                raise MetabenchError(f"{name} registers nothing of the kind that is asked for here")
            found += own or [name]
        return found

    own_tasks = names(tasks, registry.tasks())
    return names(methods, registry.methods()), own_tasks, [str(Path(name).resolve()) for name in files]


def _settings(given: list[str]) -> dict[str, Any]:
    settings = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise MetabenchError(f"--set {text!r}: write name.field=value, as in maml.inner_lr=0.1")
        settings[key] = _value(value)
    return settings


def _value(text: str) -> Any:
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(value) if isinstance(value, list) else value


def _seeds(text: str | None) -> tuple[int, ...]:
    if text is not None and "," not in text:
        return tuple(range(_whole(text, "--seeds", 1)[0]))
    return _whole(text, "--seeds", 0)


def _whole(text: str | None, option: str, least: int) -> tuple[int, ...]:
    """The numbers of a list like 0,2,5, each once; a comma at the end makes a list of one number."""
    if text is None:
        return ()
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.removesuffix(",").split(",")))
    except ValueError:
        raise MetabenchError(f"{option} {text!r}: write whole numbers, as in 3 or 0,2,5") from None
    if min(numbers) < least:
        raise MetabenchError(f"{option} {text!r}: {min(numbers)} is too small, {least} is the least")
    return numbers


def _device(name: str) -> str:
    import torch

    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise MetabenchError(f"unknown device {name!r}; known: cpu, cuda, cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise MetabenchError(f"device {name!r} is not here: torch {torch.__version__} finds no CUDA device")
    return name


def _only(text: str) -> Only:
    return text  # type: ignore[return-value]


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
