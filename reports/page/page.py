"""The page: one self-contained HTML file."""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.records import formats

if TYPE_CHECKING:
    from reports.panels import Panel
    from reports.results import Results
    from reports.scores.cards import Described

TEMPLATES = Path(__file__).parent / "templates"
NOTHING: Mapping[str, Any] = {}
#: compiled templates
CACHE = TEMPLATES / "__pycache__"


def write_report(
    store_path: Path | str | Iterable[Path | str],
    output: Path | str,
    figure_folder: Path | str | None = None,
    methods: Described = NOTHING,
    tasks: Described = NOTHING,
    against: Path | None = None,
) -> Path:
    """Write the page about the records of one store or several; returns its path.

    figure_folder: where to write every figure as SVG and PNG too. methods, tasks: the summary, paper and file of each
    registered one, for its card. against: another store, for a section on what changed since. Raises `MetabenchError`
    where there are no records.
    """
    with _uncollected():
        from reports.results import load

        results = load(store_path)
        results.page = Path(output).parent
        html, panels = render(results, methods, tasks, load(against) if against else None)
        if figure_folder is not None:
            Path(figure_folder).mkdir(parents=True, exist_ok=True)
            for panel in panels:
                panel.svg.write(Path(figure_folder), panel.name)
    formats.write(Path(output), html.encode())
    return Path(output)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector, which would walk through all records and figures again and again: a sixth of the
    time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def render(
    results: Results, methods: Described = NOTHING, tasks: Described = NOTHING, other: Results | None = None
) -> tuple[str, list[Panel]]:
    """The page as text, and the figures on it."""
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    from reports import style, svg, words
    from reports.page import contents

    looks = style.looks(results.labels)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        bytecode_cache=FileSystemBytecodeCache(str(CACHE)) if _may_write(CACHE) else None,
    )
    environment.filters["code"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    environment.globals.update(words=words, Markup=Markup, looks=looks)
    all_sections = contents.of(methods, tasks, other)
    built = {section: context for section in all_sections if (context := section.build(results, looks))}
    shown = [
        {
            "name": section.name,
            "link": section.link,
            "title": section.title,
            "folded": context.get("closed", section.folded),
            "html": Markup(environment.get_template(f"{section.name}.html.j2").render(context)),
        }
        for section, context in built.items()
    ]
    html = environment.get_template("page.html.j2").render(
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        javascript=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        light=Markup(style.css_variables(looks, dark=False)),
        dark=Markup(style.css_variables(looks, dark=True)),
        shapes=Markup(style.css_shapes(looks)),
        overview=_overview(results),
        sections=shown,
    )
    return svg.with_shared_clips(html), [panel for context in built.values() for panel in context.get("panels", [])]


def _may_write(folder: Path) -> bool:
    """Create a folder; returns whether it can be written to (not so where the suite is installed for all users)."""
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


def _overview(results: Results) -> Mapping[str, Any]:
    """Counts and dates of the heading."""
    done = [record for record in results.records if record.ok]
    names = {record.method.name for record in done if record.method}
    dates = sorted(record.finished[:10] for record in results.measured if record.finished)
    return {
        "evaluations": sum(record.cell == "evaluation" for record in done),
        "fits": sum(record.cell == "fit" for record in done),
        "records": len(results.records),
        "costs": len(results.costs),
        "unfinished": sum(record.status != "skipped" for record in results.unfinished) + len(results.planned),
        "methods": len(names),
        "trained": len(names & {record.method.name for record in done if record.method and record.cell == "fit"}),
        "tests": sum(map(results.own, results.tests)),
        "conditions": sum(not results.own(test) for test in results.tests),
        "dates": list(dict.fromkeys([dates[0], dates[-1]])) if dates else [],
    }
