"""The real Omniglot, where METABENCH_DATA has it: counts, splits, and how fast episodes are cut."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
import torch
from pace import times_slower

from benchmarks.api import SPLITS
from benchmarks.images import data
from benchmarks.tasks import omniglot
from benchmarks.tasks.omniglot import Omniglot

REAL = os.environ.get("METABENCH_DATA", "")


@pytest.fixture(scope="module")
def real_omniglot(tmp_path_factory):
    """The real data set, decoded from the files into a cache of this run."""
    if not (Path(REAL) / "omniglot").is_dir() or not REAL:
        pytest.skip("METABENCH_DATA with omniglot is not given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METABENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        tasks = Omniglot(variant="5w1s")
        tasks.prepare()
        yield tasks


def test_real_omniglot_has_its_characters(real_omniglot):
    found = [real_omniglot.image_set(split) for split in SPLITS]
    assert [len(each.names) for each in found] == [1100, 100, 423]
    assert all((each.counts == 20).all() for each in found)
    assert len({name for each in found for name in each.names}) == 1623
    assert [real_omniglot.pooled_outputs(split) for split in SPLITS] == [4400, 400, 1692]


def test_real_omniglot_keeps_its_first_hundred_episodes(real_omniglot):
    episodes = real_omniglot.episodes("test", range(100))
    digest = hashlib.sha256()
    for labelled in (episodes.support, episodes.query):
        for values in (labelled.y, labelled.classes, labelled.items):
            digest.update(values.numpy().data)
    assert digest.hexdigest()[:16] == "885e4c1769de2d06"


def test_real_omniglot_lake_split(real_omniglot):
    with data.open_files(Path(REAL) / "omniglot/images_background.zip") as background:
        characters = omniglot.read_characters(background, "images_background")
    splits = omniglot.split_characters(characters, {"test": []}, "lake")
    assert [len(splits[split]) for split in ("train", "validation")] == [802, 162]
    held_out = {omniglot.alphabet_of(name).partition("_")[0] for name in splits["validation"]}
    assert all(alphabet in (Omniglot.__doc__ or "") for alphabet in held_out)


def test_a_thousand_real_episodes_are_cut_in_about_a_second(real_omniglot):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            real_omniglot.episodes("test", range(1000))
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    print(f"1,000 episodes, 5-way 1-shot, 15 queries per class: {min(seconds):.2f} s")
    assert min(seconds) < 3 * times_slower()
