"""Stores that went wrong: what is broken is named and set aside, and neither crashes nor neighbours lose anything."""

import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.records import formats
from benchmarks.records.store import Store, content_key

ROOT = Path(__file__).parents[2]
KEY = content_key({"task": "glyphs-v1/5w1s", "seed": 0})
OTHER = content_key({"task": "glyphs-v1/5w1s", "seed": 1})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def header(key=KEY, cell="evaluation", **more):
    return {"key": key, "cell": cell, "status": "ok", "reason": None, "stderr": "", **more}


def accuracy(episodes=20):
    return pd.DataFrame({"step": 0, "episode": range(episodes), "query": 0, "score": True})


def aside(store):
    folder = store.path / "aside"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def damage(path, keep=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"other": "program"}'])
def test_a_broken_header_is_named_and_set_aside(store, content, caplog):
    store.write(header(OTHER))
    store.write(header())
    (store.path / "records" / f"{KEY}.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [record["key"] for record in store.records()] == [OTHER]
        assert store.get(KEY) is None
    assert len(store.problems) == 1
    assert f"{KEY}.json" in store.problems[0]
    assert [line.message for line in caplog.records] == store.problems
    assert len(aside(store)) == 1
    assert (store.path / "aside" / aside(store)[0]).read_bytes() == content
    store.write(header())
    assert store.get(KEY) is not None


def test_a_record_of_a_newer_schema_is_not_guessed_at(store):
    store.write(header())
    path = store.path / "records" / f"{KEY}.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert store.get(KEY) is None
    assert "schema 2" in store.problems[0]
    assert len(aside(store)) == 1


def test_a_renamed_record_is_not_believed(store):
    store.write(header())
    os.rename(store.path / "records" / f"{KEY}.json", store.path / "records" / f"{OTHER}.json")
    assert store.records() == []
    assert KEY in store.problems[0]
    assert OTHER in store.problems[0]


def test_foreign_files_and_folders_are_set_aside(store):
    store.write(header())
    (store.path / "records" / "notes.txt").write_text("mine")
    (store.path / "records" / "old").mkdir()
    (store.path / "records" / ".gitkeep").write_text("")
    assert len(store.records()) == 1
    assert len(store.problems) == 2
    assert sorted(name.split("-records-")[1] for name in aside(store)) == ["notes.txt", "old"]
    assert sorted(os.listdir(store.path / "records")) == sorted([".gitkeep", f"{KEY}.json"])


@pytest.mark.parametrize(("folder", "suffix"), [("scores", "parquet"), ("arrays", "npz"), ("states", "pt")])
@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_a_record_with_a_damaged_file_is_not_finished(store, folder, suffix, how):
    store.write(header(), accuracy(), {"a": np.arange(50)}, {"w": torch.zeros(50)})
    path = store.path / folder / f"{KEY}.{suffix}"
    damage(path) if how == "truncated" else path.unlink()
    assert store.records() == []
    assert how in store.problems[0]
    assert any(name.endswith(f"{KEY}.json") for name in aside(store))
    assert any(name.endswith(suffix) for name in aside(store)) == (how == "truncated")
    assert not path.exists()


def test_truncated_episodes_are_written_again(store):
    frame = pd.DataFrame({"episode": range(100), "query": 0, "class": range(100), "item": range(100)})
    digest = store.write_episodes(frame)
    store.write(header(evaluation={"episodes_digest": digest}), accuracy())
    damage(store.path / "episodes" / f"{digest}.parquet")
    assert store.get(KEY) is None
    assert store.write_episodes(frame) == digest
    assert len(store.episodes(digest)) == 100


@pytest.mark.parametrize("read", ["scores", "arrays", "state"])
def test_bytes_that_rot_are_found_when_they_are_read(store, read):
    written = store.write(header(), accuracy(), {"a": np.arange(50)}, {"w": torch.zeros(50)})
    path = store.path / written["files"][read]
    path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 8) + b"PAR1")
    assert getattr(store, read)(KEY) is None
    assert store.get(KEY) is None
    assert len(store.problems) == 2
    assert len(aside(store)) == 2


class Code:
    def __reduce__(self):
        return os.system, ("touch /tmp/metabench-was-here",)


def test_code_in_a_state_is_refused(store):
    store.write(header(cell="fit"), state={"w": torch.zeros(1)})
    path = store.path / "states" / f"{KEY}.pt"
    path.write_bytes(pickle.dumps(Code()))
    assert store.state(KEY) is None
    assert not Path("/tmp/metabench-was-here").exists()


def test_a_truncated_checkpoint_is_set_aside_by_who_holds_the_lock(store):
    store.write_checkpoint(KEY, {"w": torch.zeros(500)})
    damage(store.path / "checkpoints" / f"{KEY}.pt")
    with store.lock(KEY):
        assert store.checkpoint(KEY) is None
    assert len(aside(store)) == 1


