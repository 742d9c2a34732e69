"""mini-ImageNet: photographs of 100 ImageNet classes.

Data set: Vinyals et al., "Matching networks for one shot learning", 2016. Split: Ravi and Larochelle, "Optimization as
a model for few-shot learning", 2017.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from benchmarks.api import SPLITS
from benchmarks.errors import MetabenchError
from benchmarks.images import data
from benchmarks.images.pickles import load_arrays
from benchmarks.images.pictures import ENDINGS, Files, Picture, by_class, eight_bits, open_files
from benchmarks.images.tables import read_table
from benchmarks.registry import register_task

#: classes per split
CLASSES = {"train": 64, "validation": 16, "test": 20}
IMAGES_PER_CLASS = 600
SIDE = 84

#: names of the data set's folder
NAMES = ("mini-imagenet", "miniimagenet", "miniImagenet", "mini_imagenet")
#: split names in file names
FILE_NAMES: dict[str, Sequence[str]] = {
    "train": ("train",),
    "validation": ("val", "validation", "valid"),
    "test": ("test",),
}
#: pickled arrays; tables with the pictures in archives or one folder; a folder per class
LAYOUTS: tuple[dict[str, Sequence[str]], ...] = (
    {split: [f"mini-imagenet-cache-{name}.pkl" for name in names] for split, names in FILE_NAMES.items()},
    {
        **{f"{split} csv": [f"{name}.csv" for name in names] for split, names in FILE_NAMES.items()},
        **{
            split: [*(f"images_{name}.zip" for name in names), "images.zip", "images"]
            for split, names in FILE_NAMES.items()
        },
    },
    FILE_NAMES,
)
MISSING = (
    "miniimagenet: no images found, and ImageNet's terms forbid a download by us; put into "
    "$METABENCH_DATA/mini-imagenet train.csv, val.csv and test.csv (Ravi and Larochelle) with the folder images/, "
    "images.zip or images_train.zip, images_val.zip and images_test.zip; or mini-imagenet-cache-train.pkl, -val.pkl "
    "and -test.pkl; or train/<class>/, val/<class>/ and test/<class>/"
)
Classes = dict[str, list[Picture]]


@register_task("miniimagenet")
@dataclass(frozen=True)
class MiniImageNet(data.CollectedTasks):
    """Few-shot recognition of photographs: 100 ImageNet classes of 600 images each.

    | | |
    | --- | --- |
    | input | float32 ``[3, 84, 84]``, red, green and blue from 0 to 1 |
    | label | 0 to way - 1, in random order within the episode |
    | images | 84x84 as found; larger ones are squeezed with Pillow's Lanczos filter, as in the MAML code |
    | splits | 64 classes for meta-training, 16 for validation, 20 for test (Ravi and Larochelle) |
    | source | ILSVRC-2012, for non-commercial research and education only: never downloaded by the suite |

    Vinyals et al. split another 100 classes, so their numbers are not comparable. Several copies of the data set
    circulate, resized and compressed differently; the record's data digest tells them apart. Values range from 0 to 1,
    as in the MAML code; learn2learn leaves them between 0 and 255. Each class has 15 queries; the MAML paper trains
    with 15 and tests with K.
    """

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "5w1s": {"way": 5, "shot": 1},
        "5w5s": {"way": 5, "shot": 5},
    }
    #: MAML's: 60,000 meta-steps of 4 tasks (5-shot: 2) with 15 queries per class
    budgets: ClassVar[Mapping[str, int]] = {"5w1s": 60_000 * 4 * 5 * (1 + 15), "5w5s": 60_000 * 2 * 5 * (5 + 15)}
    equivalence_margin: ClassVar[float] = 0.010
    redistributable: ClassVar[bool] = False
    image_shape: ClassVar[tuple[int, int, int]] = (3, SIDE, SIDE)

    @property
    def backbone(self) -> str:
        return "conv4-32"

    @property
    def collection(self) -> data.Collection:
        own = [name for names in FILE_NAMES.values() for name in names]
        find = functools.partial(data.find_layout, NAMES, LAYOUTS, own)
        return data.Collection(f"miniimagenet-v{self.version}", find, _build, MISSING)


def _build(files: Mapping[str, Path], folder: Path, progress: data.Progress) -> None:
    def report(line: str) -> None:
        progress(f"mini-ImageNet {line}")

    if files["train"].suffix == ".pkl":
        _check_disjoint({split: _copy_cache(files[split], folder, split, report) for split in SPLITS})
        return
    seen: dict[str, str] = {}
    with contextlib.ExitStack() as opened:
        found = {path: opened.enter_context(open_files(path)) for path in {files[split] for split in SPLITS}}
        splits = {split: _classes(files.get(f"{split} csv"), found[files[split]], split, seen) for split in SPLITS}
        _check_disjoint(splits)
        for split, classes in splits.items():
            data.write_pictures(folder, split, classes, shrink, report)


def _classes(table: Path | None, files: Files, split: str, seen: dict[str, str]) -> Classes:
    if table is not None:
        return read_classes(table, files, split, seen)
    classes = by_class(files)
    _check_counts(files.path, split, {label: len(pictures) for label, pictures in classes.items()})
    return classes


def read_classes(table: Path, files: Files, split: str, seen: dict[str, str]) -> Classes:
    """The images of each class, sorted, from a csv with the columns filename and label (or image_name and class_name).

    seen: where each file was listed so far, by this table or another; it is added to.

    Raises `MetabenchError` if an image is missing or listed twice, or a class or image count is wrong."""
    members: dict[str, list[str]] = {}
    for name in files.names:
        members.setdefault(_stem(name), []).append(name)
    classes: Classes = {}
    for label, filename in sorted(read_table(table, ("label", "class_name"), ("filename", "image_name"))):
        here = f"class {label} ({table.name})"
        found = members.get(_stem(filename), [])
        found = [name for name in found if PurePosixPath(name).parent.name == label] or found
        if not found:
            raise MetabenchError(f"{files.path}: {filename} of {here} is missing")
        if len(found) > 1:
            raise MetabenchError(f"{files.path}: {filename} of {here} is there twice, as {found[0]} and {found[1]}")
        if found[0] in seen:
            raise MetabenchError(f"{table}: {filename} is listed twice, in {seen[found[0]]} and in {here}")
        seen[found[0]] = here
        classes.setdefault(label, []).append(Picture(files, found[0]))
    _check_counts(table, split, {label: len(pictures) for label, pictures in classes.items()})
    return classes


def _stem(name: str) -> str:
    """A file's name without folder and ending: tables and files may differ in both."""
    path = PurePosixPath(name.replace("\\", "/").lower())
    return path.stem if path.suffix in ENDINGS else path.name


