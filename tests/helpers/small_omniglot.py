"""A generated Omniglot of 20 characters with 4 drawings each."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from made_up_files import encoded, pack
from PIL import Image

SMALL_OMNIGLOT = {
    "PARTS": {"images_background": (14, 1), "images_evaluation": (6, 15)},
    "DRAWINGS": 4,
    "SHUFFLED_SIZES": (12, 3, 5),
}


@functools.cache
def drawing(number: int) -> bytes:
    ink = np.random.default_rng(number).random((21, 21)) < 0.3
    return encoded(Image.fromarray(~np.kron(ink, np.ones((5, 5), dtype=bool))), "PNG")


def omniglot_files(part: str) -> dict[str, bytes]:
    characters, first = SMALL_OMNIGLOT["PARTS"][part]
    return {
        f"{part}/{part[7:9]}{i // 2}/character{i % 2 + 1:02}/{first + i:04}_{j:02}.png": drawing(100 * (first + i) + j)
        for i in range(characters)
        for j in range(1, 5)
    }


def put_omniglot(folder: Path, unpacked: bool = False, change=lambda files: None) -> None:
    for part in SMALL_OMNIGLOT["PARTS"]:
        files = omniglot_files(part)
        if part == "images_evaluation":
            change(files)
        pack(folder / f"{part}.zip", files, unpacked)
