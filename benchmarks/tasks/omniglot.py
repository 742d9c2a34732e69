"""Omniglot: handwritten characters of 50 alphabets.

Data set: Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction",
Science 350 (2015). Few-shot task: Vinyals et al., "Matching networks for one shot learning", 2016.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from benchmarks import sampling
from benchmarks.api import SPLITS
from benchmarks.errors import MetabenchError
from benchmarks.images import data
from benchmarks.images.download import download
from benchmarks.images.pictures import Files, Picture, eight_bits, open_files
from benchmarks.registry import register_task

#: characters in each part, and the number of its first character
PARTS = {"images_background": (964, 1), "images_evaluation": (659, 965)}
DRAWINGS = 20
#: sizes of the shuffled splits: meta-training, validation and test, of 1,623 characters
SHUFFLED_SIZES = (1100, 100, 423)
VALIDATION_ALPHABETS = 5

#: folders and files of the owner's repository, also as a clone, and of torchvision
NAMES = ("omniglot", "omniglot-py")
LAYOUT = {part: [f"{folder}{part}{ending}" for folder in ("", "python/") for ending in (".zip", "")] for part in PARTS}

_OWNER = "https://raw.githubusercontent.com/brendenlake/omniglot/057f034baf2ecb8530bc5710e5a23584d2a519cc/python"
DOWNLOADS = {
    "images_background.zip": (f"{_OWNER}/images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
    "images_evaluation.zip": (f"{_OWNER}/images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
}
MISSING = (
    "omniglot: no images found; put images_background.zip and images_evaluation.zip (or the "
    "unpacked folders, or a clone) of github.com/brendenlake/omniglot into $METABENCH_DATA/omniglot"
)

_DRAWING = re.compile(r"(?:.*/)?([^/]+/character\d+)/(\d{4})_\d{2}\.png", re.IGNORECASE)
Characters = dict[str, list[Picture]]


@register_task("omniglot")
@dataclass(frozen=True)
class Omniglot(data.CollectedTasks):
    """Few-shot recognition of handwritten characters: 1,623 characters of 50 alphabets, 20 drawings each.

    | | |
    | --- | --- |
    | input | float32 ``[1, 28, 28]``, ink 1, paper 0 |
    | label | 0 to way - 1, in random order within the episode |
    | images | 105x105, 1 bit; as 8 bits resized to 28x28 with Pillow's Lanczos filter, ink made bright |
    | classes | characters; each rotation by 0, 90, 180 or 270 degrees is a class of its own |
    | source | github.com/brendenlake/omniglot, MIT licence; downloaded from there if missing |

    characters: how classes are split. ``shuffled``: 1,100 characters for meta-training, 100 for validation and 423 for
        test, as in the MAML paper. Its own list is not published; here the official numbers 0001 to 1623 are permuted
        by ``sampling.permutations(stream("omniglot-v1", "characters"), [0], 1623)`` and cut in this order. ``lake``
        (variants ending in -lake): the 659 evaluation characters are the test split. Of the 964 background characters,
        the 162 of five alphabets (Asomtavruli, Braille, Burmese, Gujarati, Ojibwe: drawn the same way from the sorted
        names, stream "alphabets") are for validation and the other 802 for meta-training.
    rotations_at_test: rotations are classes at test too, as in the MAML paper; torchmeta and Reptile do not rotate at
        test.

    Deviations from the MAML paper: the split above, and 15 queries per class at test (the paper: K). Two of the 20
        drawings of Braille/character01 are the same image, in the original too.
    """

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"{way}w{shot}s{suffix}": {"way": way, "shot": shot, "characters": characters}
        for suffix, characters in (("", "shuffled"), ("-lake", "lake"))
        for way in (5, 20)
        for shot in (1, 5)
    }
    #: MAML's: 60,000 meta-steps of 32 tasks (20-way: 16) with as many queries as shots
    budgets: ClassVar[Mapping[str, int]] = {
        name: 60_000 * (32 if fields["way"] == 5 else 16) * fields["way"] * 2 * fields["shot"]
        for name, fields in variants.items()
    }
    image_shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)

    rotations: bool = True
    rotations_at_test: bool = True
    characters: Literal["shuffled", "lake"] = "shuffled"

    @property
    def equivalence_margin(self) -> float:  # type: ignore[override]
        return 0.002 if self.way <= 5 else 0.005

    @property
    def backbone(self) -> str:
        return "conv4-64-strided"

    def turns(self, split: str) -> int:
        return 4 if self.rotations and (self.rotations_at_test or split != "test") else 1

    @property
    def collection(self) -> data.Collection:
        return data.Collection(
            name=f"omniglot-v{self.version}-{self.characters}",
            find=lambda: data.find_layout(NAMES, [LAYOUT]),
            build=lambda files, folder, report: _build(files, folder, self.characters, report),
            missing=MISSING,
            fetch=lambda report: download("omniglot", DOWNLOADS, report),
        )


def _build(files: Mapping[str, Path], folder: Path, split_by: str, progress: data.Progress) -> None:
    with contextlib.ExitStack() as opened:
        found = {part: read_characters(opened.enter_context(open_files(files[part])), part) for part in PARTS}
        background, evaluation = found.values()
        for split, characters in split_characters(background, evaluation, split_by).items():
            data.write_pictures(folder, split, characters, shrink, lambda line: progress(f"omniglot {line}"))


def read_characters(files: Files, part: str) -> Characters:
    """The drawings of each character of a part, ordered by official number.

    Raises `MetabenchError` if a file name, a character or a drawing count is wrong."""
    by_number: dict[int, tuple[str, list[Picture]]] = {}
    for name in files.names:
        match = _DRAWING.fullmatch(name)
        if match is None:
            raise MetabenchError(f"{files.path}: {name} is not <Alphabet>/characterNN/XXXX_YY.png")
        character, drawings = by_number.setdefault(int(match[2]), (match[1], []))
        if character != match[1]:
            raise MetabenchError(f"{files.path}: {name} and {character} share a number")
        drawings.append(Picture(files, name))
    _check_counts(files.path, part, {number: (name, len(all_)) for number, (name, all_) in by_number.items()})
    return dict(by_number[number] for number in sorted(by_number))


def _check_counts(path: Path, part: str, found: Mapping[int, tuple[str, int]]) -> None:
    """Compare with `PARTS` and `DRAWINGS`. found: character number -> its name and its count of drawings."""
    characters, first = PARTS[part]
    expected = range(first, first + characters)
    wrong = [f"number {number:04} is missing" for number in expected if number not in found]
    wrong += [f"{name} belongs to another part" for number, (name, _) in found.items() if number not in expected]
    if wrong:
        raise MetabenchError(f"{path}: {len(found)} characters, {characters} expected; {wrong[0]}")
    for name, drawings in found.values():
        if drawings != DRAWINGS:
            raise MetabenchError(f"{path}: {name} has {drawings} drawings, {DRAWINGS} expected")


def shrink(image: Any) -> np.ndarray:
    """A 105x105 drawing as uint8 ``[28, 28]``, ink 255 and paper 0. Raises `ValueError` for another size."""
    from PIL import Image

    if image.size != (105, 105):
        raise ValueError(f"it is {image.size[0]}x{image.size[1]}, not 105x105")
    # Pillow ignores the filter for 1-bit images and takes the nearest pixel
    return 255 - np.asarray(eight_bits(image, "L").resize((28, 28), Image.Resampling.LANCZOS))


def split_characters(background: Characters, evaluation: Characters, split_by: str) -> dict[str, Characters]:
    """The characters of each split, ``shuffled`` or ``lake``, ordered by official number."""
    characters = {**background, **evaluation}
    names = list(characters)
    if split_by == "lake":
        alphabets = sorted({alphabet_of(name) for name in background})
        held_out = [alphabets[i] for i in _shuffled("alphabets", len(alphabets))[:VALIDATION_ALPHABETS]]
        of = {name: "validation" if alphabet_of(name) in held_out else "train" for name in background}
        of |= dict.fromkeys(evaluation, "test")
    else:
        in_order = np.repeat(SPLITS, SHUFFLED_SIZES).tolist()
        of = {names[i]: split for i, split in zip(_shuffled("characters", len(names)), in_order, strict=True)}
    return {split: {name: characters[name] for name in names if of[name] == split} for split in SPLITS}


def _shuffled(what: str, count: int) -> Sequence[int]:
    order: list[int] = sampling.permutations(sampling.stream("omniglot-v1", what), [0], count)[0].tolist()
    return order


def alphabet_of(character: str) -> str:
    """The alphabet of a character: ``Greek`` of ``Greek/character03``."""
    return character.partition("/")[0]
