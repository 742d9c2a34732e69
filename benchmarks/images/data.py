"""Image files, found and decoded once into memory-mapped arrays.

Files are searched in the folder METABENCH_DATA and its subfolder named after the data set, then in the suite's cache.
Where the owner allows it, missing files are downloaded into the cache, unless METABENCH_OFFLINE is set. The cache is
METABENCH_CACHE, else ``metabench`` in the platform's cache folder.

Decoded images are cached under a hash of the files' names, sizes and times. They are written to a temporary folder
under a lock and then renamed, so an existing folder is complete. Their digest is computed again whenever the cached
files have changed; damaged ones are decoded again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.api import SPLITS
from benchmarks.cache import cache_folder
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.images.distribution import ImageSet, ImageTasks
from benchmarks.images.pictures import ENDINGS, below

Progress = Callable[[str], None]

#: images between two progress reports
REPORT_EVERY = 2_000

#: bytes that are hashed at once
CHUNK = 1 << 22

#: for this many seconds after a change a file may change again under the same time stamp
FRESH_SECONDS = 1.0


def silent(line: str) -> None:
    """Report no progress."""


def download_folder(name: str) -> Path:
    """Folder for a data set's files, downloaded or placed by hand."""
    return cache_folder() / "data" / name


def data_roots(names: Sequence[str]) -> list[Path]:
    """Existing folders that may hold a data set with one of these names, in search order.

    Raises `MetabenchError` if METABENCH_DATA is not a folder."""
    roots = [download_folder(name) for name in names]
    if given := os.environ.get("METABENCH_DATA"):
        if not Path(given).is_dir():
            raise MetabenchError(f"METABENCH_DATA = {given!r} is not a folder")
        roots = [*(Path(given) / name for name in names), Path(given), *roots]
    return [root for root in roots if root.is_dir()]


def find_layout(
    names: Sequence[str], layouts: Sequence[Mapping[str, Sequence[str]]], own: Sequence[str] = ()
) -> dict[str, Path] | None:
    """The files of the first layout that one folder holds completely; None if there is none.

    layouts: each maps parts to the file names that they may have. own: file names that say too little: they count in a
    folder named after the data set only.

    Raises `Unavailable` naming the missing parts if a folder holds a layout only in part."""
    incomplete = None
    for root, layout in itertools.product(data_roots(names), layouts):
        if root.name not in names and own and all(set(options) & set(own) for options in layout.values()):
            continue
        there = {part: [root / name for name in options if (root / name).exists()] for part, options in layout.items()}
        if all(there.values()):
            return {part: paths[0] for part, paths in there.items()}
        # an interrupted download is not a user's mistake: it resumes
        if any(there.values()) and incomplete is None and cache_folder() not in root.parents:
            absent = [" or ".join(options) for part, options in layout.items() if not there[part]]
            incomplete = f"{names[0]}: {root} is incomplete, it lacks {', '.join(absent)}"
    if incomplete:
        raise Unavailable(incomplete)
    return None


class Readable(Protocol):
    """A picture of a file, or of an array."""

    @property
    def name(self) -> str: ...

    def read(self) -> bytes:
        """Its content, to find copies."""
        ...

    def decode(self, convert: Callable[..., np.ndarray]) -> np.ndarray:
        """Apply ``convert`` to the picture as a `PIL.Image`."""
        ...


def write_pictures(
    folder: Path,
    split: str,
    classes: Mapping[str, Sequence[Readable]],
    convert: Callable[..., np.ndarray],
    progress: Progress,
) -> None:
    """Decode a split's images, class by class in the given order, into an array in ``folder``."""
    pictures = [picture for members in classes.values() for picture in members]
    shape = pictures[0].decode(convert).shape
    needed, free = len(pictures) * np.zeros(shape, np.uint8).nbytes, shutil.disk_usage(folder).free
    if needed > free:  # a full disk would kill the process: the array is mapped
        raise MetabenchError(
            f"{folder.parent} has {free / 1e9:.1f} GB left, the {split} split needs {needed / 1e9:.1f}"
        )
    images = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.uint8, (len(pictures), *shape))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for number, pixels in enumerate(pool.map(lambda picture: picture.decode(convert), pictures)):
            images[number] = pixels
            if (number + 1) % REPORT_EVERY == 0 or number + 1 == len(pictures):
                progress(f"{split}: {number + 1} of {len(pictures)} images decoded")
    images.flush()
    _describe(folder, split, {name: len(members) for name, members in classes.items()})


