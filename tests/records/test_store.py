"""The store: keys, what is written comes back, and reading costs little."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pace import times_slower

from benchmarks import sampling
from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store, content_key, plain

ROOT = Path(__file__).parents[2]
KEY = content_key({"task": "glyphs-v1/5w1s", "seed": 0})
OTHER = content_key({"task": "glyphs-v1/5w1s", "seed": 1})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def header(key=KEY, cell="evaluation", **more):
    return {"key": key, "cell": cell, "status": "ok", "reason": None, "stderr": "", **more}


def accuracy(episodes=20, steps=(0, 1, 5), queries=15):
    index = pd.MultiIndex.from_product([steps, range(episodes), range(queries)], names=["step", "episode", "query"])
    frame = index.to_frame(index=False)
    frame["score"] = sampling.uniform(7, range(len(frame)), 1)[:, 0] < 0.7
    return frame


# --- keys and plain values -------------------------------------------------------------------------------------------


def test_key_depends_on_values_and_on_nothing_else():
    key = content_key({"a": 1, "b": {"c": [1, 2.5], "d": None}})
    assert len(key) == 16
    assert set(key) <= set("0123456789abcdef")
    assert key == content_key({"b": {"d": None, "c": (1.0, 2.5)}, "a": 1.0})
    different = [{"a": 2}, {"a": True}, {"a": "1"}, {"a": None}, {"a": 1.5}, {"a": float("inf")}, {"a": [1]}, {"b": 1}]
    assert len({content_key(value) for value in [{"a": 1}, *different]}) == len(different) + 1


def test_key_is_the_same_in_every_version_of_this_program():
    assert content_key({"method": "maml", "fields": {"inner_lr": 0.4}, "seed": 0}) == "93dad9161201189b"


def test_key_refuses_what_has_no_plain_form():
    with pytest.raises(TypeError, match="no plain value"):
        content_key({"device": torch.device("cpu")})


def test_plain_values_survive_json():
    value = plain(
        {"a": np.float32(0.5), "b": (1, np.int64(2)), "c": float("nan"), "d": np.array([1.0, np.inf]), 3: True}
    )
    assert json.loads(json.dumps(value, allow_nan=False)) == {
        "a": 0.5,
        "b": [1, 2],
        "c": None,
        "d": [1.0, None],
        "3": True,
    }


# --- what is written comes back --------------------------------------------------------------------------------------


def test_everything_comes_back(store):
    frame = accuracy()
    arrays = {"loss": np.arange(5, dtype=np.float32), "images": np.zeros((2, 3, 3), np.uint8)}
    state = {
        "parameters": {"w": torch.arange(6.0).reshape(2, 3)},
        "step": 7,
        "loss": float("nan"),
        "chosen": {"lr": 0.1},
    }
    written = store.write(header(seed=3), frame, arrays, state)
    assert store.get(KEY) == written
    assert written["schema"] == 1
    assert written["files"] == {
        "scores": f"scores/{KEY}.parquet",
        "arrays": f"arrays/{KEY}.npz",
        "state": f"states/{KEY}.pt",
        "episodes": None,
    }
    scores = store.scores(KEY)
    pd.testing.assert_frame_equal(scores, frame.astype({"step": "int16", "episode": "int32", "query": "int16"}))
    assert {name: array.tolist() for name, array in store.arrays(KEY).items()} == {
        n: a.tolist() for n, a in arrays.items()
    }
    loaded = store.state(KEY)
    assert torch.equal(loaded["parameters"]["w"], state["parameters"]["w"])
    assert (loaded["step"], loaded["chosen"]) == (7, {"lr": 0.1})
    assert store.problems == []


def test_scores_are_sorted_and_real_ones_are_float32(store):
    frame = accuracy().assign(score=lambda table: table["query"] / 7)
    shuffled = frame.iloc[sampling.permutations(1, [0], len(frame))[0]]
    store.write(header(), shuffled)
    scores = store.scores(KEY)
    assert scores["score"].dtype == np.float32
    np.testing.assert_array_equal(scores["score"], frame["score"].astype(np.float32))


def test_accuracy_costs_little_more_than_a_bit(store):
    frame = accuracy(episodes=2000, queries=75, steps=(1, 5, 10))
    store.write(header(), frame)
    size = (store.path / "scores" / f"{KEY}.parquet").stat().st_size
    assert size < 1.25 * len(frame) / 8  # one bit each is 1/8 byte


@pytest.mark.parametrize("change", [{"step": 40_000}, {"episode": 2**31}, {"query": 0.5}])
def test_scores_that_do_not_fit_are_refused_and_nothing_is_finished(store, change):
    with pytest.raises(ValueError, match=f"column '{next(iter(change))}'"):
        store.write(header(), accuracy().assign(**change))
    assert store.get(KEY) is None


def test_a_replaced_record_leaves_nothing_of_the_old_one(store):
    store.write(header(), accuracy(), {"a": np.zeros(2)})
    store.write(header(status="error", reason="it broke"))
    assert store.get(KEY)["status"] == "error"
    assert store.scores(KEY) is None
    assert store.arrays(KEY) is None


@pytest.mark.parametrize("wrong", [{"status": "fine"}, {"cell": "fits"}])
def test_a_header_that_could_not_be_read_again_is_refused(store, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        store.write({**header(), **wrong})
    assert store.records() == []


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "ABCDEF0123456789", "0" * 15])
def test_a_key_is_never_a_path(store, key):
    for use in (store.get, store.scores, store.checkpoint, store.lock, store.log_path):
        with pytest.raises(ValueError, match="no key"):
            use(key)


def test_episodes_are_kept_once_under_a_digest_of_their_values(store):
    frame = pd.DataFrame({"episode": [0, 0, 1], "query": [0, 1, 0], "class": [4, 2, 9], "item": [41, 23, 90]})
    digest = store.write_episodes(frame)
    written = (store.path / "episodes" / f"{digest}.parquet").stat().st_mtime_ns
    assert store.write_episodes(frame[::-1].astype("int64")) == digest
    assert (store.path / "episodes" / f"{digest}.parquet").stat().st_mtime_ns == written
    assert store.write_episodes(frame.assign(item=[41, 23, 91])) != digest
    assert store.episodes(digest)["item"].tolist() == [41, 23, 90]
    record = store.write(header(evaluation={"episodes_digest": digest}), accuracy())
    assert record["files"]["episodes"] == f"episodes/{digest}.parquet"
    with pytest.raises(ValueError, match="have not been written"):
        store.write(header(evaluation={"episodes_digest": "0" * 16}), accuracy())


def test_checkpoints_are_replaced_and_removed(store):
    assert store.checkpoint(KEY) is None
    for step in (1, 2):
        store.write_checkpoint(KEY, {"step": step, "w": torch.full((2,), float(step))})
    assert store.checkpoint(KEY)["w"].tolist() == [2.0, 2.0]
    store.remove_checkpoint(KEY)
    store.remove_checkpoint(KEY)
    assert store.checkpoint(KEY) is None


def test_reading_creates_nothing(tmp_path):
    store = Store(tmp_path / "absent")
    assert store.get(KEY) is None
    assert store.records() == []
    assert store.scores(KEY) is None
    assert store.state(KEY) is None
    assert store.episodes(KEY) is None
    assert store.log_path(KEY).name == f"{KEY}.log"
    assert not store.path.exists()


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(MetabenchError, match="is a file"):
        Store(tmp_path / "runs")


def test_records_of_one_kind_and_quickly(store):
    curve = [{"step": step, "loss": 0.5, "score": 0.9, "standard_error": 0.01} for step in range(50)]
    store.write(header())
    template = json.loads((store.path / "records" / f"{KEY}.json").read_text())
    for number in range(1000):
        key = content_key(number)
        record = {**template, "key": key, "cell": "fit" if number % 4 else "evaluation", "training": {"curve": curve}}
        (store.path / "records" / f"{key}.json").write_text(json.dumps(record))
    start = time.process_time()
    assert len(store.records()) == 1001
    assert time.process_time() - start < times_slower()
    assert len(store.records("fit")) == 750


def test_reading_headers_imports_no_heavy_library(store):
    store.write(header())
    code = (
        "import sys; from benchmarks.records.store import Store; "
        f"assert Store({str(store.path)!r}).records(); "
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tables_are_written_and_read_without_pandas_and_come_back(tmp_path):
    code = """
