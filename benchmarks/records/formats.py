"""The store's files: each format as bytes, and writing that never shows a reader half a file."""

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


class Damaged(Exception):
    """A header, or a file that belongs to it, that can't be what its name says."""

    def __init__(self, why: str, file: Path | None = None) -> None:
        super().__init__(why)
        self.file = file


def write(path: Path, content: bytes) -> None:
    """Put the content in the place of ``path``, as `replace` does."""
    replace(path, lambda target: target.write_bytes(content))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put what ``write`` writes in the place of ``path``, all at once and durably; its folder is created."""
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
    finally:
        temporary.unlink(missing_ok=True)


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
