"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.errors import MetabenchError

ROOT = Path(__file__).parents[2]

#: the most training seeds of one command: more is a seed that was meant as one number
MOST_SEEDS = 1_000
#: training episodes are numbered by seed and meta-step in 64 bits (`benchmarks.training.training_indices`)
LARGEST_SEED = 2**23 - 1


def _completed(kind: str) -> Callable[[str], list[str]]:
    """The names of a kind that complete what was typed, the last of a comma list."""

    def complete(incomplete: str) -> list[str]:
        from benchmarks.commands import catalogue

        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in catalogue.names(kind) if name.startswith(last)]

    return complete


def folder(text: str | Path) -> Path:
    """The path that an option names; raises `MetabenchError` where the text is empty."""
    if not str(text):
        raise MetabenchError("an empty path names no file and no folder; the current folder is .")
    return Path(text)


def above_zero(value: float | None, option: str) -> float | None:
    """The number of an option; raises `MetabenchError` unless it is above 0 and of a sensible size."""
    if value is not None and not 0 < value < 1e9:
        raise MetabenchError(f"{option} {value:g}: write a number above 0 and below 1e9")
    return value


ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="smoke, quick, standard or paper; or your own: ./mine.toml[:name]",
        autocompletion=_completed("profiles"),
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", parser=folder, help="Folder of the records. [default: reports/runs/<profile>]"),
]
MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--method",
        metavar="NAMES",
        help="Methods, as in maml,fomaml; or a path to your own file.",
        autocompletion=_completed("methods"),
    ),
]
TasksOption = Annotated[
    list[str] | None,
    typer.Option(
        "-t",
        "--task",
        metavar="NAMES",
        help="Tasks, as in omniglot/5w1s,bandit; or a path to your own file.",
        autocompletion=_completed("tasks"),
    ),
]


def home() -> Path:
    """The folder that records and pages go to: METABENCH_STORE, else that of the checkout if the current folder is in
    it, else ``reports`` in the current folder."""
    if named := os.environ.get("METABENCH_STORE"):
        return Path(named)
    here = Path.cwd()
    in_checkout = (ROOT / "pyproject.toml").is_file() and ROOT in (here, *here.parents)
    return (ROOT if in_checkout else here) / "reports"


def default_store(profile: str) -> Path:
    """The folder of a profile's records where none is named."""
    return home() / "runs" / profile


def store_of(store: Path | None, profile: str) -> Path:
    """The folder of the records: the one that is named, or the profile's own."""
    from benchmarks.run import profiles

    path = store or default_store(profiles.title(profile))
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise MetabenchError(f"the store {path} can't be a folder: {nearest} is a file")
    return path


def existing(store: Path) -> Path:
    """The folder itself; raises `MetabenchError` where there is none."""
    if not store.is_dir():
        raise MetabenchError(f"no store at {near(store)}: run `metabench run` first, or name one with --store")
    return store


def near(path: Path) -> Path:
    """A path as one types it: relative where it lies in the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def names(given: Sequence[str] | None) -> list[str]:
    """The names of an option that is repeated or takes comma lists, each once; empty where it is not given."""
    found = [part.strip() for text in given or () for part in _parts(text)]
    if not all(found):
        raise MetabenchError(f"{','.join(given or ())!r} has an empty name: write names as in maml,fomaml")
    return list(dict.fromkeys(found))


def _parts(text: str) -> list[str]:
    return [text] if text.endswith(".py") and Path(text).is_file() else text.removesuffix(",").split(",")


def settings(given: Sequence[str] | None) -> dict[str, Any]:
    """``--set maml.inner_lr=0.1``: "maml.inner_lr" -> 0.1."""
    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        name, _, field = key.partition(".")
        if not equals or not field:
            raise MetabenchError(f"--set {text!r}: write name.field=value, as in maml.inner_lr=0.1")
        if field in ("device", "variant"):
            instead = f"--device {value}" if field == "device" else f"-t {name}/{value}"
            raise MetabenchError(f"--set {text!r}: {field} is no setting; write {instead}")
        found[key] = _value(value)
        if isinstance(found[key], float) and not math.isfinite(found[key]):
            raise MetabenchError(f"--set {text!r}: the value is not finite")
    return found


def _value(text: str) -> Any:
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(value) if isinstance(value, list) else value


def seeds(text: str | None) -> tuple[int, ...]:
    """``3``: seeds 0, 1 and 2; ``0,2,5``: these; ``7,``: this one; nothing where the option is not given."""
    if text is None or "," in text:
        return whole(text, "--seeds", 0, LARGEST_SEED)
    (count,) = whole(text, "--seeds", 1, None)
    if count > MOST_SEEDS:
        raise MetabenchError(
            f"--seeds {text}: that is {count:,} trainings of each method, {MOST_SEEDS:,} is the most; "
            f"for the one seed {count} write --seeds {count},"
        )
    return tuple(range(count))


def whole(text: str | None, option: str, least: int, most: int | None = None) -> tuple[int, ...]:
    """The numbers of a list like ``0,2,5``, each once; a comma at the end makes a list of one number."""
    if text is None:
        return ()
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.removesuffix(",").split(",")))
    except ValueError:
        raise MetabenchError(f"{option} {text!r}: write whole numbers, as in 3 or 0,2,5") from None
    if min(numbers) < least:
        raise MetabenchError(f"{option} {text!r}: {min(numbers)} is too small, {least} is the least")
    if most is not None and max(numbers) > most:
        raise MetabenchError(f"{option} {text!r}: {max(numbers)} is too large, {most} is the most")
    return numbers


def device(name: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``; raises `MetabenchError` where torch has no such device."""
    import torch

    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not (number.isascii() and number.isdigit()))):
        raise MetabenchError(f"unknown device {name!r}; known: cpu, cuda, cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise MetabenchError(f"device {name!r} is missing: torch {torch.__version__} finds no CUDA device")
    if number and int(number) >= (count := torch.cuda.device_count()):
        raise MetabenchError(f"device {name!r} is missing; known: {', '.join(f'cuda:{i}' for i in range(count))}")
    return name
