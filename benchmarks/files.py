"""The formats of the store's files (`benchmarks.store`), each written to a temporary file that then takes the name of
the finished one, so that nobody ever sees half a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: columns of scores and of episodes, in the order in which rows are sorted, and the types that they are stored in
SCORE_TYPES = {"step": "int16", "episode": "int32", "query": "int16"}
EPISODE_TYPES = {"episode": "int32", "query": "int16", "class": "int32", "item": "int32"}

#: seconds after which a temporary file counts as left behind by a crash
STALE = 3600.0


def cache_folder() -> Path:
    """The suite's own folder for downloads and decoded images; it need not exist."""
    if named := os.environ.get("METABENCH_CACHE"):
        return Path(named)
    fallback = {"darwin": Path.home() / "Library" / "Caches", "win32": os.environ.get("LOCALAPPDATA", Path.home())}
    return Path(os.environ.get("XDG_CACHE_HOME") or fallback.get(sys.platform, Path.home() / ".cache")) / "metabench"


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


def typed(frame: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The table with these columns in these types, sorted by them; raises ValueError where values don't fit."""
    missing = [name for name in types if name not in frame]
    if missing:
        raise ValueError(f"no column {missing[0]!r}; there are {', '.join(map(str, frame.columns))}")
    converted = frame.astype(dict(types))
    for name in types:
        if not (converted[name] == frame[name]).all():
            raise ValueError(f"column {name!r} does not fit {types[name]}")
    return converted.sort_values(list(types), kind="stable", ignore_index=True)


def digest(frame: pd.DataFrame) -> str:
    """16 hexadecimal digits that stand for the values of an integer table, whatever wrote it."""
    content = b"".join(frame[name].to_numpy().astype("<i8").tobytes() for name in frame)
    return hashlib.sha256(content).hexdigest()[:16]


def write_scores(path: Path, frame: pd.DataFrame) -> None:
    """Scores: step, episode, query, and the score as bool (one bit) or float32."""
    kind = "bool" if frame["score"].dtype == bool else "float32"
    write_parquet(path, typed(frame, SCORE_TYPES).astype({"score": kind})[[*SCORE_TYPES, "score"]])


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """A table sorted by step, episode and query: the encodings make almost nothing of these columns."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    encodings = {"episode": "DELTA_BINARY_PACKED", "query": "PLAIN"}
    settings: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 9,
        "use_dictionary": [name for name in ("step", "class", "item") if name in frame],
        "column_encoding": {name: encoding for name, encoding in encodings.items() if name in frame},
    }
    replace(path, lambda target: parquet.write_table(table, target, **settings))


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """A table as an array per column."""
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    # half the time of `read_table`: stores hold many small files
    table = parquet.ParquetFile(pyarrow.BufferReader(path.read_bytes())).read(use_threads=False)
    return {name: np.array(table.column(name)) for name in table.column_names}


def frame(columns: Mapping[str, np.ndarray] | None) -> pd.DataFrame | None:
    """The columns as a data frame; None for None."""
    import pandas as pd

    return None if columns is None else pd.DataFrame(columns, copy=False)


def ends_as_parquet(path: Path) -> bool:
    """Whether the file ends as a complete one does."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < 8:
            return False
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
