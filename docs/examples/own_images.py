"""Few-shot classification of your own photographs: a folder with train/, validation/ and test/, each with one folder
per class."""

from dataclasses import dataclass

from benchmarks.images.folder import FolderTasks
from benchmarks.registry import register_task


@register_task("leaves")
@dataclass(frozen=True)
class Leaves(FolderTasks):
    """Photographs of leaves, 84x84 pixels in colour, float32 ``[3, 84, 84]`` from 0 to 1; a class is a species.

    The species of train/, validation/ and test/ differ. Taken by the author in 2026.
    """

    folder = "leaves"  # next to this file, or an absolute path
    image_shape = (3, 84, 84)
