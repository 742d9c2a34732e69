"""The page in a real browser: Debian's chromium, driven by playwright. Skipped where either is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_costs import costs
from made_up_records import full_store

from reports.page.page import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
    # the driver's own loop is closed by the interpreter
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    full_store(folder / "store")
    return write_report(folder / "store", folder / "index.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[(1440, "light"), (390, "dark")], ids=["wide-light", "narrow-dark"])
def page(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    """The open page; at the end nothing must have been complained of and nothing asked of anybody else."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened, complaints, asked = context.new_page(), [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda wanted: asked.append(wanted.url))
    opened.goto(path.as_uri())
    yield opened
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    context.close()


def column(page: Any, index: int) -> list[str]:
    """The sort values of a column of the first table with tools, as shown."""
    return page.eval_on_selector_all(
        "#glyphs-v1-5w1s-csv tbody tr:not([hidden])", f"rows => rows.map(row => row.cells[{index}].dataset.value)"
    )


def test_a_heading_sorts_with_the_mouse_and_with_the_keyboard(page: Any) -> None:
    heading = page.locator("#glyphs-v1-5w1s-csv thead button", has_text="batch-norm: support")
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
    tools = page.locator('.tools[data-table="glyphs-v1-5w1s-csv"]')
    tools.locator(".filter").fill("maml")
    assert set(column(page, 0)) == {"maml", "maml [tuned]"}
    tools.locator("summary").press("Enter")
    tools.locator("input[type=checkbox]").first.uncheck()
    assert page.locator("#glyphs-v1-5w1s-csv thead th").nth(1).is_hidden()
    page.keyboard.press("Escape")
    assert tools.locator("input[type=checkbox]").first.is_hidden()
    text = page.evaluate("latex(document.getElementById('glyphs-v1-5w1s-csv'))")
    assert text.startswith("\\begin{tabular}")
    assert "maml [tuned] & " in text
    assert "chance" not in text
    assert r"$\pm$" in text
    lines = page.evaluate("csv(document.getElementById('glyphs-v1-5w1s-csv'))").splitlines()
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
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.", "BUTTON.copy", "INPUT.filter", "DIV.scroll", "SUMMARY."} <= reached
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
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
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The committed pages, and one of a store that holds costs of a GPU and nothing else."""
    folder = tmp_path_factory.mktemp("costs")
    alone = write_report(costs(folder / "store").path, folder / "costs.html")
    return {"quick": REFERENCE / "quick.html", "standard": REFERENCE / "standard.html", "costs": alone}


@pytest.fixture(params=["quick", "standard", "costs"])
def committed(request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """One of these pages, with what is folded open."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    opened.goto(pages[request.param].as_uri())
    opened.evaluate("document.querySelectorAll('details:not(.columns, .screen)').forEach(one => { one.open = true; })")
    yield opened
    context.close()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_answers_stand_on_the_first_screen(committed: Any, width: int) -> None:
    committed.set_viewport_size({"width": width, "height": 1000})
    box = committed.locator("#answers").bounding_box()
    assert box["y"] + box["height"] <= 1000
    # every section can be seen in the navigation, or (on a phone) reached by pushing it
    ends = "[...document.querySelectorAll('nav a')].map(one => one.getBoundingClientRect().right)"
    assert max(committed.evaluate(ends)) <= width or width == 390


def test_what_is_seldom_read_does_not_make_rows_high(committed: Any) -> None:
    """Sources and keys end a row on one line: the differences from published numbers are seen at a glance."""
    heights = (
        """id => [...document.querySelectorAll(`#${id} tbody tr`)].map(one => one.getBoundingClientRect().height)"""
    )
    for table in ("published-csv", "totals-csv"):
        assert all(height < 80 for height in committed.evaluate(heights, table))


@pytest.mark.parametrize("width", [1440, 390])
def test_no_label_of_a_figure_is_cut_or_lies_on_another(committed: Any, width: int) -> None:
    committed.set_viewport_size({"width": width, "height": 900})
    assert committed.locator("figure > svg text").count() > 80
    assert committed.evaluate(CLASHES) == []


def test_no_table_or_figure_is_cut_on_paper(committed: Any) -> None:
    paper = 703  # pixels between margins of 12 mm on A4
    committed.set_viewport_size({"width": paper, "height": 1000})
    committed.emulate_media(media="print")
    wide = """limit => [...document.querySelectorAll('table, figure, svg, img, dl')]
        .map(one => [one, one.parentElement.closest('figure')?.getBoundingClientRect().right ?? limit])
        .filter(([one, right]) => one.getBoundingClientRect().right > right + 1).map(([one]) => one.outerHTML)"""
    committed.evaluate("Promise.all([...document.images].map(one => { one.loading = 'eager'; return one.decode(); }))")
    assert committed.evaluate(wide, paper) == []
    assert committed.evaluate("document.documentElement.scrollWidth") <= paper
