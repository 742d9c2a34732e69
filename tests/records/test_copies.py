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
from benchmarks.records.record import Method, Record
from benchmarks.records.store import Store

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


def test_what_is_kept_is_complete_but_for_states(full: Store, tmp_path: Path) -> None:
    before, target = files(full), Store(tmp_path / "kept")
    assert copies.keep(full, target) == (3, 0)
    for record in full.records():
        kept = target.get(record.key)
        assert kept == dataclasses.replace(record, files={k: f for k, f in record.files.items() if k != "state"})
        assert target.state(kept) is None
    record = target.get(KEY)
    assert np.array_equal(target.scores(record)["best/none/0"], full.scores(record)["best/none/0"])
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
