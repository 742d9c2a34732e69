"""Own data for a trained learner: what does not fit the task is one line before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.api import LabelledSet, MetaLearner, Predictor, State, TaskDistribution
from benchmarks.errors import MetabenchError


def checked(learner: MetaLearner) -> MetaLearner:
    """The learner, whose `adapt` refuses data that don't fit the task."""
    adapt = learner.adapt

    def refusing(state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        if tasks.kind != "control":
            check(support, state, tasks)
            if "parameters" in learner.needs and support.parameters is None:
                raise MetabenchError(f"support has no parameters of its tasks, which {learner.name} needs")
        return adapt(state, support, tasks)

    object.__setattr__(learner, "adapt", refusing)
    return learner


def check(support: Any, state: State, tasks: TaskDistribution) -> None:
    """Refuse a support set of other types, shapes, labels or devices than the task and the state have."""
    if not isinstance(support, LabelledSet):
        raise MetabenchError(f"support is {type(support).__name__}, not LabelledSet(x, y)")
    kinds = {torch.float32, *(value.dtype for value in state.parameters.values())}
    _check_values("support.x", support.x, ("T", "n", *tasks.input_shape), kinds, tasks.device)
    if hasattr(tasks, "image_set") and not (support.x.min() >= 0 and support.x.max() <= 1):
        low, high = support.x.min().item(), support.x.max().item()
        raise MetabenchError(f"support.x goes from {low:g} to {high:g}; images of {tasks.id} are from 0 to 1")
    examples = support.x.shape[:2]
    if tasks.kind == "regression":
        _check_values("support.y", support.y, (*examples, tasks.outputs), kinds, tasks.device)
        return
    _check_shape("support.y", support.y, examples)
    if support.y.dtype != torch.int64:
        raise MetabenchError(f"support.y is {support.y.dtype}; labels are torch.int64")
    if not (support.y.min() >= 0 and support.y.max() < tasks.outputs):
        found = sorted(set(support.y.flatten().tolist()))
        raise MetabenchError(f"support.y has the labels {found}; those of {tasks.id} are 0 to {tasks.outputs - 1}")


def _check_values(what: str, given: Any, shape: tuple[int | str, ...], kinds: set[torch.dtype], device: str) -> None:
    _check_shape(what, given, shape)
    if given.dtype not in kinds:
        raise MetabenchError(f"{what} is {given.dtype}, not {' or '.join(sorted(map(str, kinds)))}")
    if given.device.type != torch.device(device).type:
        raise MetabenchError(f"{what} is on {given.device}, the learner on {device}")
    if not torch.isfinite(given).all():
        raise MetabenchError(f"{what} has numbers that are not finite")


def _check_shape(what: str, given: Any, shape: tuple[int | str, ...]) -> None:
    """shape: a letter stands for any number from 1 on."""
    expected = f"[{', '.join(map(str, shape))}]"
    if not isinstance(given, Tensor):
        raise MetabenchError(f"{what} is {type(given).__name__}, not a tensor {expected}")
    fits = len(given.shape) == len(shape) and all(
        size == wanted or (isinstance(wanted, str) and size > 0)
        for size, wanted in zip(given.shape, shape, strict=True)
    )
    if not fits:
        raise MetabenchError(f"{what} has the shape {list(given.shape)}, not {expected} (T tasks of n examples)")
