"""stdout and stderr of the command line: any encoding, a reader that leaves, a full disk."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

import typer

#: what stands for characters that the encoding of the output lacks
PLAIN = {"±": "+-", "−": "-", "–": "-", "†": "*", "·": "|", "…": "..."}


class _Unclosed(io.FileIO):
    """An output whose reader may leave, as `head` does: the rest goes nowhere, and the command goes on. On a full disk
    the error says that the output can't be written."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _discard(self.fileno())
            return len(data)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} (while writing the output)") from error


def prepare() -> None:
    """Let stdout and stderr take any text, ``±`` as "+-" where they are ASCII, also after their reader has left."""
    codecs.register_error("plainer", _plainer)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            if stream is getattr(sys, f"__{name}__"):
                setattr(sys, name, _unclosed(stream))
            else:
                stream.reconfigure(errors="plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


def _unclosed(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Unclosed(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(raw, stream.encoding, "plainer", line_buffering=stream.line_buffering)


def give_up() -> None:
    """Flush stdout, and discard output that can't be written, as on a full disk."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout.fileno())


def tell(text: str) -> None:
    """Print a line to stderr, if it can be written."""
    try:
        typer.echo(f"metabench: {text}", err=True)
    except OSError:
        _discard(sys.stderr.fileno())


def _discard(number: int) -> None:
    """Send what is written to an open file nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
