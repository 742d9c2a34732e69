"""Errors of the suite, importable without torch by the store, the reports and the command line."""

from __future__ import annotations

import traceback
from pathlib import Path

#: parts of the messages that libraries raise when memory is short, besides MemoryError and torch.OutOfMemoryError
OUT_OF_MEMORY = ("out of memory", "can't allocate", "cannot allocate", "alloc_failed")


class MetabenchError(Exception):
    """A mistake of the user or a missing thing, told in one line; the command line prints it and exits with 2."""


class Unavailable(MetabenchError):
    """Data, a package or a device that a cell needs is not here; its cells are skipped with this reason."""


class Diverged(Exception):
    """Training produced a loss or a parameter that is not finite."""


def one_line(text: object) -> str:
    """A message with its line breaks as blanks."""
    return " ".join(str(text).split())


def status_of(error: BaseException) -> tuple[str, str]:
    """The status and the reason of a record for an exception."""
    text = str(error).strip()
    full = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, Unavailable):
        return "skipped", text
    if isinstance(error, MetabenchError):
        return "out-of-memory" if short_of_memory(text) else "error", text
    if isinstance(error, Diverged):
        return "diverged", text or "the training loss is not finite"
    said = isinstance(error, (RuntimeError, OSError)) and short_of_memory(text)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said:
        return "out-of-memory", full.splitlines()[0]
    return "error", full


def short_of_memory(text: str) -> bool:
    """Whether a message says that memory is short."""
    return any(sign in text.lower() for sign in OUT_OF_MEMORY)


def raised_at(error: BaseException, path: Path) -> str:
    """``path:line`` of the innermost frame of an exception, or of its cause, in a file; "" if it passed none."""
    if error.__cause__ is not None and (found := raised_at(error.__cause__, path)):
        return found
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else ""
