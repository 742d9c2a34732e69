"""The formats of the store's files. Each is written to a temporary file that then replaces the finished one, so a
reader never sees half a file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    #: its columns by name: pandas takes half a second to import, as often as a process writes one
    Table: TypeAlias = Mapping[str, np.ndarray] | pd.DataFrame

#: columns of scores and of episodes, in the order in which rows are sorted, and the types that they are stored in
SCORE_TYPES = {"step": "int16", "episode": "int32", "query": "int16"}
EPISODE_TYPES = {"episode": "int32", "query": "int16", "class": "int32", "item": "int32"}

#: seconds after which a temporary file counts as left behind by a crash
STALE = 3600.0


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put what ``write`` writes in the place of ``path``, all at once and durably; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what a process that was killed while it wrote this file has left."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime > STALE:
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Text as UTF-8."""
    replace(path, lambda target: target.write_text(text, encoding="utf-8"))


def typed(table: Table, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The table by column with these columns in these types, sorted by them, and its others as they are; raises
    ValueError where values don't fit."""
    import numpy as np

    columns = {str(name): np.asarray(table[name]) for name in table}
    if missing := [name for name in types if name not in columns]:
        raise ValueError(f"no column {missing[0]!r}; there are {', '.join(columns)}")
    for name, kind in types.items():
        given = columns[name]
        with np.errstate(invalid="ignore"):
            columns[name] = given.astype(kind)
        if not np.array_equal(columns[name], given):
            raise ValueError(f"column {name!r} does not fit {kind}")
    order = np.lexsort([columns[name] for name in reversed(list(types))])
    return {name: values[order] for name, values in columns.items()}


def digest(table: Table) -> str:
    """16 hexadecimal digits that stand for the values of an integer table, whatever wrote it."""
    import numpy as np

    content = b"".join(np.asarray(table[name]).astype("<i8").tobytes() for name in table)
    return hashlib.sha256(content).hexdigest()[:16]


def write_scores(path: Path, table: Table) -> None:
    """Scores: step, episode, query, and the score as bool (one bit) or float32."""
    columns = typed(table, SCORE_TYPES)
    score = columns["score"].astype(bool if columns["score"].dtype == bool else "float32")
    write_parquet(path, {**{name: columns[name] for name in SCORE_TYPES}, "score": score})


def write_parquet(path: Path, table: Table) -> None:
    """A table sorted by step, episode and query: the encodings make almost nothing of these columns."""
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    columns = pyarrow.Table.from_arrays([_packed(np.asarray(table[name])) for name in table], names=list(table))
    encodings = {"episode": "DELTA_BINARY_PACKED", "query": "PLAIN"}
    settings: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 9,
        "use_dictionary": [name for name in ("step", "class", "item") if name in table],
        "column_encoding": {name: encoding for name, encoding in encodings.items() if name in table},
    }
    replace(path, lambda target: parquet.write_table(columns, target, **settings))


def _packed(values: np.ndarray) -> Any:
    """A column for pyarrow, whose own ways from arrays and to them import pandas: half a second, which is longer than
    many a cell takes. What is no number is stored as missing."""
    import numpy as np
    import pyarrow

    missing = np.isnan(values)
    present = pyarrow.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    content = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    kind = pyarrow.from_numpy_dtype(values.dtype)
    return pyarrow.Array.from_buffers(kind, len(values), [present, pyarrow.py_buffer(content)])


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """A table of numbers as an array per column."""
    import pyarrow
    from pyarrow import parquet

    # half the time of `read_table`: stores hold many small files
    table = parquet.ParquetFile(pyarrow.BufferReader(path.read_bytes())).read(use_threads=False)
    return {name: _unpacked(table.column(name)) for name in table.column_names}


def _unpacked(column: Any) -> np.ndarray:
    import numpy as np

    kind, parts = np.dtype(column.type.to_pandas_dtype()), []
    for chunk in column.chunks:
        present, content = chunk.buffers()
        here = slice(chunk.offset, chunk.offset + len(chunk))
        values = (_bits(content) if column.type.bit_width == 1 else np.frombuffer(content, kind))[here]
        parts.append(np.where(_bits(present)[here], values, math.nan).astype(kind) if chunk.null_count else values)
    return parts[0].copy() if len(parts) == 1 else np.concatenate([*parts, np.empty(0, kind)])


def _bits(content: Any) -> np.ndarray:
    import numpy as np

    return np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little").astype(bool)


def frame(columns: Mapping[str, np.ndarray] | None) -> pd.DataFrame | None:
    """The columns as a data frame; None for None."""
    import pandas as pd

    return None if columns is None else pd.DataFrame(columns, copy=False)


def ends_as_parquet(path: Path | str) -> bool:
    """Whether the file ends as a complete one does; as long as it stays, it is looked at once."""
    found = os.stat(path)
    return _ends_as_parquet(str(path), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=10_000)
def _ends_as_parquet(path: str, size: int, changed: int) -> bool:
    if size < 8:
        return False
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return file.read() == b"PAR1"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays by name, compressed; arrays of objects are refused."""
    import numpy as np

    def write(target: Path) -> None:
        with target.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{str(name): array for name, array in arrays.items()})

    replace(path, write)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name."""
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_torch(path: Path, state: Mapping[str, Any]) -> None:
    """A dict of tensors and plain values."""
    import torch

    replace(path, lambda target: torch.save(dict(state), target))


def read_torch(path: Path) -> dict[str, Any]:
    """A dict of tensors (on the CPU) and plain values; anything else is refused, code above all."""
    import torch

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


#: by the suffix of the file
WRITERS: dict[str, Callable[[Path, Any], None]] = {".parquet": write_scores, ".npz": write_arrays, ".pt": write_torch}
READERS: dict[str, Callable[[Path], Any]] = {".parquet": read_columns, ".npz": read_arrays, ".pt": read_torch}
