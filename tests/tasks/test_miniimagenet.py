"""mini-ImageNet in every layout, including pickles, on a small generated one and, if present, on the real one."""

from __future__ import annotations

import csv
import functools
import io
import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from made_up_files import damaged, decoded, encoded, pack, refused
from PIL import Image

from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.images.pickles import load_arrays
from benchmarks.images.pictures import open_files
from benchmarks.tasks import miniimagenet
from benchmarks.tasks.miniimagenet import MiniImageNet

REAL = os.environ.get("METABENCH_DATA", "")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A separate data folder and cache, for a small mini-ImageNet."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("METABENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(miniimagenet, "CLASSES", {"train": 3, "validation": 2, "test": 2})
    monkeypatch.setattr(miniimagenet, "IMAGES_PER_CLASS", 4)
    return tmp_path


@functools.cache
def photograph(number: int, side: int = 84) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels).resize((side, side)), "JPEG")


def put_miniimagenet(folder: Path, unpacked: bool = False, change=lambda tables, files: None) -> None:
    tables, files = {}, {}
    for first, (split, count) in zip((0, 10, 20), (("train", 3), ("val", 2), ("test", 2)), strict=True):
        names = {f"n{c:02}{i:02}.jpg": f"n{c:02}" for c in range(first, first + count) for i in range(4)}
        tables[split] = list(names.items())
        files[split] = {f"images/{name}": photograph(int(name[1:5])) for name in names}
    change(tables, files)
    for split in tables:
        pack(folder / f"images_{split}.zip", files[split], unpacked)
        with (folder / f"{split}.csv").open("w", newline="") as target:
            csv.writer(target).writerows([("filename", "label"), *tables[split]])


def test_miniimagenet_reads_every_layout(place):
    seen = []
    for folder, unpacked in (("data/mini-imagenet", False), ("data/miniimagenet", True)):
        put_miniimagenet(place / folder, unpacked)
        seen.append(decoded(MiniImageNet()))
        if unpacked:
            put_caches(place / "data", MiniImageNet())
        shutil.rmtree(place / folder)
        shutil.rmtree(place / "cache/prepared")
    seen.append(decoded(MiniImageNet()))
    assert seen[0] == seen[1] == seen[2]


def put_caches(folder: Path, tasks: MiniImageNet, validation: str = "val") -> None:
    folder.mkdir(exist_ok=True)
    for split, name in (("train", "train"), ("validation", validation), ("test", "test")):
        found = tasks.image_set(split)
        order = np.random.default_rng(0).permutation(len(found.images))
        place_of = np.argsort(order)
        numbers = {label: list(map(int, place_of[4 * i : 4 * i + 4])) for i, label in enumerate(found.names)}
        content = {"image_data": np.array(found.images)[order], "class_dict": numbers}
        (folder / f"mini-imagenet-cache-{name}.pkl").write_bytes(pickle.dumps(content))


def put_one_archive(folder: Path) -> None:
    """As the MAML code has it: all images together."""
    put_miniimagenet(folder, unpacked=True)
    pack(folder / "images.zip", {f"images/{path.name}": path.read_bytes() for path in folder.glob("images/*")})
    shutil.rmtree(folder / "images")


def put_class_folders(folder: Path, validation: str = "val", root: str = "") -> None:
    """A folder per class."""
    put_miniimagenet(folder, unpacked=True)
    for split, name in (("train", "train"), ("val", validation), ("test", "test")):
        with (folder / f"{split}.csv").open() as lines:
            for row in csv.DictReader(lines):
                target = folder / (root or name) / row["label"] / row["filename"]
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / "images" / row["filename"]).rename(target)
        if not root:
            (folder / f"{split}.csv").unlink()
    if not root:
        (folder / "images").rmdir()


def put_easyfsl(folder: Path) -> None:
    """Folders of classes and tables with other columns."""
    put_class_folders(folder, root="images")
    for split in ("train", "val", "test"):
        names = [f"{path.parent.name},{path.name}" for path in folder.glob("images/*/*.jpg")]
        first, last = {"train": (0, 10), "val": (10, 20), "test": (20, 30)}[split]
        rows = [name for name in names if first <= int(name[1:3]) < last]
        (folder / f"{split}.csv").write_text("\n".join(["class_name,image_name", *rows]))


