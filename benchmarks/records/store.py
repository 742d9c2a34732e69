"""Records of finished cells, in a folder, keyed by what determines the result.

A header in ``records/`` is written last and atomically: it exists if and only if its cell is finished, and all files
next to it are then complete. Any number of processes may read and write one store at once. Damaged files are moved to
``aside/`` and reported, and their cell counts as not run. A header names no paths: a key and a kind of file give the
place, a size and a SHA-256 prove the content, checked on reading. torch and numpy are imported only then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import MetabenchError
from benchmarks.masking import masked_texts
from benchmarks.records import formats
from benchmarks.records.formats import Damaged
from benchmarks.records.plain import Unreadable, from_text, sealed, unseal
from benchmarks.records.record import SCHEMA, Kind, Record, SideFile

if TYPE_CHECKING:
    import filelock
    import numpy as np

#: files next to a header, by kind: folder and suffix
FILES = {"scores": ("scores", ".npz"), "arrays": ("arrays", ".npz"), "state": ("states", ".pt")}

FOLDERS = {folder for folder, _ in FILES.values()} | {"records", "episodes", "checkpoints", "locks", "logs"}
FOLDERS |= {"plans", "runs", "aside"}
_KEY = re.compile(r"[0-9a-f]{16}")
_log = logging.getLogger(__name__)


class Store:
    """A folder of records; nothing is created before the first write.

    read_only: nothing is moved or written, for a store that belongs to somebody else.
    problems: one line per damaged file found so far. Raises MetabenchError for a file and for records of schema 1."""

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.problems: list[str] = []
        if self.path.exists() and not self.path.is_dir():
            raise MetabenchError(f"the store {self.path} is a file, not a folder")

    @classmethod
    def existing(cls, path: str | Path, read_only: bool = True) -> Store:
        """A store that is there; raises MetabenchError where there is none."""
        if not Path(path).is_dir():
            raise MetabenchError(f"no store at {path}: run `metabench run` first, or name another folder")
        return cls(path, read_only)

    # --- headers ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        """The record of a finished cell; None if it is not finished."""
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
                record = self._parse(text, key)
                self._check_files(record)
            except Damaged as damage:
                if _unchanged(path, text):  # else another process is replacing it: look again
                    self._set_aside(path, key, str(damage), functools.partial(_unchanged, path, text))
                    if damage.file is not None:
                        self._set_aside(damage.file, key, "is truncated", lambda: not path.exists())
                    return None
            else:
                return record
        return None

    def records(self, cell: Kind | None = None) -> list[Record]:
        """The records of all finished cells (of one kind), in the order of their keys."""
        found = (self.get(path.stem) for path in self._headers())
        return [record for record in found if record is not None and cell in (None, record.cell)]

    def evaluations(self) -> list[Record]:
        """The records of finished evaluations; raises MetabenchError where there are none."""
        found = [record for record in self.records("evaluation") if record.ok]
        if not found:
            raise MetabenchError(f"no finished evaluation in {self.path}: run `metabench run` first")
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
        record: Record,
        scores: Mapping[str, np.ndarray] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Record:
        """Keep a finished cell, whose lock the caller holds; returns the record with its ``files``.

        It replaces an earlier record of the same key. scores: one array ``[episodes, queries]`` per test and step, by
        `Test.scores_name`. state: tensors and plain values. The episodes that the evaluation's digest names are
        written before (`write_episodes`). Raises ValueError for a record that could not be read again."""
        key, contents = record.key, {"scores": scores, "arrays": arrays, "state": state}
        try:
            self._parse(sealed(dataclasses.replace(record, files={}).to_json()), key)
        except Damaged as damage:
            raise ValueError(f"the record of {record.label} {damage}") from None
        if record.digest is not None and not self._file("episodes", record.digest, ".npz").exists():
            raise ValueError(f"episodes {record.digest} have not been written")
        header = self._own("records", key, ".json")
        # an earlier try is no longer finished from here on: its header must not stand next to the new files
        if header.exists() and self.get(key) is None:
            self._move(header)
        header.unlink(missing_ok=True)
        files: dict[str, SideFile] = {}
        for kind, (folder, suffix) in FILES.items():
            path = self._own(folder, key, suffix)
            if contents[kind] is None:
                path.unlink(missing_ok=True)
                continue
            content = formats.PACK[suffix](contents[kind])
            formats.write(path, content)
            files[kind] = SideFile(len(content), hashlib.sha256(content).hexdigest())
        record = dataclasses.replace(record, files=files, **masked_texts(record))
        formats.write(header, sealed(record.to_json()))
        return record

    def remove(self, key: str) -> None:
        """Delete a record with its files; its episodes stay, since other records may share them."""
        for folder, suffix in (("records", ".json"), *FILES.values(), ("checkpoints", ".pt"), ("logs", ".log")):
            self._own(folder, key, suffix).unlink(missing_ok=True)

    def _parse(self, text: bytes, key: str) -> Record:
        """The record that a file holds."""
        try:
            value = from_text(text)
        except ValueError:
            raise Damaged("is truncated or no JSON") from None
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema == 1 and schema is not True:
            raise MetabenchError(
                f"{self.path} holds records of schema 1, this version reads {SCHEMA}: read them with metabench 0.1, or "
                "run again into a new folder"
            )
        if schema != SCHEMA:
            raise Damaged(f"is not a record of schema {SCHEMA}")
        if not unseal(value):
            raise Damaged("is not what was written (its SHA-256 differs)")
        try:
            record = Record.from_json(value)
        except Unreadable as error:
            raise Damaged(f"can't be read: {error}") from None
        if record.key != key:
            raise Damaged(f"has the key {record.key!r}, not {key!r}")
        if unknown := record.files.keys() - FILES.keys():
            raise Damaged(f"names an unknown kind of file {min(unknown)!r}")
        if record.digest is not None and not _KEY.fullmatch(record.digest):
            raise Damaged(f"names episodes {record.digest!r}, which is no digest")
        return record

    def _check_files(self, record: Record) -> None:
        if record.digest is not None and not os.path.exists(f"{self.path}/episodes/{record.digest}.npz"):
            raise Damaged(f"its episodes (episodes/{record.digest}.npz) are missing")
        for kind, file in record.files.items():
            folder, suffix = FILES[kind]
            path = f"{self.path}/{folder}/{record.key}{suffix}"  # a `Path` takes as long as looking at the file
            if (size := formats.size_of(path)) is None:
                raise Damaged(f"its {kind} ({folder}/{record.key}{suffix}) are missing")
            if size != file.size:
                raise Damaged(f"its {kind} ({folder}/{record.key}{suffix}) are truncated", Path(path))

    # --- files next to the header ----------------------------------------------------------------------------------

    def scores(self, record: Record) -> dict[str, np.ndarray] | None:
        """Every score of an evaluation, ``[episodes, queries]`` by `Test.scores_name`; None if there are none."""
        return self._read("scores", record)

    def arrays(self, record: Record) -> dict[str, np.ndarray] | None:
        """Arrays of a cell by name; None if there are none."""
        return self._read("arrays", record)

    def state(self, record: Record) -> dict[str, Any] | None:
        """The states of a fit ("best" and "last"), their tensors on the CPU; None if there are none."""
        return self._read("state", record)

    def _read(self, kind: str, record: Record) -> Any:
        if kind not in record.files:
            return None
        folder, suffix = FILES[kind]
        path, sha256 = self._file(folder, record.key, suffix), record.files[kind].sha256

        def unpack(content: bytes) -> Any:
            if hashlib.sha256(content).hexdigest() != sha256:
                raise Damaged("is not the file that was written (its SHA-256 differs)")
            return formats.UNPACK[suffix](content)

        try:
            return _content(path, unpack)
        except FileNotFoundError:
            why = "is missing"
        except Damaged as damage:
            why = str(damage)

        def named() -> bool:
            """Whether the header is still that of this file: else another process has replaced both."""
            return sha256.encode() in self._file("records", record.key, ".json").read_bytes()

        with contextlib.suppress(OSError):  # the record has been removed
            if named():
                self._set_aside(path, record.key, why, named)
                self.get(record.key)  # a finished cell that has lost a file is finished no longer
        return None

    def write_episodes(self, items: Mapping[str, np.ndarray]) -> str:
        """Keep the test examples once, ``classes`` and ``items`` ``[episodes, queries]``, and return their digest."""
        digest = formats.episodes_digest(items)
        if self.episodes(digest) is None:
            narrow = {name: array.astype("int32") for name, array in items.items()}
            formats.write(self._own("episodes", digest, ".npz"), formats.pack_arrays(narrow))
        return digest

    def episodes(self, digest: str) -> dict[str, np.ndarray] | None:
        """The test examples with this digest, which is computed again; None if they are not here."""

        def unpack(content: bytes) -> Any:
            items = formats.arrays_of(content)
            if formats.episodes_digest(items) != digest:
                raise Damaged("holds other episodes than its name says")
            return items

        return self._whole(self._file("episodes", digest, ".npz"), unpack)  # type: ignore[no-any-return]

    def _whole(self, path: Path, unpack: Callable[[bytes], Any]) -> Any:
        """The content of a file outside records; None without one. A damaged one is set aside."""
        try:
            return _content(path, unpack)
        except FileNotFoundError:
            return None
        except Damaged as damage:
            self._set_aside(path, None, str(damage))
            return None

    # --- cells at work ---------------------------------------------------------------------------------------------

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        """Where an unfinished fit stood, its tensors on the CPU; None if nothing was kept."""
        return self._whole(self._file("checkpoints", key, ".pt"), formats.checkpoint_of)  # type: ignore[no-any-return]

    def write_checkpoint(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep where a fit stands; the last one stays."""
        formats.write(self._own("checkpoints", key, ".pt"), formats.pack_checkpoint(state))

    def remove_checkpoint(self, key: str) -> None:
        """Forget where a fit stood; nothing happens if there is nothing."""
        self._own("checkpoints", key, ".pt").unlink(missing_ok=True)

    def lock(self, key: str, wait: float = -1) -> filelock.FileLock:
        """The lock of a key, not yet taken: ``with store.lock(key): ...``. The system frees it when its process ends.

        wait: seconds after which `filelock.Timeout` is raised where another process holds it; -1 waits for ever."""
        import filelock

        path = self._own("locks", key, ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(path, timeout=wait, thread_local=False)

    def log_path(self, key: str) -> Path:
        """Where the process that works on the key writes its output."""
        return self._own("logs", key, ".log")

    # --- paths -----------------------------------------------------------------------------------------------------

    def _file(self, folder: str, key: str, suffix: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key: 16 hexadecimal digits")
        return self.path / folder / (key + suffix)

    def _own(self, folder: str, key: str, suffix: str) -> Path:
        """A path to be written; raises MetabenchError where a link leads out of the store. Most files are replaced, and
        a link with them; locks and logs are opened."""
        path = self._file(folder, key, suffix)
        for place in (path.parent, path) if folder in ("locks", "logs") else (path.parent,):
            if place.is_symlink():
                raise MetabenchError(f"{place} is a link; a store is written only within its own folder")
        return path

    def _set_aside(self, path: Path, key: str | None, why: str, still: Callable[[], bool] = lambda: True) -> None:
        """Name a damaged file and move it out of the way, unless another process is at work on its key.

        still: asked under the lock whether the file is the damaged one."""
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

        with contextlib.suppress(OSError, filelock.Timeout), self.lock(key, wait=0):
            if still():
                self._move(path)

    def _move(self, path: Path) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}-{path.parent.name}-{path.name}"
        aside = self.path / "aside"
        with contextlib.suppress(OSError):
            aside.mkdir(parents=True, exist_ok=True)
            if not aside.is_symlink() and not path.parent.is_symlink():
                os.replace(path, aside / name)


def _unchanged(path: Path, text: bytes) -> bool:
    try:
        return path.read_bytes() == text
    except OSError:
        return False


def _content(path: Path, unpack: Callable[[bytes], Any]) -> Any:
    """The content of a file; raises FileNotFoundError, and Damaged for content that ``unpack`` refuses."""
    try:
        return unpack(path.read_bytes())
    except (FileNotFoundError, NameError, ImportError, MemoryError, Damaged):  # not told by the content
        raise
    except Exception as error:  # numpy and torch have many kinds of error for a broken file
        raise Damaged(f"can't be read: {type(error).__name__}") from None
