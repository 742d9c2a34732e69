"""Training that ends when validation has stood still for the profile's patience."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import made_up_records as made_up
import pytest
from rich.console import Console

from benchmarks.api import LabelledSet, MetaLearner, Predictor, State, TaskDistribution
from benchmarks.errors import MetabenchError
from benchmarks.registry import build_task
from benchmarks.run.cells import expand
from benchmarks.run.fitting import Progress, still_improving, train
from benchmarks.run.profiles import load
from benchmarks.run.resolution import Request, resolve
from reports import style, terminal, words
from reports.results import load as results_of
from reports.scores.layout import score_tables

WAVES = build_task("sinusoid/k10")
BUDGET: dict[str, Any] = {"meta_steps": 200, "seconds": 60, "validation_episodes": 20, "validations": 200}


@dataclass(frozen=True)
class Settles(MetaLearner):
    """Its error falls until ``settled`` and then moves up and down a little, as a converged learner's does."""

    kinds: ClassVar = frozenset({"regression"})

    settled: int = 30
    dies: int = 0

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        state = start.copy() if start else State()
        while True:
            state = dataclasses.replace(state, step=state.step + 1, examples=state.examples + 5_000, loss=0.0)
            yield state
            if state.step == self.dies:
                raise KeyboardInterrupt

    def adapt(self, state: State, support: LabelledSet, tasks: TaskDistribution) -> Iterator[Predictor]:
        query = tasks.episodes("validation", range(len(support))).query
        left = 0.5 + max(0, self.settled - state.step) / self.settled + 0.01 * (state.step % 3)
        yield lambda x, memory=None: (query.y * (1 - left), None)


def fitted(patience: float | None, settled: int = 30, progress: Progress | None = None, dies: int = 0) -> Progress:
    budget = BUDGET | ({} if patience is None else {"patience": patience})
    none = lambda news: None  # noqa: E731
    return train(Settles(settled, dies), WAVES, 0, budget, progress or Progress(), none, none)


def steps(progress: Progress) -> int:
    assert progress.state is not None
    return progress.state.step


@pytest.mark.parametrize("patience", [0.1, 0.25, 0.5])
def test_training_ends_when_validation_has_stood_still_for_the_patience(patience: float) -> None:
    found, whole = fitted(patience), fitted(None)
    assert (found.stopped_by, found.best["step"], found.best) == ("standstill", 30, whole.best)
    assert 30 + patience * 200 <= steps(found) < 200
    assert not still_improving(found, higher_is_better=False)
    assert (whole.stopped_by, steps(whole)) == ("budget", 200)
    one, other = ([{**row, "seconds": 0} for row in each.curve] for each in (found, whole))
    assert one == other[: len(one)], "the same states as without, up to the end"


def test_a_learner_that_improves_has_its_whole_budget() -> None:
    assert fitted(0.1, settled=200).stopped_by == "budget"


def test_a_fit_that_was_killed_stands_still_at_the_same_step() -> None:
    """A checkpoint holds all that the rule looks at."""
    whole, again = fitted(0.25), fitted(0.25, progress=Progress.from_plain(killed_at(50).plain()))
    assert (again.stopped_by, steps(again), again.best) == (whole.stopped_by, steps(whole), whole.best)
    assert again.validation_scores == whole.validation_scores


def killed_at(step: int) -> Progress:
    progress = Progress()
    with pytest.raises(KeyboardInterrupt):
        fitted(0.25, progress=progress, dies=step)
    return progress


def test_only_a_profile_with_patience_changes_the_key_of_a_fit(tmp_path: Path) -> None:
    keys = set()
    for line, expected in (("", {}), ("patience = 0.25\n", {"patience": 0.25})):
        (tmp_path / "mine.toml").write_text(f'[mine]\nextends = "smoke"\n{line}')
        found = expand(resolve(load(str(tmp_path / "mine.toml")), Request(["maml"], ["sinusoid"])))
        (fit,) = (cell for cell in found if cell.kind == "fit")
        assert {key: value for key, value in fit.spec["budget"].items() if key == "patience"} == expected
        assert fit.draft.budget
        assert fit.draft.budget.patience == expected.get("patience")
        keys.add(fit.key)
    assert len(keys) == 2


def test_a_learner_whose_schedule_ends_with_the_budget_is_trained_to_its_end(tmp_path: Path) -> None:
    """Reptile's rate falls to zero, and Meta-Baseline's second stage has not begun where its first stands still."""
    (tmp_path / "mine.toml").write_text('[mine]\nextends = "smoke"\npatience = 0.25')
    methods = ("reptile", "maml-plus-plus", "meta-baseline", "maml", "prototypical-nets")
    found = expand(resolve(load(str(tmp_path / "mine.toml")), Request(methods, ["glyphs"])))
    patient = {cell.label for cell in found if cell.kind == "fit" and "patience" in cell.spec["budget"]}
    assert patient == {"maml", "prototypical-nets"}


@pytest.mark.parametrize("value", ["0", "1.5", "-0.25", "true", "nan"])
def test_patience_is_a_share(tmp_path: Path, value: str) -> None:
    (tmp_path / "mine.toml").write_text(f'[mine]\nextends = "smoke"\npatience = {value}')
    with pytest.raises(MetabenchError, match="patience"):
        load(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("still", [True, False])
def test_page_and_terminal_say_where_training_stood_still(tmp_path: Path, still: bool) -> None:
    """A fit that stood still is trained to the end: no dagger, and a share of the budget next to it."""
    make = made_up.Maker(tmp_path)
    for seed, steps in enumerate((1200, 1800)):
        training = make.training("maml", made_up.SINUSOID, seed, under_trained=not still)
        training = dataclasses.replace(training, meta_steps=steps, stopped_by="standstill" if still else "budget")
        make.evaluation("maml", made_up.SINUSOID, seed, training=training)
    console = Console(width=200, record=True, file=io.StringIO())
    terminal.show(tmp_path, console, test="sinusoid")
    text = console.export_text()
    results = results_of(tmp_path)
    (table,) = score_tables(results, style.looks(results.labels))
    assert table.frame.to_dict("list").get("stood still at") == (["1,200–1,800"] if still else None)
    assert ("stood still at" in " ".join(text.split())) is still
    assert (words.UNDER_TRAINED in text) is not still
