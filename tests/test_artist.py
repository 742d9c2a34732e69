"""The process that draws: what it answers, what it raises, and what is said when it is gone."""

from __future__ import annotations

import operator
import os
import pickle
import subprocess
import sys
from pathlib import Path

import made_up_records as made_up
import pytest

from benchmarks.errors import MetabenchError
from reports import data, page
from reports.artist import Artist


def test_the_page_is_the_same_wherever_its_figures_are_drawn(tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    here, panels = page.render(data.load(tmp_path / "store"))
    assert len(panels) > 5
    there = page.write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    assert there == here


def test_a_file_that_only_the_figures_need_is_named_on_the_page(tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    records = data.load(tmp_path / "store").records
    drawn = [
        r for r in records if r["label"] == "maml" and r["task"]["name"] == "sinusoid" and r["files"].get("arrays")
    ]
    (broken,) = drawn
    path = tmp_path / "store" / broken["files"]["arrays"]
    path.write_bytes(bytes(path.stat().st_size))
    text = page.write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Files that could not be read" in text
    assert text.count(f"{path.name}: can") == 1


def test_calls_are_answered_one_after_the_other() -> None:
    with Artist() as artist:
        assert artist.start(operator.mul, 6, 7)() == 42
        # more than a pipe holds, both ways
        assert artist.start(operator.mul, "ab", 500_000)() == "ab" * 500_000


def test_what_is_raised_there_is_raised_here() -> None:
    with Artist() as artist:
        with pytest.raises(ZeroDivisionError) as caught:
            artist.start(operator.truediv, 1, 0)()
        assert any("in the process that draws" in note for note in caught.value.__notes__)
        with pytest.raises(MetabenchError, match="no store at"):
            artist.start(data.load, "nowhere")()


def test_one_line_says_so_where_the_process_is_gone() -> None:
    with Artist() as artist, pytest.raises(MetabenchError, match=r"ended with code 9: is memory short\?"):
        artist.start(os._exit, 9)()


def test_the_process_ends_with_the_one_that_asked_for_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from reports.artist import Artist; artist = Artist().__enter__();"
        "print(artist.start(os.getpid)(), flush=True); os._exit(0)"
    )
    place = Path(__file__).parents[1]
    asked = subprocess.run([sys.executable, "-c", code], cwd=place, check=True, capture_output=True, timeout=120)
    # its answers' pipe is closed and its calls' pipe has ended; stderr, which it shares, ends with it
    assert int(asked.stdout) > 0


def test_a_drawing_leaves_its_figure_where_it_was_drawn(tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    panel = page.render(data.load(tmp_path / "store"))[1][0]
    assert hasattr(panel.svg, "figure")
    moved = pickle.loads(pickle.dumps(panel))
    assert moved.svg == panel.svg
    assert not hasattr(moved.svg, "figure")
