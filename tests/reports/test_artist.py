"""The process that makes the page, and its fork: what they answer and raise, and what happens when one is gone."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from pathlib import Path

import forked_figures
import made_up_records as made_up
import pytest

from benchmarks.errors import MetabenchError
from reports import artist, results
from reports.artist import Artist
from reports.page import page


def test_the_page_is_the_same_wherever_its_figures_are_drawn(tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    here, panels = page.render(results.load(tmp_path / "store"))
    assert len(panels) > 5
    there = page.write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    assert there == here


def test_a_file_that_only_the_figures_need_is_named_on_the_page(tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    records = results.load(tmp_path / "store").records
    drawn = [
        r for r in records if r["label"] == "maml" and r["task"]["name"] == "sinusoid" and r["files"].get("arrays")
    ]
    (broken,) = drawn
    path = tmp_path / "store" / broken["files"]["arrays"]
    path.write_bytes(bytes(path.stat().st_size))
    text = page.write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Files that could not be read" in text
    assert text.count(f"{path.name}: can") == 1


def test_what_was_begun_before_is_taken() -> None:
    artist.begin()
    (process,) = artist._begun
    with Artist() as one:
        assert one._process is process
        assert not artist._begun
        assert one.start(operator.mul, 6, 7)() == 42
    assert process.poll() is not None


def test_a_command_that_makes_no_page_is_one_line_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "report", "--store", str(tmp_path / "nowhere")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no store at" in line


def test_calls_are_answered_one_after_the_other() -> None:
    with Artist() as one:
        assert one.start(operator.mul, 6, 7)() == 42
        # more than a pipe holds, both ways
        assert one.start(operator.mul, "ab", 500_000)() == "ab" * 500_000


def test_what_is_raised_there_is_raised_here() -> None:
    with Artist() as one:
        with pytest.raises(ZeroDivisionError) as caught:
            one.start(operator.truediv, 1, 0)()
        assert any("in the process that makes the page" in note for note in caught.value.__notes__)
        with pytest.raises(MetabenchError, match="no store at"):
            one.start(results.load, "nowhere")()


def test_one_line_says_so_where_the_process_is_gone() -> None:
    with Artist() as one, pytest.raises(MetabenchError, match=r"ended with code 9: is memory short\?"):
        one.start(os._exit, 9)()


def test_the_process_ends_with_the_one_that_asked_for_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from reports.artist import Artist; artist = Artist().__enter__();"
        "print(artist.start(os.getpid)(), flush=True); os._exit(0)"
    )
    place = Path(__file__).parents[2]
    asked = subprocess.run([sys.executable, "-c", code], cwd=place, check=True, capture_output=True, timeout=120)
    # its answers' pipe is closed and its calls' pipe has ended; stderr, which it shares, ends with it
    assert int(asked.stdout) > 0


forks = pytest.mark.skipif(not artist.FORKS, reason="nothing is forked on this system")


@forks
def test_two_processes_draw_every_figure_once() -> None:
    with Artist() as one:
        found = [text.split() for text in one.start(forked_figures.by_two)()]
    assert [number for number, _ in found] == [str(number) for number in range(12)]
    assert len({process for _, process in found}) == 2


@forks
def test_what_a_killed_fork_should_have_drawn_is_drawn_all_the_same() -> None:
    with Artist() as one:
        assert one.start(forked_figures.fails_in_the_fork, forked_figures.killed)() == ["drawn"] * 12


@forks
def test_a_figure_that_fails_in_the_fork_fails_the_page() -> None:
    with Artist() as one, pytest.raises(LookupError, match="no such colour"):
        one.start(forked_figures.fails_in_the_fork, forked_figures.broken)()


def test_figures_are_drawn_when_they_are_asked_for() -> None:
    asked: list[int] = []
    late = forked_figures.panel(0, lambda: str(asked.append(0)))
    assert not late.is_drawn
    assert not asked
    assert (late.svg, late.svg) == ("None", "None")
    assert late.is_drawn
    assert asked == [0]


def test_every_figure_becomes_two_files_whoever_draws_it(tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    _, panels = page.render(results.load(tmp_path / "store"))
    page.write_report(tmp_path / "store", tmp_path / "page.html", tmp_path / "figures")
    wanted = {f"{one.name}.{kind}" for one in panels for kind in ("svg", "png")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == wanted
