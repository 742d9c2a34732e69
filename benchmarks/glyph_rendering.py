"""Glyphs from fonts as images: which characters of which scripts, which of them look alike, and twenty drawings of each.

A character is rendered once, large, and turned into a signed distance to its outline. A drawing samples that distance
at displaced positions: an affine and an elastic distortion displace the positions, a shift of the distance makes the
stroke thicker or thinner (what dilation and erosion with a disc do), and a soft threshold at the outline antialiases.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import sampling

#: height and width of a drawing, and drawings per class
SIZE = 28
DRAWINGS = 20

#: side of the canvas a character is rendered on, and of the box that its ink fills, in canvas pixels
CANVAS = 96
BOX = 64
#: canvas pixels per pixel of a drawing: the box is 20 pixels of 28 before distortion
_PIXEL = BOX / 20.0
_FONT_SIZE = 160

#: side of the image in which outlines are compared, and how far apart two lines still count as one, in its pixels
COMPARED = 40
TOLERANCE = 2
#: two outlines are the same if no more than this share of either's ink is farther than the tolerance from the other's
ALIKE = 0.03


@dataclass(frozen=True)
class Script:
    """A script (or a family of signs): its split, the font it is taken from, and its ranges of code points."""

    name: str
    split: str
    ranges: tuple[tuple[int, int], ...]
    font: str = "DejaVuSans.ttf"


#: an outline that several scripts have belongs to the first of them
SCRIPTS = (
    Script(
        "Latin",
        "train",
        (
            (0x30, 0x39),
            (0x41, 0x5A),
            (0x61, 0x7A),
            (0xC6, 0x2AF),
            (0x1D00, 0x1D2B),
            (0x1D6B, 0x1D77),
            (0x1D79, 0x1D9A),
            (0x1E00, 0x1EFF),
            (0x2C60, 0x2C7F),
            (0xA722, 0xA7FF),
        ),
    ),
    Script("Cyrillic", "train", ((0x400, 0x52F), (0xA640, 0xA69F))),
    Script("Arabic", "train", ((0x621, 0x64A), (0x660, 0x6D5), (0x6EE, 0x6FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC))),
    Script("Hebrew", "train", ((0x5D0, 0x5EA), (0xFB20, 0xFB4F))),
    Script("Canadian syllabics", "train", ((0x1401, 0x1676),)),
    Script("mathematical operators", "train", ((0x2200, 0x22FF), (0x2A00, 0x2AFF))),
    Script("Greek", "validation", ((0x370, 0x3FF),)),
    Script("Lisu", "validation", ((0xA4D0, 0xA4FF),)),
    Script("Old Italic", "validation", ((0x10300, 0x1032F),)),
    Script("N'Ko", "validation", ((0x7C0, 0x7FA),)),
    Script("Fraktur", "validation", ((0x1D56C, 0x1D59F),), "STIXGeneral.ttf"),
    Script("Armenian", "test", ((0x531, 0x58F),)),
    Script("Georgian", "test", ((0x10A0, 0x10FF), (0x2D00, 0x2D2F))),
    Script("Lao", "test", ((0xE81, 0xEDF),)),
    Script("Tifinagh", "test", ((0x2D30, 0x2D7F),)),
    Script("Ogham", "test", ((0x1680, 0x169C),)),
    Script("mathematical script", "test", ((0x1D49C, 0x1D4CF),), "STIXGeneral.ttf"),
    Script("arrows", "test", ((0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2900, 0x297F))),
)


def font_folder() -> Path:
    """Where matplotlib keeps its fonts."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def characters(script: Script) -> list[int]:
    """The code points of a script that its font has: letters, digits and symbols, without those that Unicode composes
    of others (accented copies, ligatures)."""
    from matplotlib.ft2font import FT2Font

    has = FT2Font(str(font_folder() / script.font)).get_charmap()
    points = (point for first, last in script.ranges for point in range(first, last + 1))
    return [point for point in points if point in has and _simple(chr(point))]


def _simple(character: str) -> bool:
    composed = unicodedata.normalize("NFD", character) != character or len(unicodedata.normalize("NFKD", character)) > 1
    return unicodedata.category(character)[0] in "LNS" and not composed


def masks(script: Script, points: Sequence[int]) -> np.ndarray:
    """The ink of characters, bool ``[n, CANVAS, CANVAS]``: scaled so that the longer side of its box is BOX, centred.
    Capital and small o come out the same."""
    from PIL import Image, ImageFont

    font = ImageFont.truetype(font_folder() / script.font, _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    ink = np.zeros((len(points), CANVAS, CANVAS), dtype=bool)
    for row, point in enumerate(points):
        mask = font.getmask(chr(point), mode="L")
        whole = Image.frombytes("L", mask.size, bytes(mask)) if min(mask.size) else Image.new("L", (1, 1))
        box = whole.getbbox()
        if box is None:
            continue
        scale = BOX / max(box[2] - box[0], box[3] - box[1])
        size = [max(1, round(scale * (box[axis + 2] - box[axis]))) for axis in (0, 1)]
        left, top = ((CANVAS - side) // 2 for side in size)
        pixels = np.asarray(whole.resize(tuple(size), Image.Resampling.BOX, box=box))
        ink[row, top : top + size[1], left : left + size[0]] = pixels >= 128
    return ink