REAL_LAYOUTS = {
    "learn2learn": lambda folder: put_caches(folder, MiniImageNet(), "validation"),
    "maml": put_one_archive,
    "class folders": put_class_folders,
    "class folders, validation": lambda folder: put_class_folders(folder, "validation"),
    "easyfsl": put_easyfsl,
}


@pytest.mark.fault("D4")
@pytest.mark.parametrize("layout", REAL_LAYOUTS)
def test_the_layouts_of_other_projects_have_the_same_content(place, layout, monkeypatch):
    put_miniimagenet(place / "data/mini-imagenet")
    expected = decoded(MiniImageNet())
    (place / "other").mkdir()
    REAL_LAYOUTS[layout](place / "other" / "miniImagenet")
    monkeypatch.setenv("METABENCH_DATA", str(place / "other"))
    shutil.rmtree(place / "cache")
    assert decoded(MiniImageNet()) == expected


@pytest.mark.fault("D4")
def test_folders_named_train_and_test_are_mini_imagenet_only_in_its_own_folder(place):
    put_class_folders(place / "data")
    with pytest.raises(Unavailable, match="no images found"):
        MiniImageNet().prepare()


@pytest.mark.fault("D1")
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t["train"].append(t["train"][0]),
            ["train.csv: n0000.jpg", "in class n00 (train.csv) and in class n00"],
        ),
        (lambda t: t["train"].append(("n0000.jpg", "n01")), ["n0000.jpg", "class n00 (train.csv) and in class n01"]),
        (lambda t: t["test"].append(("n0000.jpg", "n20")), ["n0000.jpg"]),
        (lambda t: t["train"].append(("images/N0000.JPG", "n01")), ["images/N0000.JPG", "class n00 (train.csv)"]),
    ],
)
def test_a_picture_that_is_listed_twice_is_named(place, unpacked, change, words):
    put_miniimagenet(place / "data", unpacked, lambda tables, files: change(tables))
    refused(MiniImageNet(), place, *words)


@pytest.mark.fault("D1")
@pytest.mark.parametrize(("label", "number"), [("n00", 1), ("n01", 1), ("n01", 1.0)])
def test_a_pickle_that_lists_an_image_twice_is_refused(place, label, number):
    put_miniimagenet(place / "data")
    put_caches(place / "other", MiniImageNet())
    shutil.rmtree(place / "cache")
    shutil.rmtree(place / "data")
    (place / "other").rename(place / "data")
    path = place / "data/mini-imagenet-cache-train.pkl"
    content = pickle.loads(path.read_bytes())
    first = content["class_dict"]["n00"][1]
    content["class_dict"][label][0] = type(number)(first)
    path.write_bytes(pickle.dumps(content))
    whole = isinstance(number, int)
    refused(MiniImageNet(), place, f"image {first} is listed twice" if whole else "refers to images that do not exist")


@pytest.mark.fault("D1")
@pytest.mark.parametrize("layout", REAL_LAYOUTS)
def test_no_episode_shares_a_picture_between_support_and_query(place, layout):
    if layout == "learn2learn":
        put_miniimagenet(place / "data/mini-imagenet")
        put_caches(place / "caches", MiniImageNet(), "validation")
        shutil.rmtree(place / "data/mini-imagenet")
        (place / "caches").rename(place / "data/mini-imagenet")
    else:
        REAL_LAYOUTS[layout](place / "data/mini-imagenet")
    tasks = MiniImageNet(way=2, shot=1, queries=3)
    for split in ("train", "validation", "test"):
        cut = tasks.episodes(split, range(20))
        same = (cut.support.x.flatten(2)[:, :, None] == cut.query.x.flatten(2)[:, None]).all(-1)
        assert not same.any()


def test_a_larger_photograph_is_squeezed():
    image = Image.open(io.BytesIO(photograph(1, side=120)))
    assert np.array_equal(miniimagenet.shrink(image), np.asarray(image.resize((84, 84), Image.Resampling.LANCZOS)))


BAD_MINIIMAGENET = {
    "a row is missing": (lambda tables, files: tables["val"].pop(), ["val.csv", "class n11 has 3 images, 4 expected"]),
    "a file is missing": (
        lambda tables, files: files["test"].pop("images/n2002.jpg"),
        ["n2002.jpg of class n20 (test.csv) is missing"],
    ),
    "two splits share a class": (
        lambda tables, files: tables.update(
            test=[(name, label.replace("n20", "n10")) for name, label in tables["test"]]
        ),
        ["class n10 is in the validation and in the test split"],
    ),
    "a class is missing": (
        lambda tables, files: tables.update(train=tables["train"][4:]),
        ["train.csv", "2 classes, 3 expected"],
    ),
    "a photograph is cut off": (
        lambda tables, files: files["train"].update({"images/n0102.jpg": photograph(102)[:400]}),
        ["images/n0102.jpg can't be decoded"],
    ),
}


