"""Stores that went wrong: damage is named and set aside, and neither crashes nor other processes lose anything."""

import logging
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_records import KEY, OTHER, evaluation, examples, scores

from benchmarks.errors import MetabenchError
from benchmarks.records import formats
from benchmarks.records.plain import content_key
from benchmarks.records.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def full(store):
    """The record of a store that has files of every kind, and where they are."""
    digest = store.write_episodes(examples())
    record = store.write(evaluation(digest=digest), scores(), {"a": np.arange(50)}, {"w": torch.arange(50.0)})
    names = {"scores": f"{KEY}.npz", "arrays": f"{KEY}.npz", "states": f"{KEY}.pt", "episodes": f"{digest}.npz"}
    return record, {folder: store.path / folder / name for folder, name in names.items()}


def content(store, record, folder):
    """What the store reads from a record's file in this folder."""
    if folder == "episodes":
        return store.episodes(record.evaluation.episodes_digest)
    return getattr(store, {"states": "state"}.get(folder, folder))(record)


def aside(store):
    folder = store.path / "aside"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def damage(path, keep=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def header(store, key=KEY):
    return store.path / "records" / f"{key}.json"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"other": "program"}', b"[" * 10**5])
def test_a_broken_header_is_named_and_set_aside(store, content, caplog):
    store.write(evaluation(OTHER))
    store.write(evaluation())
    header(store).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [record.key for record in store.records()] == [OTHER]
        assert store.get(KEY) is None
    assert len(store.problems) == 1
    assert f"{KEY}.json" in store.problems[0]
    assert [line.message for line in caplog.records] == store.problems
    (name,) = aside(store)
    assert (store.path / "aside" / name).read_bytes() == content
    store.write(evaluation())
    assert store.get(KEY) is not None


def test_other_schemas_are_not_guessed_at(store):
    store.write(evaluation())
    text = header(store).read_text()
    header(store).write_text(text.replace('"schema": 2', '"schema": 1'))
    for read in (store.records, lambda: store.get(KEY), lambda: store.write(evaluation())):
        with pytest.raises(MetabenchError, match="records of schema 1, this version reads 2: read them with metabench"):
            read()
    assert aside(store) == []
    header(store).write_text(text.replace('"schema": 2', '"schema": 3'))
    assert store.get(KEY) is None
    assert "is not a record of schema 2" in store.problems[0]
    assert len(aside(store)) == 1


def test_a_renamed_record_is_not_believed(store):
    store.write(evaluation())
    os.rename(header(store), header(store, OTHER))
    assert store.records() == []
    assert KEY in store.problems[0]
    assert OTHER in store.problems[0]


def test_foreign_files_and_folders_are_set_aside(store):
    store.write(evaluation())
    (store.path / "records" / "notes.txt").write_text("mine")
    (store.path / "records" / "old").mkdir()
    (store.path / "records" / ".gitkeep").write_text("")
    assert len(store.records()) == 1
    assert len(store.problems) == 2
    assert sorted(name.split("-records-")[1] for name in aside(store)) == ["notes.txt", "old"]
    assert sorted(os.listdir(store.path / "records")) == sorted([".gitkeep", f"{KEY}.json"])


@pytest.mark.parametrize("folder", ["scores", "arrays", "states", "episodes"])
@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_a_record_with_a_damaged_file_is_not_finished(store, full, folder, how):
    record, path = full[0], full[1][folder]
    if how == "missing":
        path.unlink()
    else:
        damage(path)
    if folder == "episodes":  # shared by records, so damage shows when they are read
        assert content(store, record, folder) is None
    assert store.records() == []
    assert str(path) in "".join(store.problems) or how == "missing"
    assert sum(name.endswith(path.name) for name in aside(store)) == (how == "truncated")
    assert any(name.endswith(f"{KEY}.json") for name in aside(store))
    assert not path.exists()


@pytest.mark.fault("S3")
@pytest.mark.parametrize("folder", ["scores", "arrays", "states", "episodes"])
def test_one_flipped_bit_is_found_when_the_content_is_read(store, full, folder):
    record, path = full[0], full[1][folder]
    whole, draw = path.read_bytes(), random.Random(folder)
    for _ in range(120):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        reader = Store(store.path, read_only=True)
        found = content(reader, record, folder)
        if folder == "episodes" and found is not None:  # one of the bytes of a zip that nobody reads
            assert all(np.array_equal(found[name], array) for name, array in examples().items())
        else:
            assert found is None
            assert str(path) in reader.problems[0]


@pytest.mark.parametrize("folder", ["scores", "arrays", "states"])
def test_a_record_whose_content_is_damaged_is_run_again(store, full, folder):
    path = full[1][folder]
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    assert content(store, full[0], folder) is None
    assert store.get(KEY) is None
    assert len(aside(store)) == 2


class Code:
    def __reduce__(self):
        return os.system, ("touch /tmp/metabench-was-here",)


def test_code_in_a_checkpoint_is_refused(store):
    store.write_checkpoint(KEY, {"w": torch.zeros(1)})
    (store.path / "checkpoints" / f"{KEY}.pt").write_bytes(pickle.dumps(Code()))
    assert store.checkpoint(KEY) is None
    assert not Path("/tmp/metabench-was-here").exists()


@pytest.mark.fault("S3")
@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_set_aside_by_the_holder_of_the_lock(store, how):
    store.write_checkpoint(KEY, {"w": torch.zeros(500)})
    path = store.path / "checkpoints" / f"{KEY}.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if how == "truncated" else whole[:900] + bytes([whole[900] ^ 1]) + whole[901:])
    with store.lock(KEY):
        assert store.checkpoint(KEY) is None
    assert len(aside(store)) == 1


