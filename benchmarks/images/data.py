"""Image files, found, downloaded and decoded once into memory-mapped arrays.

Files are searched in the folder METABENCH_DATA and its subfolder named after the data set, then in the suite's cache.
Where the owner allows it, missing files are downloaded into the cache, unless METABENCH_OFFLINE is set. The cache is
METABENCH_CACHE, else ``metabench`` in the platform's cache folder.

Decoded images are cached under a hash of the files' names, sizes and times. They are written to a temporary folder
under a lock and then renamed, so an existing folder is complete.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.api import SPLITS
from benchmarks.cache import cache_folder
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.images.distribution import ImageSet, ImageTasks

Progress = Callable[[str], None]

#: larger archive members, in bytes, are refused: no image of a data set is this big
LARGEST_MEMBER = 50_000_000

#: images between two progress reports
REPORT_EVERY = 2_000


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


def find_layout(names: Sequence[str], layouts: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, Path] | None:
    """The files of the first layout that one folder holds completely; None if there is none.

    layouts: each maps parts to the file names that they may have.

    Raises `Unavailable` naming the missing parts if a folder holds a layout only in part."""
    incomplete = None
    for root, layout in itertools.product(data_roots(names), layouts):
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


@dataclass(frozen=True)
class Files:
    """The files of a folder or a zip archive: their names, sorted, and a function that returns the bytes of one."""

    path: Path
    names: Sequence[str]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder or a zip archive in place, without unpacking.

    Raises `MetabenchError` for a damaged archive, and for members that are too large or point outside it."""
    if path.is_dir():
        yield Files(path, _below(path), lambda name: (path / name).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise MetabenchError(f"{path} can't be read as a zip archive: {error}") from error
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
                raise MetabenchError(f"{path}: refused, its member {member.filename!r} points outside the archive")
            if member.file_size > LARGEST_MEMBER:
                raise MetabenchError(f"{path}: refused, its member {member.filename!r} has {member.file_size} bytes")
        yield Files(path, sorted(member.filename for member in members), archive.read)


def _below(folder: Path) -> list[str]:
    """Relative paths of the files below a folder, sorted. `pathlib` takes seconds for this many files."""
    start = len(str(folder)) + 1
    found = (os.path.join(at, name)[start:] for at, _, names in os.walk(folder) for name in names)
    return sorted(name.replace(os.sep, "/") for name in found)


@dataclass(frozen=True)
class Picture:
    """An image file in a folder or archive."""

    files: Files
    name: str

    def decode(self, convert: Callable[..., np.ndarray]) -> np.ndarray:
        """Apply ``convert`` to the opened `PIL.Image`; raises `MetabenchError` with the file's name if that fails."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.files.read(self.name))) as image:
                return convert(image)
        except UnidentifiedImageError:
            raise MetabenchError(f"{self.files.path}: {self.name} is not an image") from None
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise MetabenchError(f"{self.files.path}: {self.name} can't be decoded: {reason}") from error


def write_pictures(
    folder: Path,
    split: str,
    classes: Mapping[str, Sequence[Picture]],
    convert: Callable[..., np.ndarray],
    progress: Progress,
) -> None:
    """Decode a split's images, class by class in the given order, into an array in ``folder``."""
    pictures = [picture for members in classes.values() for picture in members]
    shape = pictures[0].decode(convert).shape
    images = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.uint8, (len(pictures), *shape))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for number, pixels in enumerate(pool.map(lambda picture: picture.decode(convert), pictures)):
            images[number] = pixels
            if (number + 1) % REPORT_EVERY == 0 or number + 1 == len(pictures):
                progress(f"{split}: {number + 1} of {len(pictures)} images decoded")
    images.flush()
    _describe(folder, split, images, {name: len(members) for name, members in classes.items()})


def write_array(folder: Path, split: str, images: np.ndarray, counts: Mapping[str, int]) -> None:
    """Write a split that is already an array, uint8 ``[N, H, W]`` or ``[N, H, W, C]``, sorted by class."""
    np.save(folder / f"{split}.npy", images)
    _describe(folder, split, images, counts)


def _describe(folder: Path, split: str, images: np.ndarray, counts: Mapping[str, int]) -> None:
    digest = hashlib.sha256(json.dumps([dict(counts), images.shape]).encode())
    for first in range(0, len(images), REPORT_EVERY):
        digest.update(np.ascontiguousarray(images[first : first + REPORT_EVERY]).data)
    about = {"names": list(counts), "counts": list(counts.values()), "digest": digest.hexdigest()}
    (folder / f"{split}.json").write_text(json.dumps(about))


