"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import artist

if TYPE_CHECKING:
    from reports.results import Results
    from reports.scores.figures import Panel

TEMPLATES = Path(__file__).parent / "templates"
#: where compiled templates stay, as Python's own modules do
CACHE = TEMPLATES / "__pycache__"


def write_report(
    store_path: Path | str | Iterable[Path | str], output: Path | str, figure_folder: Path | str | None = None
) -> Path:
    """Write the page about the records of one store or several; returns its path.

    figure_folder: where to write every figure as SVG and PNG too. Raises `MetabenchError` where there are no records.
    """
    with artist.Artist() as maker, artist.uncollected():
        from reports.results import load  # it takes a second, in which the artist gets ready

        results = load(store_path)
        _ = results.read, results.lists
        wait = maker.start(_composed, results, None if figure_folder is None else Path(figure_folder))
        del results  # while there is nothing else to do
        html = wait()
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    unfinished.write_text(html, encoding="utf-8")
    os.replace(unfinished, output)
    return output


def _composed(results: Results, figure_folder: Path | None) -> str:
    return render(results, figure_folder, beside=True)[0]


def render(results: Results, figure_folder: Path | None = None, beside: bool = False) -> tuple[str, list[Panel]]:
    """The page as text, and the figures on it. beside: whether this process may fork, so that two draw."""
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from reports import style, words
    from reports.page import sections

    if figure_folder is not None:
        figure_folder.mkdir(parents=True, exist_ok=True)
    looks = style.looks(results.labels)
    _ = results.verdicts  # what all sections rest on is found once
    figures = {one.name: one.figures(results, looks) or {} for one in sections.SECTIONS if one.figures}
    finish = artist.drawing(_panels(figures.values()), figure_folder, beside)
    built = {one.name: one.build(results, looks) for one in sections.SECTIONS if one.build}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        bytecode_cache=FileSystemBytecodeCache(str(CACHE)) if _may_write(CACHE) else None,
    )
    environment.globals.update(words=words, Markup=Markup, looks=looks, downloads=sections.downloads)
    texts: dict[str, str] = {}

    def write(those: Iterable[sections.Section]) -> None:
        for section in those:
            context = built[section.name] if section.build else figures[section.name]
            if context and section.name not in texts:
                template = environment.get_template(f"{section.name}.html.j2")
                texts[section.name] = template.render({**context, **figures.get(section.name, {})})

    write(one for one in sections.SECTIONS if not one.figures and "panels" not in (built[one.name] or {}))
    finish(_panels(built.values()))
    write(sections.SECTIONS)
    shown = [
        {"name": section.name, "link": section.link, "html": Markup(texts[section.name])}
        for section in sections.SECTIONS
        if section.name in texts
    ]
    contexts = [found[name] for name in texts for found in (built, figures) if name in found]
    html = environment.get_template("page.html.j2").render(
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        javascript=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        light=Markup(style.css_variables(looks, dark=False)),
        dark=Markup(style.css_variables(looks, dark=True)),
        overview=_overview(results),
        sections=shown,
    )
    return html, _panels(contexts)


def _may_write(folder: Path) -> bool:
    """Whether files can be kept in a folder, which is created; not so where the suite is installed for all users."""
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


def _panels(contexts: Iterable[Mapping[str, Any] | None]) -> list[Panel]:
    return [panel for context in contexts if context for panel in context.get("panels", [])]


def _overview(results: Results) -> Mapping[str, Any]:
    """What the page is about: counts, profiles, dates."""
    done = [record for record in results.records if record["status"] == "ok"]
    dates = sorted(str(record["finished"])[:10] for record in results.measured if record.get("finished"))
    return {
        "evaluations": sum(record["cell"] == "evaluation" for record in done),
        "fits": sum(record["cell"] == "fit" for record in done),
        "records": len(results.records),
        "costs": len(results.costs),
        "unfinished": len(results.unfinished),
        "methods": len({record["label"] for record in done}),
        "tests": len({column.test for column in results.columns}),
        "profiles": sorted({str(record["profile"]) for record in results.measured if record.get("profile")}),
        "dates": list(dict.fromkeys([dates[0], dates[-1]])) if dates else [],
    }
