"""Which rows of the committed tables rest on a fit that is not trained to the end, by name.

A record that trains one of them further has to take its name away here; a new record may not add one unseen."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from reports.results import Result, load

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"

#: store -> task -> its methods that are under-trained (docs/protocol.md). On Omniglot, mini-ImageNet and ant a budget
#: takes hours of a core. The sinusoid's learners of an update rule have budgets of their own, which end early (their
#: origins say why). `quick` trains minutes. The published budget of RL^2 is unknown, and it was still improving.
UNDER_TRAINED: dict[str, dict[str, str]] = {
    "paper": {
        "bandit-v1/k50n100": "rl2",
        "sinusoid-v1/k10": (
            "conditional-neural-process implicit-maml learned-optimiser learned-rule maml-plus-plus "
            "meta-learner-lstm reptile"
        ),
        "sinusoid-v1/k10-half": "conditional-neural-process maml-plus-plus",
        "tabular-mdp-v1/n10": "rl2",
    },
    "quick": {
        "bandit-v1/k5n10": "rl2",
        "omniglot-v1/5w1s": (
            "finetune fomaml maml matching-nets nearest-neighbour-embedding prototypical-nets recurrent"
        ),
        "sinusoid-v1/k10": "conditional-neural-process maml oracle recurrent",
        "sinusoid-v1/k10-half": "conditional-neural-process maml oracle recurrent",
    },
    "standard": {
        "ant-direction-v1/quick": "fomaml maml oracle",
        "miniimagenet-v1/5w1s": "finetune matching-nets nearest-neighbour-embedding prototypical-nets",
        "omniglot-v1/5w1s": (
            "anil baseline-plus-plus boil cavia conditional-neural-process finetune fomaml maml "
            "maml-no-conv maml-plus-plus matching-nets memory-augmented memory-module meta-baseline meta-sgd "
            "nearest-neighbour-embedding neural-statistician-reduced prototypical-nets relation-nets "
            "reptile ridge-regression-head siamese-nets simple-shot simple-shot-l2n simple-shot-un "
            "snail"
        ),
        "visual-maze-v1/quick": "rl2-trpo",
    },
}


@functools.cache
def results(store: str) -> list[Result]:
    return load(REFERENCE / store).results


@pytest.mark.parametrize("store", sorted(UNDER_TRAINED))
def test_every_row_that_is_not_trained_to_the_end_is_named(store: str) -> None:
    found: dict[str, set[str]] = {}
    for result in results(store):
        if result.under_trained:
            found.setdefault(result.first.task.id.partition("[")[0], set()).add(result.first.method.name)
    assert found == {task: set(methods.split()) for task, methods in UNDER_TRAINED[store].items()}


def test_rows_that_are_trained_to_the_end_are_the_most() -> None:
    rows = [result for store in UNDER_TRAINED for result in results(store)]
    assert sum(not result.under_trained for result in rows) > len(rows) / 2
