"""Smaller copies of records for a commit, without numbers that no table, figure or verdict reads.

A score of an episode is the mean over its queries, so the queries' own scores go; `Record.thinned` says what went.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from benchmarks.records.record import CurvePoint, Record, Training

#: pictures of a film, from the first to the last
PICTURES_KEPT = 3
#: episodes of images, which are the first ones
EPISODES_KEPT = 1
#: arrays that show episodes of images, and the axis of the episodes
OF_IMAGES = {
    "support_images": 0,
    "support_labels": 0,
    "query_images": 0,
    "query_labels": 0,
    "class_names": 0,
    "predicted": 1,
}
#: arrays of a fit with a number for each meta-step
PER_STEP = ("loss", "step_seconds")
Arrays = Mapping[str, np.ndarray]


def thin(
    record: Record, scores: Arrays | None, arrays: Arrays | None, fits: Collection[str]
) -> tuple[Record, Arrays | None, Arrays | None]:
    """The record with its scores and arrays as a copy has them; thinning a copy again changes nothing.

    fits: the keys of fits whose own records hold the learning curve, which evaluations then don't repeat."""
    went = set(record.thinned)
    if scores and any(values.shape[1] > 1 for values in scores.values()):
        went.add("queries")
        scores = {name: episode_means(values) for name, values in scores.items()}
    if arrays and set(PER_STEP) & set(arrays):
        went.add("meta-steps")
        arrays = {name: values for name, values in arrays.items() if name not in PER_STEP}
    if arrays and "frames" in arrays and arrays["frames"].shape[1] > PICTURES_KEPT:
        went.add("frames")
        chosen = np.linspace(0, arrays["frames"].shape[1] - 1, PICTURES_KEPT).astype(int)
        arrays = {**arrays, "frames": arrays["frames"][:, chosen]}
    if arrays and "query_labels" in arrays and len(arrays["query_labels"]) > EPISODES_KEPT:
        went.add("pictures")
        first = range(EPISODES_KEPT)
        arrays = {
            name: values.take(first, OF_IMAGES[name]) if name in OF_IMAGES else values
            for name, values in arrays.items()
        }
    training = record.training
    if training and record.cell == "evaluation" and training.fit in fits and record.task:
        short = _decisive(training, record.task.higher_is_better)
        if len(short) < len(training.curve):
            went.add("curve")
            training = dataclasses.replace(training, curve=short)
    return dataclasses.replace(record, training=training, thinned=tuple(sorted(went))), scores, arrays or None


def episode_means(values: np.ndarray) -> np.ndarray:
    """The mean over queries, ``[episodes, 1]``: float64 where a query is right or wrong, else of the scores' type."""
    means = values.mean(axis=1, dtype=np.float64, keepdims=True)
    return means.astype(values.dtype if values.dtype.kind == "f" else np.float64)


def _decisive(training: Training, higher_is_better: bool) -> tuple[CurvePoint, ...]:
    """The validations that `benchmarks.stats.reach` and the count of failures read: those with a failed adaptation, and
    the best one of the first three quarters and of all."""
    best = max if higher_is_better else min
    scored = [(value, point) for point in training.curve if (value := point.selecting) is not None]
    early = [each for each in scored if not training.in_last_quarter(each[1].step)]
    kept = {best(group, key=lambda each: each[0])[1].step for group in (early, scored) if group}
    return tuple(point for point in training.curve if point.step in kept or point.score is None or point.failed)
