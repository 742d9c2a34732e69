"""Glyphs: few-shot classification of characters rendered from fonts. It needs no data and no network connection."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks import sampling
from benchmarks.api import SPLITS
from benchmarks.images import data, glyph_rendering
from benchmarks.program import program_hash
from benchmarks.registry import register_task


@register_task("glyphs")
@dataclass(frozen=True)
class Glyphs(data.CollectedTasks):
    """Characters of many scripts, rendered from matplotlib's fonts (DejaVu Sans, STIX General).

    An input is a 28x28 grey image ``[1, 28, 28]``, ink 1 on paper 0. Each class has 20 drawings. Each drawing has its
    own rotation, shear, size, position, elastic distortion and stroke width; `benchmarks.images.glyph_rendering` has
    the ranges. A drawing is a function of the character and its number. Glyphs stands in where data sets are missing.
    No published number belongs to it.

    A class is an outline. Characters are compared at equal size, also rotated by 90, 180 and 270 degrees. Of those that
    look alike (Latin A, Greek Alpha and Cyrillic A; capital and small o; u and a rotated n) the first is kept, in the
    order train, validation, test. Characters that look like themselves rotated (S, H, +) are left out, because
    rotations are classes of their own. So are characters that Unicode composes from others: accented letters and
    ligatures.

    Each script belongs to one split:

    - train: Latin, Cyrillic, Arabic, Hebrew, Canadian syllabics, Lisu, mathematical operators
    - validation: Greek, Old Italic, N'Ko, Fraktur
    - test: Armenian, Georgian, Lao, Tifinagh, Ogham, mathematical script, arrows
    """

    image_shape: ClassVar[tuple[int, int, int]] = (1, glyph_rendering.SIZE, glyph_rendering.SIZE)
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "5w1s": {"way": 5, "shot": 1},
        "5w5s": {"way": 5, "shot": 5},
        "20w1s": {"way": 20, "shot": 1},
        "20w5s": {"way": 20, "shot": 5},
    }
    #: as on Omniglot, whose settings MAML takes over with 16 tasks in a meta-step
    budgets: ClassVar[Mapping[str, int]] = {
        f"{way}w{shot}s": 60_000 * 16 * way * 2 * shot for way in (5, 20) for shot in (1, 5)
    }

    rotations: bool = True

    @property
    def equivalence_margin(self) -> float:  # type: ignore[override]
        """Half a point of accuracy up to 5-way, one point above, where single classes are confused more often."""
        return 0.005 if self.way <= 5 else 0.01

    @property
    def backbone(self) -> str:
        return "conv4-64-strided"

    @property
    def collection(self) -> data.Collection:
        missing = "glyphs needs the fonts of matplotlib (DejaVuSans.ttf, STIXGeneral.ttf): pip install matplotlib"
        return data.Collection(f"glyphs-v{self.version}-{_program()}", _fonts, _build, missing)


@functools.cache
def _program() -> str:
    """A hash of the code that draws: new code means new images."""
    return program_hash([ast.parse(inspect.getsource(module)) for module in (glyph_rendering, sampling)])[:8]


def _fonts() -> dict[str, Path] | None:
    try:
        folder = glyph_rendering.font_folder()
    except ImportError:
        return None
    fonts = {name: folder / name for name in sorted({script.font for script in glyph_rendering.SCRIPTS})}
    return fonts if all(map(Path.is_file, fonts.values())) else None


def _build(files: Mapping[str, Path], folder: Path, progress: data.Progress) -> None:
    found = glyph_rendering.classes()
    for split in SPLITS:
        members = [(f"{chr(p)} ({script.name}, U+{p:04X})", ink) for script, p, ink in found if script.split == split]
        images = np.concatenate([glyph_rendering.draw(ink, name) for name, ink in members])
        data.write_array(folder, split, images, {name: glyph_rendering.DRAWINGS for name, _ in members})
        progress(f"{split}: {len(members)} characters drawn {glyph_rendering.DRAWINGS} times each")
