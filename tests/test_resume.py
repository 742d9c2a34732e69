"""A fit that is stopped and goes on ends where one does that was never stopped, bit for bit, whatever it carries."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from benchmarks.api import MetaLearner, State
from benchmarks.registry import build_task, method_entry, methods, mismatch

#: small, so that schedules and stages change within five meta-steps
SMALL = {"meta_batch": 2, "batch_size": 6, "halve_every": 1, "slots": 8, "width": 4, "heads": 2, "filters": 4}
SMALL |= {"inner_steps": 2, "test_steps": (1,), "hidden": 4, "first_order": 0.5, "multi_step_loss": 1.0}
SMALL |= {"training_way": 0}
OTHERWISE = {
    "reptile": [{"form": "serial"}, {"moments_persist": False}],
    "meta-baseline": [{"pretraining_steps": steps} for steps in (0, 2, 3)],
    "baseline-plus-plus": [{"learned_norm": True}],
    "memory-augmented": [{"optimiser": "adam"}],
    "learned-optimiser": [{"window": 1}],
}
NAMES = sorted(name for name, entry in methods().items() if entry.cls.fits and entry.cls.kinds - {"control"})
CASES = [(name, fields) for name in NAMES for fields in ({}, *OTHERWISE.get(name, ()))]


def learner_of(name: str, kind: str, fields: dict[str, Any]) -> MetaLearner:
    entry = method_entry(name, kind)
    small = {key: value for key, value in SMALL.items() if key in entry.known_fields}
    learner: MetaLearner = entry.cls(**{**entry.fields, **small, **fields})
    return learner


def after(learner: MetaLearner, tasks: Any, steps: int, start: State | None = None) -> State:
    *_, last = islice(learner.for_budget(5).fit(tasks, 1, start), steps)
    return last.copy()


@pytest.mark.parametrize(("name", "fields"), CASES, ids=str)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_two_meta_steps_and_three_are_five(given: Any, name: str, fields: dict[str, Any], kind: str) -> None:
    tasks = given.single(given.images()) if kind == "classification" else build_task("sinusoid/k5")
    learner = learner_of(name, kind, fields)
    if why := mismatch(learner, name, tasks):
        pytest.skip(why)
    whole, first = after(learner, tasks, 5), after(learner, tasks, 2)
    kept = first.copy()
    again = after(learner, tasks, 3, start=first)
    assert (again.step, again.examples, again.loss) == (5, whole.examples, whole.loss)
    assert first.step == 2
    for found, expected in ((again, whole), (first, kept)):
        for one, other in zip(parts(found), parts(expected), strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[part], other[part]) for part in one)


def parts(state: State) -> tuple[dict[str, Any], ...]:
    return state.parameters, state.buffers, state.moments
