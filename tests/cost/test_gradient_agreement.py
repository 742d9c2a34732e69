"""Agreement of first- and second-order meta-gradients: exact where both are one, and on tasks of its own."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from benchmarks.api import State
from benchmarks.cost import gradient_agreement, sweep
from benchmarks.registry import build_method, build_task
from benchmarks.training import training_indices

TASKS = build_task("sinusoid/k10")


def trained(**fields: object) -> tuple[object, State]:
    learner = build_method("maml", TASKS, meta_batch=3, **fields)
    return learner, next(learner.fit(TASKS, 0))


def test_without_a_step_both_orders_are_one() -> None:
    learner, state = trained(inner_lr=0.0, inner_steps=3)
    found = gradient_agreement.agreement(learner, TASKS, state)
    assert found["cosine"] == pytest.approx(1, abs=1e-6)
    assert found["norm_ratio"] == pytest.approx(1, abs=1e-6)
    assert found["between_batches"] < 0.999


def test_larger_rates_part_the_orders() -> None:
    cosines = []
    for rate in (0.001, 0.01, 0.1):
        learner, state = trained(inner_lr=rate, inner_steps=3)
        cosines.append(gradient_agreement.agreement(learner, TASKS, state)["cosine"])
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.99 > cosines[-1]


def test_a_meta_gradient_is_that_of_a_step_and_changes_nothing() -> None:
    learner, state = trained()
    before = {name: value.clone() for name, value in state.parameters.items()}
    found = [gradient_agreement.meta_gradient(learner, TASKS, state, batch) for batch in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert all(torch.equal(value, before[name]) for name, value in state.parameters.items())
    fitted = training_indices(gradient_agreement.SEED, state.step, 3)
    measured = training_indices(gradient_agreement.SEED + 1, gradient_agreement.BATCHES * state.step, 3)
    assert not np.intersect1d(fitted, measured).size


def test_measured_steps_are_spaced_evenly_on_a_logarithmic_axis() -> None:
    steps = gradient_agreement.measured_steps(1000)
    assert steps[0] == 1
    assert steps[-1] == 1000
    gaps = [math.log10(after / before) for before, after in itertools.pairwise(steps)]
    assert max(gaps[5:]) < 0.3
    assert steps == sorted(set(steps))


def test_a_record_is_told_by_its_task() -> None:
    asked = sweep.Throughput("agreement", "gradient_agreement", "sinusoid/k10", ())
    assert asked.label == "gradient agreement, sinusoid/k10"
    assert sweep.THROUGHPUTS[0].label.startswith("control steps per second, ")
