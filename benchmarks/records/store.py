"""Records of finished cells, in a folder, keyed by what determines the result.

A header in ``records/`` is written last and atomically: it exists if and only if its cell is finished, and all files
beside it are then complete. Any number of processes may read and write one store at once. What is truncated, foreign or
of another schema is moved to ``aside/`` and named, and the cell counts as not run.

This module imports torch, pandas and pyarrow only where their files are read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import MetabenchError
from benchmarks.records import formats

if TYPE_CHECKING:
    import filelock
    import numpy as np
    import pandas as pd

SCHEMA = 1
CELLS = ("fit", "evaluation", "cost")
STATUSES = ("ok", "skipped", "error", "timeout", "out-of-memory", "diverged")

#: files beside a header: name in the header -> folder and suffix
SIDE_FILES = {"scores": ("scores", ".parquet"), "arrays": ("arrays", ".npz"), "state": ("states", ".pt")}

_KEY = re.compile(r"[0-9a-f]{16}")
_log = logging.getLogger(__name__)


class Damaged(Exception):
    """A header, or a file that belongs to it, that can't be what its name says."""

    def __init__(self, why: str, file: Path | None = None) -> None:
        super().__init__(why)
        self.file = file


def content_key(plain: Any) -> str:
    """16 hexadecimal digits that stand for a plain value (dicts, sequences, text, numbers, None).

    Independent of the order of a dict's entries; a tuple is a list, and 1.0 is 1."""
    text = json.dumps(_canonical(plain), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _canonical(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"float:{value}"
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{value!r} is no plain value")


def plain(value: Any) -> Any:
    """The value as JSON can hold it: numbers of numpy become Python's, tuples lists, what is not finite None."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} is no plain value")


class Store:
    """A folder of records; nothing is created before the first write.

    read_only: damaged files are named but stay where they are, for a store that belongs to somebody else.
    problems: one line per damaged file found so far. Raises MetabenchError where ``path`` is a file.
    """

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.problems: list[str] = []
        if self.path.exists() and not self.path.is_dir():
            raise MetabenchError(f"the store {self.path} is a file, not a folder")

    # --- headers ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> dict[str, Any] | None:
        """The header of a finished cell; None if it is not finished."""
        path = self._file("records", key, ".json")
        for _ in range(3):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                self._set_aside(path, key, f"can't be read: {error.strerror}")
                return None
            try:
                record = _parse(text, key)
                self._check_side_files(record)
            except Damaged as damage:
                if _unchanged(path, text):  # else another process is replacing it: look again
                    self._set_aside(path, key, str(damage))
                    if damage.file is not None:
                        self._set_aside(damage.file, key, "is truncated")
                    return None
            else:
                return record
        return None

    def records(self, cell: str | None = None) -> list[dict[str, Any]]:
        """The headers of all finished cells (of one kind: see `CELLS`), in the order of their keys."""
        found = []
        for path in self._headers():
            record = self.get(path.stem)
            if record is not None and cell in (None, record["cell"]):
                found.append(record)
        return found

    def _headers(self) -> Iterator[Path]:
        folder = self.path / "records"
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            path = folder / name
            if path.suffix == ".json" and _KEY.fullmatch(path.stem):
                yield path
            elif not name.startswith("."):
                self._set_aside(path, None, "is not a record")

    def write(
        self,
        record: Mapping[str, Any],
        scores: formats.Table | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Keep a finished cell, whose lock the caller holds; returns the header with ``schema``, ``files``, ``sizes``.

        record: the header; it replaces an earlier one of the same key. scores: columns step, episode, query, score.
        state: tensors and plain values. The episodes that ``evaluation.episodes_digest`` names are written before
        (`write_episodes`). Raises ValueError for a header that could not be read again."""
        header = {**plain(record), "schema": SCHEMA}
        key = header.get("key", "")
        files, sizes = self._planned_files(header), {}
        _parse(json.dumps({**header, "files": files, "sizes": {}}).encode(), key, ValueError)
        header_path = self._file("records", key, ".json")
        # an earlier try is no longer finished from here on: its header must not stand beside the new files
        if header_path.exists() and self.get(key) is None:
            self._move(header_path)
        header_path.unlink(missing_ok=True)
        contents: dict[str, Any] = {"scores": scores, "arrays": arrays, "state": state}
        for name, (folder, suffix) in SIDE_FILES.items():
            path = self._file(folder, key, suffix)
            if contents[name] is None:
                path.unlink(missing_ok=True)
                continue
            formats.WRITERS[suffix](path, contents[name])
            files[name], sizes[name] = f"{folder}/{path.name}", path.stat().st_size
        header = {**header, "files": files, "sizes": sizes}
        formats.write_text(header_path, json.dumps(header, indent=1, allow_nan=False))
        return header

    def remove(self, key: str) -> None:
        """Forget a record that has no side files: that of a skipped cell which can be run now."""
        self._file("records", key, ".json").unlink(missing_ok=True)

    def _planned_files(self, header: Mapping[str, Any]) -> dict[str, str | None]:
        digest = (header.get("evaluation") or {}).get("episodes_digest")
        if digest is not None and not self._file("episodes", digest, ".parquet").exists():
            raise ValueError(f"episodes {digest} have not been written")
        return {**dict.fromkeys(SIDE_FILES), "episodes": f"episodes/{digest}.parquet" if digest else None}

    def _check_side_files(self, record: Mapping[str, Any]) -> None:
        for name, relative in record["files"].items():
            if relative is None:
                continue
            path = f"{self.path}/{relative}"  # a `Path` takes as long as looking at the file
            try:
                size = os.stat(path).st_size
            except OSError:
                raise Damaged(f"its {name} ({relative}) are missing") from None
            if size != record["sizes"].get(name, size) or (name == "episodes" and not formats.ends_as_parquet(path)):
                raise Damaged(f"its {name} ({relative}) are truncated", Path(path))

    # --- files beside the header -----------------------------------------------------------------------------------

    def scores(self, key: str) -> pd.DataFrame | None:
        """Every score of an evaluation, with columns step, episode, query, score; None if there are none."""
        return formats.frame(self.score_columns(key))

    def score_columns(self, key: str) -> dict[str, np.ndarray] | None:
        """The same by column, for who reads many: a data frame takes longer to make than its file to read."""
        return self._read("scores", key, ".parquet")

    def arrays(self, key: str) -> dict[str, np.ndarray] | None:
        """Arrays of a cell by name; None if there are none."""
        return self._read("arrays", key, ".npz")

    def state(self, key: str) -> dict[str, Any] | None:
        """The state that a fit chose, its tensors on the CPU; None if there is none."""
        return self._read("states", key, ".pt")

    def write_episodes(self, table: formats.Table) -> str:
        """Keep a table of test episodes (columns episode, query, class, item) once, and return its digest."""
        columns = formats.typed(table, formats.EPISODE_TYPES)
        digest = formats.digest(columns)
        path = self._file("episodes", digest, ".parquet")
        if not (path.exists() and formats.ends_as_parquet(path)):
            formats.write_parquet(path, columns)
        return digest

    def episodes(self, digest: str) -> pd.DataFrame | None:
        """The table of test episodes with this digest; None if there is none."""
        return formats.frame(self.episode_columns(digest))

    def episode_columns(self, digest: str) -> dict[str, np.ndarray] | None:
        """The same by column."""
        return self._read("episodes", digest, ".parquet")

    def _read(self, folder: str, key: str, suffix: str) -> Any:
        path = self._file(folder, key, suffix)
        try:
            return formats.READERS[suffix](path)
        except FileNotFoundError:
            return None
        except (NameError, ImportError, MemoryError):  # says nothing about the file
            raise
        except Exception as error:  # pyarrow, numpy and torch have many kinds of error for a broken file
            shared = folder in ("checkpoints", "episodes")  # of the process that holds the key's lock, or of no key
            self._set_aside(path, None if shared else key, f"can't be read: {type(error).__name__}")
            if not shared:
                self.get(key)  # a finished cell that has lost a file is finished no longer; this sees to its header
            return None

    # --- cells at work ---------------------------------------------------------------------------------------------

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        """Where an unfinished fit stood, its tensors on the CPU; None if nothing was kept."""
        state: dict[str, Any] | None = self._read("checkpoints", key, ".pt")
        return state

    def write_checkpoint(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep where a fit stands; the last one stays."""
        formats.write_torch(self._file("checkpoints", key, ".pt"), state)

    def remove_checkpoint(self, key: str) -> None:
        """Forget where a fit stood; nothing happens if there is nothing."""
        self._file("checkpoints", key, ".pt").unlink(missing_ok=True)

    def lock(self, key: str, wait: bool = True) -> filelock.FileLock:
        """The lock of a key, not yet taken: ``with store.lock(key): ...``. The system frees it when its process ends.

        wait: False raises `filelock.Timeout` at once where somebody else holds it."""
        import filelock

        path = self._file("locks", key, ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(path, timeout=-1 if wait else 0, thread_local=False)

    def is_locked(self, key: str) -> bool:
        """Whether another process works on the key right now."""
        import filelock

        try:
            with self.lock(key, wait=False):
                return False
        except filelock.Timeout:
            return True

    def log_path(self, key: str) -> Path:
        """Where the output of the process goes that works on the key."""
        return self._file("logs", key, ".log")

    # --- paths -----------------------------------------------------------------------------------------------------

    def _file(self, folder: str, key: str, suffix: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key: 16 hexadecimal digits")
        return self.path / folder / (key + suffix)

    def _set_aside(self, path: Path, key: str | None, why: str) -> None:
        """Name a damaged file and move it out of the way, unless another process is at work on its key."""
        line = f"{path}: {why}"
        if line not in self.problems:
            self.problems.append(line)
            _log.warning("%s", line)
        if self.read_only:
            return
        if key is None:
            self._move(path)
            return
        import filelock

        with contextlib.suppress(OSError, filelock.Timeout), self.lock(key, wait=False):
            self._move(path)

    def _move(self, path: Path) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}-{path.parent.name}-{path.name}"
        with contextlib.suppress(OSError):
            (self.path / "aside").mkdir(parents=True, exist_ok=True)
            os.replace(path, self.path / "aside" / name)


def _parse(text: bytes, key: str, kind: type[Exception] = Damaged) -> dict[str, Any]:
    """The header that a file holds."""
    try:
        record = json.loads(text)
    except ValueError:
        raise kind("is truncated or no JSON") from None
    if not isinstance(record, dict) or "schema" not in record:
        raise kind("is not a record")
    if record["schema"] != SCHEMA:
        raise kind(f"has schema {record['schema']!r}; this version reads {SCHEMA}")
    if record.get("key") != key:
        raise kind(f"has the key {record.get('key')!r}, not {key!r}")
    if record.get("cell") not in CELLS or record.get("status") not in STATUSES:
        raise kind(f"has the cell {record.get('cell')!r} and the status {record.get('status')!r}")
    if not (isinstance(record.get("files"), dict) and isinstance(record.get("sizes"), dict)):
        raise kind("does not say which files belong to it")
    return record


def _unchanged(path: Path, text: bytes) -> bool:
    try:
        return path.read_bytes() == text
    except OSError:
        return False
