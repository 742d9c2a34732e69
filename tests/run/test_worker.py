"""Fits and evaluations in this process: what they refuse, what they measure themselves, and what they test."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from whole_runs import profile

from benchmarks import machine, registry
from benchmarks.api import MetaLearner, State
from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store
from benchmarks.run import cells, profiles, resolution, schedule, worker
from benchmarks.run.resolution import Request


@dataclass(frozen=True)
class Drifts(MetaLearner):
    """Predicts a constant that moves by 1 with every meta-step, up or down, and 0.1 with every inner step."""

    kinds: ClassVar = frozenset({"regression"})
    adapted: ClassVar[list] = []

    direction: int = 1
    inner_steps: int = 0

    def fit(self, tasks, seed, start=None):
        state = State(parameters={"w": torch.full((1,), 5.0)})
        while True:
            state = dataclasses.replace(state, step=state.step + 1, loss=0.0)
            state.parameters = {"w": state.parameters["w"] + self.direction}
            yield state

    def adapt(self, state, support, tasks):
        if len(support) == 6:  # a test
            self.adapted.append(float(state.parameters["w"]))
        for step in range(2):  # ends early
            yield lambda x, memory=None, step=step: (x * 0 + state.parameters["w"] + 0.1 * step, None)

    def reported_steps(self):
        return (self.inner_steps,)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a registered method on waves in this process; returns the store, and the records by kind of cell."""
    for name, direction in (("worsens", 1), ("improves", -1)):
        registry.register_method(name, direction=direction)(Drifts)
    (tmp_path / "tiny.toml").write_text(profile().replace("seeds = 1", 'seeds = 1\nmodels = ["best", "last"]'))
    Drifts.adapted.clear()

    def run(method, change=lambda cell: cell.spec, **settings):
        store, tiny = Store(tmp_path / "store"), profiles.load(str(tmp_path / "tiny.toml"))
        settings = {f"{method}.{name}": value for name, value in settings.items()}
        found = {}
        for cell in cells.expand(resolution.resolve(tiny, Request([method], settings=settings))):
            call = worker.run_fit if cell.kind == "fit" else worker.run_evaluation
            call(lambda news: None, cell.key, change(cell), str(store.path), [])
            found[cell.kind] = store.get(cell.key)
        return store, found

    yield run
    for name in ("worsens", "improves"):
        del registry._methods[name]


@pytest.mark.fault("K3")
@pytest.mark.parametrize("kind", ["fit", "evaluation"])
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("data", "the data of sinusoid-v1/k5 on this machine are not those that the run began with: start it again"),
        ("code", "the code on this machine is not that which the run began with: start it again"),
    ],
)
def test_other_data_or_code_than_those_of_the_key_are_refused(run, tmp_path, kind, field, said):
    def change(cell):
        return {**cell.spec, field: "deadbeefdeadbeef"} if cell.kind == kind else cell.spec

    with pytest.raises(MetabenchError) as error:
        run("improves", change)
    assert str(error.value) == said
    assert [record.cell for record in Store(tmp_path / "store").records()] == ["fit"] * (kind == "evaluation")


def test_a_best_state_that_is_the_last_is_tested_once(run):
    store, found = run("improves")
    assert Drifts.adapted == [1.0]
    best, last = found["evaluation"].tests
    assert (best.model, last.model) == ("best", "last")
    assert dataclasses.replace(last, model="best") == best
    scores = store.scores(found["evaluation"])
    assert np.array_equal(scores["best/none/0"], scores["last/none/0"])


@pytest.mark.fault("S11")
def test_a_best_state_that_is_another_is_tested_too(run):
    _, found = run("worsens")
    assert Drifts.adapted == [6.0, 9.0]
    best, last = found["evaluation"].tests
    assert best.at(0).mean < last.at(0).mean
    assert found["evaluation"].training == found["fit"].training
    assert found["fit"].training.threads == torch.get_num_threads()


def test_a_learner_that_ends_early_reports_the_steps_it_took(run):
    store, found = run("improves", inner_steps=5)
    assert {test.reported_steps for test in found["evaluation"].tests} == {(1,)}
    assert {name for name in store.scores(found["evaluation"]) if name.startswith("best")} == {
        "best/none/0",
        "best/none/1",
    }


def in_processes(tmp_path, method, task, episodes, **settings):
    """The evaluations of a method without a fit, run in processes of their own."""
    store = Store(tmp_path / str(episodes))
    chosen = profiles.override(profiles.load("smoke"), episodes=episodes)
    found = resolution.resolve(chosen, Request([method], [task], settings=settings))
    crowd = schedule.Machine(jobs=1, threads=1, memory_bytes=None)
    todo = schedule.plan(found, schedule.prepare(found, crowd, schedule.Watcher()), store, "all")
    schedule.run(todo, store, crowd, schedule.Watcher())
    return store.records("evaluation")


@pytest.mark.fault("K3")
def test_machine_versions_and_commit_are_those_of_the_computing_process(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "versions", lambda: {"torch": "of the parent"})
    monkeypatch.setattr(machine, "git_state", lambda path: {"commit": "of the parent", "dirty": False})
    monkeypatch.setattr(machine, "fingerprint", lambda device: pytest.fail("the parent was asked"))
    worker._constants.cache_clear()
    (record,) = in_processes(tmp_path, "constant", "sinusoid/k5", 3)
    assert record.ok
    assert record.versions["torch"] == torch.__version__
    assert record.git is None or len(record.git.commit) == 40
    assert record.threads == 1


@pytest.mark.fault("K8")
def test_memory_does_not_grow_with_the_episodes(tmp_path):
    peaks = [
        in_processes(tmp_path, "nearest-neighbour", "glyphs/5w1s", episodes, **{"glyphs.queries": 2})[0].peak_bytes
        for episodes in (400, 4000)
    ]
    assert peaks[1] < peaks[0] + 15e6, peaks  # 225 kB for each further episode when blocks were kept apart