@functools.cache
def open_split(folder: Path, split: str) -> ImageSet:
    """The prepared images of a split, memory-mapped copy-on-write so that the file can't change.

    Raises `MetabenchError` if the cached files are damaged."""
    try:
        about = json.loads((folder / f"{split}.json").read_text())
        images = np.load(folder / f"{split}.npy", mmap_mode="c")
        return ImageSet(images, np.array(about["counts"], dtype=np.int64), tuple(about["names"]), about["digest"])
    except (OSError, ValueError, KeyError) as error:
        raise MetabenchError(f"{folder} is damaged ({error}); delete it to decode the images again") from error


@dataclass(frozen=True)
class Collection:
    """How a task's images are found and decoded.

    name: of the decoded images in the cache: task, version, and all else that decides them besides the files
    find: returns the files by part, or None
    build: writes every split of these files into a folder
    missing: message that says which files to put where
    fetch: downloads the files
    """

    name: str
    find: Callable[[], Mapping[str, Path] | None]
    build: Callable[[Mapping[str, Path], Path, Progress], None]
    missing: str
    fetch: Callable[[Progress], None] | None = None


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
    _, folder = _look(collection)
    if folder is None:
        raise Unavailable(collection.missing)
    return folder.is_dir()


def _look(collection: Collection) -> tuple[Mapping[str, Path] | None, Path | None]:
    """The files, and the folder of their decoded images, which need not exist; without files, that of earlier ones."""
    files, cached = collection.find(), cache_folder() / "prepared"
    if files is not None:
        return files, cached / f"{collection.name}-{_fingerprint(files)}"
    earlier = [path for path in cached.glob(f"{collection.name}-{'[0-9a-f]' * 16}") if path.is_dir()]
    return None, max(earlier, key=lambda path: path.stat().st_mtime, default=None)


def _find_or_build(collection: Collection, progress: Progress) -> Path:
    files, folder = _look(collection)
    if folder is None and collection.fetch and not os.environ.get("METABENCH_OFFLINE"):
        try:
            collection.fetch(progress)
        except Unavailable as error:
            raise Unavailable(f"{collection.missing} ({error})") from error
        files, folder = _look(collection)
    if folder is None:
        raise Unavailable(collection.missing)
    if files is None:
        return folder
    try:
        return folder if folder.is_dir() else _build(folder, lambda to: collection.build(files, to, progress))
    except OSError as error:
        raise MetabenchError(f"{folder} can't be written: {error}") from error


def _build(folder: Path, write: Callable[[Path], None]) -> Path:
    """Fill a temporary folder and rename it. A second process waits for the first and finds the result."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = f"{folder.name}.unfinished-"
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
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


def _fingerprint(files: Mapping[str, Path]) -> str:
    """16 hexadecimal digits of the files' names, sizes and modification times."""
    digest = hashlib.sha256()
    for part, path in sorted(files.items()):
        folder, names = (path, _below(path)) if path.is_dir() else (path.parent, [path.name])
        for name in names:
            facts = os.stat(os.path.join(folder, name))
            digest.update(f"{part} {name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def download(name: str, files: Mapping[str, tuple[str, str]], progress: Progress = silent) -> None:
    """Download files (name -> address and MD5) into `download_folder`, unless they exist with the right checksum.

    Raises `Unavailable` if a package is missing, a download fails or a checksum differs."""
    try:
        import pooch
        from filelock import FileLock
    except ImportError as error:
        raise Unavailable(f"{name} can't be downloaded: the package {error.name} is not installed") from error
    folder = download_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("ERROR")
    with FileLock(folder / ".lock"):
        for file, (address, md5) in files.items():
            fetcher = pooch.HTTPDownloader(progressbar=_Bar(f"{name}: {file}", progress), timeout=(5, 30))
            try:
                pooch.retrieve(address, f"md5:{md5}", fname=file, path=folder, downloader=fetcher)
            except ValueError as error:
                raise Unavailable(f"{address} has a checksum that differs from the official file's") from error
            except Exception as error:
                raise Unavailable(f"{address} can't be downloaded: {type(error).__name__}") from error


class _Bar:
    """Progress bar with pooch's interface (``total``, ``update``, ``reset``, ``close``), as lines of text."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress, self.total, self.done = what, progress, 0, 0

    def update(self, size: int) -> None:
        before, self.done = self.done, self.done + size
        if self.total and before * 20 // self.total != self.done * 20 // self.total:
            filled = min(20, self.done * 20 // self.total)
            self.progress(f"{self.what} [{'#' * filled:.<20}] {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB")

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
