"""The page in a real browser: Debian's chromium, driven by playwright. Skipped where either is missing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from made_up_costs import costs
from made_up_records import GLYPHS, Maker, full_store

from reports.page.page import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
    # the driver's own loop is closed by the interpreter
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


WIDTHS = {"wide-light": (1440, "light"), "narrow-dark": (390, "dark")}
TABLE = "glyphs-v1-5w1s-csv"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of made-up scores, costs, methods and a task."""
    folder = tmp_path_factory.mktemp("browser")
    full_store(folder / "store")
    costs(folder / "costs")
    about = {"summary": "Does a thing.", "paper": 'A, "B", 2017', "file": "maml/maml.py"}
    task = {"summary": "Letters.", "file": "benchmarks/tasks/glyphs.py"}
    stores = [folder / "store", folder / "costs"]
    return write_report(stores, folder / "index.html", None, {"maml": about, "other": about}, {"glyphs": task})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@contextlib.contextmanager
def opened(browser: Any, path: Path, width: int = 1440, anchor: str = "", **context: Any) -> Iterator[Any]:
    """The open page; at the end nothing must have been complained of and nothing asked of anybody else."""
    window = browser.new_context(viewport={"width": width, "height": 900}, **context)
    page, complaints, asked = window.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda wanted: asked.append(wanted.url))
    page.goto(path.as_uri() + anchor)
    yield page
    assert complaints == []
    assert [url.partition("#")[0] for url in asked if not url.startswith("data:")] == [path.as_uri()]
    window.close()


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS.keys())
def page(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    width, scheme = request.param
    with opened(browser, path, width, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.locator(f"#{TABLE}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{TABLE} thead button")
        yield page


def column(page: Any, index: int) -> list[str]:
    """The sort values of a column of the first table with tools, as shown."""
    rows = f"#{TABLE} tbody tr:not([hidden])"
    return page.eval_on_selector_all(rows, f"rows => rows.map(row => valueOf(row.cells[{index}]))")


def test_a_heading_sorts_with_the_mouse_and_with_the_keyboard(page: Any) -> None:
    heading = page.locator(f"#{TABLE} thead button", has_text="batch-norm: support")
    index = heading.evaluate("button => button.closest('th').cellIndex")
    heading.click()
    first = [float(value) for value in column(page, index) if value]
    assert first == sorted(first, reverse=True)
    heading.focus()
    page.keyboard.press("Enter")
    again = [float(value) for value in column(page, index) if value]
    assert again == sorted(first) != first
    assert heading.evaluate("button => button.closest('th').getAttribute('aria-sort')") == "ascending"


def test_rows_are_filtered_columns_hidden_and_the_rest_copied(page: Any) -> None:
    tools = page.locator(f'.tools[data-table="{TABLE}"]')
    tools.locator(".filter").fill("maml")
    assert set(column(page, 0)) == {"maml", "maml [tuned]"}
    tools.locator("summary").press("Enter")
    tools.locator("input[type=checkbox]").first.uncheck()
    assert page.locator(f"#{TABLE} thead th").nth(1).is_hidden()
    page.keyboard.press("Escape")
    assert tools.locator("input[type=checkbox]").first.is_hidden()
    text = page.evaluate(f"latex(document.getElementById('{TABLE}'))")
    assert text.startswith("\\begin{tabular}")
    assert "maml [tuned] & " in text
    assert "chance" not in text
    assert r"$\pm$" in text
    lines = page.evaluate(f"csv(document.getElementById('{TABLE}'))").splitlines()
    assert len(lines) == 1 + 2
    assert "rank" not in lines[0]
    tools.locator(".filter").fill("")
    assert "chance" in column(page, 0)


def test_the_page_fits_its_window_in_both_schemes(page: Any) -> None:
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper[4:-1].split(",")[:3])
    assert (brightness < 200) == (width == 390)
    assert page.locator("#findings .card").first.is_visible()


def test_everything_can_be_reached_with_the_keyboard(page: Any) -> None:
    reached = set()
    page.locator(f"#{TABLE} th a").first.focus()
    for _ in range(60):
        page.keyboard.press("Shift+Tab")
        reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.", "BUTTON.copy", "INPUT.filter", "DIV.scroll", "SUMMARY."} <= reached
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_the_state_is_in_the_address(browser: Any, path: Path) -> None:
    with opened(browser, path) as page:
        button = page.locator("#overview-table thead button").nth(1)
        button.click()
        legend = page.locator("#steps .legend button", has_text="finetune")
        legend.click()
        address = page.evaluate("location.hash")
        order = page.locator("#overview-table tbody th a").all_text_contents()
    with opened(browser, path, anchor=f"{address}&filter.{TABLE}=maml") as page:
        assert page.locator("#overview-table tbody th a").all_text_contents() == order
        assert page.locator("#overview-table [aria-sort]").count() == 1
        assert page.locator("#steps .legend button[aria-pressed=true]").all_text_contents() == ["finetune"]
        assert column(page, 0) == ["maml [tuned]", "maml"]
        # a link moves on and keeps the state
        page.locator("#overview-table td a").first.click()
        page.wait_for_function("location.hash.startsWith('#row-') && location.hash.includes('only=finetune')")


def test_a_legend_entry_dims_all_others_on_the_page(browser: Any, path: Path) -> None:
    marks = """which => [...document.querySelectorAll(':is(#steps, #learning) svg [style*="(--method-"]')]
        .filter(one => one.getAttribute('style').includes(`(${which})`))
        .map(one => Number(getComputedStyle(one).opacity))"""
    with opened(browser, path, reduced_motion="reduce") as page:
        legend = page.locator("#steps .legend button")
        variables = {
            legend.nth(place).text_content(): legend.nth(place).evaluate("one => '--' + one.className.split(' ')[1]")
            for place in range(legend.count())
        }
        assert len(set(variables.values())) == len(variables) > 2
        legend.filter(has_text="finetune").first.click()
        assert max(page.evaluate(marks, variables["maml"])) < 0.2
        assert max(page.evaluate(marks, variables["finetune"])) == 1
        assert page.locator("#overview-maml").evaluate("row => Number(getComputedStyle(row).opacity)") < 0.2
        legend.filter(has_text="finetune").first.click()
        assert min(page.evaluate(marks, variables["maml"])) > 0.02
        assert page.locator("#overview-maml").evaluate("row => getComputedStyle(row).opacity") == "1"
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_marks_tell_their_values_under_the_pointer_and_with_the_keyboard(browser: Any, path: Path) -> None:
    with opened(browser, path) as page:
        figure = page.locator("#steps figure[data-tips]").first
        figure.scroll_into_view_if_needed()
        left, top, *_ = figure.evaluate("one => JSON.parse(one.dataset.tips).marks[3]")
        box = figure.locator("svg").evaluate(
            """svg => [svg.getBoundingClientRect().x, svg.getBoundingClientRect().y,
                svg.clientWidth / svg.viewBox.baseVal.width]"""
        )
        page.mouse.move(box[0] + left * box[2], box[1] + top * box[2])
        told = page.locator(".tip").inner_text().splitlines()
        assert page.locator(".tip").is_visible()
        marks = figure.evaluate("one => JSON.parse(one.dataset.tips).marks.map(mark => mark.slice(2).join('|'))")
        assert "|".join([told[0], told[1].split(": ")[1], told[2].split(": ")[1]]) in marks
        page.mouse.move(0, 0)
        assert page.locator(".tip").is_hidden()
        # a mark of the SVG lies where the value is told
        drawn = figure.locator("svg").evaluate(
            r"""svg => [...svg.querySelectorAll('path')]
                .flatMap(one => [...one.getAttribute('d').matchAll(/M([\d.-]+)[ ]([\d.-]+)/g)])
                .map(found => [Number(found[1]), Number(found[2])])"""
        )
        assert min(abs(x - left) + abs(y - top) for x, y in drawn) < 8
        figure.locator("svg").focus()
        page.keyboard.press("ArrowRight")
        first = page.locator(".tip").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator(".tip").inner_text() != first


def test_links_resolve_and_ids_are_unique(browser: Any, path: Path) -> None:
    with opened(browser, path) as page:
        ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        links = page.eval_on_selector_all("a[href]", "all => all.map(one => one.getAttribute('href'))")
        assert len(ids) == len(set(ids))
        assert [link for link in links if link.startswith("#") and link[1:] not in ids] == []
        files = {link for link in links if not link.startswith(("#", "data:"))}
        assert [link for link in files if not (path.parent / unquote(link)).is_file()] == []
        assert sum("/records/" in link for link in files) > 10
        assert page.locator("table:not([id]), tbody:not(.group) tr:not([id])").count() == 0
        # what is folded opens for a link into it
        row = page.locator("#row-glyphs-v1-5w1s-maml")
        assert row.is_hidden()
        page.evaluate("location.hash = '#row-glyphs-v1-5w1s-maml'")
        row.wait_for(state="visible")
        assert row.locator("button.copy").get_attribute("title") == (
            "metabench run --profile quick -m maml -t glyphs-v1/5w1s --seeds 0,1"
        )


def test_without_javascript_all_is_there_and_no_button_is_dead(browser: Any, path: Path) -> None:
    with opened(browser, path, java_script_enabled=False) as page:
        assert page.locator("button:visible, input:visible:not([type=radio])").count() == 0
        first, second = (page.locator(f"#learning .axis-{place} figure").first for place in (1, 2))
        assert (first.is_visible(), second.is_visible()) == (True, False)
        page.locator("#learning .axes input").nth(1).check()
        assert (first.is_visible(), second.is_visible()) == (False, True)
        assert page.locator("#overview-table td.score").count() > 4
        summary = page.locator("#results summary").first
        summary.click()
        assert page.locator("#results table").first.is_visible()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_first_screen_holds_the_answers_and_the_overview_begins(browser: Any, path: Path, width: int) -> None:
    with opened(browser, path, width) as page:
        answers = page.locator("#answers").bounding_box()
        assert answers["y"] + answers["height"] <= 900
        assert page.locator("#answers dt").count() >= 3
        assert page.locator("#overview-table tbody td").first.bounding_box()["y"] < 900


#: the texts of figures that leave their figure, and pairs of them that lie on one another
CLASHES = """() => [...document.querySelectorAll('figure > svg')].flatMap(svg => {
  const whole = svg.getBoundingClientRect();
  const shown = [...svg.querySelectorAll('text')].map(one => [one.textContent.trim(), one.getBoundingClientRect()]);
  const out = ([, box]) => box.left < whole.left - 1 || box.right > whole.right + 1
    || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
  const on = ([, one], [, other]) => Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1
    && Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 3;
  return [...shown.filter(out).map(([text]) => text),
    ...shown.flatMap((one, i) => shown.slice(i + 1).filter(other => on(one, other)).map(([text]) => one[0] + text))];
})"""


@pytest.fixture(scope="module")
def costs_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store that holds costs of a GPU and nothing else."""
    folder = tmp_path_factory.mktemp("costs")
    return write_report(costs(folder / "store").path, folder / "costs.html")


@pytest.fixture(params=["scores", "costs"])
def unfolded(request: pytest.FixtureRequest, browser: Any, path: Path, costs_alone: Path) -> Iterator[Any]:
    """A page with all its folded parts open."""
    with opened(browser, path if request.param == "scores" else costs_alone) as page:
        page.evaluate(
            "document.querySelectorAll('details:not(.columns, .screen)').forEach(one => { one.open = true; })"
        )
        yield page


@pytest.mark.parametrize("width", [1440, 390])
def test_no_label_of_a_figure_is_cut_or_lies_on_another(unfolded: Any, width: int) -> None:
    unfolded.set_viewport_size({"width": width, "height": 900})
    assert unfolded.locator("figure > svg text").count() > 40
    assert unfolded.evaluate(CLASHES) == []


def test_no_table_or_figure_is_cut_on_paper(unfolded: Any) -> None:
    paper = 703  # pixels between margins of 12 mm on A4
    unfolded.set_viewport_size({"width": paper, "height": 1000})
    unfolded.emulate_media(media="print")
    wide = """limit => [...document.querySelectorAll('table, figure, svg, img, dl')]
        .map(one => [one, one.parentElement.closest('figure')?.getBoundingClientRect().right ?? limit])
        .filter(([one, right]) => one.getBoundingClientRect().right > right + 1).map(([one]) => one.outerHTML)"""
    unfolded.evaluate("Promise.all([...document.images].map(one => { one.loading = 'eager'; return one.decode(); }))")
    assert unfolded.evaluate(wide, paper) == []
    assert unfolded.evaluate("document.documentElement.scrollWidth") <= paper


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, path: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-core is not installed")
    with opened(browser, path, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.evaluate(axe.AXE_FILE_PATH.read_text(encoding="utf-8"))
        told = "found => found.violations.flatMap(one => one.nodes.map(node => `${one.id}: ${node.html}`))"
        assert page.evaluate(f"axe.run().then({told})") == []


@pytest.mark.skipif("METABENCH_SLOW" not in os.environ, reason="slow: set METABENCH_SLOW=1")
def test_forty_methods_on_twelve_tasks_stay_light(browser: Any, tmp_path: Path) -> None:
    make = Maker(tmp_path / "store", episodes=30)
    for task in range(12):
        where = dataclasses.replace(GLYPHS, id=f"glyphs-v1/{task}w1s", variant=f"{task}w1s")
        for method in range(40):
            make.evaluation(f"method-{method}", where, level=0.2 + 0.015 * method, steps=4)
    page_of = write_report(tmp_path / "store", tmp_path / "page.html")
    assert page_of.stat().st_size < 5_000_000
    with opened(browser, page_of) as page:
        page.wait_for_selector("#overview-table thead button")
        clicked = """async () => { const start = performance.now();
            document.querySelector('#overview-table thead th:nth-child(3) button').click();
            await new Promise(requestAnimationFrame); return performance.now() - start; }"""
        assert sorted(page.evaluate(clicked) for _ in range(5))[2] < 200
