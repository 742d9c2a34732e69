"""Tasks of the labelled pictures in a folder: your own data set."""

from __future__ import annotations

import functools
import hashlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import sampling
from benchmarks.api import SPLITS
from benchmarks.checks import check_fields
from benchmarks.errors import MetabenchError
from benchmarks.images import data
from benchmarks.images.pictures import ENDINGS, Files, Picture, eight_bits, open_files

#: names of a split's folder, in lower case
FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
#: ending of the files that hold all pictures of a class as one array
ARRAY = ".npy"

Pictures = list[data.Readable]
Classes = dict[str, Pictures]


@dataclass(frozen=True)
class FolderTasks(data.CollectedTasks):
    """N-way K-shot classification of the pictures in a folder or zip archive.

    A class is a folder of pictures, or a file ``<class>.npy``, uint8 ``[n, H, W]`` or ``[n, H, W, 3]``. Classes lie in
    ``train/``, ``validation/`` (``val/``) and ``test/``; or side by side, then they are shared out at random. A class
    is in one split only. A picture that is there twice counts once in a class, and is refused in two.

    A subclass names its `folder` (relative to its own file, or absolute) and the `image_shape` ``(C, H, W)`` to which
    pictures are scaled: C is 1 (grey) or 3 (colour).

    validation_share, test_share: of the classes, where they lie side by side
    split_seed: which classes these are
    """

    folder: ClassVar[str]
    redistributable: ClassVar[bool] = False
    equivalence_margin: ClassVar[float] = 0.01
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "5w1s": {"way": 5, "shot": 1},
        "5w5s": {"way": 5, "shot": 5},
    }

    validation_share: float = 0.2
    test_share: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "above 0 and below 1", "validation_share", "test_share")
        if not 0 <= self.split_seed < 2**63:
            raise ValueError(f"split_seed = {self.split_seed} is not from 0 to 2**63 - 1")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave no class to train on")

    @property
    def backbone(self) -> str:
        return "conv4-64"

    @property
    def place(self) -> Path:
        """The folder or zip archive."""
        return Path(sys.modules[type(self).__module__].__file__ or "").parent / Path(self.folder).expanduser()

    @property
    def collection(self) -> data.Collection:
        shares = (self.validation_share, self.test_share, self.split_seed)
        named = hashlib.sha256(repr((str(self.place), self.image_shape, shares)).encode()).hexdigest()[:8]
        return data.Collection(
            name=f"{self.name}-v{self.version}-{named}",
            find=lambda: {"pictures": self.place} if self.place.exists() else None,
            build=self._build,
            missing=f"{self.name} needs the folder {self.place}",
            endings=(*ENDINGS, ARRAY),
        )

    def prepare(self, progress: data.Progress = data.silent) -> None:
        super().prepare(progress)
        for split in SPLITS:
            self._checked(split, self.shot, self.queries)

    def _build(self, files: Mapping[str, Path], folder: Path, progress: data.Progress) -> None:
        place = files["pictures"]
        with open_files(place, (*ENDINGS, ARRAY)) as found:
            splits = self._splits(place, _grouped(found), progress)
            _check_distinct(place, splits, progress)
            for split, classes in splits.items():
                data.write_pictures(folder, split, classes, functools.partial(_scaled, self.image_shape), progress)

    def _splits(
        self, place: Path, groups: dict[tuple[str, ...], Pictures], progress: data.Progress
    ) -> dict[str, Classes]:
        """The classes of each split. groups: pictures by the folders above them."""
        tops = {above[0] for above in groups}
        folders = {split: sorted(top for top in tops if top.lower() in names) for split, names in FOLDERS.items()}
        given = [split for split in SPLITS if folders[split]]
        if "train" not in given or len(given) == 1:
            return self._shared_out(place, _classes(groups))
        if len(given) < len(SPLITS):
            (absent,) = set(SPLITS) - set(given)
            raise MetabenchError(f"{place}: no pictures in {absent}/<class>/, but in {'/, '.join(given)}/")
        if changed := [
            name
            for name in ("validation_share", "test_share", "split_seed")
            if getattr(self, name) != getattr(type(self), name)
        ]:
            raise MetabenchError(
                f"{place} has train/, validation/ and test/: {', '.join(changed)} would have no effect"
            )
        if others := sorted(tops - set().union(*folders.values())):
            progress(f"{', '.join(others)}: not in a split, ignored")
        return {
            split: _classes({above[1:]: each for above, each in groups.items() if above[0] in folders[split]})
            for split in SPLITS
        }

    def _shared_out(self, place: Path, classes: Classes) -> dict[str, Classes]:
        if not classes:
            raise MetabenchError(f"{place} has no images in folders of classes ({', '.join(ENDINGS)}, {ARRAY})")
        names = list(classes)
        validation, test = (round(share * len(names)) for share in (self.validation_share, self.test_share))
        sizes = (len(names) - validation - test, validation, test)
        if min(sizes) < self.way:
            raise MetabenchError(
                f"{place} has {len(names)} classes, {sizes[0]} to train, {sizes[1]} for validation and {sizes[2]} to "
                f"test: {self.way} of each are needed ({self.id}, validation_share, test_share)"
            )
        key = sampling.stream("image-folder-v1", "classes")
        order = sampling.permutations(key, [self.split_seed], len(names))[0].tolist()
        of = dict(zip((names[i] for i in order), np.repeat(SPLITS, sizes).tolist(), strict=True))
        return {split: {name: classes[name] for name in names if of[name] == split} for split in SPLITS}


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """One picture of an array."""

    name: str
    pixels: np.ndarray

    def read(self) -> bytes:
        return repr(self.pixels.shape).encode() + self.pixels.tobytes()

    def decode(self, convert: Any) -> np.ndarray:
        from PIL import Image

        decoded: np.ndarray = convert(Image.fromarray(self.pixels))
        return decoded


