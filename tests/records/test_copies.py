"""Copies of records: kept without states, merged, and thinned out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_records import SINUSOID, Maker
from odd_records import KEY, OTHER, evaluation, examples, random_record, scores

from benchmarks.errors import MetabenchError
from benchmarks.records import copies
from benchmarks.records.plain import content_key
from benchmarks.records.record import CurvePoint, Method, Record
from benchmarks.records.store import Store
from benchmarks.records.thinning import thin
from benchmarks.stats.reach import reach

ROOT = Path(__file__).parents[2]
EXHIBIT = {"query_images": np.zeros((1, 2, 4, 4, 3), np.uint8), "query_labels": np.zeros((1, 2), np.int16)}


def fit(key: str = OTHER) -> Record:
    training = next(r.training for r in map(random_record, range(100)) if r.training)
    return dataclasses.replace(evaluation(key), cell="fit", training=training, evaluation=None, tests=())


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A fit with its state, its evaluation, and a failure."""
    store = Store(tmp_path / "full")
    store.write(fit(), arrays={"loss": np.arange(3.0)}, state={"best": {"w": torch.ones(2)}})
    store.write(evaluation(digest=store.write_episodes(examples())), scores(), EXHIBIT)
    failure = dataclasses.replace(evaluation(content_key("bad")), label="maml", method=Method("maml", {}))
    store.write(dataclasses.replace(failure, status="error", reason="it broke"))
    return store


def files(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file() and path.suffix != ".lock"}


# --- keep ---


def test_what_is_kept_is_complete_but_for_states_and_queries(full: Store, tmp_path: Path) -> None:
    before, target = files(full), Store(tmp_path / "kept")
    assert copies.keep(full, target) == (3, 0)
    for record in full.records():
        kept = target.get(record.key)
        assert dataclasses.replace(kept, files={}, thinned=()) == dataclasses.replace(record, files={})
        assert kept.files.keys() == record.files.keys() - {"state"} - ({"arrays"} if record.cell == "fit" else set())
        assert target.state(kept) is None
    record = target.get(KEY)
    assert record.thinned == ("queries",)
    means = full.scores(full.get(KEY))["best/none/0"].mean(axis=1)
    assert np.array_equal(target.scores(record)["best/none/0"], means[:, None])
    assert np.array_equal(target.episodes(record.evaluation.episodes_digest)["items"], examples()["items"])
    assert target.problems == []
    assert files(full) == before


@pytest.mark.fault("S2")
@pytest.mark.parametrize("spelling", ["{0}", "{0}/../full", "{0}/.", "link"])
def test_a_store_is_not_kept_or_merged_onto_itself(full: Store, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "link").symlink_to(full.path)
    other, before = Store(spelling.format(full.path) if "{" in spelling else tmp_path / spelling), files(full)
    for copy in (lambda: copies.keep(full, other), lambda: copies.merge([full], other)):
        with pytest.raises(MetabenchError, match="is the store itself"):
            copy()
    assert files(full) == before


@pytest.mark.fault("S2")
def test_keeping_over_a_store_with_states_keeps_them(full: Store, tmp_path: Path) -> None:
    target = Store(tmp_path / "target")
    copies.merge([full], target)
    (full.path / "states" / f"{OTHER}.pt").write_bytes(b"retrained")
    again = dataclasses.replace(fit(), started="2040")
    full.write(again, arrays={"loss": np.arange(4.0)}, state={"best": {"w": torch.zeros(2)}})
    before = files(target)
    assert copies.keep(full, target)[0] == 3
    assert torch.equal(target.state(target.get(OTHER))["best"]["w"], torch.ones(2))
    assert {path for path in files(target) if before.get(path) != files(target)[path]} == set()


def test_a_copy_of_a_copy_is_that_copy(full: Store, tmp_path: Path) -> None:
    once, twice = Store(tmp_path / "once"), Store(tmp_path / "twice")
    copies.keep(full, once)
    copies.keep(once, twice)
    assert [files(store)[store.path / name.relative_to(once.path)] for store in (twice,) for name in files(once)] == [
        *files(once).values()
    ]
    before = files(once)
    copies.keep(full, once)
    assert files(once) == before


def test_a_copy_meets_its_source_without_contradiction_and_the_source_counts(full: Store, tmp_path: Path) -> None:
    kept, joined = Store(tmp_path / "kept"), Store(tmp_path / "joined")
    copies.keep(full, kept)
    assert copies.merge([kept, full], joined) == 3
    assert np.array_equal(joined.scores(joined.get(KEY))["best/none/0"], scores()["best/none/0"])
    full.write(dataclasses.replace(full.get(KEY), files={}), {"best/none/0": ~scores()["best/none/0"]})
    with pytest.raises(MetabenchError, match="the same key with other results"):
        copies.merge([kept, full], Store(tmp_path / "other"))


