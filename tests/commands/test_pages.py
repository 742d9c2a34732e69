"""The page that `metabench run --page` writes while it runs."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from made_up_records import GLYPHS, Maker
from whole_runs import metabench, profile, wait_until

from benchmarks.commands import pages
from benchmarks.errors import MetabenchError


def test_the_page_is_there_before_the_run_ends_and_nothing_goes_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "SECONDS", 0.2)
    make, page = Maker(tmp_path / "store"), tmp_path / "page.html"
    make.evaluation("maml", GLYPHS, regime="query")
    before = set(threading.enumerate())
    with pages.refreshed(page, make.store.path):
        wait_until(page.exists)
        make.evaluation("prototypical-nets", GLYPHS, regime="query")
        wait_until(lambda: "prototypical-nets" in page.read_text(encoding="utf-8"))
    left = page.stat().st_mtime_ns
    assert set(threading.enumerate()) <= before
    time.sleep(1)
    assert page.stat().st_mtime_ns == left


def test_a_page_is_written_at_the_end_of_a_short_run(tmp_path: Path) -> None:
    make, page = Maker(tmp_path / "store"), tmp_path / "page.html"
    with pages.refreshed(page, make.store.path):
        make.evaluation("maml", GLYPHS, regime="query")
    assert "maml" in page.read_text(encoding="utf-8")


def test_a_run_without_records_or_without_a_page_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SECONDS", 0.01)
    for page in (None, tmp_path / "page.html"):
        with pages.refreshed(page, tmp_path / "nothing"):
            time.sleep(0.2)
    assert not list(tmp_path.iterdir())


def test_run_takes_a_page_and_refuses_a_folder_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(profile())
    command = ("run", "--profile", "tiny.toml", "-m", "constant", "--store", "store", "--page")
    answer = metabench(tmp_path, *command, str(tmp_path))
    assert answer.code == 2
    assert re.fullmatch(r"metabench: .*is a folder.*\n", answer.err)
    assert not (tmp_path / "store").exists()
    assert metabench(tmp_path, *command, "page.html").code == 0


def test_a_mistake_in_the_command_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    make, page = Maker(tmp_path / "store"), tmp_path / "page.html"
    make.evaluation("maml", GLYPHS, regime="query")
    with pytest.raises(MetabenchError), pages.refreshed(page, make.store.path):
        raise MetabenchError("unknown method")
    assert not page.exists()
