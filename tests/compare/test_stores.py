"""Two stores, commits or methods: from records to verdicts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks.compare.stores import compare, power_table
from benchmarks.errors import MetabenchError
from benchmarks.records.record import Budget, Git
from benchmarks.records.store import Store
from benchmarks.stats import Column, aggregate, columns, contrast, task_scores


def many_classes(make: Maker, count: int = 20) -> None:
    """Episodes of 5 classes out of ``count``, in the place of the same 5 in all."""
    generator = np.random.default_rng(0)
    drawn = generator.permuted(np.tile(np.arange(count), (make.episodes, 1)), axis=1)[:, :5]
    classes = np.tile(drawn, (1, 2))
    make.digest = make.store.write_episodes({"classes": classes, "items": 100 * classes + np.arange(10)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = Maker(tmp_path_factory.mktemp("stores") / "ours")
    many_classes(make)
    for seed in (0, 1):
        make.evaluation("maml", GLYPHS, seed, regime="query", level=0.9)
        make.evaluation("fomaml", GLYPHS, seed, regime="query", level=0.7)
        make.evaluation("maml", SINUSOID, seed, level=0.4)
        make.evaluation("fomaml", SINUSOID, seed, level=0.9)
        make.evaluation("oracle", SINUSOID, seed, level=0.01, role="ceiling")
    make.evaluation("nearest-neighbour", GLYPHS, level=0.5, fits=False)
    return make.store.path


def columns_of(path: Path) -> list[Column]:
    return columns(Store(path), Store(path).records())


# --- records ---


def test_columns_hold_what_may_stand_beside_each_other(store: Path) -> None:
    glyphs, sinusoid = columns_of(store)
    assert (glyphs.protocol.task, glyphs.protocol.regime) == ("glyphs-v1/5w1s", "query")
    assert set(glyphs.names) == {"maml", "fomaml", "nearest-neighbour"}
    assert {row.name for row in sinusoid.learners} == {"maml", "fomaml"}
    assert glyphs.membership is not None
    assert (glyphs.membership.count, sinusoid.membership) == (20, None)
    assert glyphs.rows[0].values.shape == (2, 60, 10)


def test_last_models_have_a_column_of_their_own_in_which_the_untrained_stand_too(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for model in ("best", "last"):
        make.evaluation("maml", SINUSOID, model=model)
        make.evaluation("fomaml", SINUSOID, model=model)
    make.evaluation("constant", SINUSOID, fits=False)
    best, last = columns_of(tmp_path)
    assert (best.protocol.model, last.protocol.model) == ("best", "last")
    assert sorted(best.names) == sorted(last.names) == ["constant", "fomaml", "maml"]
    for column in (best, last):
        assert {row.first.test.model for row in column.rows if row.trained} == {column.protocol.model}
    assert {row.own for row in last.rows if row.trained} == {False}


def test_comparison_of_records_is_that_of_their_scores(store: Path) -> None:
    glyphs, sinusoid = columns_of(store)
    opened = Store(store)
    tables = {
        (record.label, record.seed): (opened.scores(record) or {})["best/none/0"].mean(1, dtype=float)
        for record in opened.records("evaluation")
        if record.task == SINUSOID
    }
    sides = [np.stack([tables[name, seed] for seed in (0, 1)]) for name in ("maml", "fomaml")]
    expected = contrast(*sides, metric="squared error", higher_is_better=False)
    (pair,) = sinusoid.comparison().pairs
    assert (pair.first, pair.second, pair.kind) == ("maml", "fomaml", "better")
    assert pair.p == pytest.approx(expected.p_value(), rel=1e-4)
    found = glyphs.comparison()
    assert found.ranks == {"maml": 1, "fomaml": 2, "nearest-neighbour": 3}
    # one evaluation of a method that trains nothing stands beside every seed
    assert found.pair("maml", "nearest-neighbour").contrast.seeds == 2
    assert found.pair("maml", "nearest-neighbour").survives_new_classes is not None


def test_another_inner_step_can_be_looked_at(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    make.evaluation("maml", SINUSOID, level=3.0, slope=-2.6, steps=11)
    (headline,), (start,) = (columns(make.store, make.store.records(), step=step) for step in (None, 0))
    assert (len(headline.episodes), len(start.episodes)) == (60, 20)
    assert start.rows[0].values.mean() > 2 > headline.rows[0].values.mean()


def test_damaged_scores_leave_their_record_out(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    make.evaluation("kept", SINUSOID, level=0.5)
    path = tmp_path / "scores" / f"{make.evaluation('lost', SINUSOID, level=0.5)}.npz"
    path.write_bytes(b"x" * path.stat().st_size)
    (column,) = columns_of(tmp_path)
    assert column.names == ("kept",)


def test_aggregate_over_the_columns_of_a_store(store: Path, tmp_path: Path) -> None:
    tasks, left_out = task_scores(columns_of(store), "query")
    assert [task.name for task in tasks] == ["glyphs-v1/5w1s (1-shot test, batch-norm: query)"]
    assert list(left_out.values()) == ["it has no floor"]
    shutil.copytree(store, tmp_path / "more")
    Maker(tmp_path / "more").evaluation("constant", SINUSOID, level=4.0, role="floor", fits=False)
    tasks, left_out = task_scores(columns_of(tmp_path / "more"), "query")
    assert not left_out
    glyphs, sinusoid = tasks
    assert (glyphs.floor, glyphs.ceiling) == (0.2, 1.0)
    assert sinusoid.floor == pytest.approx(4.0, rel=0.1)
    across = aggregate(tasks, resamples=100)
    assert set(across.methods) == {"maml", "fomaml"}
    assert across.missing == {"nearest-neighbour": ("sinusoid-v1/k10 (10-shot test, batch-norm: none)",)}
    assert across.interquartile_means["maml"].low > across.interquartile_means["fomaml"].high


# --- two of a kind ---


def test_two_stores(store: Path, tmp_path: Path) -> None:
    make = Maker(tmp_path / "theirs")
    many_classes(make)
    for seed in (0, 1):
        make.evaluation("maml", GLYPHS, seed, regime="query", level=0.6)
        make.evaluation("fomaml", GLYPHS, seed, regime="query", level=0.7)
        make.evaluation("new", GLYPHS, seed, regime="query", level=0.7)
    found = compare(str(store), str(tmp_path / "theirs"), tmp_path / "absent").set_index("first")
    assert found.loc[f"{store}: maml", "verdict"] == "better"
    same = found.loc[f"{store}: fomaml"]
    assert (same["verdict"], same["advantage"], same["p"]) == ("undecided", 0.0, 1.0) or same["verdict"] == "equivalent"
    assert found.loc["new", "note"] == f"only in {tmp_path / 'theirs'}"
    assert found.loc["nearest-neighbour", "verdict"] == "can't say"


def test_stores_are_matched_whoever_else_has_batch_norm(tmp_path: Path) -> None:
    """A method without batch-norm stands in the columns of those with; another store may hold nobody with."""
    crowded, alone = Maker(tmp_path / "crowded"), Maker(tmp_path / "alone")
    for make in (crowded, alone):
        make.evaluation("nearest-neighbour", GLYPHS, level=0.5, fits=False)
    for regime in ("query", "support"):
        crowded.evaluation("maml", GLYPHS, regime=regime, level=0.9)
    found = compare(str(crowded.store.path), str(alone.store.path), tmp_path).set_index("first")
    line = found.loc[f"{crowded.store.path}: nearest-neighbour"]
    assert (line["verdict"], line["advantage"], line["episodes"]) == ("equivalent", 0.0, 60)
    assert list(found.loc["maml", "note"]) == [f"only in {crowded.store.path}"] * 2


def test_two_methods(store: Path) -> None:
    found = compare("fomaml", "maml", store)
    assert list(found["test"]) == ["glyphs-v1/5w1s, 1-shot, batch-norm: query", "sinusoid-v1/k10, 10-shot"]
    assert list(found["verdict"]) == ["worse", "worse"]
    assert (found["high"] < 0).all()
    assert list(found["scale"]) == ["difference", "log ratio"]
    assert set(found["scope"]) == {"models"}
    backwards = compare("maml", "fomaml", store)
    assert backwards["advantage"].to_numpy() == pytest.approx(-found["advantage"].to_numpy())
    assert len(compare("maml", "oracle", store)) == 1


def test_two_commits_say_what_else_changed(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for commit, level, steps in (("a" * 40, 0.4, 10), ("b" * 40, 0.9, 20)):
        make.evaluation("maml", SINUSOID, level=level, git=Git(commit, False), budget=Budget(steps, 300, 50, 20))
    (line,) = compare("aaaaaaa", "bbbbbbb", tmp_path).to_dict("records")
    assert line["verdict"] == "better"
    assert "meta_steps 10 against 20" in line["note"]


@pytest.mark.parametrize(
    ("episodes", "changes", "verdict", "note"),
    [
        (60, {"level": 0.9, "under_trained": True}, "ahead", "fomaml is under-trained"),
        (60, {"level": float("nan")}, "can't say", "not numbers"),
        (60, {"level": 0.9, "seed": 1}, "can't say", "no seed in common"),
        (1, {"level": 0.4}, "undecided", "no interval"),
    ],
)
def test_a_pair_without_a_verdict_says_why(
    tmp_path: Path, episodes: int, changes: dict[str, float], verdict: str, note: str
) -> None:
    make = Maker(tmp_path, episodes=episodes)
    make.evaluation("maml", SINUSOID, level=0.4)
    make.evaluation("fomaml", SINUSOID, **changes)  # type: ignore[arg-type]
    (line,) = compare("maml", "fomaml", tmp_path).to_dict("records")
    assert line["verdict"] == verdict
    assert note in line["note"]
    if verdict != "ahead":
        with pytest.raises(MetabenchError, match="no test of two methods"):
            power_table(tmp_path, 1.0)


def test_what_can_not_be_compared_is_one_line(store: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(SINUSOID, id="sinusoid-v2/k10", version=2)
    Maker(tmp_path / "v2").evaluation("maml", other, level=0.5)
    for first, second, where, match in (
        ("maml", "nobody", store, "'nobody' is no store, no commit and no method"),
        ("maml", str(store), store, "compare two of a kind"),
        ("maml", "fffffff", store, "compare two of a kind"),
        ("nearest-neighbour", "oracle", store, "no test of both"),
        ("fffffff", "0000000", store, "'0000000' is no store"),
        ("maml", "fomaml", tmp_path / "absent", "no store at"),
        ("maml", "fomaml", tmp_path, "no finished evaluation"),
        (str(store), str(tmp_path / "v2"), store, "no method with the same test"),
    ):
        with pytest.raises(MetabenchError, match=match) as caught:
            compare(first, second, where)
        assert "\n" not in str(caught.value)


# --- power ---


def test_power_table_plans_what_the_records_measured(store: Path) -> None:
    found = power_table(store, 5.0, ["maml", "fomaml"])
    assert set(found["scope"]) == {"models", "classes"}
    glyphs = found[(found["task"] == GLYPHS.id) & (found["scope"] == "models")].iloc[0]
    assert (glyphs["seeds"], glyphs["episodes"]) == (2, 60)
    assert glyphs["delta"] == pytest.approx(0.05)
    assert 0 < glyphs["power"] < 1
    # 10 queries right or wrong at 0.9 and at 0.7, two seeds: the queries are nearly all of the noise
    assert glyphs["sd_query"] == pytest.approx(np.sqrt((0.09 + 0.21) / 2), rel=0.3) or glyphs["sd_query"] == 0
    assert (found["episodes_needed"].dropna() > 1).all()
    more = power_table(store, 10.0, ["maml", "fomaml"])
    assert (more["power"].to_numpy() >= found["power"].to_numpy()).all()


def test_power_of_nothing_is_one_line(store: Path) -> None:
    for delta, methods, match in (
        (0.0, [], "--delta 0: a difference"),
        (float("inf"), [], "above 0"),
        (1.0, ["nobody"], "unknown method in"),
    ):
        with pytest.raises(MetabenchError, match=match):
            power_table(store, delta, methods)
