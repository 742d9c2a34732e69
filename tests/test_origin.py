"""Where settings come from: every method says so, on every kind of task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import registry
from benchmarks.api import MetaLearner, TaskDistribution
from benchmarks.run.resolution import describe_method


def built() -> Iterator[tuple[str, MetaLearner, TaskDistribution]]:
    """Every registered method with its default settings, on every variant of every task that it runs on."""
    for name, entry in registry.tasks().items():
        for variant in entry.cls.variants:
            tasks = registry.build_task(f"{name}/{variant}")
            for method in registry.methods():
                learner = registry.build_method(method, tasks)
                if tasks.kind in learner.kinds:
                    yield method, learner, tasks


@pytest.mark.fault("V5")
def test_every_method_says_where_its_settings_come_from() -> None:
    seen = set()
    for method, learner, tasks in built():
        found = registry.origin(learner, method, tasks)
        assert found.label == "none" if not learner.config() else found.label in ("published", "ours"), method
        assert found.why
        assert found.why != "the method does not say", method
        seen.add((method, tasks.kind, found.label))
    names = {name: {label for method, _, label in seen if method == name} for name in registry.methods()}
    published = {name for name, labels in names.items() if "published" in labels}
    assert published >= {
        "maml",
        "fomaml",
        "maml-no-conv",
        "maml-plus-plus",
        "oracle",
        "prototypical-nets",
        "relation-nets",
    }


@pytest.mark.fault("V5")
@pytest.mark.parametrize(
    ("method", "task", "said"),
    [
        ("maml", "omniglot/5w1s", "published (MAML"),
        ("maml", "glyphs/5w1s", "ours (the paper's for Omniglot"),
        ("maml-no-conv", "omniglot/5w1s", "published (MAML"),
        ("anil", "omniglot/5w1s", "ours (MAML's for the task; untried"),
        ("maml-plus-plus", "omniglot/5w1s", "ours (the paper's but for the network"),
        ("matching-nets", "omniglot/5w1s", "ours (attention scale: best of 3"),
        ("prototypical-nets", "omniglot/20w1s", "published (Snell"),
        ("prototypical-nets", "glyphs/5w1s", "ours (episodes of the task's own way"),
        ("siamese-nets", "omniglot/5w1s", "ours (start of the weights: best of 4"),
        ("finetune", "omniglot/5w1s", "ours (the last layer alone"),
        ("rl2", "bandit/k5n10", "ours ("),
        ("gittins", "bandit/k5n100", "ours (best of 7 on validation bandits of 100 pulls)"),
        ("ucrl2", "tabular-mdp/n10", "ours (best of 8 on validation processes of 10 episodes)"),
        ("maml", "half-cheetah-direction/quick", "ours (alpha, divergence: best of 4 x 2 on 20 validation episodes"),
        ("pretrained", "navigation-2d/maml2017", "ours (MAML's rate, untuned"),
        ("chance", "omniglot/5w1s", "none ("),
    ],
)
def test_settings_that_were_chosen_here_are_not_called_published(method: str, task: str, said: str) -> None:
    tasks = registry.build_task(task)
    assert str(registry.origin(registry.build_method(method, tasks), method, tasks)).startswith(said)


@pytest.mark.fault("V5")
def test_a_setting_of_the_command_line_is_named_and_recorded() -> None:
    tasks = registry.build_task("omniglot/5w1s")
    learner = registry.build_method("maml", tasks, inner_lr=0.3)
    assert str(registry.origin(learner, "maml", tasks)) == "ours (set for this run: inner_lr=0.3)"
    method = describe_method("maml", learner.config(), learner, tasks)
    assert method.facts["settings"] == "ours (set for this run: inner_lr=0.3)"


@pytest.mark.fault("V12")
def test_ant_direction_trains_with_the_papers_forty_trajectories() -> None:
    for name in ("maml", "fomaml", "pretrained", "context-vector", "oracle"):
        paper, other = (
            registry.build_method(name, registry.build_task(f"{task}/maml2017")).config()["trajectories"]
            for task in ("ant-direction", "ant-velocity")
        )
        assert (paper, other) == (40, 20)


@pytest.mark.fault("V12")
def test_pretrained_policies_adapt_at_the_rate_of_maml() -> None:
    for task in ("half-cheetah-direction/quick", "ant-direction/quick", "navigation-2d/maml2017"):
        tasks = registry.build_task(task)
        alpha = registry.build_method("maml", tasks).config()["inner_lr"]
        for name in ("pretrained", "random"):
            assert registry.build_method(name, tasks).config()["test_rates"] == (alpha,)
    assert alpha == 0.1


def test_the_default_rate_of_regression_is_that_of_the_sinusoid(given: Any) -> None:
    """0.4 explodes on targets of some tens; tasks with settings of their own keep them."""
    lines = given.waves()
    for name in ("maml", "fomaml"):
        learner = registry.build_method(name, lines)
        assert learner.config()["inner_lr"] == 0.01
        assert str(registry.origin(learner, name, lines)).startswith("ours (the rate is the paper's for the sinusoid")
        sinusoid, glyphs = (registry.build_method(name, registry.build_task(t)) for t in ("sinusoid/k5", "glyphs/5w1s"))
        assert (sinusoid.config()["meta_batch"], glyphs.config()["inner_lr"]) == (25, 0.4)
