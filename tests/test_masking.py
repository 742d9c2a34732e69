"""The values of environment variables whose names look secret reach no record, no copy of one, and no log's end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from made_up_costs import record, untimed
from odd_records import KEY

from benchmarks.masking import SHORTEST, masked
from benchmarks.records import copies
from benchmarks.records.record import Record, Status
from benchmarks.records.store import Store
from benchmarks.run.isolate import process

pytestmark = pytest.mark.fault("S10")

SECRET = "hunter2/'\"\\ of long ago"
LEAK = f"401 from https://me:{quote(SECRET, safe='')}@host: {SECRET!r}, {SECRET}"
NAMES = ("API_KEY", "hf_token", "AWS_SECRET", "DB_PASSWORD", "SSH_PASSPHRASE", "MY_CREDENTIALS", "PGPASSWORD")


def leaking(status: Status) -> Record:
    """A record with a secret wherever a text of somebody's code may stand."""
    made = record("mlp-40-40", 4, 1, [untimed("second", "jax", "error", LEAK)])
    assert made.cost is not None
    more: dict[str, Any] = {"ceilings": {"error": LEAK}, "precision": {"error": LEAK}, "stages": {"warm": LEAK}}
    cost = dataclasses.replace(made.cost, **more)
    kept: dict[str, Any] = {
        "reason": LEAK,
        "stderr": f"Traceback\n{LEAK}\n",
        "plan": {"name": LEAK},
        "cost": cost,
    }
    return dataclasses.replace(made, key=KEY, status=status, **kept)


def texts(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", ["ok", "error"])
def test_no_record_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: Status) -> None:
    monkeypatch.setenv(name, SECRET)
    store = Store(tmp_path)
    written = store.write(leaking(status))
    assert store.get(KEY) == written
    assert "hunter2" not in texts(tmp_path)
    assert texts(tmp_path).count(f"<{name}>") >= 3 * 7


def test_a_copy_masks_what_its_source_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path / "theirs").write(leaking("error"))
    assert "hunter2" in texts(tmp_path / "theirs")
    monkeypatch.setenv("API_KEY", SECRET)
    copies.keep(Store(tmp_path / "theirs", read_only=True), Store(tmp_path / "kept"))
    copies.merge([Store(tmp_path / "theirs", read_only=True)], Store(tmp_path / "merged"))
    assert "hunter2" not in texts(tmp_path / "kept") + texts(tmp_path / "merged")


def test_the_end_of_a_log_holds_no_part_of_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TAIL_BYTES", 60)
    monkeypatch.setenv("API_KEY", "0123456789abcdef")
    for before in (0, 44, 60, 61, 140):
        for after in range(150):
            (tmp_path / "log").write_text("x" * before + "0123456789abcdef" + "y" * after)
            tail = process._tail(tmp_path / "log")
            assert not set(tail) & set("0123456789"), tail
            assert len(tail) <= 60


def test_longer_secrets_go_first_and_lines_of_a_key_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcdef")
    monkeypatch.setenv("B_TOKEN", "abcdefghi")
    monkeypatch.setenv("PRIVATE_KEY", "-----BEGIN-----\nMIIEow\n-----END-----")
    assert masked("abcdefghi abcdef abcde") == "<B_TOKEN> <A_TOKEN> abcde"
    assert "MIIEow" not in masked("one line: MIIEow")


def test_other_variables_and_short_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "somebody")
    monkeypatch.setenv("A_KEY", "x" * (SHORTEST - 1))
    value = {"a": ["somebody", 1, None, ("xxxxx", 2.5)]}
    assert masked(value) == value
