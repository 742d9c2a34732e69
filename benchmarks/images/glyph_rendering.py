"""Glyph images from fonts: the characters of each script, the distinct ones, and twenty drawings of each.

A character is rendered once, large, and converted to a signed distance from its outline. A drawing samples that
distance at displaced positions. An affine and an elastic distortion displace the positions. An offset of the distance
changes the stroke width, like dilation or erosion with a disc. A soft threshold at the outline antialiases.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import sampling
from benchmarks.sampling import between

#: side of a drawing in pixels, and drawings per class
SIZE = 28
DRAWINGS = 20

#: sides of the canvas for rendering and of the box that the ink fills, in canvas pixels
CANVAS = 96
BOX = 64
#: canvas pixels per pixel of a drawing: the box is 20 pixels of 28 before distortion
_PIXEL = BOX / 20.0
_FONT_SIZE = 160

#: Outlines are compared at half the canvas's size. Two are alike if at most this share of either's ink lies farther
#: than the tolerance (in pixels of that size, 32 to the box) from the other's. This merges a capital and its small form
#: that differ in weight only, u and a rotated n, 8 and its rotation, one dot and two. Anything still distinguishable in
#: 28x28 pixels after distortion stays separate.
TOLERANCE = 1.5
ALIKE = 0.04

#: uniform ranges of the distortions: radians; share; log of the size; drawing pixels; share of the stroke width
ROTATION = (-0.2, 0.2)
SHEAR = (-0.25, 0.25)
LOG_SCALE = (-0.2, 0.1)
SHIFT = (-1.5, 1.5)
STROKE = (-0.4, 0.4)
#: elastic distortion: standard deviation, in drawing pixels, of the displacements at the knots of a square grid
ELASTIC = 1.1
KNOTS = 5
#: bounds of a stroke's half width, in canvas pixels
HALF_WIDTH = (2.2, 7.0)


@dataclass(frozen=True)
class Script:
    """A script or family of signs: its split, its ranges of code points, and the file name of its font."""

    name: str
    split: str
    ranges: tuple[tuple[int, int], ...]
    font: str = "DejaVuSans.ttf"


#: digits, the alphabet, its extensions, phonetic letters
_LATIN = (
    *((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0xC6, 0x2AF), (0x1D00, 0x1D2B), (0x1D6B, 0x1D77), (0x1D79, 0x1D9A)),
    *((0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA722, 0xA7FF)),
)

#: an outline in several scripts belongs to the first of them
SCRIPTS = (
    Script("Latin", "train", _LATIN),
    Script("Cyrillic", "train", ((0x400, 0x52F), (0xA640, 0xA69F))),
    Script("Arabic", "train", ((0x621, 0x64A), (0x660, 0x6D5), (0x6EE, 0x6FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC))),
    Script("Hebrew", "train", ((0x5D0, 0x5EA), (0xFB20, 0xFB4F))),
    Script("Canadian syllabics", "train", ((0x1401, 0x1676),)),
    Script("Lisu", "train", ((0xA4D0, 0xA4FF),)),
    Script("mathematical operators", "train", ((0x2200, 0x22FF), (0x2A00, 0x2AFF))),
    Script("Greek", "validation", ((0x370, 0x3FF),)),
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
    """Folder of matplotlib's fonts."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def characters(script: Script) -> list[int]:
    """Code points of a script that its font has: letters, digits and symbols, without composed ones (accents,
    ligatures)."""
    from matplotlib.ft2font import FT2Font

    has = FT2Font(str(font_folder() / script.font)).get_charmap()
    points = (point for first, last in script.ranges for point in range(first, last + 1))
    return [point for point in points if point in has and _simple(chr(point))]


def _simple(character: str) -> bool:
    composed = unicodedata.normalize("NFD", character) != character or len(unicodedata.normalize("NFKD", character)) > 1
    return unicodedata.category(character)[0] in "LNS" and not composed


