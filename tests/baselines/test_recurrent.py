"""The black-box learner: what it is fed with, that queries and tasks do not meet, and that it learns."""

import dataclasses
from itertools import islice

import pytest
import torch

from baselines.recurrent import LSTM
from baselines.sequence import Cell, Reader, SequenceLearner
from benchmarks import conformance, registry
from benchmarks.api import LabelledSet

WAVES = {"hidden": 24, "meta_batch": 16, "training_queries": 1}


def waves():
    return registry.build_task("sinusoid/k10")


def glyphs(**fields):
    tasks = registry.build_task("glyphs/5w1s", **fields)
    tasks.prepare()
    return tasks


def learner(**fields):
    return registry.build_method("recurrent", **{**WAVES, **fields})


def fitted(tasks, steps, **fields):
    method = learner(**fields)
    return method, next(islice(method.fit(tasks, 0), steps - 1, None)).copy()


def test_it_reads_x_beside_the_label_before_and_answers_with_the_last_label():
    """Against torch's LSTM, one sequence for each query."""
    method, state = fitted(waves(), 2)
    cut = waves().episodes("test", range(3), queries=4)
    ours = next(method.adapt(state, cut.support, waves()))(cut.query.x)[0]
    theirs = torch.nn.LSTM(2, 24, batch_first=True)
    weights = [state.parameters[f"extra.lstm.{part}"] for part in ("input", "recurrent", "bias")]
    with torch.no_grad():
        for mine, its in zip((*weights, torch.zeros(96)), theirs.parameters(), strict=True):
            its.copy_(mine)
        for query in range(4):
            x = torch.cat((cut.support.x, cut.query.x[:, query : query + 1]), 1)
            labels = torch.cat((torch.zeros(3, 1, 1), cut.support.y), 1)
            output = theirs(torch.cat((x, labels), -1))[0][:, -1]
            answer = output @ state.parameters["head.weight"].T + state.parameters["head.bias"]
            torch.testing.assert_close(ours[:, query], answer)


def test_the_loss_of_an_example_in_the_sequence_does_not_know_its_own_label():
    _, state = fitted(waves(), 1)
    cut = waves().episodes("test", range(2)).support
    before, _ = Reader.of(LSTM(24), state.parameters, cut, 1)
    changed = cut.y.clone()
    changed[:, 4] += 1.0
    after, reader = Reader.of(LSTM(24), state.parameters, LabelledSet(cut.x, changed), 1)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])
    assert torch.equal(reader.label, cut.y[:, -1])


def test_reading_a_sequence_is_its_steps_one_after_another():
    cell, generator = LSTM(7), torch.Generator().manual_seed(0)
    parameters = cell.initialise(3, generator)
    sequence = torch.randn(2, 5, 3, generator=generator)
    (quick, left), (plain, memory) = cell.read(parameters, sequence), Cell.read(cell, parameters, sequence)
    torch.testing.assert_close(quick, plain)
    torch.testing.assert_close(left, memory)


@dataclasses.dataclass(frozen=True)
class Pages(Cell):
    """Keeps all inputs, two numbers of each, and answers with their mean and the last one: a memory with an axis."""

    size: int = 2

    def initialise(self, inputs, generator):
        return {"weight": torch.randn(self.size, inputs, generator=generator)}

    def start(self, parameters, sequences):
        return {"pages": parameters["weight"].new_zeros(sequences, 0, self.size)}

    def step(self, parameters, memory, x):
        page = x @ parameters["weight"].T
        pages = torch.cat((memory["pages"], page.unsqueeze(1)), 1)
        return pages.mean(1) + page, {"pages": pages}


@dataclasses.dataclass(frozen=True)
class Reading(SequenceLearner):
    """Learn to read with `Pages`."""

    name = "reading"
    cell = Pages()


@pytest.mark.parametrize("tasks", [waves, glyphs])
def test_a_cell_of_ones_own_reads_trains_and_answers_each_query_from_a_copy(tasks):
    tasks = tasks()
    method = Reading(meta_batch=8, meta_lr=0.05)
    losses = [state.loss for state in islice(method.fit(tasks, 0), 40)]
    state = next(method.fit(tasks, 0)).copy()
    assert sum(losses[-5:]) < sum(losses[:5])
    cut = tasks.episodes("test", range(3), queries=2)
    (predictor,) = method.adapt(state, cut.support, tasks)
    k, answers = cut.support.x.shape[1], predictor(cut.query.x)[0]
    assert predictor.memory["pages"].shape == (3, k, 2)
    for query in range(cut.query.x.shape[1]):
        alone = predictor(cut.query.x[:, query : query + 1])[0]
        torch.testing.assert_close(answers[:, query : query + 1], alone, rtol=1e-5, atol=1e-6)
    assert conformance.complaints(conformance.check_pair(method, tasks)) == []


def test_training_sequences_may_be_longer_than_the_tasks_own():
    _, state = fitted(glyphs(), 1, training_shot=3, meta_batch=2)
    assert state.examples == 2 * (5 * 3 + 5)


def test_it_learns_waves_far_better_than_a_constant():
    tasks = waves()
    method, state = fitted(tasks, 400, hidden=40, meta_lr=5e-3, training_queries=10)
    cut = tasks.episodes("test", range(200))
    errors = tasks.score(next(method.adapt(state, cut.support, tasks)), cut.query)
    constant = cut.query.y.square().mean()
    assert float(errors.mean()) < 0.4 * float(constant)


def test_it_learns_to_name_glyphs_that_it_has_not_seen():
    tasks = glyphs(way=2)
    method, state = fitted(tasks, 150, hidden=48, meta_batch=48, meta_lr=1e-2)
    cut = tasks.episodes("test", range(100), queries=3)
    right = tasks.score(next(method.adapt(state, cut.support, tasks)), cut.query).double().mean(1)
    assert float(right.mean()) > 0.5 + 4 * float(right.std()) / 10


def test_its_cell_forgets_nothing_at_first():
    _, state = fitted(waves(), 1)
    bias = state.parameters["extra.lstm.bias"]
    assert bias.shape == (96,)
    assert float(bias[24:48].mean()) > 0.9
    assert abs(float(bias[:24].mean())) < 0.2


@pytest.mark.parametrize("fields", [{"hidden": 0}, {"meta_lr": 0.0}, {"sequence_weight": -1.0}, {"training_shot": -1}])
def test_settings_that_make_no_sense_are_one_line(fields):
    with pytest.raises(registry.MetabenchError, match=next(iter(fields))):
        learner(**fields)
