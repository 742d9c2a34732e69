"""The two stages of Meta-Baseline, and what passes from the first to the second."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import pytest
import torch
from torch import Tensor

from baselines.episodic import Episodic
from baselines.finetune import FineTune
from baselines.meta_baseline import MetaBaseline
from benchmarks.api import MetabenchError, Parameters, State, TaskDistribution
from benchmarks.models import split
from benchmarks.registry import build_method, build_task, incompatible, origin

LEARNER = MetaBaseline(meta_batch=3, pretraining_steps=2, pretraining_batch=6)
EPISODES = LEARNER.replace(pretraining_steps=0)


@dataclass(frozen=True)
class CosinePrototypes(Episodic):
    """Cosines with class means, times 10, in plain words."""

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        classes = range(outputs)
        means = torch.stack(
            [torch.stack([x[of == label].mean(0) for label in classes]) for x, of in zip(support, y, strict=True)]
        )
        return 10 * torch.cosine_similarity(query.unsqueeze(2), means.unsqueeze(1), dim=-1)


def tensors(state: State) -> dict[str, Tensor]:
    parts = ("parameters", "buffers", "moments")
    return {f"{part} {name}": value for part in parts for name, value in getattr(state, part).items()}


def same(first: State, second: State) -> bool:
    ours, theirs = tensors(first), tensors(second)
    equal = ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    return equal and (first.step, first.examples, first.loss) == (second.step, second.examples, second.loss)


def states(learner: Episodic, tasks: TaskDistribution, count: int, start: State | None = None) -> list[State]:
    return [state.copy() for state in islice(learner.fit(tasks, 0, start), count)]


@pytest.fixture
def tasks(given) -> TaskDistribution:
    return given.single(given.images())


def test_the_first_stage_is_the_fit_of_finetune_bit_for_bit(tasks: TaskDistribution) -> None:
    ours, theirs = (states(each, tasks, 2) for each in (LEARNER, FineTune(batch_size=6)))
    assert all(same(first, second) for first, second in zip(ours, theirs, strict=True))


def test_the_second_stage_trains_the_embedding_and_the_scale_from_new_moments(tasks: TaskDistribution) -> None:
    pooled, episodic = states(LEARNER, tasks, 3)[1:]
    _, backbone = split(pooled.parameters, "head.")
    assert episodic.parameters.keys() == {*backbone, "extra.scale"}
    assert {float(value) for name, value in episodic.moments.items() if name.endswith("/step")} == {1.0}
    moved = {name for name, value in backbone.items() if not torch.equal(value, episodic.parameters[name])}
    assert {name for name in backbone if name.endswith("weight")} <= moved
    step = max(float((backbone[name] - episodic.parameters[name]).abs().max()) for name in backbone)
    assert step <= 1.01 * LEARNER.meta_lr  # Adam's first step from the embedding of the first stage
    assert (episodic.step, episodic.examples) == (3, 2 * 6 + 3 * 12)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_it_resumes_bit_for_bit_across_the_stages(tasks: TaskDistribution, at: int) -> None:
    through = states(LEARNER, tasks, 5)
    again = states(LEARNER, tasks, 5 - at, start=through[at - 1])
    assert all(same(first, second) for first, second in zip(again, through[at:], strict=True))


def test_with_a_fixed_scale_the_second_stage_is_that_of_cosine_prototypes(given) -> None:
    tasks = given.images()
    fixed, plain = EPISODES.replace(learned_scale=False), CosinePrototypes(meta_batch=3)
    start = given.fitted(plain, tasks)
    ours, theirs = (states(each, tasks, 2, start) for each in (fixed, plain))
    for first, second in zip(ours, theirs, strict=True):
        assert first.loss == pytest.approx(second.loss, abs=1e-12)
        torch.testing.assert_close(tensors(first), tensors(second), rtol=1e-7, atol=1e-9)
    x = tasks.data.query.x
    scores = [next(each.adapt(start, tasks.data.support, tasks))(x)[0] for each in (fixed, plain)]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["extra.scale", "layer3.weight"])
def test_the_first_gradient_of_the_second_stage_is_that_of_finite_differences(given, name: str) -> None:
    tasks = given.images()
    found, expected = given.slopes(EPISODES, tasks, given.fitted(EPISODES, tasks), name)
    assert float(found.abs().max()) > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_the_learned_scale_multiplies_the_cosines(tasks: TaskDistribution) -> None:
    state, cut = states(LEARNER, tasks, 4)[-1], tasks.data
    scores = next(LEARNER.adapt(state, cut.support, tasks))(cut.query.x)[0]
    state.parameters["extra.scale"] *= 3
    torch.testing.assert_close(next(LEARNER.adapt(state, cut.support, tasks))(cut.query.x)[0], 3 * scores)
    assert float(state.parameters["extra.scale"]) / 3 != 10.0


def test_the_stages_share_the_budget_as_in_the_code_unless_told_otherwise() -> None:
    images = build_task("omniglot/5w1s")
    learner = build_method("meta-baseline", images)
    planned = learner.for_budget(34_000)
    assert planned.pretraining_steps == 30_000
    assert planned.for_budget(10).pretraining_steps == 30_000
    assert learner.replace(pretraining_steps=0).for_budget(10).pretraining_steps == 0
    assert str(origin(planned, "meta-baseline", images, 34_000)).startswith("ours (few-shot-meta-baseline's")
    told = build_method("meta-baseline", images, pretraining_steps=5)
    assert str(origin(told, "meta-baseline", images, 34_000)) == "ours (set for this run: pretraining_steps=5)"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pretraining_steps": -1}, "meta-baseline: pretraining_steps = -1 is not at least 0"),
        ({"pretraining_steps": 1.5}, "meta-baseline.pretraining_steps = 1.5 is float, not int or NoneType"),
        ({"pretraining_batch": 0}, "meta-baseline: pretraining_batch = 0 is not at least 1"),
    ],
)
def test_a_wrong_field_is_one_line(fields: dict[str, object], said: str) -> None:
    with pytest.raises(MetabenchError) as error:
        build_method("meta-baseline", **fields)
    assert str(error.value) == said


@pytest.mark.parametrize("task", ["sinusoid", "navigation-2d"])
def test_other_kinds_are_refused_with_a_reason(task: str) -> None:
    assert str(incompatible("meta-baseline", task)).startswith("meta-baseline is for classification, ")