@pytest.mark.fault("S1")
def test_a_read_only_store_is_left_as_it_is(store, full):
    damage(full[1]["scores"])
    (store.path / "records" / "notes.txt").write_text("mine")
    before = sorted(store.path.rglob("*"))
    reader = Store(store.path, read_only=True)
    assert reader.records() == []
    assert len(reader.problems) == 3
    assert sorted(store.path.rglob("*")) == before


def test_a_damaged_header_stays_while_somebody_works_on_its_key(store):
    store.write(evaluation())
    header(store).write_text("{")
    with store.lock(KEY):
        assert Store(store.path).get(KEY) is None
        assert header(store).exists()
        store.write(evaluation())
    assert store.get(KEY) is not None
    assert len(aside(store)) == 1  # the writer moved it; nothing is deleted


# --- links -----------------------------------------------------------------------------------------------------------

WRITES = {
    "records": lambda store: store.write(evaluation()),
    "scores": lambda store: store.write(evaluation(), scores()),
    "arrays": lambda store: store.write(evaluation()),
    "states": lambda store: store.remove(KEY),
    "episodes": lambda store: store.write_episodes(examples()),
    "checkpoints": lambda store: store.write_checkpoint(KEY, {}),
    "locks": lambda store: store.lock(KEY),
    "logs": lambda store: store.log_path(KEY),
}


@pytest.mark.fault("S1")
@pytest.mark.parametrize("folder", WRITES)
def test_a_folder_that_is_a_link_is_not_written_to(store, tmp_path, folder):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for suffix in ("json", "npz", "pt", "log", "lock"):
        (elsewhere / f"{KEY}.{suffix}").write_text("precious")
    store.path.mkdir()
    (store.path / folder).symlink_to(elsewhere)
    with pytest.raises(MetabenchError, match=f"{folder} is a link"):
        WRITES[folder](store)
    assert {path.read_text() for path in elsewhere.iterdir()} == {"precious"}
    assert len(list(elsewhere.iterdir())) == 5


@pytest.mark.fault("S1")
@pytest.mark.parametrize("folder", ["aside", "records"])
def test_nothing_is_moved_through_a_link(store, tmp_path, folder):
    store.write(evaluation())
    elsewhere = tmp_path / "elsewhere"
    if folder == "records":
        shutil.move(store.path / "records", elsewhere)
    elsewhere.mkdir(exist_ok=True)
    (store.path / folder).symlink_to(elsewhere)
    header(store).write_text("{")
    before = sorted(elsewhere.iterdir())
    assert store.records() == []
    assert sorted(elsewhere.iterdir()) == before
    assert header(store).read_text() == "{"


@pytest.mark.fault("S1")
@pytest.mark.parametrize("place", ["locks", "logs"])
def test_a_lock_or_a_log_that_is_a_link_is_not_opened(store, tmp_path, place):
    (tmp_path / "thesis.txt").write_text("precious")
    (store.path / place).mkdir(parents=True)
    (store.path / place / f"{KEY}.{place[:-1]}").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(MetabenchError, match="is a link"):
        WRITES[place](store)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


# --- crashes and other processes -------------------------------------------------------------------------------------


def test_a_crash_before_the_header_leaves_nothing_finished(store, monkeypatch):
    def crash(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, content)

    write = formats.write
    store.write(evaluation(seed=1), scores())
    with monkeypatch.context() as patch:
        patch.setattr(formats, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            store.write(evaluation(seed=2), scores(level=0.1))  # the old header must not stand next to the new scores
    assert (store.path / "scores" / f"{KEY}.npz").exists()
    assert store.get(KEY) is None
    assert store.records() == store.problems == []
    store.write(evaluation(), scores())
    assert store.get(KEY) is not None


WRITER = """
import sys
from odd_records import evaluation, examples, scores
from benchmarks.records.plain import content_key
from benchmarks.records.store import Store
store, me = Store(sys.argv[1]), int(sys.argv[2])
for round in range(int(sys.argv[3])):
    digest = store.write_episodes(examples(item=round))
    for key in (content_key("shared"), content_key([me, round])):
        with store.lock(key):
            store.write(evaluation(key, digest, seed=me), scores(200 + me))
    for record in store.records():
        found = store.scores(record)
        assert found is None or len(found["best/none/0"]) in (200, 201)
print(*store.problems, sep="\\n")
"""


def start_writer(store, me, rounds):
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"
    command = [sys.executable, "-c", WRITER, str(store.path), str(me), str(rounds)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_and_read_one_store(store):
    writers = [start_writer(store, me, 15) for me in (0, 1)]
    reports = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reports == ["", ""]
    assert len(store.records()) == 31
    assert aside(store) == []
    shared = store.get(content_key("shared"))
    assert len(store.scores(shared)["best/none/0"]) == 200 + shared.seed


def test_a_killed_writer_loses_nothing_that_was_finished(store):
    writer = start_writer(store, 0, 10_000)
    seen = set()
    deadline = time.monotonic() + 30
    while len(seen) < 5 and time.monotonic() < deadline:
        seen = {record.key for record in store.records()} - {content_key("shared")}
        time.sleep(0.01)
    writer.kill()
    writer.communicate()
    after = Store(store.path)
    assert len(seen) >= 5
    assert seen <= {record.key for record in after.records()}
    assert after.problems == []
    with after.lock(content_key("shared"), wait=0):
        pass  # the system has freed the dead process's locks


@pytest.mark.parametrize("error", [MemoryError, NameError, ModuleNotFoundError])
def test_what_says_nothing_about_a_file_moves_nothing_aside(store, monkeypatch, error):
    def reader(content):
        raise error("no fault of the file")

    record = store.write(evaluation(), scores())
    monkeypatch.setitem(formats.UNPACK, ".npz", reader)
    with pytest.raises(error):
        store.scores(record)
    assert aside(store) == []
