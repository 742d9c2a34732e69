"""What fine-tuning does with the support set; fits are tested with the other baselines."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from baselines.finetune import FineTune
from benchmarks.api import LabelledSet, State, in_regime
from benchmarks.models import NetworkPredictor, network_for
from benchmarks.registry import build_task
from maml.inner_loop import per_task

#: for its facts alone; no data are read
TASKS = build_task("omniglot/5w1s")
HEAD = ("head.weight", "head.bias")
REGIMES = ("running", "query", "support", "single")
LEARNER = FineTune(backbone="mlp-256-128-64-64", layers="all")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def state() -> State:
    """A network of 20 classes, untrained."""
    network = network_for(TASKS, LEARNER.backbone, outputs=20)
    return State(network.initialise(0), network.running_statistics(), step=7)


@pytest.fixture
def support() -> LabelledSet:
    return LabelledSet(drawn(3, 10, 1, 28, 28), torch.arange(10).expand(3, 10) % 5)


def embedding(state: State, support: LabelledSet, regime: str) -> NetworkPredictor:
    """The trained network below its last layer."""
    network, body = network_for(TASKS, LEARNER.backbone), per_task(state.parameters, 1)
    return NetworkPredictor(network, body, regime, support.x, state.buffers, embed=True)


@pytest.mark.parametrize("layers", ["all", "head"])
@pytest.mark.parametrize("regime", REGIMES)
def test_an_imprinted_head_starts_as_the_nearest_class_mean(
    state: State, support: LabelledSet, regime: str, layers: str
) -> None:
    learner, x = LEARNER.replace(head="imprinted", layers=layers), drawn(3, 12, 1, 28, 28, seed=1)
    start = in_regime(next(learner.adapt(state, support, TASKS)), regime)
    answers = start(x)[0].argmax(-1)
    assert not start.parameters["head.bias"].any()
    known = embedding(state, support, "running" if regime == "running" else "query")(support.x)[0]
    asked = embedding(state, support, regime)(x)[0]
    known, asked = (part / part.norm(dim=-1, keepdim=True) for part in (known, asked))
    for task in range(3):
        means = torch.stack([known[task][support.y[task] == label].mean(0) for label in range(5)])
        cosines = asked[task] @ (means / means.norm(dim=-1, keepdim=True)).T
        assert torch.equal(answers[task], cosines.argmax(-1))


@pytest.mark.parametrize("head", ["random", "imprinted"])
def test_only_the_head_or_all_layers_move(state: State, support: LabelledSet, head: str) -> None:
    for layers in ("head", "all"):
        first, second = itertools.islice(LEARNER.replace(layers=layers, head=head).adapt(state, support, TASKS), 2)
        before, after = first.parameters, second.parameters
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved >= set(HEAD)
        assert (moved == set(HEAD)) == (layers == "head")


def test_a_classifier_moves_its_head_and_regression_everything_unless_told_otherwise() -> None:
    waves = build_task("sinusoid/k5")
    assert [FineTune().describe(tasks)["layers"] for tasks in (TASKS, waves)] == ["head", "all"]
    assert [FineTune(layers="all").describe(tasks)["layers"] for tasks in (TASKS, waves)] == ["all", "all"]


def test_head_only_is_logistic_regression_on_the_embedding(state: State, support: LabelledSet) -> None:
    learner = LEARNER.replace(layers="head", inner_lr=0.3, loss_scale="mean")
    first, second = itertools.islice(learner.adapt(state, support, TASKS), 2)
    embedded = embedding(state, support, "running")(support.x)[0]
    weight, bias = (first.parameters[name] for name in HEAD)
    error = (embedded @ weight.transpose(1, 2) + bias.unsqueeze(1)).softmax(-1)
    error = (error - torch.nn.functional.one_hot(support.y, 5)) / 10
    torch.testing.assert_close(second.parameters[HEAD[0]], weight - 0.3 * error.transpose(1, 2) @ embedded)
    torch.testing.assert_close(second.parameters[HEAD[1]], bias - 0.3 * error.sum(1))


@pytest.mark.fault("V9")
def test_a_random_head_is_drawn_for_each_episode_and_from_no_global_generator(
    state: State, support: LabelledSet
) -> None:
    def head(support: LabelledSet, name: str = "head.weight") -> Tensor:
        torch.rand(1)
        return next(LEARNER.replace(head="random").adapt(state, support, TASKS)).parameters[name]

    found = head(support)
    assert torch.equal(found, head(support))
    assert torch.equal(found[1:], head(support[slice(1, 3)]))  # whatever company it is tested in
    assert not any(torch.equal(found[first], found[second]) for first, second in itertools.combinations(range(3), 2))
    for values in (found, head(support, "head.bias")):  # U(-1, 1)/sqrt(64)
        assert values.abs().max() <= 1 / 8
        assert values.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.35)


@pytest.mark.fault("V9")
def test_a_head_starts_imprinted() -> None:
    assert FineTune().describe(TASKS)["head"] == "imprinted"
    assert FineTune().describe(build_task("sinusoid/k5"))["head"] == "trained"


def test_regression_keeps_the_trained_last_layer() -> None:
    waves = build_task("sinusoid/k5")
    state = State(network_for(waves).initialise(3))
    start = next(FineTune(head="imprinted").adapt(state, waves.episodes("test", range(2)).support, waves))
    assert torch.equal(start.parameters["head.weight"][1], state.parameters["head.weight"])


@pytest.mark.parametrize("layers", ["all", "head"])
def test_steps_in_any_order_and_regime_are_the_same(state: State, support: LabelledSet, layers: str) -> None:
    learner, x = LEARNER.replace(layers=layers), drawn(3, 4, 1, 28, 28, seed=1)
    predictors = list(itertools.islice(learner.adapt(state, support, TASKS), 4))

    def answers(order: list[int], regimes: list[str]) -> dict[tuple[int, str], Tensor]:
        pairs = itertools.product(order, regimes)
        return {(number, name): in_regime(predictors[number], name)(x)[0] for number, name in pairs}

    there, back = answers([0, 1, 2, 3], ["running", "query"]), answers([3, 1, 2, 0], ["query", "running"])
    assert all(torch.equal(there[at], back[at]) for at in there)
    again = in_regime(in_regime(predictors[2], "query"), "running")(x)[0]
    assert torch.equal(again, predictors[2](x)[0])
    assert not torch.equal(there[3, "running"], there[3, "query"])


def test_weight_decay_holds_the_weights_back(state: State, support: LabelledSet) -> None:
    free, held = (
        next(itertools.islice(learner.adapt(state, support, TASKS), 5, None)).parameters["layer1.weight"].norm()
        for learner in (LEARNER.replace(inner_lr=0.1), LEARNER.replace(inner_lr=0.1, weight_decay=0.1))
    )
    assert held < 0.95 * free


def test_the_rate_is_in_the_units_of_the_loss_scale(state: State, support: LabelledSet) -> None:
    steps = [
        next(itertools.islice(learner.adapt(state, support, TASKS), 1, None)).parameters["layer0.weight"]
        for learner in (LEARNER.replace(inner_lr=0.1), LEARNER.replace(inner_lr=0.5, loss_scale="mean"))
    ]
    torch.testing.assert_close(*steps)
    assert LEARNER.replace(inner_lr=0.1).describe(TASKS)["mean_loss_inner_lr"] == 0.5
