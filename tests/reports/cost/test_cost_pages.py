"""Pages, terminal and README of stores that hold costs only, and costs of two devices beside each other."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from made_up_costs import CPU, GPU, NOISE, ON_GPU, costs
from made_up_records import GLYPHS, Maker, Parsed
from rich.console import Console

from reports import readme, terminal
from reports.cost import frames, picture
from reports.page import answers
from reports.page.page import write_report
from reports.results import load

H100 = GPU.gpu["name"]


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.fixture(scope="module")
def only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds costs of a GPU and nothing else."""
    return costs(tmp_path_factory.mktemp("costs") / "gpu").path


@pytest.fixture(scope="module")
def page(only: Path) -> str:
    return write_report(only, only.parent / "gpu.html").read_text(encoding="utf-8")


def test_costs_alone_make_a_page(page: str) -> None:
    text = text_of(page)
    assert "The cost of meta-gradients Costs in 5 settings, 2031-05-02." in text
    assert "No evaluation has finished" not in text
    assert f"On the GPU ({H100}) a meta-step of second order takes 1.60 times (conv4-64-strided, 1 step)" in text
    # no anchor leads nowhere, every element is closed
    parsed = Parsed(page)
    anchors = {value[1:] for _, name, value in parsed.attributes if name == "href" and value.startswith("#")}
    assert anchors <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_every_variant_has_a_row_and_no_time_has_a_reason(page: str) -> None:
    rows = [row for row in Parsed(page).rows if row and row[0] == "meta-step"]
    timed = [row for row in rows if row[-1] == "ok"]
    assert len(timed) == 4 * 2 * len(ON_GPU)
    assert {row[5] for row in timed} == set(ON_GPU)
    assert {row[6] for row in rows} == {"cuda"}
    reasons = sorted(row[-1] for row in rows if row[-1] != "ok")
    assert reasons == sorted(
        ["out-of-memory: CUDA out of memory. Tried to allocate 20.00 GiB."] * 2
        + ["out-of-memory: the process was ended"]
    )
    assert "3 variants of the cost benchmark without a time: 3 out-of-memory." in text_of(page)


def test_the_machine_of_costs_is_named(page: str) -> None:
    (head, row) = [row for row in Parsed(page).rows if "commit" in row or "e" * 12 in row]
    said = dict(zip(map(str.strip, head), map(str.strip, row), strict=True))
    assert (said["gpu"], said["commit"], said["records"]) == (H100, "e" * 12, "5")


def test_what_second_order_costs_in_short(only: Path) -> None:
    (worth, changed) = answers.answers(load(only))
    assert worth.section == "second-order"
    assert (worth.chip, worth.said) == ("MEASURED", "A second-order meta-step takes 1.60–2.40 times as long.")
    assert changed.section == "changes"


def test_the_terminal_shows_costs_alone(only: Path) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    terminal.show(only, console)
    text = " ".join(console.export_text().split())
    assert "A second-order meta-step takes 1.60–2.40 times as long." in text
    assert "No evaluation" not in text


def test_the_results_have_a_paragraph_and_a_picture_of_costs_alone(only: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reports" / "reference"
    Maker(reference / "quick").evaluation("maml", GLYPHS, level=0.9)
    costs(reference / "gpu")
    (tmp_path / "docs").mkdir()
    for name in (readme.README, readme.RESULTS):
        blocks = (f"{begin}old{end}" for begin, end in map(readme.markers, ("findings", "table")))
        (tmp_path / name).write_text("\n".join(["before", *blocks, "after"]), encoding="utf-8")
    readme.update(tmp_path, readme.stores(reference))
    text = (tmp_path / readme.RESULTS).read_text(encoding="utf-8")
    assert "| maml |" in text
    assert f"On the GPU ({H100}) a meta-step of second order takes 1.60 times" in text
    assert f"[../reports/reference/gpu](../reports/reference/gpu); machine: {H100}; commit: {'e' * 12}." in text
    assert "A second-order meta-step takes 1.60–2.40 times" in (tmp_path / readme.README).read_text(encoding="utf-8")
    drawing = (tmp_path / readme.COST).read_text(encoding="utf-8")
    assert drawing.startswith("<svg")
    assert f"conv4-64-strided, 32 tasks, GPU ({H100})" in drawing
    assert readme.current(text) == readme.section([load(path) for path in readme.stores(reference)], tmp_path / "docs")


def test_without_costs_there_is_no_picture_of_them(tmp_path: Path) -> None:
    Maker(tmp_path).evaluation("maml", GLYPHS, level=0.9)
    assert set(readme.pictures(load(tmp_path))) == {readme.OVERVIEW.format(theme) for theme in ("light", "dark")}


def test_two_devices_in_one_store_never_mix(tmp_path: Path) -> None:
    store = costs(tmp_path / "both", gpu=True, cpu=True)
    Maker(tmp_path / "both").evaluation("maml", GLYPHS, level=0.9)
    results = load(store.path)
    ratios = frames.ratios(results.costs)
    ours = ratios[ratios["label"] == frames.OURS].set_index(["device", "backbone", "inner_steps"])["time"]
    for device, steps, ratio in (("cuda", 1, 1.6), ("cuda", 5, 2.4), ("cpu", 1, 1.4), ("cpu", 5, 2.0)):
        assert list(ours.xs((device, steps), level=("device", "inner_steps"))) == pytest.approx([ratio] * 2)
    first, second = frames.overview(results.costs)
    assert {first.split(" a meta-step")[0], second.split(" a meta-step")[0]} == {"On the CPU", f"On the GPU ({H100})"}
    lines = picture.lines(results.costs)
    assert {label.split(" tasks, ")[1] for label in lines} == {"CPU", f"GPU ({H100})"}
    assert {label: [round(time, 6) for time in line["time"]] for label, line in lines.items()} == {
        f"{network}, {'GPU (' + H100 + ')' if gpu else 'CPU'}": [1.6, 2.4] if gpu else [1.4, 2.0]
        for network in ("conv4-64-strided, 32 tasks", "mlp-40-40, 25 tasks")
        for gpu in (False, True)
    }
    text = text_of(write_report(store.path, tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "1 method (0 trained) on 1 test: 0 training runs, 1 evaluation, costs in 9 settings" in text
    assert f"processor {CPU.cpu}" in text
    assert H100 in text


def test_the_picture_shows_the_ratios_and_their_intervals(only: Path) -> None:
    drawing = readme.pictures(load(only))[readme.COST]
    assert drawing is not None
    (axes,) = drawing.figure.axes
    drawn = [line for line in axes.get_lines() if line.get_marker() != "None"]
    assert len(drawn) == len(axes.get_legend().get_texts()) == 2
    for line in drawn:
        assert list(line.get_xdata()) == [1, 5]
        assert list(line.get_ydata()) == pytest.approx([1.6, 2.4])
    # rounds are slow for both orders alike, so nothing is left of an interval
    assert len(axes.patches) == 2
    assert len(NOISE) == 5


def test_of_two_gpus_the_picture_shows_the_one_with_more_settings(only: Path) -> None:
    records = load(only).costs
    machine = dataclasses.replace(GPU, id="b" * 8, gpu={**GPU.gpu, "name": "another"})
    other = [dataclasses.replace(one, machine=machine) for one in records if one.cost.setting["inner_steps"] == 1]
    assert len(other) >= 2
    for order in (other + records, records + other):
        shown = picture.lines(order)
        assert shown
        assert all(label.endswith(f"GPU ({H100})") for label in shown)