def _grouped(files: Files) -> dict[tuple[str, ...], Pictures]:
    """The pictures by the folders above them, without the folders that lie above all; an array is a folder."""
    groups: dict[tuple[str, ...], Pictures] = {}
    for name in files.names:
        above = tuple(name.removesuffix(ARRAY).split("/"))
        if name.endswith(ARRAY):
            groups.setdefault(above, []).extend(_array_pictures(files, name))
        elif len(above) > 1:
            groups.setdefault(above[:-1], []).append(Picture(files, name))
    while groups and min(map(len, groups)) > 1 and len({above[0] for above in groups}) == 1:
        groups = {above[1:]: pictures for above, pictures in groups.items()}
    return groups


def _array_pictures(files: Files, name: str) -> Pictures:
    content = Picture(files, name).read()
    try:
        images = np.lib.format.read_array(io.BytesIO(content))
    except Exception as error:  # numpy lets errors of tokenize through
        reason = str(error).partition("\n")[0]
        raise MetabenchError(f"{files.path}: {name} is not an array: {reason}") from error
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        hint = "; channels come last" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise MetabenchError(
            f"{files.path}: {name} is {images.dtype} {list(images.shape)}, not uint8 [n, height, width] or "
            f"[n, height, width, 3]{hint}"
        )
    return [ArrayPicture(f"{name}[{number}]", pixels) for number, pixels in enumerate(images)]


def _classes(groups: Mapping[tuple[str, ...], Pictures]) -> Classes:
    """Classes by the folder at the top, as torchvision's ImageFolder has it, sorted."""
    classes: Classes = {}
    for above in sorted(groups):
        if above:
            classes.setdefault(above[0], []).extend(groups[above])
    return classes


def _check_distinct(place: Path, splits: Mapping[str, Classes], progress: data.Progress) -> None:
    """Drop copies within a class. Raises `MetabenchError` for a picture in two classes, or a class in two splits."""
    seen: dict[str, tuple[str, str, str]] = {}
    of: dict[str, str] = {}
    for split, classes in splits.items():
        for label, pictures in classes.items():
            if of.setdefault(label, split) != split:
                raise MetabenchError(
                    f"{place}: class {label!r} is in {of[label]}/ and in {split}/; splits share no class (put the "
                    f"classes side by side, without such folders, to have them shared out)"
                )
            kept = []
            for picture in pictures:
                digest = hashlib.sha256(picture.read()).hexdigest()
                *first_in, first = seen.setdefault(digest, (split, label, picture.name))
                if first_in != [split, label]:
                    raise MetabenchError(
                        f"{place}: {picture.name} of class {label!r} is the same picture as {first} of "
                        f"class {first_in[1]!r}"
                    )
                if first == picture.name:
                    kept.append(picture)
                else:
                    progress(f"{picture.name} is the same picture as {first}: ignored")
            pictures[:] = kept


def _scaled(shape: tuple[int, int, int], image: Any) -> np.ndarray:
    """A `PIL.Image` as uint8 ``[H, W]`` or ``[H, W, 3]``, turned as its camera says."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    plain = eight_bits(image, "L" if channels == 1 else "RGB")
    upright = ImageOps.exif_transpose(plain)
    return np.asarray(upright.resize((width, height), Image.Resampling.LANCZOS))
