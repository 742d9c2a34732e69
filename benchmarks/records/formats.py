"""The formats of the store's files. Each is written to a temporary file that then replaces the finished one, so a
reader never sees half a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

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


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays by name, compressed; arrays of objects are refused."""
    import numpy as np

    def write(target: Path) -> None:
        with target.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{str(name): array for name, array in arrays.items()})

    replace(path, write)


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Arrays by name."""
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_torch(path: Path, state: Mapping[str, Any]) -> None:
    """A dict of tensors and plain values."""
    import torch

    replace(path, lambda target: torch.save(dict(state), target))


def read_torch(content: bytes) -> dict[str, Any]:
    """A dict of tensors (on the CPU) and plain values; anything else is refused, code above all."""
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """The same after its own SHA-256, since no record has that of a checkpoint."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    replace(path, lambda target: target.write_bytes(b"".join((hashlib.sha256(content).digest(), content))))


def read_checkpoint(content: bytes) -> dict[str, Any]:
    """What `write_checkpoint` wrote; raises ValueError for a file with other content."""
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError("the SHA-256 differs")
    return read_torch(content[32:])


#: by the suffix of the file
WRITERS: dict[str, Callable[[Path, Any], None]] = {".npz": write_arrays, ".pt": write_torch}
READERS: dict[str, Callable[[bytes], Any]] = {".npz": read_arrays, ".pt": read_torch}
