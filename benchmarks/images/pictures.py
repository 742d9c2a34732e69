"""Pictures in folders and zip archives: one walk and one decoder for all data sets.

Links are followed; hidden files, and those that systems leave next to pictures (``._1.png``, ``@eaDir``, ``__MACOSX``),
are no pictures. A picture that can't be read is one line with its name.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from benchmarks.errors import MetabenchError

#: endings of the files that count as pictures, in lower case
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")

#: larger archive members, in bytes, are refused: no picture of a data set is this big
LARGEST_MEMBER = 50_000_000

#: how a file begins that stands for a picture stored elsewhere, and the command that brings the picture
POINTERS = {b"/annex/objects/": "git annex get", b"version https://git-lfs": "git lfs pull"}


@dataclass(frozen=True)
class Files:
    """The pictures of a folder or a zip archive: their names, sorted, and a function that returns the bytes of one."""

    path: Path
    names: Sequence[str]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def open_files(path: Path, endings: tuple[str, ...] = ENDINGS) -> Iterator[Files]:
    """Open a folder or a zip archive in place, without unpacking.

    Raises `MetabenchError` for a damaged archive, for members that are too large or point outside it, and for links to
    pictures that aren't there."""
    if path.is_dir():
        yield Files(path, below(path, endings), lambda name: (path / name).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises NotImplementedError and struct.error, too
        raise MetabenchError(f"{path} can't be read as a zip archive: {error}") from error
    with archive:
        members = dict(_members(path, archive, endings))
        yield Files(path, sorted(members), lambda name: archive.read(members[name]))


def below(folder: Path, endings: tuple[str, ...] = ENDINGS) -> list[str]:
    """Relative paths of the pictures below a folder, sorted."""
    try:
        return sorted(_walk(str(folder), "", endings, ()))
    except OSError as error:
        raise MetabenchError(f"{folder} can't be read: {error}") from error


def _walk(folder: str, prefix: str, endings: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """above: device and inode of the folders that led here; a link back to one of them is not followed."""
    facts = os.stat(folder)
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        if _is_hidden(entry.name):
            continue
        linked = entry.is_symlink()
        if os.path.isdir(entry.path) if linked else entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", endings, (*above, here))
        elif entry.name.lower().endswith(endings):
            if linked and not os.path.exists(entry.path):
                target = os.readlink(entry.path)
                raise MetabenchError(f"{entry.path} links to {target}, which isn't there (git-annex: git annex get)")
            yield f"{prefix}{entry.name}"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "@")) or name == "__MACOSX"


def _members(path: Path, archive: zipfile.ZipFile, endings: tuple[str, ...]) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Names with slashes, whatever the archive has, and members."""
    for member in archive.infolist():
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1]):
            raise MetabenchError(f"{path}: refused, its member {member.filename!r} points outside the archive")
        if member.is_dir() or any(map(_is_hidden, name.parts)) or not name.name.lower().endswith(endings):
            continue
        if member.file_size > LARGEST_MEMBER:
            raise MetabenchError(f"{path}: refused, its member {member.filename!r} has {member.file_size} bytes")
        yield str(name), member


@dataclass(frozen=True)
class Picture:
    """A picture in a folder or archive."""

    files: Files
    name: str

    def read(self) -> bytes:
        """The bytes of the file."""
        try:
            return self.files.read(self.name)
        except Exception as error:  # zipfile raises RuntimeError, NotImplementedError and zlib.error, too
            raise self._unreadable(error) from error

    def decode(self, convert: Callable[..., np.ndarray]) -> np.ndarray:
        """Apply ``convert`` to the opened `PIL.Image`; raises `MetabenchError` with the file's name if that fails."""
        from PIL import Image, UnidentifiedImageError

        content = self.read()
        try:
            with Image.open(io.BytesIO(content)) as image:
                return convert(image)
        except UnidentifiedImageError:
            remedy = next((command for start, command in POINTERS.items() if content.startswith(start)), "")
            hint = f" but stands for one: {remedy}" if remedy else ""
            raise MetabenchError(f"{self.files.path}: {self.name} is not an image{hint}") from None
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> MetabenchError:
        reason = str(error).partition("\n")[0] or type(error).__name__
        return MetabenchError(f"{self.files.path}: {self.name} can't be decoded: {reason}")


def by_class(files: Files) -> dict[str, list[Picture]]:
    """The pictures below each folder at the top, its class; both sorted by name."""
    classes: dict[str, list[Picture]] = {}
    for name in files.names:
        label, _, rest = name.partition("/")
        if rest:
            classes.setdefault(label, []).append(Picture(files, name))
    return dict(sorted(classes.items()))


def eight_bits(image: Any, mode: str) -> Any:
    """A `PIL.Image` in mode "L" (grey) or "RGB". 16 bits of grey keep their range: 65,535 becomes 255. Transparent
    parts become white: below them, drawing and ground often have one colour.

    Raises `ValueError` for other numbers than 8 or 16 bits, whose range is unknown."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    elif image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode}: images of 8 or 16 bits per channel are read")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
