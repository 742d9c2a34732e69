"""Decoded images in the cache: made once, mapped, checked, and made again when they are damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up_files import damaged, decoded, leftovers
from small_omniglot import drawing, put_omniglot

from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.images import data
from benchmarks.tasks.omniglot import Omniglot


def test_decoding_happens_once_per_content_and_outlives_the_files(place):
    put_omniglot(place / "data")
    lines: list[str] = []
    Omniglot().prepare(lines.append)
    assert lines[-1] == "omniglot test: 20 of 20 images decoded"
    before = decoded(Omniglot())
    data._prepared.clear()
    Omniglot().prepare(lines.append)
    for file in (place / "data").iterdir():
        file.unlink()
    data._prepared.clear()
    Omniglot().prepare(lines.append)
    assert len(lines) == 3
    assert decoded(Omniglot()) == before
    assert len(leftovers(place)) == 1
    put_omniglot(place / "data", change=lambda files: files.update({min(files): drawing(7)}))
    data._prepared.clear()
    assert decoded(Omniglot()) != before


def test_what_a_killed_process_left_is_cleared_and_a_damaged_cache_is_named(place):
    put_omniglot(place / "data")
    Omniglot().prepare()
    (finished,) = leftovers(place)
    unfinished = finished.with_name(f"{finished.name}.unfinished-abc")
    finished.rename(unfinished)
    Omniglot().prepare()
    assert leftovers(place) == [finished]
    with (finished / "test.npy").open("r+b") as array:
        array.truncate(1000)
    data.open_split.cache_clear()
    with pytest.raises(MetabenchError, match="damaged"):
        Omniglot().image_set("test")


def test_the_map_never_writes_to_the_file(place):
    put_omniglot(place / "data")
    images = Omniglot().image_set("test").images
    assert isinstance(images, np.memmap)
    before = images[0].copy()
    images[0] = 77
    data.open_split.cache_clear()
    assert np.array_equal(Omniglot().image_set("test").images[0], before)


def prepare_and_report(barrier, answers) -> None:
    lines: list[str] = []
    barrier.wait(60)
    Omniglot().prepare(lines.append)
    answers.put((len(lines), Omniglot().data_digest()))


def test_two_processes_at_once_decode_once(place):
    put_omniglot(place / "data")
    context = multiprocessing.get_context("fork")
    answers, barrier = context.Queue(), context.Barrier(2)
    both = [context.Process(target=prepare_and_report, args=(barrier, answers)) for _ in range(2)]
    for process in both:
        process.start()
    (few, one), (many, other) = sorted(answers.get(timeout=60) for _ in both)
    assert (few, many) == (0, 3)
    assert one == other
    assert len(leftovers(place)) == 1
    for process in both:
        process.join(60)


def damaged_text(text: str):
    return lambda folder: (folder / "test.json").write_text(text)


def inverted(folder: Path) -> None:
    images = np.load(folder / "test.npy", mmap_mode="r+")
    images[7] = 255 - images[7]
    images.flush()


def renamed(folder: Path) -> None:
    about = json.loads((folder / "test.json").read_text())
    about["names"].reverse()
    (folder / "test.json").write_text(json.dumps(about))


CACHE_DAMAGES = {
    "inverted pixels": inverted,
    "classes exchanged": renamed,
    "empty array": lambda folder: (folder / "test.npy").write_bytes(b""),
    "no array": lambda folder: (folder / "test.npy").unlink(),
    "cut array": lambda folder: os.truncate(folder / "test.npy", 1000),
    "objects": lambda folder: np.save(folder / "test.npy", np.array([None]), allow_pickle=True),
    "other axes": lambda folder: np.save(folder / "test.npy", np.load(folder / "test.npy").reshape(28, 28, 20).T),
    "floats": lambda folder: np.save(folder / "test.npy", np.zeros((20, 28, 28))),
    **{
        f"json {text[:20]}": damaged_text(text)
        for text in (
            *("", "[]", "3", "null", '"text"', "[" * 100_000, '{"names": 3, "counts": 4, "digest": 5}', "\0\0"),
            *('{"names": ["a"], "counts": [1e400], "digest": ""}', '{"names": ["a"], "counts": ["b"], "digest": ""}'),
        )
    },
}


@pytest.mark.fault("S3", "S8")
@pytest.mark.parametrize("case", CACHE_DAMAGES)
def test_a_damaged_cache_is_made_again_with_a_word(place, case, monkeypatch):
    put_omniglot(place / "data")
    expected = decoded(Omniglot())
    monkeypatch.setattr(data, "FRESH_SECONDS", -1.0)  # files are trusted as soon as they are looked at
    data.open_split.cache_clear()
    assert decoded(Omniglot()) == expected
    (folder,) = leftovers(place)
    assert {path.suffix for path in folder.iterdir()} == {".npy", ".json", ".checked"}
    CACHE_DAMAGES[case](folder)
    data.open_split.cache_clear()
    with pytest.raises(MetabenchError, match="is damaged") as raised:
        Omniglot().image_set("test")
    assert "\n" not in str(raised.value)
    data._prepared.clear()
    lines: list[str] = []
    Omniglot().prepare(lines.append)
    assert "is damaged" in lines[0]
    assert "decoded again" in lines[0]
    assert decoded(Omniglot()) == expected


@pytest.mark.fault("S3", "S8")
def test_a_damaged_cache_without_its_files_is_unavailable(place):
    put_omniglot(place / "data")
    Omniglot().prepare()
    shutil.rmtree(place / "data")
    (place / "data").mkdir()
    inverted(*leftovers(place))
    data.open_split.cache_clear()
    data._prepared.clear()
    with pytest.raises(Unavailable, match=r"no images found; .*is damaged \(the content of test.npy has changed\)"):
        Omniglot().prepare()


@pytest.mark.fault("S3", "S8")
def test_no_damage_of_a_cached_file_changes_the_content_or_is_a_traceback(place):
    put_omniglot(place / "data")
    expected = decoded(Omniglot())
    rng = np.random.default_rng(0)
    (folder,) = leftovers(place)
    for _ in range(25):
        path = folder / rng.choice(["test.npy", "test.json", "train.npy", "validation.json"])
        path.write_bytes(damaged(path.read_bytes(), rng, places=rng.choice([130, 10**6])))
        data.open_split.cache_clear()
        data._prepared.clear()
        Omniglot().prepare()
        assert decoded(Omniglot()) == expected


@pytest.mark.fault("S8")
def test_files_that_cannot_be_opened_now_are_kept(place, monkeypatch):
    put_omniglot(place / "data")
    Omniglot().prepare()
    data.open_split.cache_clear()
    data._prepared.clear()

    def too_many(*arguments):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "open_memmap", too_many)
        with pytest.raises(MetabenchError, match=r"can't be read: .*Too many open files"):
            Omniglot().prepare()
    lines: list[str] = []
    Omniglot().prepare(lines.append)
    assert lines == []


@pytest.mark.fault("S3")
def test_the_digest_is_computed_once_for_files_that_do_not_change(place, monkeypatch):
    put_omniglot(place / "data")
    Omniglot().prepare()
    computed = []
    digest = data._digest
    monkeypatch.setattr(data, "_digest", lambda *arguments: computed.append(1) or digest(*arguments))

    def looked_at() -> int:
        computed.clear()
        data.open_split.cache_clear()
        data._prepared.clear()
        Omniglot().prepare()
        return len(computed)

    assert [looked_at(), looked_at()] == [3, 3]  # just written: they might change within the same tick
    monkeypatch.setattr(data, "FRESH_SECONDS", -1.0)
    assert [looked_at(), looked_at(), looked_at()] == [3, 0, 0]
    (folder,) = leftovers(place)
    os.utime(folder / "test.npy")
    assert [looked_at(), looked_at()] == [1, 0]
