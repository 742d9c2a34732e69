"""The training of recurrent policies: all compute the same iteration before they are timed, or are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from benchmarks.cost import recurrent_steps, throughput

#: at a rate at which ratios of probabilities leave the clipping range
TINY = {"meta_batch": 20, "hidden": 4, "epochs": 3, "minibatches": 2, "meta_lr": 0.1, "entropy": 0.1}


def measured(task: str = "bandit/k5n10", **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    record = recurrent_steps.measure(lambda plain: None, task, rounds=3, threads=1, **{**TINY, **fields})
    return record, {row["label"]: row for row in record["rows"]}


@pytest.mark.parametrize("task", ["bandit/k5n10", "tabular-mdp/n10"])
def test_all_compute_the_iteration_of_the_learner(task: str) -> None:
    record, rows = measured(task)
    assert list(rows) == ["ours", "torch.nn.GRU", "jax scan"]
    for label, row in rows.items():
        if row["status"] == "skipped":
            assert "jax" in row["reason"]
            continue
        assert (row["status"], row["reason"], row["environments"]) == ("ok", None, 20)
        assert row["steps"] == 20 * (10 if "bandit" in task else 100)
        assert row["error"] < 1e-9
        assert row["program_error"] < 1e-3
        assert row["low"] <= row["steps_per_second"] <= row["high"]
        assert len(row["seconds_per_step"]) == 3
        assert (row["compile_seconds"] is not None) == (label == "jax scan")
    assert rows["ours"]["against_ours"] == [1.0, 1.0, 1.0]
    assert len(list(throughput.lines(record))) == 5


@pytest.mark.parametrize("field", ["clip", "entropy", "value_weight", "gradient_norm", "meta_lr", "epochs"])
def test_a_rival_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    def other(iteration: recurrent_steps.Iteration) -> recurrent_steps.Run:
        value = getattr(iteration.learner, field)
        learner = dataclasses.replace(iteration.learner, **{field: 1 if field == "epochs" else 0.9 * value})
        return recurrent_steps.module(dataclasses.replace(iteration, learner=learner))

    monkeypatch.setattr(recurrent_steps, "RIVALS", {"ours": recurrent_steps.ours, "other": other})
    _, rows = measured()
    assert (rows["other"]["status"], rows["other"]["steps_per_second"]) == ("error", None)
    assert rows["other"]["reason"].startswith("computes another iteration: relative difference")
    assert rows["ours"]["status"] == "ok"


def test_a_rival_whose_timed_program_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(iteration: recurrent_steps.Iteration) -> recurrent_steps.Run:
        single = iteration.start["gru.input"].dtype == torch.float32
        learner = dataclasses.replace(iteration.learner, meta_lr=0.09) if single else iteration.learner
        return recurrent_steps.module(dataclasses.replace(iteration, learner=learner))

    monkeypatch.setattr(recurrent_steps, "RIVALS", {"ours": recurrent_steps.ours, "other": other})
    _, rows = measured()
    assert rows["other"]["reason"].startswith("its program computes another iteration")


def test_a_rival_without_its_library_is_a_row_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    record, rows = measured()
    assert rows["jax scan"]["status"] == "skipped"
    assert "jax" in rows["jax scan"]["reason"]
    assert "jax scan" in "\n".join(throughput.lines(record))
