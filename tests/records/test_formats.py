"""Files that replace others: half a file is never seen, and what a crash leaves is swept up."""

import os

import pytest

from benchmarks.records import formats


def test_who_reads_an_old_file_can_finish_it(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with target.open() as reader:
        formats.write(target, b"new")
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
    formats.write(tmp_path / "a.txt", b"whole")
    assert sorted(os.listdir(tmp_path)) == [young.name, "a.txt"]
