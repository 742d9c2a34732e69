"""``import benchmarks as mb`` as in a notebook: run methods, look at every score, load what was trained."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import benchmarks as mb
from benchmarks.api import in_regime
from benchmarks.python_api.results import COLUMNS, export
from benchmarks.python_api.run import Run
from benchmarks.records import copies
from benchmarks.records.store import Store

PROFILE = """
[tiny]
seeds = 2
episodes = 6
validation_episodes = 4
validations = 2
seconds = 30
meta_steps = 3
methods = ["maml", "nearest-neighbour"]
models = ["best", "last"]
regimes = ["query", "none"]
selections = ["published", "validation"]

[[tiny.tasks]]
task = "sinusoid/k5"
shots = [3]

[[tiny.tasks]]
task = "glyphs/5w1s"
seeds = 1
methods = ["fomaml"]
selections = ["published"]
"""
#: a method whose prediction is a number of the file
CONSTANT = """
from dataclasses import dataclass
import benchmarks as mb

@mb.register_method("{name}")
@dataclass(frozen=True)
class Constant(mb.MetaLearner):
    kinds, fits = frozenset({{"regression"}}), False
    def adapt(self, state, support, tasks):
        yield lambda x, memory=None: (0 * x + {value}, memory)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "tiny.toml").write_text(PROFILE)
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("METABENCH_OFFLINE", "1")


@pytest.fixture(scope="module")
def ran(folder: Path) -> Run:
    return mb.run(profile=str(folder / "tiny.toml"), store=folder / "runs")


@pytest.fixture
def plugin(folder: Path) -> Iterator[Any]:
    """Writes the file of a method that predicts a number."""

    def write(name: str, value: object) -> str:
        path = folder / f"{name}.py"
        path.write_text(CONSTANT.format(name=name, value=value))
        return str(path)

    yield write
    from benchmarks import registry

    for path in folder.glob("*.py"):
        registry.forget_file(path)
        path.unlink()


# --- names ---


def test_every_public_name_is_there_and_is_where_the_type_checker_finds_it() -> None:
    assert all(getattr(mb, name) for name in mb.__all__)
    assert set(mb.__all__) <= set(dir(mb))
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(mb))) if isinstance(node, ast.ImportFrom)]
    declared = {alias.name: node.module for node in imports for alias in node.names}
    assert {name: declared[name] for name in mb.__all__} == mb._MODULES
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        _ = mb.rnu


def test_the_function_run_and_the_folder_of_that_name_get_along() -> None:
    assert importlib.import_module("benchmarks.run.cells").Cell
    importlib.import_module("benchmarks.run.worker")
    assert "profile" in inspect.signature(mb.run).parameters


# --- results ---


def test_a_run_is_silent_and_names_what_it_did(ran: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert ran.failed == ran.skipped == ()
    again = mb.run(profile="tiny.toml", store="runs")
    assert capfd.readouterr() == ("", "")
    assert again.outcomes == {}
    assert len(again.cells) == len(ran.cells)
    mb.run(profile="tiny.toml", store="runs", verbose=True)
    assert f"0 cells to run, {len(ran.cells)} finished before" in capfd.readouterr().out


def test_the_frame_holds_every_score_once(ran: Run, tmp_path: Path) -> None:
    frame, store = mb.results("runs"), Store("runs", read_only=True)
    assert tuple(frame.columns) == COLUMNS
    pd.testing.assert_frame_equal(ran.results(), frame)
    scores = [store.scores(record) or {} for record in store.records("evaluation")]
    assert len(frame) == sum(array.size for found in scores for array in found.values())
    identity = ["key", "checkpoint", "regime", "step", "episode", "query"]
    assert not frame.duplicated(identity).any()
    assert not frame.duplicated(["task", "method", "seed", "shots", *identity[1:]]).any(), "names tell rows apart"
    for record in store.records("evaluation"):
        for tested in record.tested:
            rows = frame[(frame.key == record.key) & (frame.checkpoint == tested.test.model)]
            rows = rows[(rows.regime == tested.test.regime) & rows.headline]
            mean = tested.test.at(tested.test.headline_step)
            assert mean is not None
            assert rows.groupby("episode").score.mean().mean() == pytest.approx(mean.mean, rel=1e-6)
    assert export(store, tmp_path / "scores.parquet") == len(frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), frame)


def test_queries_of_a_class_data_set_are_named(ran: Run) -> None:
    frame, store = mb.results("runs"), Store("runs", read_only=True)
    glyphs = frame[(frame.task == "glyphs-v1/5w1s") & frame.headline]
    record = store.get(glyphs.key.iloc[0])
    assert record is not None
    assert record.evaluation is not None
    assert record.evaluation.episodes_digest is not None
    examples = store.episodes(record.evaluation.episodes_digest)
    assert examples is not None
    for row in glyphs.sample(20, random_state=0).itertuples():
        assert row._12 == examples["classes"][row.episode, row.query]
        assert row.item == examples["items"][row.episode, row.query]
    assert set(frame[frame.task == "sinusoid-v1/k5"]["class"]) == {-1}