import sys
from pathlib import Path
import numpy as np
from benchmarks import files
path = Path(sys.argv[1])
rows = {name: np.repeat([1, 0], 40) for name in ("step", "query")} | {"episode": np.tile(np.arange(40), 2)}
for score in (np.arange(80) % 3 == 0, np.where(np.arange(80) % 7, np.linspace(0, 1, 80), np.nan)):
    files.write_scores(path, {**rows, "score": score})
    order = np.lexsort([rows["query"], rows["episode"], rows["step"]])
    back = files.read_columns(path)
    assert list(back) == ["step", "episode", "query", "score"]
    assert back["score"].dtype == (bool if score.dtype == bool else np.float32)
    for name, values in {**rows, "score": score.astype(back["score"].dtype)}.items():
        np.testing.assert_array_equal(back[name], values[order])
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "scores.parquet")], cwd=ROOT, check=True)


def test_columns_in_several_pieces_are_read_whole(tmp_path):
    import pyarrow
    from pyarrow import parquet

    from benchmarks.records import formats

    pieces = [pyarrow.table({"a": [1, 2, 3], "b": [True, False, True], "c": [0.5, None, 2.0]}), None]
    pieces[1] = pieces[0].slice(1)
    parquet.write_table(pyarrow.concat_tables(pieces), tmp_path / "t.parquet", row_group_size=2)
    back = formats.read_columns(tmp_path / "t.parquet")
    assert back["a"].tolist() == [1, 2, 3, 2, 3]
    assert back["b"].tolist() == [True, False, True, False, True]
    np.testing.assert_array_equal(back["c"], [0.5, np.nan, 2.0, np.nan, 2.0])