@pytest.mark.parametrize("case", BAD_MINIIMAGENET)
def test_bad_miniimagenet_is_one_line_and_nothing_is_written(place, case):
    change, words = BAD_MINIIMAGENET[case]
    put_miniimagenet(place / "data", change=change)
    refused(MiniImageNet(), place, *words)


class Evil:
    """A pickle that would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_with_code_is_refused_and_not_run(place, protocol):
    for name, *_ in miniimagenet.FILE_NAMES.values():
        content = {"image_data": Evil(place / "ran"), "class_dict": {}}
        (place / f"data/mini-imagenet-cache-{name}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    refused(MiniImageNet(), place, "mini-imagenet-cache-train.pkl", "is refused")
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps([1, 2]), []),
        (pickle.dumps({"image_data": np.zeros((4, 84, 84, 3), np.uint8)}), ["class_dict"]),
        (pickle.dumps({"image_data": np.zeros((4, 84, 84, 3)), "class_dict": {}}), ["image_data"]),
        (pickle.dumps({"image_data": np.zeros((4, 84, 84, 3), np.uint8), "class_dict": {"n1": [9]}}), ["n1"]),
        (pickle.dumps({"image_data": np.array([print], dtype=object)}), ["refused"]),
        (b"\x80\x04 nonsense", []),
        (b"", []),
    ],
)
def test_a_pickle_of_something_else_is_refused(place, content, words):
    for name, *_ in miniimagenet.FILE_NAMES.values():
        (place / f"data/mini-imagenet-cache-{name}.pkl").write_bytes(content)
    refused(MiniImageNet(), place, "mini-imagenet-cache-train.pkl is not a mini-imagenet-cache of arrays", *words)


def test_no_damage_of_a_pickle_is_a_traceback(place):
    content = {
        "image_data": np.zeros((12, 84, 84, 3), np.uint8),
        "class_dict": {f"n{i}": [0, 1, 2, 3] for i in range(3)},
    }
    rng = np.random.default_rng(0)
    path = place / "mini-imagenet-cache-train.pkl"
    (place / "out").mkdir()
    for protocol in [2, 4] * 40:
        path.write_bytes(damaged(pickle.dumps(content, protocol=protocol), rng, places=300))
        with pytest.raises(MetabenchError) as raised:  # the same images for each class: also where nothing is broken
            miniimagenet._copy_cache(path, place / "out", "train", lambda line: None)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_through_a_pickle(tmp_path, protocol):
    numbers = np.arange(6, dtype=np.uint8).reshape(2, 3)
    arrays = [numbers, np.asfortranarray(np.eye(3)), np.float32(2.5), np.array(["a"])]
    content = OrderedDict(a=arrays, b=({"x": [1, 2.0, None, True]}, "text", b"\x00\xff"))
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    read = load_arrays(tmp_path / "file.pkl")
    assert read["b"] == content["b"]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(read["a"], arrays, strict=True))


def test_absent_data_say_what_to_put_where(place):
    with pytest.raises(Unavailable):
        MiniImageNet().prepare()
    refused(MiniImageNet(), place, "$METABENCH_DATA/mini-imagenet", "train.csv", "terms")


def test_real_miniimagenet_has_its_classes():
    folder = Path(REAL) / "mini-imagenet"
    if not REAL or not folder.is_dir():
        pytest.skip("METABENCH_DATA with mini-imagenet is not given")
    labels, seen = [], {}
    for split, (name, *_) in miniimagenet.FILE_NAMES.items():
        with open_files(folder / f"images_{name}.zip") as files:
            classes = miniimagenet.read_classes(folder / f"{name}.csv", files, split, seen)
            pictures = next(iter(classes.values()))
            assert pictures[0].decode(miniimagenet.shrink).shape == (84, 84, 3)
        labels.append(set(classes))
        assert sum(map(len, classes.values())) == 600 * len(classes)
    assert [len(each) for each in labels] == [64, 16, 20]
    assert len(set.union(*labels)) == 100
