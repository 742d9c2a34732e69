"""Image files, found, downloaded, checked and decoded, with a small generated Omniglot."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import shutil
import threading

import numpy as np
import pytest
from made_up_files import decoded, encoded, pack, refused
from PIL import Image
from small_omniglot import SMALL_OMNIGLOT, drawing, omniglot_files, put_omniglot

from benchmarks.api import SPLITS
from benchmarks.errors import Unavailable
from benchmarks.images import data
from benchmarks.tasks import omniglot
from benchmarks.tasks.omniglot import Omniglot


def test_omniglot_reads_zips_and_folders_wherever_they_lie(place):
    seen = []
    for name, unpacked in (("data/omniglot", False), ("data", True), ("cache/data/omniglot", False)):
        put_omniglot(place / name, unpacked)
        seen.append(decoded(Omniglot()))
        for part in SMALL_OMNIGLOT["PARTS"]:
            shutil.rmtree(place / name / part, ignore_errors=True)
            (place / name / f"{part}.zip").unlink(missing_ok=True)
        shutil.rmtree(place / "cache/prepared")
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.fault("D4")
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("folder", ["omniglot/python", "python", "omniglot-py"])
def test_a_clone_of_the_owners_repository_and_torchvisions_folder_will_do(place, folder, unpacked):
    put_omniglot(place / "data" / folder, unpacked)
    Omniglot().prepare()
    assert [len(Omniglot().image_set(split).names) for split in SPLITS] == [12, 3, 5]


@pytest.mark.fault("D3")
def test_omniglot_in_capitals_and_with_backslashes_is_the_same(place):
    put_omniglot(place / "data")
    expected = decoded(Omniglot())
    shutil.rmtree(place / "cache")
    data._prepared.clear()
    for part in SMALL_OMNIGLOT["PARTS"]:
        files = {name[:-3].replace("/", "\\") + "PNG": content for name, content in omniglot_files(part).items()}
        pack(place / "data" / f"{part}.zip", files)
    assert decoded(Omniglot()) == expected


def test_omniglot_is_ink_on_paper_shrunk_and_in_the_order_of_its_numbers(place):
    put_omniglot(place / "data", change=lambda files: files.update({"__MACOSX/._0015_01.png": b"", "notes.txt": b""}))
    tasks = Omniglot()
    files = {name: content for part in SMALL_OMNIGLOT["PARTS"] for name, content in omniglot_files(part).items()}
    for split, characters in zip(SPLITS, (12, 3, 5), strict=True):
        found = tasks.image_set(split)
        assert found.images.shape == (4 * characters, 28, 28)
        numbers = [int(next(name for name in files if f"/{wanted}/" in name)[-11:-7]) for wanted in found.names]
        assert numbers == sorted(numbers)
        original = next(content for name, content in files.items() if f"/{found.names[0]}/" in name)
        grey = Image.open(io.BytesIO(original)).convert("L").resize((28, 28), Image.Resampling.LANCZOS)
        assert np.array_equal(found.images[0], 255 - np.asarray(grey))
    assert tasks.episodes("train", [0], queries=3).support.x.mean() < 0.5


def test_omniglot_splits_share_no_character_and_lakes_no_alphabet(place):
    put_omniglot(place / "data")
    shuffled, lake = (Omniglot(characters=by) for by in ("shuffled", "lake"))
    names = [set(shuffled.image_set(split).names) for split in SPLITS]
    assert sum(map(len, names)) == len(set.union(*names)) == 20
    alphabets = [{omniglot.alphabet_of(name) for name in lake.image_set(split).names} for split in SPLITS]
    assert [len(each) for each in alphabets] == [2, 5, 3]
    assert len(set.union(*alphabets)) == 10
    assert all(alphabet.startswith("ev") for alphabet in alphabets[2])


def test_omniglot_turns_at_test_unless_told_not_to(place):
    put_omniglot(place / "data")
    assert [Omniglot().pooled_outputs(split) for split in SPLITS] == [48, 12, 20]
    assert [Omniglot(rotations_at_test=False).pooled_outputs(split) for split in SPLITS] == [48, 12, 5]
    assert [Omniglot(rotations=False).pooled_outputs(split) for split in SPLITS] == [12, 3, 5]


def drop_character(files):
    for name in [name for name in files if "/0017_" in name]:
        del files[name]


BAD_OMNIGLOT = {
    "missing class": (drop_character, ["5 characters, 6 expected", "number 0017 is missing"]),
    "missing drawing": (lambda files: files.pop(min(files)), ["ev0/character01 has 3 drawings, 4 expected"]),
    "foreign class": (
        lambda files: files.update({"images_evaluation/ev9/character01/0999_01.png": drawing(1)}),
        ["7 characters, 6 expected", "ev9/character01"],
    ),
    "no image": (lambda files: files.update({min(files): b"nonsense"}), ["0015_01.png is not an image"]),
    "broken image": (
        lambda files: files.update({min(files): files[min(files)][:90]}),
        ["0015_01.png can't be decoded"],
    ),
    "wrong size": (
        lambda files: files.update({min(files): encoded(Image.new("1", (28, 28)), "PNG")}),
        ["0015_01.png can't be decoded", "28x28, not 105x105"],
    ),
    "stray image": (
        lambda files: files.update({"images_evaluation/x.png": drawing(1)}),
        ["x.png is not <Alphabet>"],
    ),
}


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("case", BAD_OMNIGLOT)
def test_bad_omniglot_is_one_line_and_nothing_is_written(place, case, unpacked):
    change, words = BAD_OMNIGLOT[case]
    put_omniglot(place / "data", unpacked, change)
    refused(Omniglot(), place, "images_evaluation", *words)


@pytest.mark.parametrize("name", ["../0015_01.png", "/0015_01.png", "..\\0015_01.png", "C:\\0015_01.png"])
def test_an_archive_that_points_outside_itself_is_refused(place, name):
    put_omniglot(place / "data", change=lambda files: files.update({name: drawing(1)}))
    refused(Omniglot(), place, "images_evaluation.zip", "refused", "0015_01.png", "outside")


def test_files_that_are_not_there_are_named(place, monkeypatch):
    with pytest.raises(Unavailable):
        Omniglot().prepare()
    refused(Omniglot(), place, "$METABENCH_DATA/omniglot", "images_background.zip")
    put_omniglot(place / "data/omniglot")
    (place / "data/omniglot/images_evaluation.zip").unlink()
    refused(Omniglot(), place, "incomplete", "images_evaluation.zip")
    (place / "data/omniglot/images_evaluation.zip").write_bytes(b"PK nonsense")
    refused(Omniglot(), place, "images_evaluation.zip", "zip")
    monkeypatch.setenv("METABENCH_DATA", str(place / "nowhere"))
    refused(Omniglot(), place, "METABENCH_DATA", "nowhere")


@pytest.fixture
def server(place, monkeypatch):
    """The owner's files at an address of this machine; no proxy, and downloads allowed."""
    put_omniglot(place / "owner")
    handler = functools.partial(Quiet, directory=str(place / "owner"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.delenv("METABENCH_OFFLINE")
        monkeypatch.setenv("NO_PROXY", "*")
        sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in (place / "owner").iterdir()}
        address = f"http://127.0.0.1:{serving.server_port}"
        downloads = {name: (f"{address}/{name}", md5) for name, md5 in sums.items()}
        monkeypatch.setattr(omniglot, "DOWNLOADS", downloads)
        yield downloads
        serving.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without writing to the terminal."""

    def log_message(self, *arguments):
        pass


def test_omniglot_is_downloaded_verified_and_shown_with_a_bar(place, server):
    lines: list[str] = []
    Omniglot().prepare(lines.append)
    assert any("images_background.zip [####################]" in line for line in lines)
    assert sorted(file.name for file in (place / "cache/data/omniglot").glob("*.zip")) == sorted(server)
    assert [len(Omniglot().image_set(split).names) for split in SPLITS] == [12, 3, 5]


def test_a_download_that_fails_or_has_another_checksum_is_not_kept(place, server):
    name = "images_evaluation.zip"
    address, right = server[name]
    server[name] = (address, "0" * 32)
    refused(Omniglot(), place, "METABENCH_DATA", name, "checksum")
    assert not (place / "cache/data/omniglot" / name).exists()
    server[name] = ("http://127.0.0.1:1/no-such-file.zip", right)
    with pytest.raises(Unavailable):
        Omniglot().prepare()
    refused(Omniglot(), place, "METABENCH_DATA", "can't be downloaded")
