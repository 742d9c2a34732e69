"""A folder of your own pictures, named on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.images import data
from benchmarks.images.folder import FolderTasks
from benchmarks.registry import register_task

#: pixels per side: four modules of the backbone halve a picture; larger ones than this are no few-shot pictures
SMALLEST, LARGEST = 16, 1024


@register_task("image-folder")
@dataclass(frozen=True)
class ImageFolder(FolderTasks):
    """Few-shot classification of the pictures in your own folder.

    An input is float32 ``[3, size, size]`` from 0 to 1, red, green and blue; with ``colour=false`` ``[1, size, size]``.
    Pictures are squeezed to a square with Pillow's Lanczos filter. Folders and splits are those of
    `benchmarks.images.folder.FolderTasks`. Results belong to the pictures, wherever the folder lies.

    root: the folder or zip archive
    size: pixels per side
    """

    root: str = field(default="", metadata={"place": True})
    size: int = 84
    colour: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not SMALLEST <= self.size <= LARGEST:
            raise ValueError(f"size = {self.size} is not between {SMALLEST} and {LARGEST} pixels")
        if self.root:  # workers may have another current folder
            object.__setattr__(self, "root", str(Path(os.path.expanduser(self.root)).absolute()))

    @property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        return 3 if self.colour else 1, self.size, self.size

    @property
    def title(self) -> str:
        return super().title.replace(f"root={self.root}", f"root={Path(self.root).name}")

    @property
    def place(self) -> Path:
        return Path(self.root)

    @property
    def collection(self) -> data.Collection:
        if not self.root:
            raise Unavailable("image-folder has no pictures: --set image-folder.root=FOLDER, with one folder per class")
        if not self.place.exists():
            raise MetabenchError(f"image-folder.root = {self.root!r}: no such folder or zip archive")
        return super().collection
