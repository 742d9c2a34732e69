"""The budget that a task states for every learner, and the share of it that a fit had."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.api import State
from benchmarks.records.record import Training
from benchmarks.run.profiles import load, override
from benchmarks.run.resolution import Request, resolve
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
        assert tasks.budgets[variant] == published * maml.examples_per_step(tasks)


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


#: few tasks, so that a meta-step is quick, and none of its size is the default
FEW = {"meta_batch": 3, "batch_size": 7, "training_queries": 2, "hidden": 4, "slots": 8, "filters": 4, "width": 4}
CONTROL = {"meta_batch": 2, "trajectories": 2, "hidden": (4,), "minibatches": 1, "epochs": 1}
TRAINED = sorted(name for name, entry in registry.methods().items() if any(each.cls.fits for each in entry.all))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("task", ["glyphs/5w1s", "sinusoid/k5", "bandit/k5n10", "navigation-2d/quick"])
def test_a_learner_knows_how_many_examples_its_meta_step_sees(name: str, task: str) -> None:
    """A budget in examples becomes meta-steps before anything is drawn. Episodes in an environment may end early."""
    tasks = registry.build_task(task)
    if tasks.kind not in set().union(*(each.cls.kinds for each in registry.method_entry(name).all)):
        pytest.skip("another kind")
    known, control = registry.method_entry(name, tasks.kind).known_fields, tasks.kind == "control"
    small = {key: value for key, value in (CONTROL if control else FEW).items() if key in known}
    if name in ("rl2", "rl2-trpo", "varibad"):
        small["hidden"] = 4
    learner = registry.build_method(name, tasks, **small)
    if registry.mismatch(learner, name, tasks) or learner.fit_method():
        pytest.skip("not fitted here")
    each = learner.examples_per_step(tasks)
    state = next(iter(learner.fit(tasks, 0)))
    assert each is not None
    if name == "meta-baseline":  # the mean over its stages
        each = learner.config()["pretraining_batch"]
    assert state.examples == (0 if control else each)
    assert state.environment_steps <= (each if control else 0)
    assert not control or tasks.name == "navigation-2d" or state.environment_steps == each


def resolved(tmp_path: Path, budget: str, task: str, *methods: str, only: str = "") -> dict[str, int]:
    """The meta-steps of each fit in a profile with this budget."""
    (tmp_path / "mine.toml").write_text(f'[mine]\nextends = "smoke"\n{budget}\n[[mine.tasks]]\ntask = "{task}"\n{only}')
    found = resolve(load(str(tmp_path / "mine.toml")), Request(methods))
    return {entry.name: entry.meta_steps for entry in found.blocks[0].found.entries}


def test_a_budget_in_examples_gives_each_learner_its_meta_steps(tmp_path: Path) -> None:
    methods = ("maml", "recurrent", "reptile", "ridge-regression-head", "finetune")
    tasks = registry.build_task("sinusoid/k10")
    found = resolved(tmp_path, "examples = 1_000_000", "sinusoid/k10", *methods)
    for name in methods:
        each = registry.build_method(name, tasks).examples_per_step(tasks)
        assert each
        assert abs(found[name] * each - 1_000_000) <= each / 2
    assert found["maml"] == 2_000
    own = resolved(tmp_path, "examples = 1_000_000", "sinusoid/k10", *methods, only="meta_steps_of = { maml = 7 }")
    assert own == found | {"maml": 7}


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        ("examples = 1_000_000", "", 2_000),
        ("examples = 1_000_000", "meta_steps = 5", 5),
        ("meta_steps = 5", "examples = 1_000_000", 2_000),
        ("examples = 500", "examples = 1_000_000", 2_000),
        ("meta_steps_of = { maml = 9 }", "examples = 1_000_000", 2_000),
        ("examples = 10", "", 1),
    ],
)
def test_the_nearest_budget_counts_whatever_its_unit(tmp_path: Path, above: str, below: str, expected: int) -> None:
    assert resolved(tmp_path, above, "sinusoid/k10", "maml", only=below) == {"maml": expected}


def test_the_command_line_wins_over_examples() -> None:
    assert {block.examples for block in override(load("quick"), meta_steps=3).blocks} == {None}
