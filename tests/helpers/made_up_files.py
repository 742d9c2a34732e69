"""Archives and folders of made-up pictures, and what decoding them leaves behind."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.api import SPLITS
from benchmarks.errors import MetabenchError


def encoded(image: Image.Image, kind: str) -> bytes:
    """A picture as the bytes of a file."""
    target = io.BytesIO()
    image.save(target, kind)
    return target.getvalue()


def pack(path: Path, files: dict[str, bytes], unpacked: bool = False) -> None:
    """Files in a zip, or beside where it would be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if unpacked:
        for name, content in files.items():
            (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / name).write_bytes(content)
        return
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def damaged(content: bytes, rng: np.random.Generator, places: int) -> bytes:
    """The content with up to three bytes among its first ``places`` changed, or cut off there."""
    changed = bytearray(content)
    for place in rng.integers(min(places, len(content)), size=rng.integers(1, 4)):
        changed[place] = rng.integers(256)
    return bytes(changed[: rng.integers(len(content)) if rng.random() < 0.3 else None])


def decoded(tasks: Any) -> list[str]:
    """The digests of the splits."""
    return [tasks.image_set(split).digest for split in SPLITS]


def leftovers(place: Path) -> list[Path]:
    """What stands in the cache beside locks."""
    return [path for path in place.glob("cache/prepared/*") if path.suffix != ".lock"]


def refused(tasks: Any, place: Path, *words: str) -> None:
    """Preparing fails in one line with these words, and writes nothing."""
    with pytest.raises(MetabenchError) as raised:
        tasks.prepare()
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert leftovers(place) == []
