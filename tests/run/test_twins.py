"""Evaluations whose result is known already: of another seed where nothing knows seeds, of the best state where it is
the last one. They have records of their own, and nothing is computed twice."""

from collections import Counter
from pathlib import Path

import pytest
from whole_runs import metabench

from benchmarks.records.store import Store
from benchmarks.run import cells, profiles
from benchmarks.run.cells import Request
from reports.results import load

PROFILE = """
[tiny]
seeds = 2
episodes = 6
validation_episodes = 4
validations = 4
seconds = 20
meta_steps = 4
models = ["best", "last"]
methods = ["constant"]

[[tiny.tasks]]
task = "sinusoid/k5"
"""

#: every test is a line in the file "tests": the method and the constant that it predicts
METHODS = """
from dataclasses import dataclass
from typing import ClassVar

import torch
from benchmarks.api import MetaLearner, State
from benchmarks.registry import register_method


@register_method("improves", reverse=False)
@register_method("worsens")
@dataclass(frozen=True)
class Fitted(MetaLearner):
    '''Predicts a constant that falls or rises with every step.'''
    kinds: ClassVar = frozenset({"regression"})
    reverse: bool = True

    def fit(self, tasks, seed, start=None):
        state = State(parameters={"w": torch.zeros(1)})
        while True:
            state.step += 1
            state.loss = 0.0
            state.parameters["w"] = torch.full((1,), 10.0 * (state.step if self.reverse else 5 - state.step) + seed)
            yield state

    def adapt(self, state, support, tasks):
        constant = float(state.parameters["w"]) if state.parameters else 1.0
        if len(support) == 6:
            with open(r"FOLDER/tests", "a") as file:
                file.write(f"{'worsens' if self.reverse else 'improves'} {constant:g}\\n")
        yield lambda x, memory=None: (x.new_full((*x.shape[:2], tasks.outputs), constant), None)


@register_method("unfitted")
@dataclass(frozen=True)
class Unfitted(Fitted):
    fits: ClassVar = False
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    (folder / "tiny.toml").write_text(PROFILE)
    (folder / "methods.py").write_text(METHODS.replace("FOLDER", str(folder)))
    methods = [word for name in ("improves", "worsens", "unfitted") for word in ("-m", name)]
    words = ["run", "--profile", "tiny.toml", "-t", "sinusoid/k5", "-m", "methods.py", *methods, "--store", "store"]
    answer = metabench(folder, *words)
    assert answer.code == 0, answer.out + answer.err
    return folder


def evaluations(folder: Path) -> dict[tuple[str, int, str], dict]:
    found = Store(folder / "store", read_only=True).records("evaluation")
    return {(record["label"], record["seed"], record["evaluation"]["model"]): record for record in found}


def test_nothing_is_tested_twice(folder: Path) -> None:
    tested = Counter((folder / "tests").read_text().splitlines())
    best_and_last = {"improves 10", "improves 11"} | {f"worsens {constant}" for constant in (10, 11, 40, 41)}
    without_a_fit = {"worsens 1"}
    assert tested == Counter(best_and_last | without_a_fit)


def test_every_seed_and_model_has_its_record_and_says_whose_result_it_is(folder: Path) -> None:
    found = evaluations(folder)
    keys = {name: record["key"] for name, record in found.items()}
    fitted = {
        (label, seed, model) for label in ("improves", "worsens") for seed in (0, 1) for model in ("best", "last")
    }
    assert found.keys() == fitted | {("unfitted", seed, "best") for seed in (0, 1)}
    taken = {name: record["evaluation"]["same_as"] for name, record in found.items() if record["evaluation"]["same_as"]}
    assert taken == {
        ("improves", 0, "last"): keys["improves", 0, "best"],
        ("improves", 1, "last"): keys["improves", 1, "best"],
        ("unfitted", 1, "best"): keys["unfitted", 0, "best"],
    }


def test_the_record_of_a_taken_result_holds_all_that_was_measured(folder: Path) -> None:
    store, found = Store(folder / "store", read_only=True), evaluations(folder)
    by_key = {record["key"]: record for record in found.values()}
    for (label, seed, model), record in found.items():
        if (other := by_key.get(record["evaluation"]["same_as"])) is not None:
            own = {"key", "seed", "started", "finished", "files", "sizes", "evaluation"}
            assert {k: v for k, v in record.items() if k not in own} == {k: v for k, v in other.items() if k not in own}
            assert (record["label"], record["seed"]) == (label, seed)
            assert record["evaluation"] == {**other["evaluation"], "model": model, "same_as": other["key"]}
            scores = store.scores(record["key"])
            assert scores is not None
            assert scores.equals(store.scores(other["key"]))


def test_twins_are_states_of_one_fit_or_seeds_without_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(PROFILE.replace("sinusoid/k5", "bandit/k5n10"))
    wishes = Request(methods=["rl2", "greedy"], shots=[10])
    found = [c for c in cells.expand(profiles.load(str(tmp_path / "tiny.toml")), wishes) if c.kind == "evaluation"]
    named = {(c.label, c.seed, c.spec["evaluation"]["model"], c.spec["evaluation"]["shots"]): c for c in found}
    assert len(named) == len(found) == 12
    for (label, seed, model, shots), cell in named.items():
        expected = None
        if label == "rl2" and model == "last":
            expected = named["rl2", seed, "best", shots].key
        if label == "greedy" and seed == 1:
            expected = named["greedy", 0, "best", shots].key
        assert cell.spec["twin"] == expected


def test_results_that_were_taken_over_are_seeds_of_one_row(folder: Path) -> None:
    results = load(folder / "store").results
    assert sorted((result.name, result.column.model) for result in results) == [
        *(("improves", "best"), ("improves", "last"), ("unfitted", "best"), ("worsens", "best"), ("worsens", "last"))
    ]
    assert all(len(result.records) == 2 for result in results)
