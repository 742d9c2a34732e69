"""Own data for a trained learner: what does not fit is one line that names what is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import benchmarks as mb
from benchmarks import registry
from benchmarks.models import network_for
from benchmarks.python_api.own_data import checked

Change = Callable[[Tensor], Any]
X: list[tuple[Change, str]] = [
    (lambda x: x[0], "support.x has the shape [{n}, {inputs}], not [T, n, {inputs}] (T tasks of n examples)"),
    (lambda x: x[..., :-1], "support.x has the shape"),
    (lambda x: x[:, :0], "support.x has the shape [2, 0, {inputs}]"),
    (lambda x: x.numpy(), "support.x is ndarray, not a tensor [T, n, {inputs}]"),
    (lambda x: x.double(), "support.x is torch.float64, not torch.float32"),
    (lambda x: x.to("meta"), "support.x is on meta, the learner on cpu"),
    (lambda x: x * float("nan"), "support.x"),
]
LABELS: list[tuple[Change, str]] = [
    (lambda y: y + 1, "support.y has the labels [1, 2, 3, 4, 5]; those of glyphs-v1/5w1s are 0 to 4"),
    (lambda y: -y, "support.y has the labels [-4, -3, -2, -1, 0]"),
    (lambda y: y.float(), "support.y is torch.float32; labels are torch.int64"),
    (lambda y: y[..., None], "support.y has the shape [2, 5, 1], not [2, 5]"),
    (lambda y: y[:1], "support.y has the shape [1, 5], not [2, 5]"),
    (lambda y: y.tolist(), "support.y is list, not a tensor [2, 5]"),
]
TARGETS: list[tuple[Change, str]] = [
    (lambda y: y[..., 0], "support.y has the shape [2, 5], not [2, 5, 1]"),
    (lambda y: y.long(), "support.y is torch.int64, not torch.float32"),
    (lambda y: y / 0, "support.y has numbers that are not finite"),
]
CASES = [
    ("glyphs/5w1s", "x", *each) for each in (*X, (lambda x: 255 * x + 1, "images of glyphs-v1/5w1s are from 0 to 1"))
]
CASES += [("sinusoid/k5", "x", *each) for each in X]
CASES += [("glyphs/5w1s", "y", *each) for each in LABELS]
CASES += [("sinusoid/k5", "y", *each) for each in TARGETS]


@pytest.mark.fault("U8")
@pytest.mark.parametrize(("task", "part", "change", "said"), CASES)
def test_a_support_set_that_does_not_fit_is_refused(task: str, part: str, change: Change, said: str) -> None:
    tasks = registry.build_task(task)
    learner = checked(registry.build_method("maml", tasks))
    state = mb.State(network_for(tasks).initialise(0))
    support = tasks.episodes("test", [0, 1]).support
    with pytest.raises(mb.MetabenchError) as refusal:
        learner.adapt(state, replace(support, **{part: change(getattr(support, part))}), tasks)
    inputs = ", ".join(map(str, tasks.input_shape))
    assert said.format(n=support.x.shape[1], inputs=inputs) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.fault("U8")
def test_what_fits_is_adapted_to_as_before() -> None:
    for task, name in (("glyphs/5w1s", "maml"), ("sinusoid/k5", "maml"), ("glyphs/5w1s", "nearest-neighbour")):
        tasks = registry.build_task(task)
        learner, same = (registry.build_method(name, tasks) for _ in range(2))
        state = mb.State(network_for(tasks).initialise(0)) if learner.fits else mb.State()
        episodes = tasks.episodes("test", [0, 1])
        outputs = [
            next(one.adapt(state, episodes.support, tasks))(episodes.query.x)[0] for one in (checked(learner), same)
        ]
        assert torch.equal(*outputs)
        assert learner == same


@pytest.mark.fault("U8")
def test_other_objects_and_missing_parameters_are_refused() -> None:
    tasks = registry.build_task("sinusoid/k5")
    support = tasks.episodes("test", [0]).support
    for name, given, said in (
        ("maml", (support.x, support.y), "support is tuple, not LabelledSet"),
        ("oracle", replace(support, parameters=None), "support has no parameters of its tasks, which oracle needs"),
    ):
        with pytest.raises(mb.MetabenchError, match=said):
            checked(registry.build_method(name, tasks)).adapt(mb.State(), given, tasks)
