"""The store's files: each format as bytes, and writing that never shows a reader half a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.checks import check_output
from benchmarks.errors import MetabenchError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: endings of files that hold tables
TABLES = (".csv", ".parquet")
#: seconds after which a temporary file counts as left behind by a crash
STALE = 3600.0


class Damaged(Exception):
    """A header, or a file that belongs to it, that can't be what its name says."""

    def __init__(self, why: str, file: Path | None = None) -> None:
        super().__init__(why)
        self.file = file


def write(path: Path, content: bytes) -> None:
    """Put the content in the place of ``path``, as `replace` does."""
    replace(path, lambda target: target.write_bytes(content))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put what ``write`` writes in the place of ``path``, all at once and durably; its folder is created.

    Raises `MetabenchError` where ``path`` is a folder or a device, and OSError, which names it, where writing fails."""
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def fresh(folder: str | Path) -> None:
    """Let a client of NFS forget which files of a folder it has not found: it asks again when the folder is opened."""
    with contextlib.suppress(OSError):
        os.scandir(folder).close()


def size_of(path: str) -> int | None:
    """The size of a file; None without one."""
    for again in (False, True):
        if again:
            fresh(os.path.dirname(path))
        with contextlib.suppress(OSError):
            return os.stat(path).st_size
    return None


def check_table(path: Path) -> None:
    """Refuse a file for a table that ends in neither of `TABLES`."""
    if path.suffix not in TABLES:
        raise MetabenchError(f"{path} names no table: end it in {' or '.join(TABLES)}")


def write_table(path: Path, pieces: Iterable[pd.DataFrame]) -> int:
    """Write frames of equal columns one below the other, as CSV or parquet by the ending; returns how many rows."""
    check_table(path)
    rows = 0

    def write(target: Path) -> None:
        nonlocal rows
        with contextlib.ExitStack() as opened:
            add = (_csv if path.suffix == ".csv" else _parquet)(target, opened)
            for piece in pieces:
                add(piece)
                rows += len(piece)

    replace(path, write)
    return rows


def _csv(target: Path, opened: contextlib.ExitStack) -> Callable[[pd.DataFrame], None]:
    file = opened.enter_context(target.open("w", encoding="utf-8", newline=""))
    return lambda piece: piece.to_csv(file, index=False, header=file.tell() == 0)


def _parquet(target: Path, opened: contextlib.ExitStack) -> Callable[[pd.DataFrame], None]:
    import pyarrow
    from pyarrow import parquet

    writer: list[Any] = []

    def add(piece: pd.DataFrame) -> None:
        table = pyarrow.Table.from_pandas(piece, preserve_index=False)
        if not writer:
            writer.append(opened.enter_context(parquet.ParquetWriter(target, table.schema, compression="zstd")))
        writer[0].write_table(table)

    return add


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name as a compressed npz; arrays of objects are refused."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{str(name): array for name, array in arrays.items()})
    return buffer.getvalue()


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    """Arrays by name."""
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def pack_state(state: Mapping[str, Any]) -> bytes:
    """A dict of tensors and plain values, as `torch.save` writes it."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def state_of(content: bytes) -> dict[str, Any]:
    """A dict of tensors (on the CPU) and plain values; anything else is refused, code above all."""
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def pack_checkpoint(state: Mapping[str, Any]) -> bytes:
    """A state after its own SHA-256, since no record has that of a checkpoint."""
    content = pack_state(state)
    return hashlib.sha256(content).digest() + content


def checkpoint_of(content: bytes) -> dict[str, Any]:
    """The inverse of `pack_checkpoint`; raises ValueError for other content."""
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError("the SHA-256 differs")
    return state_of(content[32:])


#: by the suffix of the file
PACK: dict[str, Callable[[Any], bytes]] = {".npz": pack_arrays, ".pt": pack_state}
UNPACK: dict[str, Callable[[bytes], Any]] = {".npz": arrays_of, ".pt": state_of}


def digest(columns: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for integer columns, whatever wrote them."""
    import numpy as np

    found = hashlib.sha256()
    for column in columns.values():
        found.update(np.ascontiguousarray(column, "<i8").reshape(-1).data)
    return found.hexdigest()[:16]


def episodes_digest(items: Mapping[str, np.ndarray]) -> str:
    """The digest of test examples, ``classes`` and ``items`` ``[episodes, queries]``: that of the table with columns
    episode, query, class and item, sorted (`benchmarks.compare.episode_lists`)."""
    import numpy as np

    episode, query = np.indices(items["classes"].shape)
    return digest({"episode": episode, "query": query, "class": items["classes"], "item": items["items"]})
