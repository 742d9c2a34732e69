"""Few-shot image classification, the base of Omniglot, mini-ImageNet and glyphs.

A subclass provides the images (`image_set`) and its facts as class data. Images stay one uint8 array per split on the
device, and episodes are cut there. The numbers of classes and images come from `benchmarks.sampling`, for all episodes
at once.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import SPLITS, Episodes, LabelledSet, MetabenchError, Predictor, TaskDistribution
from benchmarks.checks import check_fields, check_known

Indices = Sequence[int] | np.ndarray

#: episodes and examples shown in figures
EXHIBITED_EPISODES = 3
EXHIBITED_EXAMPLES = 25
#: a class score beyond this is no number: in float32 its neighbours are more than 1 apart
LARGEST = 2.0**24


def classes_of(scores: Tensor) -> Tensor:
    """The class with the highest score ``[..., way]``, the first of equal ones; -1 where that score is NaN, infinite or
    beyond `LARGEST`. A class may be ruled out by -inf."""
    return scores.argmax(dim=-1).masked_fill(~(scores.amax(dim=-1).abs() <= LARGEST), -1)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one split, sorted by class; raises `ValueError` if type, shape or counts do not match.

    images: uint8 ``[N, H, W]`` or ``[N, H, W, C]``, usually memory-mapped; writable or copy-on-write (mode "c"),
        because torch warns about read-only arrays
    counts, names: images per class in the order of ``images``, int64 ``[classes]``, and the names of the classes
    digest: hash of the content
    """

    images: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]
    digest: str

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim not in (3, 4):
            raise ValueError(f"images are uint8 [N, H, W] or [N, H, W, C], not {self.images.dtype} {self.images.shape}")
        if len(self.counts) != len(self.names) or int(self.counts.sum()) != len(self.images):
            raise ValueError(
                f"{len(self.names)} names and {int(self.counts.sum())} counted images do not match the array"
            )

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Number of each class's first image, int64 ``[classes]``."""
        return np.cumsum(self.counts) - self.counts


@functools.cache
def on_device(image_set: ImageSet, device: str) -> Tensor:
    """A split's images as a uint8 tensor, moved once per process; on the CPU it is the memory map itself."""
    return torch.from_numpy(image_set.images).to(device)


def distinct(key: int, indices: Indices, population: np.ndarray, count: int) -> np.ndarray:
    """Draws without replacement from populations of different sizes, int64 ``[T, sets, count]``.

    population: ``[T, sets]``; each draw has ``count`` different numbers below it, in random order

    The first numbers of a draw do not depend on ``count``. Unlike `sampling.choices`, the cost does not depend on the
    population: a number is drawn among the remaining ones, then shifted past the smaller ones already taken."""
    tasks, sets = population.shape
    words = sampling.bits(key, indices, count * sets).reshape(tasks, count, sets) >> np.uint64(32)
    drawn = np.empty((tasks, sets, count), dtype=np.int64)
    for i in range(count):
        left = (population - i).astype(np.uint64)
        value = (words[:, i] * left >> np.uint64(32)).astype(np.int64)
        gone = np.sort(drawn[..., :i], axis=-1)
        for j in range(i):
            value += value >= gone[..., j]
        drawn[..., i] = value
    return drawn


