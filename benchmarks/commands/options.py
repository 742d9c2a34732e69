"""Options that several commands share, and how their texts become values. Ranges are checked where the values are used,
for Python callers as well."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from benchmarks.checks import check_known, check_output, listed
from benchmarks.errors import MetabenchError
from benchmarks.records import formats


def _completed(kind: str) -> Callable[[str], list[str]]:
    """The names of a kind that complete what was typed, the last of a comma list."""

    def complete(incomplete: str) -> list[str]:
        from benchmarks.commands import catalogue

        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in catalogue.names(kind) if name.startswith(last)]

    return complete


def path(text: str | Path) -> Path:
    """The path that an option names; raises `MetabenchError` where the text is empty."""
    if not str(text):
        raise MetabenchError("an empty path names no file and no folder; the current folder is .")
    return Path(text)


def output(text: str | Path) -> Path:
    """The file that an option names, before any work is done for it."""
    check_output(found := path(text))
    return found


def _table(text: str | Path) -> Path:
    formats.check_table(found := output(text))
    return found


_PROFILES = "smoke, quick, standard or paper; or your own: ./mine.toml[:name]"
ProfileOption = Annotated[
    str, Option("--profile", "-p", metavar="NAME", help=_PROFILES, autocompletion=_completed("profiles"))
]
StoreOption = Annotated[
    Path | None, Option(metavar="FOLDER", parser=path, help="Folder of the records. [default: reports/runs/<profile>]")
]
StoresOption = Annotated[
    list[Path] | None,
    Option("--store", metavar="FOLDER", parser=path, help="Folder of the records; several are shown together."),
]
_METHODS = "Methods, as in maml,fomaml; or a path to your own file."
MethodsOption = Annotated[
    list[str] | None, Option("-m", "--method", metavar="NAMES", help=_METHODS, autocompletion=_completed("methods"))
]
_TASKS = "Tasks, as in omniglot/5w1s,bandit; or a path to your own file."
TasksOption = Annotated[
    list[str] | None, Option("-t", "--task", metavar="NAMES", help=_TASKS, autocompletion=_completed("tasks"))
]
SettingsOption = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME.FIELD=VALUE", help="A field, as in maml.inner_lr=0.1 or image-folder.root=./birds."),
]
DeviceOption = Annotated[str, Option(metavar="NAME", help="cpu, cuda or cuda:N.")]


def table_argument(help: str) -> Any:
    """A table to write that is no option."""
    return Argument(metavar="FILE", parser=_table, help=help)


def table_option(help: str) -> Any:
    """``-o FILE`` of a table."""
    return Option("-o", "--output", metavar="FILE", parser=_table, help=help)


def output_option(help: str) -> Any:
    """``-o FILE``."""
    return Option("-o", "--output", metavar="FILE", parser=output, help=help)


def where(stores: Sequence[Path] | None, profile: str) -> str:
    """The options that name the same records again, after a blank; empty for the default."""
    if stores:
        return "".join(f" --store {shlex.quote(str(store))}" for store in stores)
    return "" if profile == "quick" else f" --profile {shlex.quote(profile)}"


def near(path: Path) -> Path:
    """A path as one types it: relative where it lies in the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def names(given: Sequence[str] | None) -> list[str]:
    """The names of an option that is repeated or takes comma lists, each once; empty where it is not given."""
    return listed(given or ())


def settings(given: Sequence[str] | None) -> dict[str, Any]:
    """``--set maml.inner_lr=0.1``: "maml.inner_lr" -> 0.1."""
    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key.partition(".")[2]:
            raise MetabenchError(f"--set {text!r}: write name.field=value, as in maml.inner_lr=0.1")
        found[key] = _value(value)
    return found


def of_tasks(settings: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of each of these tasks; raises `MetabenchError` for those of anything else."""
    bare = {task: re.sub(r"(-v\d+)?(/.*)?$", "", task) for task in tasks}
    found: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, _, field = key.partition(".")
        check_known("task in settings", name, bare.values())
        for task in (task for task in tasks if bare[task] == name):
            found.setdefault(task, {})[field] = value
    return found


def _value(text: str) -> Any:
    constants = {"true": True, "false": False, "none": None, **{name: float(name) for name in ("nan", "inf", "-inf")}}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return tuple(value) if isinstance(value, list) else value


def whole(text: str | None, option: str) -> tuple[int, ...]:
    """The numbers of a list like ``0,2,5``; a comma at the end makes a list of one number."""
    try:
        return () if text is None else tuple(int(part) for part in text.removesuffix(",").split(","))
    except ValueError:
        raise MetabenchError(f"{option} {text!r}: write whole numbers, as in 3 or 0,2,5") from None


def seeds(text: str | None) -> int | tuple[int, ...] | None:
    """``3``: how many; ``0,2,5``: which; ``7,``: this one."""
    numbers = whole(text, "--seeds")
    return numbers[0] if text and "," not in text else numbers or None
