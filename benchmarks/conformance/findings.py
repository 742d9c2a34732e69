"""The lines of a check: attempts, complaints and notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.errors import MetabenchError, raised_at


@dataclass(frozen=True)
class Finding:
    """One line. "tried" says what is checked next, a "complaint" what to change, a "note" what to know.

    text: a sentence. where: ``file:line`` of the plug-in, where an exception came from; else empty."""

    kind: Literal["tried", "complaint", "note"]
    text: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text

    def about(self, subject: str) -> Finding:
        """The same with its subject in front, once."""
        return self if self.text.startswith(subject) else dataclasses.replace(self, text=f"{subject} {self.text}")


def tried(text: str) -> Finding:
    return Finding("tried", text)


def complaint(text: str) -> Finding:
    return Finding("complaint", text)


def note(text: str) -> Finding:
    return Finding("note", text)


def complaints(findings: Iterable[Finding]) -> list[str]:
    """The complaints alone, as text."""
    return [str(finding) for finding in findings if finding.kind == "complaint"]


def guarded(findings: Iterator[Finding], path: Path) -> Iterator[Finding]:
    """The findings; an exception is a complaint, the last one, with its line in the plug-in's file."""
    try:
        yield from findings
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, MetabenchError) else f"raises {type(error).__name__}: {error}"
        yield Finding("complaint", " ".join(text.split()), raised_at(error, path))