def test_a_store_without_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(mb.MetabenchError, match="no store at"):
        mb.results(tmp_path / "absent")
    with pytest.raises(mb.MetabenchError, match="no finished evaluation in"):
        mb.results(tmp_path)


# --- load ---


@pytest.mark.fault("U8")
@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("method", ["maml", "maml [tuned]", "nearest-neighbour", "fomaml"])
def test_a_loaded_learner_scores_as_it_did_in_its_run(ran: Run, method: str, checkpoint: str) -> None:
    task = "glyphs/5w1s" if method.startswith("fomaml") else "sinusoid/k5"
    seed = int(method.startswith("maml"))
    learner, state, tasks = mb.load("runs", method=method, task=task, seed=seed, checkpoint=checkpoint)
    frame = mb.results("runs")
    frame = frame[(frame.method == method) & (frame.task == tasks.id) & frame.headline & (frame.shots == tasks.shot)]
    if state.parameters:
        frame = frame[(frame.seed == seed) & (frame.checkpoint == checkpoint)]
    regime, step = frame.regime.iloc[0], frame.step.iloc[0]
    frame = frame[frame.regime == regime]
    episodes = tasks.episodes("test", range(6))
    with pytest.raises(mb.MetabenchError, match=r"support\.x has the shape"):
        learner.adapt(state, mb.LabelledSet(episodes.support.x[0], episodes.support.y[0]), tasks)
    predictor = next(itertools.islice(learner.adapt(state, episodes.support, tasks), step, None))
    scores = tasks.score(in_regime(predictor, regime), episodes.query).numpy()
    stored = frame.pivot_table("score", "episode", "query").to_numpy()
    np.testing.assert_allclose(scores, stored, rtol=1e-5)


