"""Scores from elsewhere on our test episodes, and the lists of these episodes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks.compare.episode_lists import episodes_digest, export_episodes
from benchmarks.compare.stores import compare_foreign
from benchmarks.errors import MetabenchError
from benchmarks.records.formats import episodes_digest as digest_of
from benchmarks.records.store import Store
from benchmarks.registry import build_task
from benchmarks.stats import columns, contrast


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = Maker(tmp_path_factory.mktemp("stores") / "ours")
    for seed in (0, 1):
        make.evaluation("maml", GLYPHS, seed, regime="query", level=0.9)
        make.evaluation("fomaml", GLYPHS, seed, regime="query", level=0.7)
    make.evaluation("nearest-neighbour", GLYPHS, level=0.5, fits=False)
    return make.store.path


def theirs(store: Path, path: Path, level: float = 0.99, episodes: int = 60, **changes: Any) -> Path:
    opened = Store(store)
    digests = (r.evaluation.episodes_digest for r in opened.records("evaluation") if r.evaluation)
    items = {name: array[:episodes] for name, array in opened.episodes(next(filter(None, digests))).items()}
    episode, query = np.indices(items["classes"].shape).reshape(2, -1)
    right = np.random.default_rng(1).random(len(episode)) < level
    frame = pd.DataFrame({"task": GLYPHS.id, "episodes_digest": digest_of(items), "episode": episode, "query": query})
    frame.assign(score=right, method="mine").assign(**changes).to_parquet(path)
    return path


def test_foreign_scores_get_a_paired_verdict(store: Path, tmp_path: Path) -> None:
    found = compare_foreign(theirs(store, tmp_path / "mine.parquet"), store).set_index("second")
    assert set(found.index) == {"ours: maml", "ours: fomaml", "ours: nearest-neighbour"}
    assert set(found["verdict"]) == {"better"}
    assert set(found["first"]) == {"theirs: mine"}
    assert set(found["scope"]) == {"models"}
    assert set(found["episodes"]) == {60}
    opened = Store(store)
    row = next(row for row in columns(opened, opened.records())[0].rows if row.name == "fomaml")
    frame = pd.read_parquet(tmp_path / "mine.parquet")
    mine = frame.groupby("episode")["score"].mean().to_numpy()
    expected = contrast(mine, row.values.mean((0, 2)))
    assert found.loc["ours: fomaml", "p"] == pytest.approx(expected.p_value())
    assert found.loc["ours: fomaml", "mean_second"] == pytest.approx(row.values.mean())


def test_fewer_episodes_have_a_digest_of_their_own(store: Path, tmp_path: Path) -> None:
    found = compare_foreign(theirs(store, tmp_path / "mine.parquet", episodes=25), store)
    assert set(found["episodes"]) == {25}


def test_seeds_are_averaged_and_support_examples_of_an_exported_list_need_no_scores(
    store: Path, tmp_path: Path
) -> None:
    frame = pd.read_parquet(theirs(store, tmp_path / "mine.parquet"))
    expected = compare_foreign(tmp_path / "mine.parquet", store)
    seeds = [frame.assign(seed=0), frame.assign(seed=1)]
    listed = [frame.assign(role="support", score=None), frame.assign(role="query")]
    for parts in (seeds, listed):
        pd.concat(parts).to_parquet(tmp_path / "mine.parquet")
        pd.testing.assert_frame_equal(compare_foreign(tmp_path / "mine.parquet", store), expected)


def test_several_regimes_in_one_table_are_results_of_their_own(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "ours")
    Maker(tmp_path / "ours").evaluation("maml", GLYPHS, regime="support", level=0.9)
    frame = pd.read_parquet(theirs(store, tmp_path / "mine.parquet"))
    worse = frame.assign(score=frame["episode"] % 2 == 0)
    pd.concat([frame.assign(regime="query"), worse.assign(regime="support")]).to_parquet(tmp_path / "both.parquet")
    found = compare_foreign(tmp_path / "both.parquet", tmp_path / "ours").set_index(["batch_norm", "second"])
    assert found.loc[("query", "ours: maml"), "mean_first"] == pytest.approx(frame["score"].mean())
    assert found.loc[("support", "ours: maml"), "mean_first"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"episodes_digest": "0123456789abcdef"}, "is not that of our first 60"),
        ({"task": "glyphs-v2/5w1s"}, "has no result on glyphs-v2/5w1s"),
        ({"score": 0.5}, "scores are 1 or 0"),
        ({"score": float("nan")}, "600 scores are not numbers"),
        ({"score": "right"}, "600 scores are not numbers"),
        *(({"shots": one}, f"shots {one!r} are not whole numbers") for one in ("many", 1.5, float("inf"))),
        ({"shots": 5}, "of these shots and regime"),
        ({"regime": "support"}, "of these shots and regime"),
        ({"query": 0}, "one score for each of 10 queries"),
        ({"episode": 3}, "episodes from 0 on without gaps"),
        ({"task": None}, "600 rows have no task"),
        ({"episode": None}, "600 rows have no episode"),
        ({"method": None}, "600 rows have no method"),
        ({"seed": None}, "600 rows have no seed"),
        ({"regime": float("nan")}, "600 rows have no regime"),
    ],
)
def test_foreign_tables_that_are_not_about_our_episodes(
    store: Path, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    path = theirs(store, tmp_path / "mine.parquet", **changes)
    with pytest.raises(MetabenchError, match=match) as caught:
        compare_foreign(path, store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["task", "episode", "score", "seed"])
def test_a_column_of_lists_is_named(store: Path, tmp_path: Path, name: str) -> None:
    frame = pd.read_parquet(theirs(store, tmp_path / "mine.parquet"))
    frame.assign(**{name: [[1]] * len(frame)}).to_parquet(tmp_path / "lists.parquet")
    with pytest.raises(MetabenchError, match=f"{name} holds lists or tables, not single values"):
        compare_foreign(tmp_path / "lists.parquet", store)


def test_foreign_files_that_are_no_table_of_scores(store: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(theirs(store, tmp_path / "mine.parquet"))
    (tmp_path / "text.parquet").write_text("not a table")
    frame[["task", "score"]].to_parquet(tmp_path / "few.parquet")
    frame.iloc[:0].to_parquet(tmp_path / "empty.parquet")
    frame.iloc[:-1].to_parquet(tmp_path / "cut.parquet")
    for name, match in (
        ("text", r"text\.parquet can't be read as parquet"),
        ("absent", "absent.* is no parquet file"),
        ("few", "has no columns episodes_digest, episode, query"),
        ("empty", "has no scores"),
        ("cut", "one score for each of 10 queries"),
    ):
        with pytest.raises(MetabenchError, match=match):
            compare_foreign(tmp_path / f"{name}.parquet", store)


# --- episode lists ---


def test_exported_waves_are_the_episodes() -> None:
    frame = export_episodes("sinusoid/k5", 45)
    assert set(frame["task"]) == {"sinusoid-v1/k5"}
    cut = build_task("sinusoid/k5").episodes("test", range(45))
    query, support = (frame[frame["role"] == role] for role in ("query", "support"))
    assert query["x"].to_numpy().reshape(45, -1) == pytest.approx(cut.query.x[..., 0].numpy(), abs=0)
    assert support["y"].to_numpy().reshape(45, -1) == pytest.approx(cut.support.y[..., 0].numpy(), abs=0)
    assert frame["episodes_digest"].nunique() == 1
    assert export_episodes("sinusoid/k5", 45)["episodes_digest"].iloc[0] == frame["episodes_digest"].iloc[0]
    assert export_episodes("sinusoid/k5", 44)["episodes_digest"].iloc[0] != frame["episodes_digest"].iloc[0]


def test_exported_waves_can_be_scored_by_anybody(tmp_path: Path) -> None:
    make = Maker(tmp_path / "ours", episodes=30)
    make.evaluation("maml", SINUSOID, level=3.0, queries=20)
    listed = export_episodes("sinusoid/k10", 30)
    query = listed[listed["role"] == "query"]
    guess = query[["task", "episodes_digest", "episode", "query"]].assign(score=np.square(query["y"] * 0.01) + 1e-6)
    guess.to_parquet(tmp_path / "mine.parquet")
    (line,) = compare_foreign(tmp_path / "mine.parquet", tmp_path / "ours").to_dict("records")
    assert (line["first"], line["verdict"]) == ("theirs: mine", "better")
    moved = guess.assign(episodes_digest=episodes_digest(query.assign(x=query["x"] + 1e-3)))
    moved.to_parquet(tmp_path / "moved.parquet")
    with pytest.raises(MetabenchError, match="is not that of our first 30"):
        compare_foreign(tmp_path / "moved.parquet", tmp_path / "ours")


def test_exported_pictures_have_the_digest_of_the_records(tmp_path: Path) -> None:
    frame = export_episodes("glyphs/5w1s", 3)
    assert set(frame["role"].value_counts()) == {15, 225}
    assert frame.groupby(["episode", "label"])["class"].nunique().eq(1).all()
    query = build_task("glyphs/5w1s").episodes("test", range(3)).query
    items = {"classes": query.classes.numpy(), "items": query.items.numpy()}
    assert digest_of(items) == frame["episodes_digest"].iloc[0]


def test_a_task_with_changed_fields_is_compared_by_its_items_or_refused_in_a_line(tmp_path: Path) -> None:
    make = Maker(tmp_path / "ours")
    for task in (GLYPHS, SINUSOID):
        make.evaluation("maml", dataclasses.replace(task, id=f"{task.id}[queries=2]"))
    path = theirs(tmp_path / "ours", tmp_path / "mine.parquet", task=f"{GLYPHS.id}[queries=2]")
    assert set(compare_foreign(path, tmp_path / "ours")["episodes"]) == {60}
    path = theirs(tmp_path / "ours", tmp_path / "waves.parquet", task=f"{SINUSOID.id}[queries=2]")
    with pytest.raises(MetabenchError, match=r"episodes of sinusoid-v1/k10\[queries=2\] can't be cut again") as caught:
        compare_foreign(path, tmp_path / "ours")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "count", "match"), [("sinusoid/k5", 0, "0 episodes"), ("nothing", 5, "unknown task")])
def test_episodes_that_can_not_be_listed(task: str, count: int, match: str) -> None:
    with pytest.raises(MetabenchError, match=match):
        export_episodes(task, count)


@pytest.mark.fault("E9")
@pytest.mark.parametrize("index", [["episode", "query"], ["task", "method", "episode"], ["score"]])
def test_columns_may_be_the_index(store: Path, tmp_path: Path, index: list[str]) -> None:
    expected = compare_foreign(theirs(store, tmp_path / "mine.parquet"), store)
    pd.read_parquet(tmp_path / "mine.parquet").set_index(index).to_parquet(tmp_path / "mine.parquet")
    pd.testing.assert_frame_equal(compare_foreign(tmp_path / "mine.parquet", store), expected)


@pytest.mark.fault("E9")
def test_an_index_of_another_name_means_nothing(store: Path, tmp_path: Path) -> None:
    expected = compare_foreign(theirs(store, tmp_path / "mine.parquet"), store)
    frame = pd.read_parquet(tmp_path / "mine.parquet")
    frame.set_index(frame["episode"].rename("score")).to_parquet(tmp_path / "mine.parquet")
    pd.testing.assert_frame_equal(compare_foreign(tmp_path / "mine.parquet", store), expected)
