"""The cosine classifier of Baseline++, in training and on a new task."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.baseline_plus_plus import BaselinePlusPlus
from baselines.finetune import FineTune, imprinted
from benchmarks.api import MetabenchError, in_regime
from benchmarks.models import NetworkPredictor, network_for
from benchmarks.registry import build_method, build_task, incompatible
from maml.inner_loop import per_task

LEARNER = BaselinePlusPlus(batch_size=6)
NORMED = LEARNER.replace(learned_norm=True, scale=0.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def head(learner: BaselinePlusPlus, classes: int = 7) -> dict[str, Tensor]:
    layer = learner.classifier_from({"weight": drawn(1, classes, 5, seed=1), "bias": drawn(1, classes)})
    return {f"head.{name}": value for name, value in layer.items()}


@pytest.mark.parametrize("learner", [LEARNER, NORMED])
@pytest.mark.parametrize("factor", [1e-3, 40.0])
def test_lengths_of_embeddings_and_class_vectors_change_nothing(learner: BaselinePlusPlus, factor: float) -> None:
    x, parameters = drawn(1, 9, 5), head(learner)
    scores = learner.classifier(parameters)(x)[0]
    longer = {**parameters, "head.weight": factor * parameters["head.weight"]}
    torch.testing.assert_close(learner.classifier(longer)(factor * x)[0], scores, rtol=0, atol=1e-12)


def test_scores_are_bounded_by_the_scale_and_reach_it() -> None:
    parameters = head(LEARNER)
    scores = LEARNER.classifier(parameters)(torch.cat((drawn(1, 99, 5), 3 * parameters["head.weight"]), 1))[0]
    assert float(scores.abs().max()) == pytest.approx(LEARNER.scale, abs=1e-12)
    torch.testing.assert_close(scores[0, 99:].diagonal(), torch.full((7,), LEARNER.scale).double())


def test_learned_norms_make_it_a_linear_layer_on_normalised_embeddings() -> None:
    x, parameters = drawn(1, 9, 5), head(NORMED)
    linear = F.normalize(x, dim=-1) @ drawn(1, 7, 5, seed=1).transpose(1, 2)
    torch.testing.assert_close(NORMED.classifier(parameters)(x)[0], 2 * linear)


@pytest.mark.parametrize(("classes", "scale"), [(200, 2.0), (201, 10.0)])
def test_the_codes_scale_follows_from_the_number_of_classes(classes: int, scale: float) -> None:
    parameters = {**head(NORMED, classes), "head.norm": torch.ones(1, classes).double()}
    own = NORMED.classifier(parameters)(parameters["head.weight"])[0]
    torch.testing.assert_close(own[0].diagonal(), torch.full((classes,), scale).double())


@pytest.mark.parametrize("learner", [LEARNER, NORMED])
def test_before_the_first_step_it_is_imprinting(given, learner: BaselinePlusPlus) -> None:
    tasks = given.images()
    state = given.fitted(learner, tasks)
    support, x = tasks.data.support, tasks.data.query.x
    start = next(learner.adapt(state, support, tasks))
    known, asked = (
        NetworkPredictor(network_for(tasks), per_task(state.parameters, 1), "running", None, state.buffers, True)(each)[
            0
        ]
        for each in (support.x, x)
    )
    cosines = F.normalize(asked, dim=-1) @ imprinted(known, support.y, 3)["weight"].transpose(1, 2)
    scale = learner.scale or 2.0
    torch.testing.assert_close(start(x)[0], scale * cosines, rtol=0, atol=1e-12)
    plain = next(FineTune().adapt(state, support, tasks))
    assert torch.equal(plain(x)[0].argmax(-1), start(x)[0].argmax(-1))


@pytest.mark.parametrize("start", ["imprinted", "random"])
@pytest.mark.parametrize("learner", [LEARNER, NORMED])
def test_steps_move_the_classifier_alone_and_lower_the_loss(given, learner: BaselinePlusPlus, start: str) -> None:
    tasks = given.images()
    learner = learner.replace(head=start, inner_lr=0.1)
    state = given.fitted(learner, tasks)
    support = tasks.data.support
    first, *_, last = itertools.islice(learner.adapt(state, support, tasks), 6)
    assert set(first.parameters) == {
        f"head.{name}" for name in (("weight", "norm") if learner.learned_norm else ("weight",))
    }
    before, after = (
        F.cross_entropy(in_regime(each, "running")(support.x)[0].flatten(0, 1), support.y.flatten())
        for each in (first, last)
    )
    assert after < before


@pytest.mark.parametrize("learner", [LEARNER, NORMED])
def test_the_first_gradient_is_that_of_finite_differences(given, learner: BaselinePlusPlus) -> None:
    tasks = given.images()
    state = given.fitted(learner, tasks)
    for name in ("head.weight", "layer3.weight", *(("head.norm",) if learner.learned_norm else ())):
        found, expected = given.slopes(learner, tasks, state, name)
        assert float(found.abs().max()) > 1e-4
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_it_resumes_bit_for_bit(given) -> None:
    tasks = given.single(given.images())
    *_, second, third = (state.copy() for state in itertools.islice(NORMED.fit(tasks, 0), 3))
    again = next(NORMED.fit(tasks, 0, start=second))
    for part in ("parameters", "buffers", "moments"):
        theirs = getattr(again, part)
        assert all(torch.equal(value, theirs[name]) for name, value in getattr(third, part).items())


def test_published_settings_are_those_of_the_code() -> None:
    one, five = (build_method("baseline-plus-plus", build_task(f"miniimagenet/5w{shot}s")) for shot in (1, 5))
    assert (one.test_steps, five.test_steps) == ((200,), (700,))
    assert (one.batch_size, one.meta_lr, one.inner_lr, one.weight_decay) == (16, 1e-3, 0.01, 1e-3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layers": "all"}, "baseline-plus-plus.layers = 'all'; known: , head"),
        ({"scale": -1.0}, "baseline-plus-plus: scale = -1.0 is not at least 0"),
        ({"head": "zero"}, "baseline-plus-plus.head = 'zero'; known: random, imprinted"),
    ],
)
def test_a_wrong_field_is_one_line(fields: dict[str, object], said: str) -> None:
    with pytest.raises(MetabenchError) as error:
        build_method("baseline-plus-plus", **fields)
    assert str(error.value) == said


@pytest.mark.parametrize("task", ["sinusoid", "navigation-2d"])
def test_other_kinds_are_refused_with_a_reason(task: str) -> None:
    assert str(incompatible("baseline-plus-plus", task)).startswith("baseline-plus-plus is for classification, ")