@dataclass(frozen=True)
class ImageTasks(TaskDistribution):
    """N-way K-shot classification of images; each class belongs to one split.

    An input is ``[C, H, W]``, float32 from 0 to 1. Labels are 0 to way - 1 in random order. An episode draws ``way``
    classes of the split, then for each class the queries and the support, all without replacement. So queries do not
    depend on the shots, and the support of fewer shots is part of that of more.

    way, shot, queries: classes per episode, support and query images per class
    rotations: rotations by 0, 90, 180 and 270 degrees count as four classes
    """

    kind: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    offers: ClassVar[frozenset[str]] = frozenset({"pooled", "classes"})
    redistributable: ClassVar[bool] = True  #: whether its images may be passed on
    image_shape: ClassVar[tuple[int, int, int]]  #: channels, height, width

    way: int = 5
    shot: int = 1
    queries: int = 15
    rotations: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "at least 2", "way")
        check_fields(self, "at least 1", "shot", "queries")

    def image_set(self, split: str) -> ImageSet:
        """The prepared images of a split, the same object each time; raises `Unavailable` if there are none."""
        raise NotImplementedError

    def turns(self, split: str) -> int:
        """Rotations of an image that count as classes, 4 or 1."""
        return 4 if self.rotations else 1

    @property
    def title(self) -> str:
        """With the way and the shots that it has: ``omniglot-v1/7w1s[of 5w1s]`` is the variant 5w1s with way = 7."""
        shown = re.sub(r"^\d+w\d+s", f"{self.way}w{self.shot}s", self.variant)
        fields = super().title.removeprefix(self.id)
        if shown == self.variant:
            return self.id + fields
        rest = re.sub(r"^\[(way=\d+(, )?)?(shot=\d+(, )?)?|\]$", "", fields)
        return f"{self.name}-v{self.version}/{shown}[{', '.join(filter(None, (f'of {self.variant}', rest)))}]"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def outputs(self) -> int:
        return self.way

    @property
    def floor(self) -> float:
        """Accuracy of guessing."""
        return 1.0 / self.way

    def data_digest(self) -> str | None:
        joined = "/".join(self.image_set(split).digest for split in SPLITS)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    def episodes(
        self, split: str, indices: Indices, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        shots = self.shot if shots is None else shots
        queries = self.queries if queries is None else queries
        images = self._checked(split, shots, queries)
        population = np.full((len(indices), 1), self.pooled_outputs(split))
        classes = distinct(self._stream(split, "classes"), indices, population, self.way)[:, 0]
        counts = images.counts[classes % len(images.names)]
        numbers = distinct(self._stream(split, "items"), indices, counts, queries + shots)
        query = self._labelled(split, indices, "query", classes, numbers[..., :queries])
        support = self._labelled(split, indices, "support", classes, numbers[..., queries:])
        return Episodes(support, query)

    def pooled(self, split: str, indices: Indices) -> LabelledSet:
        """One example per index: first a class of the split is drawn, then one of its images."""
        images = self._checked(split, 1, 0)
        key = self._stream(split, "pooled")
        classes = sampling.integers(key, indices, 1, self.pooled_outputs(split))
        counts = images.counts[classes % len(images.names)]
        numbers = distinct(self._stream(split, "pooled items"), indices, counts, 1)[..., 0]
        return self._cut(split, classes.T, numbers.T, classes.T)

    def pooled_outputs(self, split: str) -> int:
        return len(self._split(split).names) * self.turns(split)

    def score(self, predictor: Predictor, query: LabelledSet) -> Tensor:
        """1 where the class with the highest score is the right one, else 0: float32 ``[T, n]``; NaN where there is
        none (`classes_of`)."""
        found = classes_of(self.predictions(predictor, query))
        return (found == query.y).float().masked_fill(found < 0, torch.nan)

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """Images of the first E episodes, with predictions after each of S step counts.

        support_images, query_images: uint8 ``[E, n, H, W(, C)]``; support_labels, query_labels: ``[E, n]``;
        predicted: ``[S, E, n]``, -1 for none; steps: ``[S]``; class_names: text ``[E, way]``, by label."""
        shown, limit = slice(0, EXHIBITED_EPISODES), EXHIBITED_EXAMPLES
        support, query = episodes.support[shown], episodes.query[shown]
        predicted = [classes_of(predict(episodes.query.x)[0][shown, :limit]) for predict in predictors.values()]
        by_label = [sorted(set(map(tuple, pairs))) for pairs in torch.stack((support.y, support.classes), -1).tolist()]
        return {
            "support_images": _pictures(support.x[:, :limit]),
            "support_labels": support.y[:, :limit].cpu().numpy().astype(np.int16),
            "query_images": _pictures(query.x[:, :limit]),
            "query_labels": query.y[:, :limit].cpu().numpy().astype(np.int16),
            "predicted": torch.stack(predicted).cpu().numpy().astype(np.int16),
            "steps": np.array(list(predictors), dtype=np.int16),
            "class_names": np.array([[self.class_name(number) for _, number in labels] for labels in by_label]),
        }

    def class_name(self, number: int) -> str:
        """Name of a class by its number in the whole data set, rotations included; raises `ValueError` if unknown."""
        for split in SPLITS:
            names, first = self._split(split).names, self._first_class(split)
            if first <= number < first + self.pooled_outputs(split):
                turn, base = divmod(number - first, len(names))
                return f"{names[base]}, turned by {90 * turn} degrees" if turn else names[base]
        raise ValueError(f"no class has the number {number}")

    def _stream(self, split: str, purpose: str) -> int:
        return sampling.stream(self.id, split, purpose)

    def _split(self, split: str) -> ImageSet:
        check_known("split", split, SPLITS)
        return self.image_set(split)

    def _checked(self, split: str, shots: int, queries: int) -> ImageSet:
        """The images of the split, if it has enough classes and images for such an episode."""
        images = self._split(split)
        stored, (channels, height, width) = images.images.shape[1:], self.image_shape
        if (*stored, 1)[:3] != (height, width, channels):
            raise MetabenchError(
                f"{self.id}: an input is {self.image_shape} (channels, height, width), so images are stored as "
                f"{[height, width, channels]} (height, width, channels); those of the {split} split are {list(stored)}"
            )
        if self.way > self.pooled_outputs(split):
            known = self.pooled_outputs(split)
            raise MetabenchError(f"{self.id}: way = {self.way}, but the {split} split has {known} classes")
        if shots < 1 or queries < 0:
            raise MetabenchError(f"{self.id}: shots = {shots} and queries = {queries} cannot be cut")
        smallest = int(images.counts.argmin())
        if shots + queries > images.counts[smallest]:
            raise MetabenchError(
                f"{self.id}: {shots} shots and {queries} queries per class need {shots + queries} images, but class "
                f"{images.names[smallest]!r} of the {split} split has {images.counts[smallest]}"
            )
        return images

    def _first_class(self, split: str) -> int:
        return sum(self.pooled_outputs(earlier) for earlier in SPLITS[: SPLITS.index(split)])

    def _first_item(self, split: str) -> int:
        return sum(len(self.image_set(earlier).images) for earlier in SPLITS[: SPLITS.index(split)])

    def _labelled(
        self, split: str, indices: Indices, purpose: str, classes: np.ndarray, numbers: np.ndarray
    ) -> LabelledSet:
        """Images ``numbers`` ``[T, way, n]`` of ``classes`` ``[T, way]`` in shuffled order, labelled by position."""
        tasks, way, each = numbers.shape
        order = sampling.permutations(self._stream(split, f"{purpose} order"), indices, way * each)
        label = order // each if each else order
        shuffled = np.take_along_axis(numbers.reshape(tasks, -1), order, axis=1)
        return self._cut(split, np.take_along_axis(classes, label, axis=1), shuffled, label)

    def _cut(self, split: str, classes: np.ndarray, numbers: np.ndarray, label: np.ndarray) -> LabelledSet:
        """Images by their numbers within classes of the split, and their labels: all ``[T, n]``."""
        images = self.image_set(split)
        turn, base = np.divmod(classes, len(images.names))
        items = images.offsets[base] + numbers
        pixels = on_device(images, self.device).index_select(0, torch.from_numpy(items.reshape(-1)).to(self.device))
        for quarter in range(1, self.turns(split)):
            where = torch.from_numpy(np.flatnonzero(turn == quarter)).to(self.device)
            pixels[where] = torch.rot90(pixels[where], quarter, (1, 2))
        return LabelledSet(
            x=_inputs(pixels).reshape(*classes.shape, *self.image_shape),
            y=torch.from_numpy(np.ascontiguousarray(label)).to(self.device),
            classes=torch.from_numpy(classes + self._first_class(split)).to(self.device),
            items=torch.from_numpy(items + self._first_item(split)).to(self.device),
        )


def _inputs(pixels: Tensor) -> Tensor:
    """uint8 ``[n, H, W(, C)]`` as float32 ``[n, C, H, W]`` from 0 to 1."""
    channels_first = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return channels_first.contiguous().float().div_(255.0)


def _pictures(x: Tensor) -> np.ndarray:
    """Inputs ``[T, n, C, H, W]`` as uint8 ``[T, n, H, W]`` (one channel) or ``[T, n, H, W, C]``."""
    pixels = (x * 255.0).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
