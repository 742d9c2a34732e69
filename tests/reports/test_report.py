"""The page and the tables, made from records in the very format of a store, with planted numbers."""

from __future__ import annotations

import colorsys
import dataclasses
import io
import itertools
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker, Parsed, full_store
from pace import times_slower
from page_reader import shows
from rich.console import Console

from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.records import sharing
from benchmarks.records.record import Budget
from benchmarks.records.store import Store
from reports import style, terminal
from reports.page.page import write_report
from reports.results import load
from reports.scores import tables

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    full_store(folder)
    return folder


@pytest.fixture(scope="module")
def page(store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(store, tmp_path_factory.mktemp("page") / "deep" / "index.html").read_text()


def test_page_needs_nothing_else(page: str) -> None:
    parsed = Parsed(page)
    assert not parsed.open
    assert len(parsed.ids) == len(set(parsed.ids))
    for tag, name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            own = tag == "a" and value.startswith(("../", "https://")) and name == "href"  # what a reader may open
            assert own or value.startswith(("#", "data:")), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "base")
    assert not re.search(r"@import|@font-face|url\((?!#)", page)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(", page)
    assert len(page.encode()) < 5_000_000
    targets = {value[1:] for _, name, value in parsed.attributes if name.endswith("href") and value.startswith("#")}
    assert targets <= set(parsed.ids)


def test_page_is_escaped_and_names_failures(page: str) -> None:
    assert "<b>planted</b>" not in page
    assert "&lt;b&gt;planted&lt;/b&gt;" in page
    assert "no images at hand" in page
    assert "Traceback" in page


def test_same_records_make_the_same_page(store: Path, page: str, tmp_path: Path) -> None:
    again = write_report(store, tmp_path / "again.html", tmp_path / "figures").read_text()
    links = re.compile(r'href="[^"#]*/')  # relative to the page
    assert links.sub("", again) == links.sub("", page)
    files = sorted((tmp_path / "figures").glob("*.svg"))
    assert files
    assert all(file.read_text().startswith("<svg") for file in files)
    assert len(files) == page.count("<figure")
    for file in files:
        assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_only_failures_still_make_a_page(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    make.unfinished("maml", SINUSOID, "timeout", "no answer for 300 s", "last words")
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert "no answer for 300 s" in text
    assert "No evaluation has finished" in text
    assert not Parsed(text).open


def test_no_store_and_no_records_are_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MetabenchError, match="metabench run") as caught:
            write_report(folder, tmp_path / "page.html")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_a_run_that_goes_on_is_named_with_what_it_has_not_finished(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    cells = [("a" * 16, "maml", "sinusoid-v1/k5", "fit", 3), ("b" * 16, "maml", "sinusoid-v1/k5", "evaluation", 3)]
    with sharing.announced(store, cells):
        with pytest.raises(MetabenchError, match="none of 2 cells of a run that goes on is finished"):
            write_report(store.path, tmp_path / "page.html")
        Maker(store.path).evaluation("reptile", SINUSOID, level=0.5)
        text = write_report(store.path, tmp_path / "page.html").read_text()
    assert "2 runs without a number" in text
    assert "a run that goes on has not begun it" in text
    assert "maml on sinusoid-v1/k5 (fit and evaluation, seed 3)" in text


def test_damaged_scores_are_named(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    kept = make.evaluation("kept", SINUSOID, level=0.5)
    lost = make.evaluation("lost", SINUSOID, level=0.5)
    path = tmp_path / "store" / "scores" / f"{lost}.npz"
    path.write_bytes(b"x" * path.stat().st_size)
    assert lost in write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert list(tables.main_table(load(tmp_path / "store"))["records"]) == [kept]


def test_budgets_and_versions_are_never_averaged(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for seed, steps in enumerate((10, 20)):
        make.evaluation("maml", SINUSOID, seed, level=0.5, budget=Budget(steps, 60, 5, 20))
    make.evaluation("maml", dataclasses.replace(SINUSOID, id="sinusoid-v2/k10", version=2), level=0.5)
    table = tables.main_table(load(tmp_path))
    assert list(table["seeds"]) == [1, 1, 1]
    assert set(table["method"]) == {"maml", "maml (meta_steps=10)", "maml (meta_steps=20)"}
    assert set(table["task"]) == {"sinusoid-v1/k10", "sinusoid-v2/k10"}


def test_looks_are_stable_and_distinct() -> None:
    labels = ["maml", "maml [tuned]", "fomaml", "finetune", "chance", "oracle", "nearest-neighbour"]
    table = style.looks(labels)
    assert table == style.looks(reversed(labels))
    assert len({(look.light, look.marker) for look in table.values()}) == len(labels)
    assert table["maml"].light == table["maml [tuned]"].light
    assert table["maml"].dash != table["maml [tuned]"].dash
    # the same on every page, whoever else is on it
    for label in labels:
        alone = style.looks([label.split(" [")[0], label])[label]
        assert (alone.light, alone.marker, alone.dash) == (table[label].light, table[label].marker, table[label].dash)


def test_every_known_method_and_forty_strangers_look_different() -> None:
    known = list(style.KNOWN)
    for labels in ([*known, *(f"{name} [tuned]" for name in known)], [f"method-{number}" for number in range(40)]):
        table = style.looks(labels)
        assert len({(look.light, look.marker) for look in table.values()}) == len(labels)
    mine = style.looks([*known, "mine"])
    assert (mine["mine"].light, mine["mine"].marker) not in {(mine[name].light, mine[name].marker) for name in known}


def test_every_method_has_a_tone_of_its_family() -> None:
    here = {
        name for name, one in registry.methods().items() if {ROOT / "maml", ROOT / "baselines"} & {*one.path.parents}
    }
    assert set(style.KNOWN) == here
    assert len(set(style.KNOWN.values())) == len(style.KNOWN) == sum(map(len, style.FAMILIES.values()))
    for family, members in style.FAMILIES.items():
        for page in (0, 1):
            shades = [colorsys.rgb_to_hsv(*bytes.fromhex(colours[page][1:])) for colours in members.values()]
            hues = sorted(360 * hue for hue, saturation, _ in shades if saturation > 0.2)
            gaps = [after - before for before, after in itertools.pairwise([*hues, hues[0] + 360])] if hues else [360]
            assert 360 - max(gaps) < 45, family


@pytest.mark.parametrize("store", ["quick", "standard"])
def test_methods_that_meet_on_a_test_differ_in_colour(store: str) -> None:
    results = load(Path(__file__).parents[2] / "reports" / "reference" / store)
    assert not results.problems
    looks = style.looks(results.labels)
    for test in results.tests:
        here = {result.label.split(" [")[0] for result in results.results if result.column.test == test}
        assert len({looks[label].light for label in here if label in looks}) == len({*here} & {*looks})


def test_colours_stand_out_on_both_papers() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for light, dark in (*style.COLOURS, *style.KNOWN.values()):
        assert (1.0 + 0.05) / (luminance(light) + 0.05) > 3
        assert (luminance(dark) + 0.05) / (luminance("#14171c") + 0.05) > 3


def test_terminal_shows_the_same_numbers(store: Path) -> None:
    from rich.console import Console

    from reports.terminal import show

    console = Console(width=160, record=True, file=io.StringIO())
    show(store, console, everything=True)
    text = console.export_text()
    for row in tables.main_table(load(store)).itertuples():
        assert any(shows(found, row.mean) for found in re.findall(r"[−\d.e+-]+(?= ±)", text)), row
    assert "RuntimeError: <b>planted</b>" in text


def test_thousand_records_within_five_seconds(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store", episodes=200)
    for number in range(1000):
        label, seed, regime = f"method-{number % 10}", number // 100, ("query", "support")[number // 10 % 2]
        task = dataclasses.replace(GLYPHS, id=f"glyphs-v1/variant{number // 20 % 5}")
        make.evaluation(label, task, seed, regime=regime, level=0.5, steps=6, training=None)
    # CPU seconds, not those of the clock: other work may hold up this process
    pace, start = times_slower(), time.process_time()
    write_report(tmp_path / "store", tmp_path / "page.html")
    assert time.process_time() - start < 5 * max(pace, times_slower())


def test_a_file_that_only_the_figures_need_is_named_on_the_page(tmp_path: Path) -> None:
    full_store(tmp_path / "store")
    records = load(tmp_path / "store").records
    (broken,) = (r for r in records if r.label == "maml" and r.task.name == "sinusoid" and "arrays" in r.files)
    path = tmp_path / "store" / "arrays" / f"{broken.key}.npz"
    path.write_bytes(bytes(path.stat().st_size))
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert "Files that could not be read" in text
    assert text.count("its SHA-256 differs") == 1


def test_reports_do_not_import_torch() -> None:
    code = "import sys; from reports.page import sections; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_terminal_imports_nothing_that_draws(store: Path) -> None:
    code = (
        "import sys; from rich.console import Console; from reports import terminal;"
        f"terminal.show({str(store)!r}, Console(quiet=True));"
        "assert not {'matplotlib', 'seaborn', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.fault("K6")
def test_seeds_that_the_clock_cut_at_other_meta_steps_show_a_range(tmp_path):
    make = Maker(tmp_path / "store")
    for seed, steps in enumerate((2000, 299, 1500)):
        make.evaluation("maml", SINUSOID, seed, level=1.0)
        (record,) = (record for record in make.store.records() if record.seed == seed)
        cut = dataclasses.replace(record, training=dataclasses.replace(record.training, meta_steps=steps))
        make.store.write(cut, make.store.scores(record), make.store.arrays(record))
    assert "299–2,000" in write_report(make.store.path, tmp_path / "page.html").read_text(encoding="utf-8")
    console = Console(record=True, width=400, file=io.StringIO())
    terminal.show(make.store.path, console, everything=True)
    assert "maml" in console.export_text()


@pytest.mark.fault("K7")
def test_one_seed_makes_a_page_and_no_process(tmp_path):
    make = Maker(tmp_path / "store")
    make.evaluation("maml", SINUSOID, level=1.0)
    for label in ("nearest-neighbour", "simple-shot"):  # undecided, and other seeds would change nothing
        make.evaluation(label, GLYPHS, level=0.8, fits=False)
    before = set(psutil.Process().children(recursive=True))
    write_report(make.store.path, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000
    with pytest.raises(MetabenchError):
        write_report(tmp_path / "nothing", tmp_path / "other.html")
    assert set(psutil.Process().children(recursive=True)) <= before