def masks(script: Script, points: Sequence[int]) -> np.ndarray:
    """Ink of characters, bool ``[n, CANVAS, CANVAS]``, centred and scaled so that the longer side of its box is BOX.

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
        width, height = (max(1, round(scale * (box[axis + 2] - box[axis]))) for axis in (0, 1))
        left, top = (CANVAS - width) // 2, (CANVAS - height) // 2
        pixels = np.asarray(whole.resize((width, height), Image.Resampling.BOX, box=box))
        ink[row, top : top + height, left : left + width] = pixels >= 128
    return ink


def distinct(ink: np.ndarray) -> np.ndarray:
    """Numbers, in order, of the characters that are classes; ink is bool ``[n, CANVAS, CANVAS]``.

    Of characters that are alike, directly or rotated by 90, 180 or 270 degrees, the first is kept. A character that
    looks like its own rotation is dropped, because its rotations would be indistinguishable classes."""
    far = _farness(ink)
    symmetric = far[1:].diagonal(axis1=1, axis2=2).min(axis=0) <= ALIKE
    alike = far.min(axis=0) <= ALIKE
    kept: list[int] = []
    for number in np.flatnonzero(~symmetric & ink.any(axis=(1, 2))):
        if not alike[number, kept].any():
            kept.append(int(number))
    return np.array(kept, dtype=np.int64)


def _farness(ink: np.ndarray) -> np.ndarray:
    """Dissimilarity of all pairs for rotations by 0, 90, 180 and 270 degrees, float32 ``[4, n, n]``.

    It is the share of one character's ink that lies far from the other's, the larger of both directions."""
    from scipy.ndimage import distance_transform_edt

    half = ink.reshape(len(ink), CANVAS // 2, 2, CANVAS // 2, 2).mean(axis=(2, 4)) >= 0.5
    near = np.stack([distance_transform_edt(~mask) <= TOLERANCE for mask in half]).astype(np.float32)
    share = half / np.maximum(half.sum(axis=(1, 2), keepdims=True), 1).astype(np.float32)
    # [i, j]: the share of i's ink that lies near j's; turning j one way is turning i the other way
    turned = [np.rot90(near, quarter, (1, 2)).reshape(len(ink), -1) for quarter in range(4)]
    covered = [share.reshape(len(ink), -1) @ each.T for each in turned]
    return 1.0 - np.stack([np.minimum(covered[quarter], covered[-quarter].T) for quarter in range(4)])


def draw(ink: np.ndarray, name: str) -> np.ndarray:
    """Drawings of one character, uint8 ``[DRAWINGS, SIZE, SIZE]``, ink 255 on paper 0; a function of ink and name."""
    from scipy.ndimage import distance_transform_edt, map_coordinates

    key = sampling.stream("glyphs", name)
    # to the outline, in canvas pixels, positive in the ink
    distance = (distance_transform_edt(ink) - distance_transform_edt(~ink)).astype(np.float32)
    numbers = sampling.uniform(key, range(DRAWINGS), 7)
    places = _places(numbers[:, :6], sampling.normal(key, range(DRAWINGS), 2 * KNOTS**2, first=8))
    sampled = map_coordinates(distance, places, order=1, mode="nearest")
    stroke = between(STROKE, numbers[:, 6])
    half_width = np.clip(2.0 * distance[ink].mean(), *HALF_WIDTH)
    thicker = np.maximum(half_width * (1.0 + stroke), HALF_WIDTH[0]) - half_width
    cover = np.clip(0.5 + (sampled + thicker[:, None, None]) / _PIXEL, 0.0, 1.0)
    return np.round(255.0 * cover).astype(np.uint8)


def _places(numbers: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Canvas position (row, column) at which each pixel is sampled: float64 ``[2, DRAWINGS, SIZE, SIZE]``; from uniform
    numbers ``[DRAWINGS, 6]`` for rotation, shear, two sizes, two shifts, and normal ones ``[DRAWINGS, 2 KNOTS^2]``."""
    turn, shear = between(ROTATION, numbers[:, 0]), between(SHEAR, numbers[:, 1])
    size = np.exp(between(LOG_SCALE, numbers[:, 2:4]))
    cosine, sine = np.cos(turn), np.sin(turn)
    rows = np.stack((cosine, -sine), axis=-1) / size[:, :1]
    columns = np.stack((sine + shear * cosine, cosine - shear * sine), axis=-1) / size[:, 1:]
    matrix = np.stack((rows, columns), axis=1)
    grid = np.stack(np.meshgrid(*2 * (np.arange(SIZE) - (SIZE - 1) / 2,), indexing="ij"))
    weights = _spline_weights()
    bent = ELASTIC * (weights @ knots.reshape(DRAWINGS, 2, KNOTS, KNOTS) @ weights.T)
    moved = grid + bent - between(SHIFT, numbers[:, 4:, None, None])
    return (np.einsum("dab,dbij->adij", matrix, moved) * _PIXEL) + (CANVAS - 1) / 2


def _spline_weights() -> np.ndarray:
    """Weight of each knot for each row of pixels, ``[SIZE, KNOTS]``.

    The weights are Gaussians as wide as the knots' spacing. Their squares sum to one, so that a displacement has the
    standard deviation of a knot."""
    apart = SIZE / (KNOTS - 1)
    steps = (np.arange(SIZE)[:, None] + 0.5 - apart * np.arange(KNOTS)) / apart
    weights = np.exp(-0.5 * (steps / 0.7) ** 2)
    return weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))


def classes() -> list[tuple[Script, int, np.ndarray]]:
    """Script, code point and ink of every class, in the order of SCRIPTS."""
    found = [(script, point) for script in SCRIPTS for point in characters(script)]
    ink = np.concatenate([masks(script, [p for s, p in found if s is script]) for script in SCRIPTS])
    return [(*found[number], ink[number]) for number in distinct(ink)]
