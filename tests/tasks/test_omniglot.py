"""The real Omniglot, if METABENCH_DATA has it: counts, splits and decoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.api import SPLITS
from benchmarks.images.pictures import open_files
from benchmarks.tasks import omniglot
from benchmarks.tasks.omniglot import Omniglot

REAL = Path(os.environ.get("METABENCH_DATA", ""), "omniglot")
pytestmark = pytest.mark.skipif(
    "METABENCH_DATA" not in os.environ or not REAL.is_dir(), reason="METABENCH_DATA with omniglot is not given"
)


@pytest.fixture(scope="module")
def tasks() -> Omniglot:
    found = Omniglot(variant="5w1s")
    found.prepare()
    return found


@pytest.fixture(scope="module")
def characters() -> Iterator[list[omniglot.Characters]]:
    """The drawings of both parts, in their files."""
    with (
        open_files(REAL / "images_background.zip") as background,
        open_files(REAL / "images_evaluation.zip") as evaluation,
    ):
        yield [omniglot.read_characters(files, files.path.stem) for files in (background, evaluation)]


def test_real_omniglot_has_its_characters(tasks: Omniglot) -> None:
    found = [tasks.image_set(split) for split in SPLITS]
    assert [len(each.names) for each in found] == [1100, 100, 423]
    assert all((each.counts == 20).all() for each in found)
    assert len({name for each in found for name in each.names}) == 1623
    assert [tasks.pooled_outputs(split) for split in SPLITS] == [4400, 400, 1692]


def test_prepared_images_are_the_shrunk_drawings(tasks: Omniglot, characters: list[omniglot.Characters]) -> None:
    for split, members in omniglot.split_characters(*characters, "shuffled").items():
        found = tasks.image_set(split)
        assert found.names == tuple(members)
        pictures = [picture for drawings in members.values() for picture in drawings]
        for number in range(0, len(pictures), 401):
            assert np.array_equal(found.images[number], pictures[number].decode(omniglot.shrink))


def test_lakes_split_has_its_alphabets(characters: list[omniglot.Characters]) -> None:
    splits = omniglot.split_characters(*characters, "lake")
    assert [len(splits[split]) for split in SPLITS] == [802, 162, 659]
    held_out = {omniglot.alphabet_of(name).partition("_")[0] for name in splits["validation"]}
    assert all(alphabet in (Omniglot.__doc__ or "") for alphabet in held_out)
