"""The store: keys, records that come back as they were written, odd values in them, and what reading costs."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from odd_records import KEY, OTHER, evaluation, examples, random_record, scores, single_changes
from pace import times_slower

from benchmarks.errors import MetabenchError
from benchmarks.records.plain import Unreadable, content_key, plain
from benchmarks.records.record import CurvePoint, Record, Training
from benchmarks.records.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


# --- keys and plain values -------------------------------------------------------------------------------------------


def test_key_depends_on_values_and_on_nothing_else():
    key = content_key({"a": 1, "b": {"c": [1, 2.5], "d": None}})
    assert len(key) == 16
    assert set(key) <= set("0123456789abcdef")
    assert key == content_key({"b": {"d": None, "c": (1.0, 2.5)}, "a": 1.0})
    different = [{"a": 2}, {"a": True}, {"a": "1"}, {"a": None}, {"a": 1.5}, {"a": float("inf")}, {"a": [1]}, {"b": 1}]
    assert len({content_key(value) for value in [{"a": 1}, *different]}) == len(different) + 1
    assert content_key({"method": "maml", "fields": {"inner_lr": 0.4}, "seed": 0}) == "93dad9161201189b", (
        "in every version"
    )
    with pytest.raises(TypeError, match="no plain value"):
        content_key({"device": torch.device("cpu")})


def test_plain_values_survive_json():
    value = {"a": np.float32(0.5), "b": (1, np.int64(2)), "c": float("nan"), "d": np.array([1.0, np.inf]), 3: True}
    expected = {"a": 0.5, "b": [1, 2], "c": None, "d": [1.0, None], "3": True}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(200))
def test_every_record_comes_back_from_json(number):
    record = random_record(number)
    assert Record.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))) == record


def test_curves_are_written_by_column_and_read_from_the_rows_of_older_records_too():
    point = CurvePoint(step=5, seconds=0.5, examples=50, environment_steps=0, loss=1.5, score=None, standard_error=None)
    training = Training("a" * 16, "maml", 9, None, None, False, 1.0, 1, 0, "budget", 5, 0.5, (point, point), 1)
    record = dataclasses.replace(evaluation(), training=training)
    value = record.to_json()
    assert value["training"]["curve"]["step"] == [5, 5]
    assert value["tests"][0]["summary"]["mean"] == [0.5]
    value["training"]["curve"] = [dataclasses.asdict(each) for each in training.curve]
    assert Record.from_json(value) == record
    value["training"]["curve"] = {"step": [5, 5], "seconds": [0.5]}
    with pytest.raises(Unreadable, match=r"^record\.training\.curve has columns of 1 and 2 rows$"):
        Record.from_json(value)


def put(store, value, key=KEY):
    """Write a header past the store."""
    path = store.path / "records" / f"{key}.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.fault("S7")
def test_one_odd_value_makes_one_damaged_record_and_no_traceback(store):
    store.write(evaluation(OTHER))
    store.write(evaluation(), scores())
    good = {**random_record(3).to_json(), **json.loads(put(store, "").with_stem(OTHER).read_text()), "key": KEY}
    reader = Store(store.path, read_only=True)
    odd = ["x", 10**30, 0, -1.5, {"a": 1}, [1], None, True, "\ud800", float("nan"), float("inf")]
    read = named = 0
    for value in single_changes(good, odd):
        put(store, value)
        found = {record.key: record for record in reader.records()}
        assert OTHER in found
        if KEY in found:
            assert Record.from_json(found[KEY].to_json()) == found[KEY]
            assert reader.problems == []
            read += 1
        else:
            assert len(reader.problems) == 1
            assert reader.problems.pop().startswith(str(store.path / "records" / f"{KEY}.json"))
            named += 1
    assert named > 5 * read > 0


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("training.examples", "x", "record.training.examples is str, not int"),
        ("budget", 10**30, "record.budget is int, not an object"),
        ("evaluation", 0, "record.evaluation is int, not an object"),
        ("task", {"a": 1}, "record.task has an unknown field 'a'"),
        ("machine.gpu", "x", "record.machine.gpu is str, not dict"),
        ("label", "\ud800", "is truncated or no JSON"),
        ("seed", 10**30, "record.seed is out of range"),
        ("tests", [], "a finished evaluation has no tests"),
        ("status", "fine", "record.status is 'fine'; known: ok, skipped, error"),
        ("files", {"scores": "../thesis.txt"}, "record.files.scores is str, not an object"),
        ("files", {"../thesis": {"size": 1, "sha256": ""}}, "names an unknown kind of file '../thesis'"),
        ("evaluation.episodes_digest", "../../thesis", "names episodes '../../thesis', which is no digest"),
        ("key", OTHER, f"has the key '{OTHER}', not '{KEY}'"),
    ],
)
def test_the_line_about_an_odd_value_names_its_field(store, field, value, why):
    training = Training("a" * 16, "maml", 1, None, None, False, 1.0, 1, 0, "budget", 1, 0.5, (), 1)
    plain = dataclasses.replace(evaluation(), training=training).to_json()
    plain["machine"] = {**dict.fromkeys(("id", "cpu", "architecture", "system", "os"), ""), "gpu": None}
    plain["machine"] |= dict.fromkeys(("physical_cores", "logical_cores", "usable_cores", "memory_gib"))
    *above, last = field.split(".")
    place = plain
    for name in above:
        place = place[name]
    place[last] = value
    (store.path / "records").mkdir(parents=True)
    put(store, plain)
    assert store.records() == []
    assert why in store.problems[0]


@pytest.mark.parametrize(
    ("share", "improving", "examples", "stopped_by", "expected"),
    [
        (0.5, True, 10**7, "budget", True),
        (0.5, False, 10**7, "budget", False),
        (0.0067, False, 10**7, "budget", True),  # an early plateau
        (1.0, True, 10**7, "budget", False),
        (None, True, 10**7, "budget", True),
        (None, False, 10**7, "budget", False),
        (None, False, 20 * 160, "budget", True),  # 20 meta-steps
        (0.05, False, 10**6, "standstill", False),
        (0.0067, False, 20 * 160, "standstill", True),
        (1.0, False, 20 * 160, "standstill", False),
    ],
)
@pytest.mark.fault("V4", "V12")
def test_less_than_the_budget_and_not_done_is_under_trained(share, improving, examples, stopped_by, expected):
    fit = Training("a" * 16, "maml", 1, None, share, improving, 1.0, examples, 0, stopped_by, 1, 0.5, (), 1)
    assert fit.under_trained is expected


@pytest.mark.parametrize(("best", "expected"), [(28, False), (500, False), (501, True), (None, True)])
@pytest.mark.fault("V4")
def test_a_last_quarter_that_only_comes_back_to_the_first_half_improves_nothing(best, expected):
    """The constant of the sinusoid: its best state was one of the first, and later ones differ in the sixth digit."""
    fit = Training("a" * 16, "constant", 1000, None, 0.5, True, 1.0, 10**7, 0, "budget", best, 0.5, (), 1)
    assert fit.under_trained is expected


# --- what is written comes back --------------------------------------------------------------------------------------


def test_everything_comes_back(store):
    arrays = {"loss": np.arange(5, dtype=np.float32), "images": np.zeros((2, 3, 3), np.uint8)}
    state = {"best": {"parameters": {"w": torch.arange(6.0).reshape(2, 3)}, "step": 7, "loss": float("nan")}}
    real = {**scores(), "best/none/1": np.array([[0.1, np.nan], [np.inf, 1]], np.float32)}
    written = store.write(evaluation(seed=3), real, arrays, state)
    assert store.get(KEY) == written
    assert set(written.files) == {"scores", "arrays", "state"}
    for given, back in ((real, store.scores(written)), (arrays, store.arrays(written))):
        assert given.keys() == back.keys()
        assert all(given[name].dtype == back[name].dtype for name in given)
        assert all(np.array_equal(given[name], back[name], equal_nan=given[name].dtype.kind == "f") for name in given)
    loaded = store.state(written)["best"]
    assert torch.equal(loaded["parameters"]["w"], state["best"]["parameters"]["w"])
    assert loaded["step"] == 7
    assert store.problems == []


def test_accuracy_costs_little_more_than_a_bit(store):
    store.write(evaluation(), {"best/none/0": np.random.default_rng(0).random((6000, 75)) < 0.7})
    assert (store.path / "scores" / f"{KEY}.npz").stat().st_size < 1.25 * 6000 * 75 / 8  # one bit each is 1/8 byte


def test_a_replaced_record_leaves_nothing_of_the_old_one(store):
    store.write(evaluation(), scores(), {"a": np.zeros(2)})
    record = store.write(dataclasses.replace(evaluation(), status="error", reason="it broke"))
    assert store.get(KEY).status == "error"
    assert store.scores(record) is store.arrays(record) is None
    assert sorted(path.name for path in store.path.rglob("*.*")) == [f"{KEY}.json"]


@pytest.mark.parametrize("wrong", [{"status": "fine"}, {"cell": "fits"}, {"tests": ()}, {"label": "\ud800"}])
def test_a_record_that_could_not_be_read_again_is_refused(store, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}|JSON"):
        store.write(dataclasses.replace(evaluation(), **wrong))
    assert store.records() == []


@pytest.mark.fault("S1")
@pytest.mark.parametrize("key", ["", "../../etc/passwd", "ABCDEF0123456789", "0" * 15])
def test_a_key_is_never_a_path(store, key):
    for use in (store.get, store.episodes, store.checkpoint, store.lock, store.log_path):
        with pytest.raises(ValueError, match="no key"):
            use(key)


@pytest.mark.fault("S1")
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("files", "scores"), "../thesis"),
        (("files", "scores", "path"), "../thesis"),
        (("files", "../../thesis"), {"size": 1, "sha256": "0" * 64}),
        (("evaluation", "episodes_digest"), "../../thesis"),
        (("key",), "../../thesis"),
    ],
)
def test_no_record_names_a_file_outside_its_store(store, tmp_path, names, value, read_only):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    store.write(evaluation(digest=store.write_episodes(examples())), scores())
    header = store.path / "records" / f"{KEY}.json"
    changed = json.loads(header.read_text())
    place = changed
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    header.write_text(json.dumps(changed))
    reader = Store(store.path, read_only)
    assert reader.get(KEY) is None
    assert reader.records() == []
    assert reader.problems
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"
    assert header.exists() == read_only


def test_episodes_are_kept_once_under_a_digest_of_their_values(store):
    items = examples()
    digest = store.write_episodes(items)
    written = (store.path / "episodes" / f"{digest}.npz").stat().st_mtime_ns
    assert store.write_episodes({name: array.astype("int16") for name, array in items.items()}) == digest
    assert (store.path / "episodes" / f"{digest}.npz").stat().st_mtime_ns == written
    assert store.write_episodes(examples(item=1)) != digest
    assert np.array_equal(store.episodes(digest)["items"], items["items"])
    store.write(evaluation(digest=digest), scores())
    with pytest.raises(ValueError, match="have not been written"):
        store.write(evaluation(digest="0" * 16), scores())


def test_checkpoints_are_replaced_and_removed(store):
    assert store.checkpoint(KEY) is None
    for step in (1, 2):
        store.write_checkpoint(KEY, {"step": step, "w": torch.full((2,), float(step))})
    assert store.checkpoint(KEY)["w"].tolist() == [2.0, 2.0]
    for _ in range(2):
        store.remove_checkpoint(KEY)
    assert store.checkpoint(KEY) is None


def test_a_lock_is_held_by_one(store):
    with store.lock(KEY):
        with pytest.raises(filelock.Timeout), store.lock(KEY, wait=0):
            pass
        with store.lock(OTHER, wait=0):
            pass
    with store.lock(KEY, wait=0):
        pass


def test_reading_creates_nothing(tmp_path):
    store = Store(tmp_path / "absent")
    assert store.records() == []
    assert store.get(KEY) is store.episodes(KEY) is store.checkpoint(KEY) is None
    assert store.log_path(KEY).name == f"{KEY}.log"
    assert not store.path.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(MetabenchError, match="is a file"):
        Store(tmp_path / "file")


def test_records_of_one_kind_and_quickly(store):
    store.write(evaluation())
    curve = tuple(CurvePoint(step, 1.0, step, 0, 0.5, 0.9, 0.01) for step in range(50))
    training = Training("a" * 16, "maml", 1, None, None, False, 1.0, 1, 0, "budget", 1, 0.5, curve, 1)
    fit = dataclasses.replace(evaluation(), cell="fit", training=training).to_json()
    for number in range(1000):
        key = content_key(number)
        put(store, {**(fit if number % 4 else evaluation().to_json()), "key": key}, key)
    start = time.process_time()
    assert len(store.records()) == 1001
    assert time.process_time() - start < times_slower()
    assert len(store.records("fit")) == 750


def test_reading_headers_imports_no_heavy_library(store):
    store.write(evaluation())
    code = (
        "import sys; from benchmarks.records.store import Store; "
        f"assert Store({str(store.path)!r}).records(); "
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