def test_a_read_only_store_is_left_as_it_is(store):
    store.write(header(), accuracy())
    damage(store.path / "scores" / f"{KEY}.parquet")
    (store.path / "records" / "notes.txt").write_text("mine")
    before = sorted(store.path.rglob("*"))
    reader = Store(store.path, read_only=True)
    assert reader.records() == []
    assert len(reader.problems) == 3
    assert sorted(store.path.rglob("*")) == before


def test_a_damaged_header_stays_while_somebody_works_on_its_key(store):
    store.write(header())
    path = store.path / "records" / f"{KEY}.json"
    path.write_text("{")
    with store.lock(KEY):
        assert Store(store.path).get(KEY) is None
        assert path.exists()
        store.write(header())
    assert store.get(KEY) is not None
    assert len(aside(store)) == 1  # the writer moved it; nothing is deleted


# --- crashes and neighbours ------------------------------------------------------------------------------------------


def test_a_crash_before_the_header_leaves_nothing_finished(store, monkeypatch):
    def crash(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_text", crash)
        with pytest.raises(KeyboardInterrupt):
            store.write(header(), accuracy(), {"a": np.zeros(3)})
    assert (store.path / "scores" / f"{KEY}.parquet").exists()
    assert store.get(KEY) is None
    assert store.records() == []
    assert store.problems == []
    store.write(header(), accuracy(), {"a": np.zeros(3)})
    assert store.get(KEY) is not None


def test_a_crash_while_replacing_does_not_leave_the_old_header_beside_new_files(store, monkeypatch):
    store.write(header(seed=1), state={"w": torch.zeros(9)})

    def crash(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "write_text", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write(header(seed=2), state={"w": torch.ones(9)})  # of the same size: nobody could tell
    assert store.get(KEY) is None


def test_who_reads_an_old_file_can_finish_it(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with target.open() as reader:
        formats.write_text(target, "new")
        assert reader.read() == "old"
    assert target.read_text() == "new"


def test_half_a_file_is_never_visible(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        formats.replace(target, write)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_is_swept_up_later(tmp_path):
    old, young = tmp_path / ".a.txt.0123abcd.tmp", tmp_path / ".a.txt.4567abcd.tmp"
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (0, 0))
    formats.write_text(tmp_path / "a.txt", "whole")
    assert sorted(os.listdir(tmp_path)) == [young.name, "a.txt"]


WRITER = """
import sys
import numpy as np
import pandas as pd
from benchmarks.records.store import Store, content_key
store, me = Store(sys.argv[1]), int(sys.argv[2])
frame = pd.DataFrame({"step": 0, "episode": range(200 + me), "query": 0, "score": True})
for round in range(int(sys.argv[3])):
    digest = store.write_episodes(pd.DataFrame({"episode": range(50), "query": 0, "class": round, "item": range(50)}))
    for key in (content_key("shared"), content_key([me, round])):
        record = {"key": key, "cell": "evaluation", "status": "ok", "seed": me}
        record["evaluation"] = {"episodes_digest": digest}
        with store.lock(key):
            store.write(record, frame)
    for record in store.records():
        scores = store.scores(record["key"])
        assert scores is None or len(scores) in (200, 201), len(scores)
print(*store.problems, sep="\\n")
"""


def start_writer(store, me, rounds):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(store.path), str(me), str(rounds)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_and_read_one_store(store):
    writers = [start_writer(store, me, 15) for me in (0, 1)]
    reports = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reports == ["", ""]
    assert len(store.records()) == 31
    assert aside(store) == []
    shared = store.get(content_key("shared"))
    assert len(store.scores(shared["key"])) == 200 + shared["seed"]


def test_a_killed_writer_loses_nothing_that_was_finished(store):
    writer = start_writer(store, 0, 10_000)
    seen = set()
    deadline = time.monotonic() + 30
    while len(seen) < 5 and time.monotonic() < deadline:
        seen = {record["key"] for record in store.records()} - {content_key("shared")}
        time.sleep(0.01)
    writer.kill()
    writer.communicate()
    after = Store(store.path)
    assert len(seen) >= 5
    assert seen <= {record["key"] for record in after.records()}
    assert after.problems == []
    with after.lock(content_key("shared"), wait=False):
        pass  # the system has freed the dead process's locks


def test_a_lock_is_held_by_one(store):
    with store.lock(KEY):
        with pytest.raises(filelock.Timeout), store.lock(KEY, wait=False):
            pass
        with store.lock(OTHER, wait=False):
            pass
    with store.lock(KEY, wait=False):
        pass


@pytest.mark.parametrize("error", [MemoryError, NameError, ModuleNotFoundError])
def test_what_says_nothing_about_a_file_moves_nothing_aside(store, monkeypatch, error):
    def reader(path):
        raise error("no fault of the file")

    store.write(header(), accuracy())
    monkeypatch.setitem(formats.READERS, ".parquet", reader)
    with pytest.raises(error):
        store.scores(KEY)
    assert aside(store) == []
