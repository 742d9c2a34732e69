"""One's own pictures: the task ``image-folder`` in the layouts, sizes and states that folders have."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_files import decoded, refused
from PIL import Image

from benchmarks import registry
from benchmarks.api import SPLITS, LabelledSet, MetabenchError, Unavailable
from benchmarks.models import network_for
from benchmarks.run import cells, profiles, resolution
from maml.inner_loop import per_task

CLASSES, PICTURES = 10, 4
SHARES = {"validation_share": 0.3, "test_share": 0.3}
SMALL = {"way": 2, "shot": 1, "queries": 3, "size": 16}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def pixels(label: int, number: int) -> np.ndarray:
    return np.random.default_rng([label, number]).integers(256, size=(20, 24, 3), dtype=np.uint8)


def put(root: Path, splits: dict[str, range] | None = None, ending: str = "png") -> Path:
    """Classes 0 to 9 with 4 pictures each, side by side or in the folders of splits."""
    for split, labels in (splits or {"": range(CLASSES)}).items():
        for label in labels:
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(PICTURES):
                Image.fromarray(pixels(label, number)).save(folder / f"{number}.{ending}")
    return root


def tasks(root: Path, **fields: Any) -> Any:
    return registry.build_task("image-folder", root=str(root), **{**SMALL, **fields})


def zipped(root: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, prefix + str(path.relative_to(root)))
    return root.with_suffix(".zip")


def as_arrays(root: Path) -> Path:
    for folder in root.iterdir():
        np.save(
            root / f"{folder.name}.npy", np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
        )
        shutil.rmtree(folder)
    return root


def nested(root: Path) -> Path:
    for folder in root.iterdir():
        (folder / "2019").mkdir()
        for path in folder.glob("*.png"):
            path.rename(folder / "2019" / path.name)
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": put,
    "zip": lambda root: zipped(put(root)),
    "zip of the folder": lambda root: zipped(put(root), "birds/"),
    "one folder within": lambda root: put(root / "images").parent,
    "folders within classes": lambda root: nested(put(root)),
    "arrays": lambda root: as_arrays(put(root)),
    "links": lambda root: root.symlink_to(put(root.with_name("elsewhere"))) or root,
    "capitals": lambda root: put(root, ending="PNG"),
}


@pytest.mark.fault("U8", "D3", "D4")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_same_content(place: Path, layout: str) -> None:
    plain, other = tasks(put(place / "plain"), **SHARES), tasks(LAYOUTS[layout](place / "birds"), **SHARES)
    assert decoded(plain) == decoded(other)
    assert [len(plain.image_set(split).names) for split in SPLITS] == [4, 3, 3]
    assert sorted(name for split in SPLITS for name in plain.image_set(split).names) == [
        f"class {label}" for label in range(CLASSES)
    ]


@pytest.mark.fault("U8")
@pytest.mark.parametrize(
    "names",
    [("train", "validation", "test"), ("Train", "val", "testing"), ("birds/train", "birds/valid", "birds/test")],
)
def test_splits_are_those_of_the_folders(place: Path, names: tuple[str, ...]) -> None:
    ranges = (range(4), range(4, 7), range(7, 10))
    found = tasks(put(place / "birds", dict(zip(names, ranges, strict=True))))
    for split, labels in zip(SPLITS, ranges, strict=True):
        assert found.image_set(split).names == tuple(f"class {label}" for label in labels)
        assert found.image_set(split).counts.tolist() == [PICTURES] * len(labels)


@pytest.mark.fault("U8")
def test_the_seed_decides_which_classes_are_shared_out(place: Path) -> None:
    put(place / "birds")
    names = [tasks(place / "birds", split_seed=seed, **SHARES).image_set("test").names for seed in (0, 1, 0)]
    assert names[0] == names[2] != names[1]


@pytest.mark.fault("U8")
@pytest.mark.parametrize(("size", "colour"), [(28, False), (64, True), (84, True), (96, True), (17, False)])
def test_any_size_fits_the_backbone(place: Path, size: int, colour: bool) -> None:
    found = tasks(put(place / "birds"), size=size, colour=colour, **SHARES)
    found.prepare()
    episodes = found.episodes("test", range(2))
    assert isinstance(episodes.support, LabelledSet)
    assert episodes.support.x.shape == (2, 2, 3 if colour else 1, size, size)
    network = network_for(found)
    features = network.features(per_task(network.initialise(0), 1), episodes.support.x)
    assert features.shape[:2] == (2, 2)
    assert bool(torch.isfinite(features).all())


@pytest.mark.fault("D1", "U8")
@pytest.mark.parametrize("copies", [False, True])
def test_no_episode_shares_a_picture_between_support_and_query(place: Path, copies: bool) -> None:
    root = put(place / "birds")
    if copies:
        for folder in root.iterdir():
            shutil.copy(folder / "0.png", folder / "0 (copy).png")
            (folder / "9.png").symlink_to("1.png")
    lines: list[str] = []
    found = tasks(root, queries=2, **SHARES)
    found.prepare(lines.append)
    assert sum("is the same picture as" in line for line in lines) == (2 * CLASSES if copies else 0)
    assert all((found.image_set(split).counts == PICTURES).all() for split in SPLITS)
    for split in SPLITS:
        cut = found.episodes(split, range(50))
        same = (cut.support.x.flatten(2)[:, :, None] == cut.query.x.flatten(2)[:, None]).all(-1)
        assert not same.any()


@pytest.mark.fault("U8")
def test_a_camera_that_was_turned_is_heeded(place: Path) -> None:
    root, exif = put(place / "birds"), Image.Exif()
    exif[0x0112] = 6
    half = np.zeros((32, 32, 3), np.uint8)
    half[:16] = 255
    for folder in root.iterdir():
        for path in folder.iterdir():
            number = int(path.stem) + 4 * int(folder.name[-1])
            shade = half // 255 * (255 - number)
            Image.fromarray(shade).save(path.with_suffix(".jpg"), exif=exif, quality=100)
            path.unlink()
    image = tasks(root, colour=False, **SHARES).image_set("train").images[0].astype(int)
    assert image[:, 9:].min() > 200
    assert image[:, :7].max() < 20


@pytest.mark.fault("U8")
def test_keys_depend_on_the_content_and_not_on_the_place(place: Path) -> None:
    put(place / "birds")
    shutil.copytree(place / "birds", place / "moved" / "birds")
    profile = profiles.load("smoke")

    def keys(root: Path, digest: str) -> list[tuple[str, str, str]]:
        settings = {f"image-folder.{name}": value for name, value in {**SMALL, **SHARES, "root": str(root)}.items()}
        request = resolution.Request(methods=("finetune", "chance"), tasks=("image-folder/5w1s",), settings=settings)
        found = resolution.resolve(profile, request)
        (task,) = found.tasks
        return [(cell.key, cell.task, cell.kind) for cell in cells.expand(found, {task: digest})]

    digests = [tasks(root, **SHARES).data_digest() for root in (place / "birds", place / "moved" / "birds")]
    assert digests[0] == digests[1]
    here, there, other = keys(place / "birds", "a"), keys(place / "moved" / "birds", "a"), keys(place / "birds", "b")
    assert here == there
    assert len({key for key, *_ in here} | {key for key, *_ in other}) == 2 * len(here)
    assert "root=birds" in here[0][1]
    assert str(place) not in here[0][1]


def test_a_relative_folder_is_found_from_another_current_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place / "birds")
    monkeypatch.chdir(place)
    found = tasks(Path("birds"), **SHARES)
    monkeypatch.chdir("/")
    plain = resolution.describe_task(found).plain
    assert registry.task_from(plain).data_digest() == found.data_digest()


def change_array(array: np.ndarray) -> Callable[[Path], object]:
    return lambda root: np.save(root / "class 11.npy", array)


BAD = {
    "too few classes": (
        lambda root: [shutil.rmtree(root / f"class {i}") for i in range(5)],
        "has 5 classes, 1 to train",
    ),
    "too few pictures": (lambda root: (root / "class 3" / "1.png").unlink(), "class 'class 3' of the"),
    "no pictures": (
        lambda root: [shutil.rmtree(path) for path in root.iterdir()],
        "has no images in folders of classes",
    ),
    "two classes": (
        lambda root: shutil.copy(root / "class 1" / "1.png", root / "class 2" / "7.png"),
        "of class 'class 2' is the same picture as class 1/1.png of class 'class 1'",
    ),
    "no picture": (lambda root: (root / "class 1" / "1.png").write_text("no"), "class 1/1.png is not an image"),
    "a split is missing": (
        lambda root: [(root / f"class {i}").rename(root / name) for i, name in enumerate(("train", "test"))],
        "no pictures in validation/",
    ),
    "annex": (lambda root: (root / "class 1" / "7.png").symlink_to("gone"), "git annex get"),
    "channels first": (change_array(np.zeros((4, 3, 9, 9), np.uint8)), "class 11.npy is uint8 [4, 3, 9, 9], not uint8"),
    "floats": (change_array(np.zeros((4, 9, 9))), "class 11.npy is float64 [4, 9, 9]"),
    "objects": (lambda root: np.save(root / "c.npy", np.array([None]), allow_pickle=True), "c.npy is not an array"),
}


@pytest.mark.fault("U8", "U1", "D1", "D3")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_one_line(place: Path, case: str) -> None:
    damage, word = BAD[case]
    damage(put(place / "birds"))
    with pytest.raises(MetabenchError) as raised:
        tasks(place / "birds", **SHARES).prepare()
    assert word in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.fault("U8", "D1")
def test_a_class_in_two_splits_and_settings_without_effect_are_refused(place: Path) -> None:
    root = put(place / "birds", {"train": range(4), "val": range(4, 7), "test": range(3, 10)})
    refused(tasks(root), place, "class 'class 3' is in train/ and in test/")
    shutil.rmtree(root / "test" / "class 3")
    refused(tasks(root, split_seed=3, test_share=0.4), place, "test_share, split_seed would have no effect")


@pytest.mark.fault("U8")
@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"root": ""}, "image-folder.root=FOLDER"),
        ({"root": "no/such"}, "no such folder or zip"),
        ({"size": 15}, "size = 15 is not between"),
        ({"size": 10**6}, "is not between"),
        ({"validation_share": 0.0}, "validation_share = 0.0 is not above 0"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave no class to train on"),
        ({"split_seed": 2**63}, "split_seed"),
        ({"size": "84"}, "is str, not int"),
    ],
)
def test_a_wrong_field_is_one_line(place: Path, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(MetabenchError) as raised:
        registry.build_task("image-folder", **{"root": str(place), **fields}).prepare()
    assert word in str(raised.value)
    assert isinstance(raised.value, Unavailable) == (fields == {"root": ""})
