"""Tasks of the labelled images in a folder: the base of a user's own data set."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from benchmarks.api import SPLITS
from benchmarks.errors import MetabenchError
from benchmarks.images import data

#: endings of the files that count as images, in lower case; hidden files and folders never do
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class FolderTasks(data.CollectedTasks):
    """N-way K-shot classification of the images ``<folder>/<split>/<class>/*``; splits: train, validation and test.

    A subclass names its `folder` (relative to its own file, or absolute) and the `image_shape` ``(C, H, W)`` to which
    images are scaled: C is 1 (grey) or 3 (colour). A class is in one split only, and no file is there twice.
    """

    folder: ClassVar[str]
    redistributable: ClassVar[bool] = False
    equivalence_margin: ClassVar[float] = 0.01
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "5w1s": {"way": 5, "shot": 1},
        "5w5s": {"way": 5, "shot": 5},
    }

    @property
    def backbone(self) -> str:
        return "conv4-64"

    @property
    def collection(self) -> data.Collection:
        root = Path(sys.modules[type(self).__module__].__file__ or "").parent / Path(self.folder).expanduser()
        named = hashlib.sha256(repr((str(root), self.image_shape)).encode()).hexdigest()[:8]
        splits = ", ".join(f"{split}/<class>/" for split in SPLITS)
        folders = {split: root / split for split in SPLITS}
        return data.Collection(
            name=f"{self.name}-v{self.version}-{named}",
            find=lambda: folders if all(map(Path.is_dir, folders.values())) else None,
            build=functools.partial(_build, self.image_shape),
            missing=f"{self.name} needs the folder {root} with {splits}",
        )


def _build(shape: tuple[int, int, int], files: Mapping[str, Path], folder: Path, progress: data.Progress) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        with data.open_files(files[split]) as found:
            classes = _classes(found)
            if not classes:
                raise MetabenchError(f"{files[split]} has no images in folders of classes ({', '.join(ENDINGS)})")
            for label, pictures in classes.items():
                if seen.setdefault(label, split) != split:
                    raise MetabenchError(f"{files[split]}: class {label!r} is in {seen[label]}/ too")
                for picture in pictures:
                    digest = hashlib.sha256(found.read(picture.name)).hexdigest()
                    first = seen.setdefault(digest, f"{split}/{picture.name}")
                    if first != f"{split}/{picture.name}":
                        raise MetabenchError(f"{files[split]}: {picture.name} is the same file as {first}")
            data.write_pictures(folder, split, classes, functools.partial(_scaled, shape), progress)


def _classes(files: data.Files) -> dict[str, list[data.Picture]]:
    """The pictures of each class, both sorted by name."""
    classes: dict[str, list[data.Picture]] = {}
    for name in files.names:
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith((".", "@")) for part in parts)
        if len(parts) == 2 and name.lower().endswith(ENDINGS) and not hidden:
            classes.setdefault(parts[0], []).append(data.Picture(files, name))
    return classes


def _scaled(shape: tuple[int, int, int], image: Any) -> np.ndarray:
    """A `PIL.Image` as uint8 ``[H, W]`` or ``[H, W, 3]``."""
    from PIL import Image

    channels, height, width = shape
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"mode {image.mode}: images of 8 bits per channel are read")
    plain = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(plain.resize((width, height), Image.Resampling.LANCZOS))