def write_array(folder: Path, split: str, images: np.ndarray, counts: Mapping[str, int]) -> None:
    """Write a split that is already an array, uint8 ``[N, H, W]`` or ``[N, H, W, C]``, sorted by class."""
    np.save(folder / f"{split}.npy", np.ascontiguousarray(images))
    _describe(folder, split, counts)


def _describe(folder: Path, split: str, counts: Mapping[str, int]) -> None:
    digest = _digest(np.lib.format.open_memmap(folder / f"{split}.npy", "r"), counts)
    about = {"names": list(counts), "counts": list(counts.values()), "digest": digest}
    (folder / f"{split}.json").write_text(json.dumps(about))


def _digest(images: np.memmap, counts: Mapping[str, int]) -> str:
    """Of counts and pixels, which are read from the file: pages of a map count as the process's memory."""
    digest = hashlib.sha256(json.dumps([dict(counts), images.shape]).encode())
    left = images.nbytes
    with open(str(images.filename), "rb") as file:
        file.seek(images.offset)
        while left and (chunk := file.read(min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


class Damaged(MetabenchError):
    """Cached images are not what was written."""


@functools.cache
def open_split(folder: Path, split: str) -> ImageSet:
    """The prepared images of a split, memory-mapped copy-on-write so that the file can't change.

    Raises `MetabenchError` if the cached files are damaged: pixels, names and counts must have their digest."""
    try:
        about = json.loads((folder / f"{split}.json").read_text())
        images = np.lib.format.open_memmap(folder / f"{split}.npy", "c")
        if not images.flags.c_contiguous:
            raise ValueError("another order of axes")
        names, counts = tuple(map(str, about["names"])), np.array(about["counts"], dtype=np.int64)
        found = ImageSet(images, counts, names, about["digest"])
        _check_digest(found, images, folder, split)
    except Exception as error:  # json, numpy and tokenize have many kinds
        if isinstance(error, (OSError, MemoryError)) and not isinstance(error, FileNotFoundError):
            raise MetabenchError(f"{folder} can't be read: {error}") from error  # and may be sound
        reason = str(error).partition("\n")[0]
        raise Damaged(f"{folder} is damaged ({reason}); delete it to decode the images again") from error
    return found


def _check_digest(found: ImageSet, images: np.memmap, folder: Path, split: str) -> None:
    """Compare the content with its digest, unless an earlier process has done so and the files have not changed since.

    Raises `ValueError` if they differ."""
    facts = [os.stat(folder / f"{split}.{ending}") for ending in ("npy", "json")]
    stamp = json.dumps([[fact.st_ino, fact.st_size, fact.st_mtime_ns, fact.st_ctime_ns] for fact in facts])
    mark = folder / f"{split}.checked"
    with contextlib.suppress(OSError, ValueError):
        if mark.read_text() == stamp:
            return
    if _digest(images, dict(zip(found.names, found.counts.tolist(), strict=True))) != found.digest:
        raise ValueError(f"the content of {split}.npy has changed")
    if time.time() - max(max(fact.st_mtime, fact.st_ctime) for fact in facts) > FRESH_SECONDS:
        with contextlib.suppress(OSError):  # in a cache that can't be written each process looks again
            mark.write_text(stamp)


def _damage(folder: Path) -> str:
    """How decoded splits are damaged; "" if they are not."""
    try:
        for split in SPLITS:
            open_split(folder, split)
    except Damaged as error:
        return str(error).partition("; ")[0]
    return ""


@dataclass(frozen=True)
class Collection:
    """How a task's images are found and decoded.

    name: of the decoded images in the cache: task, version, and all else that decides them besides the files
    find: returns the files by part, or None
    build: writes every split of these files into a folder
    missing: message that says which files to put where
    fetch: downloads the files
    endings: of the files in folders that count
    """

    name: str
    find: Callable[[], Mapping[str, Path] | None]
    build: Callable[[Mapping[str, Path], Path, Progress], None]
    missing: str
    fetch: Callable[[Progress], None] | None = None
    endings: tuple[str, ...] = ENDINGS


@dataclass(frozen=True)
class CollectedTasks(ImageTasks):
    """Image tasks with the images of a `Collection`."""

    @property
    def collection(self) -> Collection:
        raise NotImplementedError

    def prepare(self, progress: Progress = silent) -> None:
        prepare(self.collection, progress)

    def image_set(self, split: str) -> ImageSet:
        return open_split(prepare(self.collection), split)


_prepared: dict[tuple[str | None, ...], Path] = {}


def prepare(collection: Collection, progress: Progress = silent) -> Path:
    """The folder of decoded splits, for `open_split`; finds, downloads and decodes the files if needed.

    Images decoded earlier are used even if their files are gone. Raises `Unavailable` if there are no files, and
    `MetabenchError` if the files are wrong."""
    asked = (collection.name, os.environ.get("METABENCH_DATA"), str(cache_folder()))
    if asked not in _prepared or not _prepared[asked].is_dir():
        _prepared[asked] = _find_or_build(collection, progress)
    return _prepared[asked]


def is_decoded(collection: Collection) -> bool:
    """Whether the images have been decoded; nothing is downloaded, decoded or checked.

    Raises `Unavailable` if there are no files either."""
    files, earlier = collection.find(), _earlier(collection)
    if files is None and not earlier:
        raise Unavailable(collection.missing)
    return _place(collection, files).is_dir() if files is not None else True


def _earlier(collection: Collection) -> list[Path]:
    """Folders of images decoded before, the newest first."""
    found = (cache_folder() / "prepared").glob(f"{collection.name}-{'[0-9a-f]' * 16}")
    return sorted((path for path in found if path.is_dir()), key=lambda path: path.stat().st_mtime, reverse=True)


def _place(collection: Collection, files: Mapping[str, Path]) -> Path:
    return cache_folder() / "prepared" / f"{collection.name}-{_fingerprint(files, collection.endings)}"


def _find_or_build(collection: Collection, progress: Progress) -> Path:
    files, damage = collection.find(), ""
    if files is None:
        for path in _earlier(collection):
            if not (found := _damage(path)):
                return path
            damage = f"; {found}"
        if collection.fetch and not os.environ.get("METABENCH_OFFLINE"):
            try:
                collection.fetch(progress)
            except Unavailable as error:
                raise Unavailable(f"{collection.missing} ({error}){damage}") from error
            files = collection.find()
    if files is None:
        raise Unavailable(collection.missing + damage)
    folder = _place(collection, files)
    try:
        if folder.is_dir() and not _damage(folder):
            return folder
        return _build(folder, lambda to: collection.build(files, to, progress), progress)
    except OSError as error:
        raise MetabenchError(f"{folder} can't be written ({error}); METABENCH_CACHE names another cache") from error


def _build(folder: Path, write: Callable[[Path], None], progress: Progress) -> Path:
    """Fill a temporary folder and rename it. A second process waits for the first and finds the result."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = f"{folder.name}.unfinished-"
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            if not (damage := _damage(folder)):
                return folder
            progress(f"{damage}: the images are decoded again")
            shutil.rmtree(folder)
        for left_by_a_killed_process in folder.parent.glob(f"{unfinished}*"):
            shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=unfinished, dir=folder.parent))
        try:
            write(temporary)
            for split in SPLITS:
                open_split.__wrapped__(temporary, split)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _fingerprint(files: Mapping[str, Path], endings: tuple[str, ...]) -> str:
    """16 hexadecimal digits of the files' names, sizes and modification times."""
    digest = hashlib.sha256()
    for part, path in sorted(files.items()):
        folder, names = (path, below(path, endings)) if path.is_dir() else (path.parent, [path.name])
        for name in names:
            facts = os.stat(os.path.join(folder, name))
            digest.update(f"{part} {name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
