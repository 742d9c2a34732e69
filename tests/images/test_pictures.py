"""One walk over folders and archives, one decoder, and one reader of csv files."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_up_files import encoded
from PIL import Image

from benchmarks.errors import MetabenchError
from benchmarks.images.pictures import Picture, by_class, eight_bits, open_files
from benchmarks.images.tables import read_table

COLUMNS = (("label", "class_name"), ("filename", "image_name"))
ROWS = [("n01", "a.jpg"), ("n02", "b.jpg")]


def names(path: Path) -> list[str]:
    with open_files(path) as files:
        return list(files.names)


# --- the walk ---


@pytest.mark.fault("D3")
def test_what_systems_leave_next_to_pictures_is_no_picture(tmp_path: Path) -> None:
    wanted = ["a/1.png", "a/2.PNG", "b/deep/3.JPeG", "c d/é.jpg"]
    junk = [
        *("a/._1.png", "@eaDir/1.png", "a/@eaDir/1.jpg", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/a/._1.png"),
        *("a/notes.txt", ".hidden/1.png", "a/Thumbs.db", "a/1.png.part"),
    ]
    for name in (*wanted, *junk):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).touch()
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for name in (*wanted, *junk):
            archive.writestr(name, b"")
    assert names(tmp_path / "folder") == names(tmp_path / "archive.zip") == sorted(wanted)


@pytest.mark.fault("D3")
def test_members_with_backslashes_are_in_folders_and_can_be_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        archive.writestr("a\\", b"")
        for name in ("a\\1.png", "b\\2.png"):
            archive.writestr(name, name.encode())
    with open_files(tmp_path / "windows.zip") as files:
        assert {label: [picture.read() for picture in each] for label, each in by_class(files).items()} == {
            "a": [b"a\\1.png"],
            "b": [b"b\\2.png"],
        }


@pytest.mark.fault("D3")
def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("root/a", "elsewhere/b"):
        (tmp_path / name).mkdir(parents=True)
    (root / "a" / "1.png").write_bytes(b"1")
    (tmp_path / "elsewhere" / "b" / "2.png").write_bytes(b"2")
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "3.png").symlink_to(tmp_path / "elsewhere" / "b" / "2.png")
    (root / "a" / "back").symlink_to(root)
    (tmp_path / "elsewhere" / "b" / "there").symlink_to(root / "a")
    (root / "itself").symlink_to(root / "itself")
    (root / "notes.txt").symlink_to("nowhere")
    (root / "._x.png").symlink_to("nowhere")
    assert {"a/1.png", "a/3.png", "b/2.png"} <= set(names(root))
    assert len(names(root)) < 10


@pytest.mark.fault("D3")
@pytest.mark.parametrize("target", ["../.git/annex/objects/Xy/SHA256E-s1.png", "1.png"])
def test_a_link_to_a_picture_that_is_not_there_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").symlink_to(target)
    with pytest.raises(MetabenchError, match=r"a/1\.png links to .*, which isn't there .*git annex get") as raised:
        names(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.fault("D3")
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"/annex/objects/SHA256E-s1--a.png\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"nothing", "is not an image"),
    ],
)
def test_a_pointer_in_place_of_a_picture_says_how_to_get_it(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "1.png").write_bytes(content)
    with open_files(tmp_path) as files, pytest.raises(MetabenchError, match=word):
        Picture(files, "1.png").decode(np.asarray)


# --- the decoder ---


def written(tmp_path: Path, grey: np.ndarray, ending: str) -> np.ndarray:
    (tmp_path / f"1.{ending}").write_bytes(encoded(Image.fromarray(grey), {"tif": "TIFF"}.get(ending, ending.upper())))
    with open_files(tmp_path) as files:
        return Picture(files, f"1.{ending}").decode(lambda image: np.asarray(eight_bits(image, "L")))


@pytest.mark.fault("D5")
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_range(tmp_path: Path, ending: str) -> None:
    grey = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
    read = written(tmp_path, grey, ending)
    assert (int(read.min()), int(read.max())) == (0, 255)
    assert np.abs(read - grey / 257).max() <= 0.5
    assert np.array_equal(written(tmp_path, (grey // 257).astype(np.uint8), "png"), grey // 257)


@pytest.mark.fault("D5")
@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_of_unknown_range_are_refused(tmp_path: Path, kind: type) -> None:
    with pytest.raises(MetabenchError, match=r"1\.tif can't be decoded: mode [IF]: images of 8 or 16 bits"):
        written(tmp_path, np.ones((4, 4), kind), "tif")


@pytest.mark.fault("D5")
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_a_drawing_on_transparent_ground_is_one_on_white_paper(tmp_path: Path, mode: str) -> None:
    alpha = np.zeros((4, 4), np.uint8)
    alpha[1] = 255
    image = Image.merge("LA", (Image.new("L", (4, 4)), Image.fromarray(alpha))).convert("RGBA")
    if mode == "P":
        image = Image.fromarray(alpha // 255).convert("P")
        image.info["transparency"] = 0
        image.putpalette([0, 0, 0] * 2)
    (tmp_path / "1.png").write_bytes(encoded(image.convert(mode), "PNG"))
    with open_files(tmp_path) as files:
        for colours in ("L", "RGB"):
            seen = Picture(files, "1.png").decode(lambda found, wanted=colours: np.asarray(eight_bits(found, wanted)))
            assert np.array_equal(seen if colours == "L" else seen[..., 0], 255 - alpha)


# --- csv ---


def table(tmp_path: Path, text: str | bytes) -> list[tuple[str, ...]]:
    path = tmp_path / "train.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, *COLUMNS)


PLAIN = "filename,label\na.jpg,n01\nb.jpg,n02\n"
AS_PEOPLE_WRITE_IT = {
    "plain": PLAIN,
    "no line at the end": PLAIN.strip(),
    "byte-order mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "blank lines": f"\n{PLAIN}\n \n,\n",
    "blanks after the comma": PLAIN.replace(",", " , "),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "Windows": PLAIN.replace("\n", "\r\n"),
    "old Macs": PLAIN.replace("\n", "\r"),
    "capitals": PLAIN.replace("filename,label", "Filename,LABEL"),
    "quotes": 'filename,label\n"a.jpg","n01"\n"b.jpg", "n02"\n',
    "pandas": ",filename,label\n0,a.jpg,n01\n1,b.jpg,n02\n",
    "further columns": "filename,label,width\na.jpg,n01,\nb.jpg,n02,84\n",
    "easyfsl": "class_name,image_name\nn01,a.jpg\nn02,b.jpg\n",
}
ONE_LINE = {
    "short last line": (f"{PLAIN}c.jpg", "line 4: 'c.jpg' is not a row of 'filename, label'"),
    "long line": (f"{PLAIN}c.jpg,n03,n04\n", "line 4"),
    "empty label": (PLAIN.replace("n01", ""), "line 2"),
    "NULs": (f"{PLAIN}\0\0\0", "line 4: NUL bytes"),
    "other columns": (
        PLAIN.replace("label", "species"),
        "has no columns label or class_name and filename or image_name",
    ),
    "nothing": ("", "its first line is ''"),
    "open quote": (f'{PLAIN}"c.jpg,n03', "line 4"),
    "Latin letters": (PLAIN.replace("n01", "käfer").encode("latin-1"), "can't be read as text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", "can't be read as text"),
}


@pytest.mark.fault("D2")
@pytest.mark.parametrize("case", AS_PEOPLE_WRITE_IT)
def test_a_csv_is_read_as_people_write_it(tmp_path: Path, case: str) -> None:
    assert table(tmp_path, AS_PEOPLE_WRITE_IT[case]) == ROWS


@pytest.mark.fault("D2")
@pytest.mark.parametrize("case", ONE_LINE)
def test_a_csv_that_means_nothing_is_one_line(tmp_path: Path, case: str) -> None:
    text, word = ONE_LINE[case]
    with pytest.raises(MetabenchError, match=r"train\.csv") as raised:
        table(tmp_path, text)
    assert word in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.fault("D2")
def test_a_folder_in_place_of_a_csv_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetabenchError, match="can't be read as text"):
        read_table(tmp_path, *COLUMNS)


@pytest.mark.fault("D2")
def test_no_bytes_are_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(PLAIN.encode() * 2)
        for place in rng.integers(len(content), size=rng.integers(1, 5)):
            content[place] = rng.choice([rng.integers(256), *b'",;\t\r\n\0 '])
        lines = []
        try:
            assert all(len(row) == 2 and all(row) for row in table(tmp_path, bytes(content)))
        except MetabenchError as error:
            lines = str(error).split("\n")
        assert len(lines) < 2
