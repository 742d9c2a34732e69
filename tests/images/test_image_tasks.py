"""Few-shot image classification: properties of episodes, on images that hold their number."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from benchmarks.api import SPLITS, LabelledSet, MetabenchError
from benchmarks.images.distribution import ImageSet, ImageTasks, distinct, on_device

CLASSES = {"train": 12, "validation": 6, "test": 7}
SIDE = 6


@functools.cache
def numbered(split: str, channels: int | None, uneven: bool) -> ImageSet:
    """Noise images that hold their number within the split in their first two pixels."""
    counts = np.array([25 + (i % 3 if uneven else 0) for i in range(CLASSES[split])], dtype=np.int64)
    shape = (int(counts.sum()), SIDE, SIDE) + (() if channels is None else (channels,))
    images = np.random.default_rng(len(split)).integers(0, 256, shape, dtype=np.uint8)
    number = np.arange(len(images))
    images[:, 0, 0] = (number // 256).reshape(-1, *[1] * (len(shape) - 3))
    images[:, 0, 1] = (number % 256).reshape(-1, *[1] * (len(shape) - 3))
    return ImageSet(images, counts, tuple(f"{split} {i}" for i in range(len(counts))), f"digest of {split}")


@dataclass(frozen=True)
class Numbered(ImageTasks):
    """Images that hold their number."""

    name: ClassVar[str] = "numbered"
    variants: ClassVar[dict[str, dict[str, int]]] = {"5w1s": {}}
    image_shape: ClassVar[tuple[int, int, int]] = (1, SIDE, SIDE)
    variant: str = "5w1s"
    uneven: bool = False

    def image_set(self, split: str) -> ImageSet:
        return numbered(split, None, self.uneven)


@dataclass(frozen=True)
class Coloured(Numbered):
    """The same in three colours."""

    image_shape: ClassVar[tuple[int, int, int]] = (3, SIDE, SIDE)

    def image_set(self, split: str) -> ImageSet:
        return numbered(split, 3, self.uneven)


def sets(tasks: ImageTasks, split: str = "train", count: int = 40, **sizes: int) -> tuple[LabelledSet, LabelledSet]:
    episodes = tasks.episodes(split, range(count), **sizes)
    return episodes.support, episodes.query


def same(first: LabelledSet, second: LabelledSet) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("x", *NUMBERS))


def examples(labelled: LabelledSet, task: int) -> set[tuple[int, int]]:
    """Class and image of the examples of one task."""
    return set(zip(labelled.classes[task].tolist(), labelled.items[task].tolist(), strict=True))


NUMBERS = ("y", "classes", "items")
VARIANTS = [
    Numbered(),
    Numbered(rotations=True),
    Numbered(uneven=True, rotations=True, way=3, shot=4, queries=6),
    Coloured(rotations=True),
]


@pytest.mark.parametrize("tasks", VARIANTS)
@pytest.mark.parametrize("split", SPLITS)
def test_episodes_are_balanced_name_each_class_once_and_repeat_no_example(tasks, split):
    support, query = sets(tasks, split)
    for labelled, each in ((support, tasks.shot), (query, tasks.queries)):
        n = tasks.way * each
        assert labelled.x.shape == (40, n, *tasks.input_shape)
        assert labelled.x.dtype == torch.float32
        assert 0 <= labelled.x.min() < labelled.x.max() <= 1
        assert labelled.y.shape == labelled.classes.shape == labelled.items.shape == (40, n)
        for labels in labelled.y:
            assert torch.bincount(labels, minlength=tasks.way).tolist() == [each] * tasks.way
    for task in range(40):
        both = [torch.cat((getattr(support, name)[task], getattr(query, name)[task])).tolist() for name in NUMBERS]
        assert len(set(zip(both[0], both[1], strict=True))) == len(set(both[1])) == tasks.way
        assert len(set(zip(both[1], both[2], strict=True))) == len(both[2])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("tasks", VARIANTS)
def test_an_example_is_the_image_that_its_number_says_turned_as_its_class_says(tasks, split):
    images = tasks.image_set(split)
    first_class = sum(CLASSES[s] for s in SPLITS[: SPLITS.index(split)]) * tasks.turns(split)
    first_item = sum(len(tasks.image_set(s).images) for s in SPLITS[: SPLITS.index(split)])
    support, _ = sets(tasks, split)
    for x, number, item in zip(
        support.x.flatten(0, 1), support.classes.flatten().tolist(), support.items.flatten().tolist(), strict=True
    ):
        turn, base = divmod(number - first_class, CLASSES[split])
        pixels = (np.rot90(x.permute(1, 2, 0).numpy(), -turn) * 255).round().astype(int)
        assert pixels[0, 0, 0] * 256 + pixels[0, 1, 0] == item - first_item
        assert np.array_equal(pixels, images.images[item - first_item].reshape(pixels.shape))
        assert images.offsets[base] <= item - first_item < images.offsets[base] + images.counts[base]


def test_queries_do_not_depend_on_the_shots_and_fewer_shots_are_part_of_more():
    tasks = Numbered(rotations=True)
    one, query = sets(tasks)
    five, query_of_five = sets(tasks, shots=5)
    assert same(query, query_of_five)
    assert all(examples(one, task) < examples(five, task) for task in range(len(one)))


def test_the_first_hundred_episodes_are_these():
    episodes = Numbered(rotations=True).episodes("test", range(100))
    digest = hashlib.sha256()
    for labelled in (episodes.support, episodes.query):
        for values in (labelled.y, labelled.classes, labelled.items, (labelled.x * 255).round().to(torch.uint8)):
            digest.update(np.ascontiguousarray(values.numpy()).data)
    assert digest.hexdigest()[:16] == "9373d86e3ace70a5"


def test_examples_are_shuffled_and_other_indices_splits_and_variants_have_other_classes():
    support, query = sets(Numbered(shot=3), count=50)
    for labelled in (support, query):
        firsts = Counter(labelled.y[:, 0].tolist())
        assert len(firsts) == 5
        assert not any(torch.equal(labels, labels.sort().values) for labels in labelled.y)
    assert not torch.equal(*(labelled.y[:, :5] for labelled in (support, query)))
    assert len({tuple(classes) for classes in support.classes.tolist()}) > 40
    for other, split in ((Numbered(shot=3, variant="another"), "train"), (Numbered(shot=3), "validation")):
        first = 0 if split == "train" else CLASSES["train"]
        assert not torch.equal(sets(other, split, 50)[0].classes - first, support.classes)


def test_rotations_are_classes_of_their_own_with_names():
    tasks = Numbered(rotations=True)
    assert tasks.class_name(0) == "train 0"
    assert tasks.class_name(48 + 24 + 7 * 3 + 2) == "test 2, turned by 270 degrees"
    assert [Numbered(rotations=True).pooled_outputs(split) for split in SPLITS] == [48, 24, 28]
    assert [Numbered().pooled_outputs(split) for split in SPLITS] == [12, 6, 7]
    wide = Numbered(rotations=True, way=28, queries=1)
    support, _ = sets(wide, "test", 2)
    assert len(set(support.classes[0].tolist())) == 28


def test_classes_are_drawn_evenly():
    support, _ = sets(Numbered(rotations=True), "train", 4000)
    drawn = torch.bincount(support.classes.flatten(), minlength=48).double()
    expected = 4000 * 5 / 48
    # chi-squared with 47 degrees of freedom is above 96 once in 40,000
    assert ((drawn - expected) ** 2 / expected).sum() < 96


def test_draws_without_replacement():
    population = np.array([[3, 7, 20]] * 3000)
    drawn = distinct(5, range(3000), population, 3)
    assert drawn.shape == (3000, 3, 3)
    assert np.array_equal(drawn[..., :2], distinct(5, range(3000), population, 2))
    assert ((drawn >= 0) & (drawn < population[..., None])).all()
    ordered = np.sort(drawn, axis=-1)
    assert (np.diff(ordered, axis=-1) > 0).all()
    orders = Counter(map(tuple, drawn[:, 0].tolist()))
    assert len(orders) == 6
    assert all(abs(times - 500) < 6 * 500**0.5 for times in orders.values())


def test_pooled_examples_are_one_task_with_global_labels():
    tasks = Numbered(rotations=True, uneven=True)
    for split in SPLITS:
        pooled = tasks.pooled(split, range(2000))
        assert pooled.x.shape == (1, 2000, 1, SIDE, SIDE)
        assert pooled.y.shape == (1, 2000)
        assert set(pooled.y.flatten().tolist()) == set(range(tasks.pooled_outputs(split)))
        assert torch.equal(pooled.classes - pooled.classes.min(), pooled.y)
    again = tasks.pooled("test", [1500])
    assert torch.equal(again.x[0, 0], pooled.x[0, 1500])
    assert torch.equal(again.y[0, 0], pooled.y[0, 1500])


def knowing(query: LabelledSet, way: int, right: bool):
    """A predictor that knows the labels of the queries."""
    outputs = torch.nn.functional.one_hot(query.y, way).float()
    return lambda x, memory=None: (outputs if right else -outputs, None)


def test_score_is_one_where_the_prediction_is_right():
    tasks = Numbered()
    _, query = sets(tasks)
    right, wrong = (tasks.score(knowing(query, 5, answer), query) for answer in (True, False))
    assert torch.equal(right, torch.ones(40, 75))
    assert torch.equal(wrong, torch.zeros(40, 75))
    guess = tasks.score(lambda x, memory=None: (torch.zeros(*x.shape[:2], 5), None), query)
    assert guess.mean() == pytest.approx(tasks.floor)


@pytest.mark.parametrize("tasks", [Numbered(rotations=True), Coloured(rotations=True)])
def test_exhibit_shows_the_images_with_names_and_predictions(tasks):
    episodes = tasks.episodes("test", range(4))
    shown = tasks.exhibit({0: knowing(episodes.query, 5, False), 3: knowing(episodes.query, 5, True)}, episodes)
    colours = () if tasks.image_shape[0] == 1 else (3,)
    assert shown["support_images"].shape == (3, 5, SIDE, SIDE, *colours)
    assert shown["query_images"].shape == (3, 25, SIDE, SIDE, *colours)
    assert shown["query_images"].dtype == np.uint8
    first = (episodes.query.x[0, 0] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(shown["query_images"][0, 0].reshape(first.shape), first)
    assert shown["steps"].tolist() == [0, 3]
    assert np.array_equal(shown["predicted"][1], shown["query_labels"])
    assert (shown["predicted"][0] != shown["query_labels"]).all()
    label, number = episodes.query.y[0, 0].item(), episodes.query.classes[0, 0].item()
    assert shown["class_names"][0, label] == tasks.class_name(number)
    assert shown["class_names"].dtype.kind == "U"


def test_the_cpu_reads_the_array_itself():
    images = numbered("test", None, False)
    assert on_device(images, "cpu").data_ptr() == images.images.ctypes.data
    before = images.images.copy()
    episodes = Numbered(rotations=True).episodes("test", range(10))
    episodes.support.x.zero_()
    assert np.array_equal(images.images, before)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.episodes("train", [0], shots=11), ["11 shots and 15 queries", "26 images", "'train 0'", "25"]),
        (lambda t: t.episodes("training", [0]), ["unknown split 'training'", "train, validation"]),
        (lambda t: t.pooled("exam", [0]), ["unknown split 'exam'"]),
        (lambda t: t.replace(way=9).episodes("test", [0]), ["way = 9", "test split has 7 classes"]),
        (lambda t: t.episodes("test", [0], shots=0), ["shots = 0"]),
        (lambda t: t.replace(way=1), ["way = 1 is not at least 2"]),
        (lambda t: t.replace(shot=0), ["shot = 0"]),
        (lambda t: t.replace(queries=0), ["queries = 0"]),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(call, words):
    with pytest.raises((MetabenchError, ValueError)) as raised:
        call(Numbered())
    assert all(word in str(raised.value) for word in words)
    assert "\n" not in str(raised.value)


@pytest.mark.fault("U1")
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_is_one_line(channels, monkeypatch):
    def channels_first(self, split):
        found = numbered(split, channels, False)
        return dataclasses.replace(found, images=np.moveaxis(found.images, -1, 1))

    kind = Coloured if channels == 3 else Numbered
    monkeypatch.setattr(kind, "image_set", channels_first)
    for call in (kind().episodes, kind().pooled):
        with pytest.raises(MetabenchError, match=r"stored as \[6, 6, \d\] \(height, width, channels\)") as raised:
            call("train", [0])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("images", "counts"),
    [(np.zeros((4, 3, 3)), [4]), (np.zeros((4, 3, 3), np.uint8), [3]), (np.zeros(4, np.uint8), [4])],
)
def test_an_image_set_counts_its_images(images, counts):
    with pytest.raises(ValueError):
        ImageSet(images, np.array(counts), ("only",), "")
