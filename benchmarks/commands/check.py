"""``metabench check``: a plug-in against the contract, in a process of its own."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.errors import MetabenchError

if TYPE_CHECKING:
    from benchmarks.run.isolate import Outcome


def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Your methods, tasks or backbones.")],
    seconds: Annotated[float, typer.Option(metavar="S", help="Time limit of the check.", min=1.0)] = 600.0,
) -> None:
    """Check a plug-in against the contract: what was tried, what to change, and notes."""
    from benchmarks.run.isolate import SUITE, Job, run

    if path.is_dir():
        raise MetabenchError(f"{path} is a folder: name the Python file in it, as in {path / 'mine.py'}")
    if not path.is_file():
        raise MetabenchError(f"no such plug-in file: {path}")
    call = ("benchmarks.conformance.files:check_in_job", {"path": str(path.resolve())})
    with tempfile.TemporaryDirectory() as folder:
        job = Job("check", call, Path(folder) / "log", seconds)
        outcome = run([job], 1, lambda event: None, preload=SUITE)["check"]
    if outcome.value is None:
        raise MetabenchError(_broken_off(path, outcome))
    if "refused" in outcome.value:
        raise MetabenchError(outcome.value["refused"])
    findings = outcome.value["findings"]
    for kind in ("tried", "note", "complaint"):
        for finding in findings:
            if finding["kind"] == kind:
                where = f"{finding['where']}: " if finding["where"] else ""
                typer.echo(f"{kind + ':':<11}{where}{finding['text']}")
    complaints = sum(finding["kind"] == "complaint" for finding in findings)
    if complaints:
        raise MetabenchError(f"{path}: {complaints} complaint{'s' if complaints > 1 else ''}")
    typer.echo(f"{path}: holds the contract")


def _broken_off(path: Path, outcome: Outcome) -> str:
    """One line for a check whose process ended early: why, at which line of the file, and in which attempt."""
    attempts = re.findall(r"^tried: (.*)$", outcome.stderr, re.MULTILINE)
    during = f" (in: {attempts[-1]})" if attempts else ""
    return f"{outcome.place(str(path.resolve()))}: the check did not finish: {outcome.reason}{during}"