def test_films_and_numbers_of_meta_steps_are_thinned() -> None:
    film = np.arange(2 * 20, dtype=np.uint8).reshape(2, 20, 1, 1, 1)
    arrays = {"frames": film, "steps": np.arange(2), "loss": np.ones(9), "step_seconds": np.ones(9)}
    record, _, kept = thin(evaluation(), None, arrays, ())
    assert record.thinned == ("frames", "meta-steps")
    assert kept.keys() == {"frames", "steps"}
    assert kept["frames"][0, :, 0, 0, 0].tolist() == [0, 9, 19]
    again, _, same = thin(record, None, kept, ())
    assert again == record
    assert np.array_equal(same["frames"], kept["frames"])


def test_of_episodes_of_images_the_first_is_kept() -> None:
    """Also where the images themselves may not be passed on."""
    arrays = {
        "support_images": np.arange(3)[:, None, None, None] * np.ones((1, 5, 2, 2)),
        "query_labels": np.arange(3)[:, None] * np.ones((1, 7)),
        "predicted": np.arange(3)[None, :, None] * np.ones((2, 1, 7)),
        "steps": np.arange(2),
    }
    for shown in (arrays, {name: array for name, array in arrays.items() if name != "support_images"}):
        record, _, kept = thin(evaluation(), None, shown, ())
        assert record.thinned == ("pictures",)
        assert {name: array.shape for name, array in kept.items()} == {
            name: (2, 1, 7) if name == "predicted" else (1, *array.shape[1:]) if name != "steps" else (2,)
            for name, array in shown.items()
        }
        assert not any(array.any() for name, array in kept.items() if name != "steps")
        assert thin(record, None, kept, ())[0] == record


