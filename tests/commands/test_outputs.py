"""Files that commands write: a target that can't be written is one line before any work, and nothing is left of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import made_up_records as made_up
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from benchmarks.checks import check_output
from benchmarks.commands import options
from benchmarks.errors import MetabenchError
from benchmarks.python_api.results import results
from benchmarks.records import formats

#: each command that writes a file, with its target last
WRITING = [
    ("episodes", "sinusoid/k5", "-n", "5", "-o"),
    ("report", "--store", "store", "-o"),
    ("compare", "maml", "fomaml", "--store", "store", "-o"),
    ("power", "--delta", "1", "--store", "store", "-o"),
    ("export", "--store", "store"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: a store, a folder called like a table, a file, a pipe and a link that leads nowhere."""
    monkeypatch.chdir(tmp_path)
    make = made_up.Maker(Path("store"), episodes=4)
    for method in ("maml", "fomaml"):
        make.evaluation(method, made_up.SINUSOID, level=0.4)
    Path("folder.csv").mkdir()
    Path("file").write_text("mine")
    os.mkfifo("pipe.csv")
    Path("nowhere").symlink_to("gone")
    return tmp_path


@pytest.mark.fault("S6")
@pytest.mark.parametrize("command", WRITING, ids=lambda command: command[0])
@pytest.mark.parametrize("target", ["folder.csv", "pipe.csv", "file/deep/table.csv", "nowhere/table.csv"])
def test_a_target_that_cant_be_written_is_one_line_and_leaves_nothing(folder, command_line, command, target):
    before = sorted(folder.rglob("*"))
    answer = command_line(*command, target)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"metabench: {target} can't be written: ")
    assert answer.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
    assert stat.S_ISFIFO(os.stat("pipe.csv").st_mode)


@pytest.mark.fault("S6")
@pytest.mark.parametrize("command", WRITING, ids=lambda command: command[0])
def test_a_missing_folder_is_made(folder, command_line, command):
    answer = command_line(*command, "some/where/table.csv")
    assert (answer.code, answer.err) == (0, "")
    assert os.listdir("some/where") == ["table.csv"]


@pytest.mark.fault("E5", "S6")
def test_a_full_disk_names_the_file_of_the_user_and_leaves_what_was_there(folder):
    def full(target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device: 'file'"):
        formats.replace(Path("file"), full)
    assert Path("file").read_text() == "mine"
    assert not list(folder.glob(".file*"))


@pytest.mark.fault("E5")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(28, "No space", "mine.csv")])
def test_an_error_of_the_system_is_one_line(folder, command_line, monkeypatch, error):
    def fail(text: str) -> Path:
        raise error

    monkeypatch.setattr("benchmarks.python_api.results.export", fail)
    monkeypatch.setattr("benchmarks.records.store.Store.existing", fail)
    answer = command_line("export", "scores.csv", "--store", "store")
    assert answer.code == 2
    assert answer.err.startswith("metabench: ")
    assert "No space" in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.fault("S6")
def test_only_regular_files_are_replaced_by_python_callers_too(folder):
    for target in ("folder.csv", "pipe.csv", os.devnull):
        with pytest.raises(MetabenchError, match="can't be written"):
            formats.write(Path(target), b"")
    check_output(Path("file"))
    check_output(Path("new/file"))


def test_an_export_is_what_its_ending_says(folder, command_line):
    frame = results("store")
    for name, read in (("scores.csv", pd.read_csv), ("scores.parquet", pd.read_parquet)):
        answer = command_line("export", name, "--store", "store")
        assert answer.out == f"wrote {len(frame):,} rows to {name}\n"
        plain = frame.astype({c: str for c, kind in frame.dtypes.items() if kind == "category"})
        found = read(name).astype(plain.dtypes)
        assert_frame_equal(found.replace("nan", ""), plain)


def test_pieces_of_a_table_are_written_one_below_the_other(folder):
    pieces = [pd.DataFrame({"a": [n, n + 1], "b": ["x", None]}) for n in range(3)]
    for name, read in (("t.csv", pd.read_csv), ("t.parquet", pd.read_parquet)):
        assert formats.write_table(Path(name), iter(pieces)) == 6
        assert read(name)["a"].tolist() == [0, 1, 1, 2, 2, 3]


def test_a_table_has_one_of_two_endings():
    for name in ("scores", "scores.xlsx", "scores.csv.gz"):
        with pytest.raises(MetabenchError, match=f"{name} names no table: end it in .csv or .parquet"):
            options._table(name)
