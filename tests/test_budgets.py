"""The budget that a task states for every learner, and the share of it that a fit had."""

from __future__ import annotations

import pytest

from benchmarks import registry
from benchmarks.api import State
from benchmarks.records.record import Training
from benchmarks.run.worker import _share


@pytest.mark.fault("V4")
@pytest.mark.parametrize("name", sorted(registry.tasks()))
def test_the_budget_of_a_task_is_the_published_one_of_maml(name: str) -> None:
    """In examples, or environment steps; tasks without a paper's budget state their own, or none."""
    for variant in registry.task_entry(name).cls.variants:
        tasks = registry.build_task(f"{name}/{variant}")
        maml = registry.build_method("maml", tasks)
        published = registry.for_task(maml.published_meta_steps, tasks)
        if published is None or tasks.for_training() is not tasks:
            continue
        fields = maml.config()
        if tasks.kind == "control":
            each = fields["trajectories"] * (fields["inner_steps"] + 1) * tasks.trial_steps
        else:
            each = maml._examples(tasks)
        assert tasks.budgets[variant] == published * fields["meta_batch"] * each


@pytest.mark.fault("V4")
def test_learners_are_judged_by_the_examples_that_they_saw() -> None:
    """100 meta-steps of matching nets are as short as 100 of MAML, and a smaller meta-batch is a smaller share."""
    tasks = registry.build_task("miniimagenet/5w1s")

    def share(name: str, state: State, **fields: object) -> float:
        found = _share(state, registry.build_method(name, tasks, **fields), tasks, name)
        assert found is not None
        return found

    assert share("maml", State(step=60_000, examples=60_000 * 4 * 80)) == 1
    assert share("maml", State(step=60_000, examples=60_000 * 80), meta_batch=1) == 0.25
    assert share("maml", State(step=60_000, examples=60_000 * 4 * 80), backbone="conv4-64") == 1
    assert share("maml", State(step=60_000, examples=60_000 * 4 * 80), test_steps=(1,)) == 1
    few = share("matching-nets", State(step=100, examples=48_000))
    assert few == 48_000 / tasks.budgets["5w1s"]
    assert Training("a" * 16, "", 100, None, few, False, 1.0, 48_000, 0, "budget", 1, 0.5, (), 1).under_trained


@pytest.mark.fault("V4")
def test_a_task_without_a_budget_has_no_share() -> None:
    tasks = registry.build_task("bandit/k5n10")
    assert _share(State(step=20, environment_steps=1000), registry.build_method("rl2", tasks), tasks, "rl2") is None