def _check_counts(path: Path, split: str, counts: Mapping[str, int]) -> None:
    if len(counts) != CLASSES[split]:
        raise MetabenchError(f"{path}: {len(counts)} classes, {CLASSES[split]} expected in the {split} split")
    for label, images in counts.items():
        if images != IMAGES_PER_CLASS:
            raise MetabenchError(f"{path}: class {label} has {images} images, {IMAGES_PER_CLASS} expected")


def _check_disjoint(splits: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for split, classes in splits.items():
        for label in classes:
            if seen.setdefault(label, split) != split:
                raise MetabenchError(f"miniimagenet: class {label} is in the {seen[label]} and in the {split} split")


def shrink(image: Any) -> np.ndarray:
    """A photograph as uint8 ``[84, 84, 3]``."""
    from PIL import Image

    colours = eight_bits(image, "RGB")
    if colours.size != (SIDE, SIDE):
        colours = colours.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(colours)


def _copy_cache(path: Path, folder: Path, split: str, progress: data.Progress) -> dict[str, int]:
    """Write the images of a mini-imagenet-cache pickle, sorted by class; returns the image count of each class."""
    progress(f"{split}: reading {path.name}")
    try:
        images, members = read_cache(path)
    except Exception as error:  # a damaged pickle raises any kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MetabenchError(f"{path} is not a mini-imagenet-cache of arrays: {reason}") from error
    counts = {label: len(members[label]) for label in sorted(members)}
    _check_counts(path, split, counts)
    data.write_array(folder, split, images[np.concatenate([members[label] for label in counts])], counts)
    return counts


def read_cache(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """``image_data``, uint8 ``[N, 84, 84, 3]``, and ``class_dict``, the image numbers of each class."""
    content = load_arrays(path)
    images, members = content["image_data"], content["class_dict"]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"image_data is not a uint8 array [N, {SIDE}, {SIDE}, 3]")
    numbers = {str(label): np.asarray(each) for label, each in members.items()}
    seen: dict[int, str] = {}
    for label, each in numbers.items():
        if each.ndim != 1 or each.dtype.kind not in "iu" or not np.isin(each, np.arange(len(images))).all():
            raise ValueError(f"class {label} refers to images that do not exist")
        for number in each.tolist():
            if number in seen:
                raise ValueError(f"image {number} is listed twice, in class {seen[number]} and in class {label}")
            seen[number] = label
    return images, numbers