def test_a_method_without_a_fit_has_an_empty_state(ran: Run) -> None:
    learner, state, tasks = mb.load("runs", "nearest-neighbour", "sinusoid", seed=5)
    assert (learner.name, state, tasks.id) == ("nearest-neighbour", mb.State(), "sinusoid-v1/k5")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "mmal"}, "method on sinusoid-v1/k5 in runs 'mmal' (did you mean 'maml'?); known: maml, maml"),
        ({"task": "sinusoid/k50"}, "did you mean 'sinusoid-v1/k5'?); known: glyphs-v1/5w1s, sinusoid-v1/k5"),
        ({"seed": 7}, "unknown seed of maml on sinusoid-v1/k5 in runs '7'; known: 0, 1"),
        ({"checkpoint": "first"}, "unknown checkpoint 'first'; known: best, last"),
        ({"method": "maml [tuned]", "checkpoint": "first"}, "known: best, last"),
        ({"store": "absent"}, "no store at absent"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"method": "absent.py"}, "no such plug-in file: absent.py"),
    ],
)
def test_what_is_unknown_names_the_known(ran: Run, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(mb.MetabenchError) as refusal:
        mb.load(**{"store": "runs", "method": "maml", "task": "sinusoid/k5", **changes})
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_copy_without_states_is_one_line(ran: Run, tmp_path: Path) -> None:
    copies.keep(Store("runs", read_only=True), Store(tmp_path / "kept"))
    assert mb.load(tmp_path / "kept", "nearest-neighbour", "sinusoid/k5")[1] == mb.State()
    with pytest.raises(mb.MetabenchError, match="no trained state of maml on sinusoid-v1/k5, seed 1: copies made by"):
        mb.load(tmp_path / "kept", "maml", "sinusoid/k5", seed=1)


def test_rows_with_other_settings_are_named(tmp_path: Path) -> None:
    for metric in ("cosine", "l2"):
        done = mb.run(
            "nearest-neighbour", "sinusoid/k5", profile="tiny.toml", settings={"nearest-neighbour.metric": metric},
            store=tmp_path,
        )  # fmt: skip
        assert set(done.results().method) == {"nearest-neighbour"}
    names = {f"nearest-neighbour (metric={metric})" for metric in ("cosine", "l2")}
    assert set(mb.results(tmp_path).method) == names
    with pytest.raises(mb.MetabenchError, match=r"several methods on .* are called nearest-neighbour") as refusal:
        mb.load(tmp_path, "nearest-neighbour", "sinusoid/k5")
    assert all(name in str(refusal.value) for name in names)
    learner, _, _ = mb.load(tmp_path, "nearest-neighbour (metric=l2)", "sinusoid/k5")
    assert learner.config() == {"metric": "l2"}


# --- run ---


def test_an_edited_file_is_run_again(plugin: Any, tmp_path: Path) -> None:
    means = []
    for value in (0.0, 100.0):
        done = mb.run([plugin("mine", value), "constant"], "sinusoid/k5", profile="tiny.toml", store=tmp_path)
        assert done.failed == ()
        means.append(done.results().query("method == 'mine' and headline").score.mean())
    assert means[1] > means[0] + 5000
    assert mb.results(tmp_path).query("method == 'mine' and headline").score.mean() == means[1], "older code is hidden"
    learner, state, _ = mb.load(tmp_path, plugin("mine", 100.0), "sinusoid/k5")
    assert (learner.name, state) == ("mine", mb.State())


def test_a_method_that_the_caller_has_imported_needs_no_path(
    plugin: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin("imported_by_name", 1.0)
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("imported_by_name")
    done = mb.run("imported_by_name", "sinusoid/k5", profile="tiny.toml", store=tmp_path)
    assert (done.failed, set(done.results().method)) == ((), {"imported_by_name"})


def test_a_method_of_the_notebook_itself_is_refused(plugin: Any, tmp_path: Path) -> None:
    from benchmarks import registry

    registry.load_file(Path(plugin("in_a_cell", 1.0)))
    registry.method_entry("in_a_cell").cls.__module__ = "__main__"
    with pytest.raises(mb.MetabenchError, match="in_a_cell is defined in the notebook or script itself"):
        mb.run("in_a_cell", "sinusoid/k5", profile="tiny.toml", store=tmp_path)


def test_a_failing_method_is_named_and_ends_nothing_else(plugin: Any, tmp_path: Path) -> None:
    done = mb.run([plugin("broken", "1 / 0"), "constant", "chance"], "sinusoid/k5", profile="tiny.toml", store=tmp_path)
    reason = "error (ZeroDivisionError: division by zero)"
    assert set(done.failed) == {f"broken on sinusoid-v1/k5: {test}: {reason}" for test in ("test", "test, 3 shots")}
    assert done.skipped == ("chance on sinusoid-v1/k5: chance is for classification, sinusoid is regression",)
    assert set(done.results().method) == {"constant"}


@pytest.mark.fault("U4", "U7", "S9")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["maml", "mmal"]}, "unknown method 'mmal' (did you mean 'maml'?)"),
        ({"tasks": "sinusoid/k6"}, "unknown variant of task 'sinusoid' 'k6'"),
        ({"methods": "absent.py"}, "no such plug-in file: absent.py"),
        ({"seeds": 0}, "or numbers from 0 to 8388607; for the one seed 0 write seeds=[0], or --seeds 0,"),
        ({"seeds": [2**40]}, "numbers from 0 to 8388607"),
        ({"settings": {"maml.inner": 1}}, "unknown field of 'maml' 'inner'"),
        ({"settings": {"sinusoid.device": "cuda"}}, "sinusoid.device = 'cuda' is no setting"),
        ({"settings": {"maml.inner_lr": float("nan")}}, "maml.inner_lr = nan is no setting"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"plan": "fast"}, "'fast'"),
        ({"only": "broken"}, "unknown value of only 'broken'; known: all, failed, missing"),
        ({"meta_steps": 0}, "= 0 is not above 0"),
        ({"episodes": 10**20}, "the most is 10,000,000"),
        ({"seconds": float("inf")}, "seconds = inf is too large"),
        ({"shots": [0]}, "shots = 0"),
        ({"shots": [1_001]}, "shots = 1001 is too large"),
        ({"shots": 5}, "shots = 5 is no list of whole numbers: write shots=[5]"),
        ({"shots": "5"}, "shots = '5' is no list of whole numbers"),
        ({"methods": "maml,mmal"}, "unknown method 'mmal' (did you mean 'maml'?)"),
        ({"methods": 3}, "3 is no name and no list of names: write them as in 'maml,fomaml'"),
        ({"methods": ["maml", ""]}, "has an empty name"),
        ({"seeds": "3"}, "seeds = '3': write how many, as in 3"),
        ({"seeds": 1.5}, "seeds = 1.5: write how many, as in 3"),
        ({"meta_steps": "many"}, "meta_steps = 'many' is str, not int"),
        ({"settings": ["maml.inner_lr"]}, "settings = ['maml.inner_lr'] is list, not Mapping"),
        ({"profile": 3}, "profile = 3 is int, not str"),
        ({"threads": 100_000}, "threads = 100000 is above the number of usable cores"),
        ({"methods": "constant", "tasks": "bandit"}, "nothing ran: constant on bandit-v1/k5n10: constant is for"),
        ({"threads": -1}, "threads = -1"),
        ({"jobs": 0}, "jobs = 0"),
        ({"memory": float("inf")}, "memory = inf"),
        ({"store": "tiny.toml"}, "tiny.toml"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder: Path, changes: dict[str, Any], said: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(mb.MetabenchError) as refusal:
        mb.run(**{"methods": "maml", "tasks": "sinusoid/k5", "profile": "tiny.toml", "store": "new", **changes})
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert sorted(folder.rglob("*")) == before
