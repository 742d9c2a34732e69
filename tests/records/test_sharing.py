"""What runs in one store need besides locks of cells, and locks that do not hold."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
from pathlib import Path

import pytest
from made_up_records import SINUSOID, Maker

from benchmarks.errors import MetabenchError
from benchmarks.records import sharing
from benchmarks.records.store import Store


def test_a_lock_that_another_holds_tells_that_a_store_is_shared(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with sharing.held(store) as name:
        sharing.check_shared(str(store.path), name)
        with pytest.raises(MetabenchError, match="does not share the store"):
            sharing.check_shared(str(tmp_path / "elsewhere"), name, seconds=0)
    assert not list((store.path / "locks").iterdir())


def test_locks_that_do_not_hold_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    lock = store.lock("0" * 16)
    lock.acquire()
    with monkeypatch.context() as patch:  # a file system whose locks do nothing
        patch.setattr(fcntl, "flock", lambda *arguments: None)
        with pytest.raises(MetabenchError, match=r"do not hold between machines .*: mount it with locks"):
            sharing.check_shared(str(store.path), "0" * 16)
    lock.release()
    monkeypatch.setattr(sharing, "TAKE", "pass")
    with pytest.raises(MetabenchError, match="do not hold: mount it with locks"), sharing.held(store):
        pass
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: exec("raise OSError(37, 'No locks available')"))
    with pytest.raises(MetabenchError, match=r"has no locks .OSError: .*No locks available"), sharing.held(store):
        pass


def test_old_failures_are_those_before_the_first_run_of_a_group(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    failed = Maker(store.path).header("fit", "maml", SINUSOID, 0, status="error", finished="then")
    store.write(failed)
    assert sharing.failed_before(store, [failed.key, "f" * 16], "array") == {failed.key: "then"}
    store.write(dataclasses.replace(failed, finished="now"))
    assert sharing.failed_before(store, [failed.key], "array") == {failed.key: "then"}
    assert sharing.failed_before(store, [failed.key], None) == {failed.key: "now"}
    next((store.path / "runs").iterdir()).write_text("[1")
    assert sharing.failed_before(store, [failed.key], "array") == {failed.key: "now"}


def test_cells_of_a_run_are_named_until_they_have_records(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    cells = [(character * 16, "maml", "sinusoid-v1/k5", "fit", seed) for seed, character in enumerate("abc")]

    def doing() -> dict[str, str]:
        return {cell.key[0]: cell.doing for cell in sharing.unfinished(store, ["a" * 16])}

    store.log_path("b" * 16).parent.mkdir(parents=True)
    store.log_path("b" * 16).touch()
    with sharing.announced(store, cells):
        assert doing() == {"b": "at work", "c": "waits"}
        with sharing.announced(store, cells[2:]):
            assert doing() == {"b": "at work", "c": "waits"}
    assert doing() == {}
    with contextlib.suppress(KeyboardInterrupt), sharing.announced(store, cells):
        raise KeyboardInterrupt
    assert doing() == {"b": "stopped", "c": "stopped"}
    with sharing.announced(store, cells[2:]):
        assert doing() == {"c": "waits"}
    (store.path / "plans").mkdir(exist_ok=True)
    (store.path / "plans" / "0123456789abcdef.json").write_text("[[1")
    assert doing() == {}
    assert not list((store.path / "locks").iterdir())


def test_what_is_hidden_for_a_while_is_looked_for_again(tmp_path: Path) -> None:
    answers = iter([None, "found"])
    assert sharing.look_again(tmp_path, lambda: next(answers)) == "found"
    assert sharing.look_again(tmp_path, lambda: None, seconds=0) is None