@pytest.mark.parametrize("share", [None, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_thinned_curve_reaches_as_far(share: float | None, higher: bool, seed: int) -> None:
    """The verdicts read from an evaluation how far its fit could come, and how many validations failed."""
    draw = np.random.default_rng(seed)
    scores = [None if draw.random() < 0.2 else float(draw.uniform(0.01, 100)) for _ in range(1 + 3 * seed)]
    point = CurvePoint(0, 0.0, 0, 0, None, None, None)
    curve = tuple(
        dataclasses.replace(point, step=10 * (n + 1), score=score, robust=score, failed=int(n % 4 < seed % 3))
        for n, score in enumerate(scores)
    )
    steps = 10 * len(scores)
    whole = dataclasses.replace(
        fit().training, fit=OTHER, curve=curve, share=share, meta_steps=steps, examples=10**6, still_improving=True
    )
    record = dataclasses.replace(evaluation(), training=whole)
    record = dataclasses.replace(record, task=dataclasses.replace(record.task, higher_is_better=higher))
    short = thin(record, None, None, {OTHER})[0]
    for ratio in (True, False):
        assert reach(short.training, higher, ratio) == reach(whole, higher, ratio)
    assert short.training.failed_validations == whole.failed_validations
    assert thin(record, None, None, ())[0].training == whole, "without the fit's own record the curve stays"
    assert thin(short, None, None, {OTHER})[0] == short


def test_committed_records_and_pages_weigh_at_most_15_mb() -> None:
    reference = ROOT / "reports" / "reference"
    assert sum(path.stat().st_size for path in reference.rglob("*") if path.is_file()) <= 15e6
    thick = [
        f"{path.name}/{record.key}"
        for path in reference.iterdir()
        if path.is_dir()
        for record in Store(path, read_only=True).records("evaluation")
        if record.ok and "queries" not in record.thinned
    ]
    assert not thick, "copy a store with `metabench keep` before you commit it"


def test_pictures_that_may_not_be_passed_on_stay_behind(tmp_path: Path) -> None:
    source, target = Store(tmp_path / "all"), Store(tmp_path / "kept")
    for key, task in (("0" * 16, "miniimagenet"), ("1" * 16, "omniglot"), ("2" * 16, "somebody-elses")):
        record = evaluation(key)
        source.write(dataclasses.replace(record, task=dataclasses.replace(record.task, name=task)), None, EXHIBIT)
    assert copies.keep(source, target) == (3, 1)
    kept = [set(target.arrays(target.get(key * 16))) for key in "012"]
    assert kept == [{"query_labels"}, set(EXHIBIT), set(EXHIBIT)]
    assert set(source.arrays(source.get("0" * 16))) == set(EXHIBIT), "the source stays as it is"


def test_no_committed_record_holds_a_picture_that_may_not_be_passed_on() -> None:
    stores = [Store(path, read_only=True) for path in (ROOT / "reports" / "reference").iterdir() if path.is_dir()]
    found = [(store, record) for store in stores for record in store.records() if "arrays" in record.files]
    assert found
    assert not [
        record.key for store, record in found for name in store.arrays(record) if copies._withheld(record, name)
    ]


# --- merge, forget ---


@pytest.mark.fault("K2")
def test_merging_joins_and_prefers_what_is_finished_and_what_has_states(full: Store, tmp_path: Path) -> None:
    kept, extra, target = (Store(tmp_path / name) for name in ("kept", "extra", "target"))
    copies.keep(full, kept)
    bad, new = content_key("bad"), content_key("new")
    extra.write(evaluation(bad), scores())
    extra.write(evaluation(new), scores())
    assert copies.merge([kept, full, extra], target) == 4
    assert {record.key: record.ok for record in target.records()} == dict.fromkeys((KEY, OTHER, bad, new), True)
    assert torch.equal(target.state(target.get(OTHER))["best"]["w"], torch.ones(2))
    before = files(target)
    assert copies.merge([full, kept, extra], target) == 4
    assert files(target) == before, "what the target has already stays"


@pytest.mark.fault("K2")
def test_contradictions_are_named_and_nothing_is_written(full: Store, tmp_path: Path) -> None:
    other, target = Store(tmp_path / "other"), Store(tmp_path / "target")
    other.write(evaluation(content_key("new")), scores())
    other.write(evaluation(), {"best/none/0": ~scores()["best/none/0"]})
    with pytest.raises(
        MetabenchError, match=f"the same key with other results: chance .{KEY}.: .*full and .*other"
    ) as error:
        copies.merge([full, other], target)
    assert "\n" not in str(error.value)
    assert not target.path.exists()


def test_fits_that_went_otherwise_contradict_each_other(tmp_path: Path) -> None:
    one, two, target = (Maker(tmp_path / name) for name in ("one", "two", "target"))
    for made, curve in ((one, slice(None)), (two, slice(-1))):
        training = made.training("maml", SINUSOID, 0)
        training = dataclasses.replace(training, curve=training.curve[curve], seconds=50.0 * len(training.curve[curve]))
        made.store.write(made.header("fit", "maml", SINUSOID, 0, key=KEY, training=training))
    copies.merge([one.store], target.store)
    assert copies.merge([one.store], target.store) == 1, "equal fits are one"
    with pytest.raises(MetabenchError, match=f"the same key with other results: maml .{KEY}.: .*target and .*two"):
        copies.merge([two.store], target.store)


@pytest.mark.fault("S3")
@pytest.mark.parametrize("kind", ["scores", "state", "arrays", "episodes"])
@pytest.mark.fault("K2")
def test_a_damaged_file_is_not_copied_as_if_it_were_whole(full: Store, tmp_path: Path, kind: str) -> None:
    folder = {"state": "states"}.get(kind, kind)
    path = next(path for path in (full.path / folder).iterdir())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\x99" + content[len(content) // 2 + 1 :])
    reader, target = Store(full.path, read_only=True), Store(tmp_path / "target")
    with pytest.raises(MetabenchError, match=f"{path.name} of chance is damaged: delete the file, then run again"):
        copies.merge([reader], target)
    assert all(record.key != path.stem for record in target.records())


def test_forgetting(full: Store) -> None:
    with pytest.raises(
        MetabenchError, match=r"unknown method in .* 'mamel' \(did you mean 'maml'\?\); known: chance, maml"
    ):
        copies.forget(full, ["mamel"])
    assert copies.forget(full, ["chance"], failed=True) == 0
    with full.lock(KEY), pytest.raises(MetabenchError, match=f"a run is at work on chance .{KEY}.: stop it first"):
        copies.forget(full, ["chance"])
    assert copies.forget(full, [], failed=True) == 1
    assert {record.label for record in full.records()} == {"chance"}
    assert 1 <= copies.forget(full, ["chance"]) <= 2
    assert full.records() == []
    assert {path.parent.name for path in files(full)} == {"episodes"}


def test_a_copy_does_not_mix_two_stores(full: Store, tmp_path: Path) -> None:
    other, target = Store(tmp_path / "other"), Store(tmp_path / "kept")
    other.write(dataclasses.replace(evaluation(content_key("else")), status="error", reason="it broke"))
    copies.keep(full, target)
    before = files(target)
    with pytest.raises(MetabenchError, match=r"kept holds 3 records that .*other lacks: name another folder"):
        copies.keep(other, target)
    assert files(target) == before
    assert copies.keep(full, target) == (3, 0)
