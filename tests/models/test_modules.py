"""Modules of one's own as backbones: the meta-gradient of the suite's own layers, by vmap or task after task."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.api import MetabenchError, State
from benchmarks.commands import app as command_line
from benchmarks.execution.plans import Plan
from benchmarks.models import BACKBONES, network_for, register_backbone
from benchmarks.models.modules import own_factories
from benchmarks.run import code_hash
from benchmarks.run.code_hash import program_hash


class Branching(nn.Module):
    """Has an `if` on a number that depends on the data, which vmap can't follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)) if float(x.sum()) > -1e9 else x


def own_conv4(shape: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (shape[0], 4, 4, 4):
        layers += [nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, factory in {
        "own-conv4": own_conv4,
        "own-mlp": lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU()),
        "own-branching": lambda shape: Branching(),
        "own-wrong": lambda shape: nn.Linear(7, 3),
    }.items():
        monkeypatch.setitem(BACKBONES, name, None)
        register_backbone(name, factory)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("regime", ["query", "support", "single"])
def test_a_module_computes_what_the_own_layers_compute(given: Any, regime: str, second_order: bool) -> None:
    tasks = given.images()
    fields = {"inner_steps": 3, "train_regime": regime, "second_order": second_order}
    expected = given.state(tasks).parameters
    theirs = network_for(tasks, "own-conv4").initialise(0)
    named = dict(zip(theirs, expected.values(), strict=True))
    found = given.meta_gradient(given.maml(tasks, backbone="own-conv4", **fields), tasks, named)
    reference = given.meta_gradient(given.maml(tasks, **fields), tasks, expected)
    assert (found - reference).norm() <= 1e-10 * reference.norm()


@pytest.mark.parametrize(("backbone", "how"), [("own-mlp", "vmap"), ("own-branching", "loop")])
def test_vmap_where_a_trial_call_succeeds_else_a_loop_and_the_record_says_why(
    given: Any, backbone: str, how: str
) -> None:
    tasks = given.waves()
    learner, facts = given.maml(tasks, backbone=backbone).planned(tasks, 10)
    assert facts["per_task"] == how
    assert ("torch.vmap: RuntimeError" in facts["per_task_why"]) == (how == "loop")
    losses = [state.loss for state in itertools.islice(learner.fit(tasks, 0, _start(tasks, backbone)), 20)]
    assert losses[-1] < losses[0]
    with pytest.raises(MetabenchError, match="2 threads would share one module"):
        learner.planned(tasks, 10, "threads=2")


def _start(tasks: Any, backbone: str) -> State:
    return State(parameters={n: v.double() for n, v in network_for(tasks, backbone).initialise(0).items()})


def test_plans_agree_on_a_module(given: Any) -> None:
    tasks = given.images()
    parameters = {n: v.double() for n, v in network_for(tasks, "own-conv4").initialise(0).items()}
    plans = [Plan(3), Plan(3, per_task="loop"), Plan(2, checkpointed=True)]
    learners = [given.maml(tasks, backbone="own-conv4", inner_steps=2, plan=plan) for plan in plans]
    expected, *others = (given.meta_gradient(learner, tasks, parameters) for learner in learners)
    for found in others:
        assert (found - expected).norm() <= 1e-10 * expected.norm()


def test_initial_values_are_the_modules_own_and_a_function_of_the_seed(given: Any) -> None:
    network = network_for(given.images(), "own-conv4")
    before = torch.get_rng_state()
    first, again, other = (network.initialise(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert first["1.scale"].eq(1).all()
    assert network.normalised


def test_a_module_that_does_not_fit_is_one_line(given: Any) -> None:
    with pytest.raises(MetabenchError, match=r"backbone 'own-wrong' fails on inputs of shape \(1,\)"):
        network_for(given.waves(), "own-wrong")


def test_the_example_of_the_docs_trains(tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.setitem(BACKBONES, "wide", None)
    path = tmp_path / "wide.py"
    path.write_text(example, encoding="utf-8")
    assert command_line._plugins([str(path), "maml"], []) == (["maml"], [], [str(path)])
    tasks = given.waves()
    state = next(given.maml(tasks, backbone="wide").fit(tasks, 0, _start(tasks, "wide")))
    assert state.parameters["1.weight"].shape == (80, 1)
    before = program_hash(type(tasks), *own_factories("wide"))
    path.write_text(example.replace("80", "70"), encoding="utf-8")
    code_hash._hash_of.cache_clear()
    assert program_hash(type(tasks), *own_factories("wide")) != before
